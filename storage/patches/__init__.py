"""Patch stores: a row's columns, shards, versions published last, upkeep. The home of pyarrow."""
