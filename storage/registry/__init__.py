"""Registered models in MLflow: versions and their files, the gate, and who is champion."""
