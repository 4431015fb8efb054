"""The `qfactory` program: its commands by name, its runs, how it stops, its Prefect server.

The commands themselves lie in flows/commands and are imported when they are called. Imports
settings, the console and pipeline/timings.py alone, so that `qfactory --help` is quick.
"""
