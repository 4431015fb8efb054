"""How a version is written for other loaders: NumPy files, WebDataset's tars, LMDB.

But for the tars, which say it of each patch, beside the patches lie images.json (names) and
places.npy (which image, y and x, of each patch).
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from storage.files import StoreError
from storage.patches.schema import pixel_columns
from storage.patches.versions import StoreVersion

TAR_BYTES = 256 << 20
"""Pixels of one tar."""
LMDB_PAGE = 4096
LMDB_ROOM = 64 << 20
KEY = "{:012d}"
"""Of a patch: its number in the store, from 0, so that keys sort as patches do."""
PLACE = np.dtype([("image", "<i4"), ("y", "<i4"), ("x", "<i4")])


@dataclass(frozen=True, kw_only=True)
class ExportedGroup:
    """Consecutive patches of a version."""

    first: int
    """Number of the first of them."""
    images: list[str]
    places: np.ndarray
    """(N, 2) int32: y and x of each."""
    pixels: Mapping[str, np.ndarray]
    """Pixel column -> (N, side, side) uint8."""


Groups = Iterator[ExportedGroup]


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """One way to write a version out."""

    write: Callable[[StoreVersion, Groups, Path], None]
    """Writes all patches into a folder."""
    reading: str
    """Python that reads it where it lies, to be filled with column, columns, count, at, side, last
    tar."""


def _write_numpy(store: StoreVersion, groups: Groups, folder: Path) -> None:
    shape = (store.rows, store.spec.side, store.spec.side)
    with ExitStack() as stack:
        sinks = {
            name: stack.enter_context((folder / f"{name}.npy").open("wb"))
            for name in pixel_columns(store.spec)
        }
        for sink in sinks.values():
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(sink, header)
        for group in _with_places(store, groups, folder):
            for name, sink in sinks.items():
                sink.write(group.pixels[name].data)


def _write_tars(store: StoreVersion, groups: Groups, folder: Path) -> None:
    rows_a_tar = max(1, TAR_BYTES // (store.spec.side**2 * len(pixel_columns(store.spec))))
    patches = _files_of_patches(groups)
    for number, start in enumerate(range(0, store.rows, rows_a_tar)):
        path = folder / f"patches-{number:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row, files in enumerate(islice(patches, rows_a_tar), start):
                for name, content in files.items():
                    entry = tarfile.TarInfo(f"{KEY.format(row)}.{name}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def _files_of_patches(groups: Groups) -> Iterator[dict[str, bytes]]:
    for group in groups:
        for at, (image, (y, x)) in enumerate(zip(group.images, group.places.tolist(), strict=True)):
            found = {f"{name}.npy": _npy(column[at]) for name, column in group.pixels.items()}
            yield {**found, "json": json.dumps({"image": image, "y": y, "x": x}).encode()}


def _npy(patch: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, patch, allow_pickle=False)
    return content.getvalue()


def _write_lmdb(store: StoreVersion, groups: Groups, folder: Path) -> None:
    try:
        import lmdb
    except ImportError as error:
        raise ValueError(
            "--to lmdb needs the package lmdb: pip install 'qfactory[lmdb]'"
        ) from error
    try:
        room = _lmdb_bytes(store) + LMDB_ROOM
        with lmdb.open(str(folder), map_size=room, sync=False, metasync=False) as base:
            for group in _with_places(store, groups, folder):
                rows = np.stack(list(group.pixels.values()), axis=1)
                with base.begin(write=True) as transaction:
                    for at, row in enumerate(rows):
                        key = KEY.format(group.first + at).encode()
                        transaction.put(key, row.tobytes(), append=True)
            base.sync(True)
    except lmdb.Error as error:
        raise StoreError(f"{folder.parent}: {error}; nothing was exported") from error
    (folder / "lock.mdb").unlink(missing_ok=True)


def _lmdb_bytes(store: StoreVersion) -> int:
    """Return about how many bytes LMDB takes: a value of more than half a page has pages alone."""
    value = store.spec.side**2 * len(pixel_columns(store.spec)) + 16
    return store.rows * (-(-value // LMDB_PAGE) * LMDB_PAGE + 256)


def _with_places(store: StoreVersion, groups: Groups, folder: Path) -> Groups:
    """Pass row groups on, and write places.npy and images.json beside what becomes of them."""
    numbers: dict[str, int] = {}
    with (folder / "places.npy").open("wb") as sink:
        header = {
            "descr": np.lib.format.dtype_to_descr(PLACE),
            "fortran_order": False,
            "shape": (store.rows,),
        }
        np.lib.format.write_array_header_1_0(sink, header)
        for group in groups:
            found = np.empty(len(group.images), PLACE)
            found["image"] = [numbers.setdefault(name, len(numbers)) for name in group.images]
            found["y"], found["x"] = group.places.T
            sink.write(found.tobytes())
            yield group
    (folder / "images.json").write_text(json.dumps(list(numbers), indent=0))


NUMPY = """import json, numpy as np

images, places = json.load(open("images.json")), np.load("places.npy", mmap_mode="r")
patches = np.load("{column}.npy", mmap_mode="r")  # (N, {side}, {side}) uint8
image, y, x = images[places[0]["image"]], places[0]["y"], places[0]["x"]  # of patches[0]"""

TARS = """import webdataset as wds

samples = wds.WebDataset("{tars}", shardshuffle=False).decode()
for sample in samples:
    patch, place = sample["{column}.npy"], sample["json"]  # ({side}, {side}) uint8"""

LMDB = """import lmdb, numpy as np

rows = lmdb.open(".", readonly=True, lock=False).begin(buffers=True)
row = np.frombuffer(rows.get(b"000000000000"), np.uint8)  # of the first patch
patch = row.reshape({count}, {side}, {side})[{at}]  # {columns}: {column}"""

FORMATS: Mapping[str, ExportFormat] = MappingProxyType(
    {
        "lmdb": ExportFormat(write=_write_lmdb, reading=LMDB),
        "webdataset": ExportFormat(write=_write_tars, reading=TARS),
        "numpy": ExportFormat(write=_write_numpy, reading=NUMPY),
    }
)
