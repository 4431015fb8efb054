"""Datasets: which there are, their files and hashes, and which images are for evaluation alone.

Imports storage, and of pipeline/ images alone.
"""
