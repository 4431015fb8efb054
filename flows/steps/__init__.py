"""The Prefect tasks that flows are made of, and the order they come in.

Each wraps an ordinary function of the pipeline with retries, progress and records. Imports
flows/planning and flows/reporting.
"""
