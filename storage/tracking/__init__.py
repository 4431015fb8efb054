"""Runs in MLflow, recorded in the background: a lost server stops no training.

Imports storage/files.py alone.
"""
