"""Networks and their weights: files, tiling, export, devices, and the code that decides them.

Imports models, recipes and served.
"""
