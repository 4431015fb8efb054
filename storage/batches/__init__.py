"""What outlives a batch restore: how its outputs are made, and its manifest.

Imports storage/files.py alone.
"""
