"""Photographs restored: one, or a folder or bucket of them on Ray Data (ray_data.py).

Colour, metadata and everything else of a JPEG is served/photographs.py's. Imports networks, images,
datasets and served.
"""
