"""What travels with a registered model: restores JPEG photographs without this project installed.

A copy of this package, under another name, lies beside every registered network. Its modules import
each other relatively, and beyond them only the standard library, numpy, Pillow, torch and MLflow.
"""
