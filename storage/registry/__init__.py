"""Registered models in MLflow: versions and their files, the gate, and who is champion.

Nothing is a pickle, and every file has its SHA-256. Imports tracking.
"""
