"""What the bytes of images hash to, kept as one Parquet file a dataset, so that none is read twice.

uri, stamp (see KnownImage), sha256, height, width
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.files import StoreError

DIGEST = b"qfactory.digest"
SCHEMA = pa.schema(
    [
        pa.field("uri", pa.binary(), nullable=False),  # a file's name may be no UTF-8
        pa.field("stamp", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ]
)

logger = logging.getLogger(__name__)


class KnownImage(NamedTuple):
    """What was found when an image was read."""

    stamp: str
    """Of its file at that time: what was found holds as long as it is the same."""
    sha256: str
    height: int
    """In pixels, and 0 if the header tells none."""
    width: int


def read_known(table: str) -> dict[str, KnownImage]:
    """Return URI -> what is known of it; nothing, and a warning, where the table is damaged."""
    try:
        content = files.read_bytes(table)
    except FileNotFoundError:
        return {}
    except OSError as error:
        logger.warning("%s cannot be read (%s): every image is hashed", table, error)
        return {}
    try:
        found = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        columns = [found.column(name).to_pylist() for name in SCHEMA.names]
        if (found.schema.metadata or {}).get(DIGEST) != _digest(columns):
            raise ValueError("its digest does not match")
        uris, *facts = columns
        return dict(zip(map(os.fsdecode, uris), map(KnownImage, *facts), strict=True))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        logger.warning("%s is damaged (%s): every image is hashed again", table, error)
        return {}


def write_known(table: str, known: Mapping[str, KnownImage]) -> None:
    """Put what is known in the place of what was; a warning where it cannot be written."""
    facts = zip(*known.values(), strict=True) if known else ([] for _ in KnownImage._fields)
    columns = [[os.fsencode(uri) for uri in known], *map(list, facts)]
    schema = SCHEMA.with_metadata({DIGEST: _digest(columns)})
    sink = pa.BufferOutputStream()
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    pq.write_table(
        pa.table(arrays, schema=schema), sink, compression="zstd", write_page_checksum=True
    )
    try:
        files.write_bytes(table, sink.getvalue().to_pybytes())
    except (StoreError, OSError) as error:
        logger.warning(
            "what images hash to is not remembered, the next build reads them: %s", error
        )


def _digest(columns: list[list[object]]) -> bytes:
    digest = hashlib.sha256()
    for column in columns:
        digest.update("\n".join(map(str, column)).encode())
    return digest.hexdigest().encode()
