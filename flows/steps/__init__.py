"""The Prefect tasks that flows are made of, and the order they come in.

A study goes through image_sets, checks, store_building and side_by_side, of each recipe through
reuse, training, scoring and registration, and ends in study_report and study_results. Each task
wraps an ordinary function of the pipeline with retries, progress and records. Imports
flows/planning and flows/reporting.
"""
