"""Code that reads a patch store with other tools: pixels as one array, without a Python loop."""

from collections.abc import Mapping
from types import MappingProxyType

_READERS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "DuckDB": (
            "import duckdb, numpy as np",
            'column = duckdb.read_parquet(paths).select("{column}").fetchnumpy()["{column}"]',
            'patches = np.frombuffer(b"".join(column), np.uint8).reshape(-1, {side}, {side})',
        ),
        "pandas": (
            "import numpy as np, pandas as pd",
            'column = pd.read_parquet(paths, columns=["{column}"])["{column}"]',
            'patches = np.frombuffer(b"".join(column), np.uint8).reshape(-1, {side}, {side})',
        ),
        "Polars": (
            "import numpy as np, polars as pl",
            'column = pl.read_parquet(paths, columns=["{column}"])["{column}"]',
            'patches = np.frombuffer(b"".join(column), np.uint8).reshape(-1, {side}, {side})',
        ),
        "pyarrow": (
            "import numpy as np, pyarrow.parquet as pq",
            'column = pq.read_table(paths, columns=["{column}"])["{column}"].combine_chunks()',
            "patches = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, {side}, {side})",
        ),
    }
)

PATHS = 'paths = open("files.txt").read().splitlines()'
"""The first line of each: what `qfactory patches files STORE > files.txt` wrote."""


def reading_code(column: str, side: int) -> dict[str, str]:
    """Return library -> code that leaves a pixel column as `patches`, (N, side, side) uint8."""
    return {
        library: "\n".join(lines).format(column=column, side=side)
        for library, lines in _READERS.items()
    }
