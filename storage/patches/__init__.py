"""Patch stores: a row's columns, shards, versions published last, upkeep. The home of pyarrow.

A version is seen whole or not at all, and nothing is changed in place. Imports storage/files.py
alone.
"""
