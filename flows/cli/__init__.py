"""The `qfactory` program: its commands by name, its runs, how it stops, its Prefect server.

The commands themselves lie in flows/commands and are imported when they are called, so that
`qfactory --help` is quick; what runs flows (command_runs.py, flow_commands.py) imports Prefect.
Imports no other folder of flows/.
"""
