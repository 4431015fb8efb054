"""Scores by the papers' protocol, the papers' own rows, and the analyses made of scores.

But for on_cluster.py it runs without Ray, Prefect and MLflow (`python -m pipeline.evaluation`).
Imports images, networks, served, datasets and drawing, never training.
"""
