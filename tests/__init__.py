"""Tests: the real thing, on real images where QFACTORY_DATASETS names them."""
