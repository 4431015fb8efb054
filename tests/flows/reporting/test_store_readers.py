"""A store in the hands of other tools: the current version alone, as arrays."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from flows.reporting.store_readers import PATHS, reading_code
from storage.patches.shard_reader import read_rows
from storage.patches.versions import shard_uri
from tests.support.project import PROJECT
from tests.support.store_images import build, image_folder, texture

README = PROJECT / "storage" / "patches" / "README.md"
LIBRARIES = ("DuckDB", "pandas", "Polars", "pyarrow")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """A store's second version, and beside it a shard that only the first one has."""
    folder = tmp_path_factory.mktemp("readers")
    photos = image_folder(folder / "photos")
    build(photos, folder / "store")
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    return build(photos, folder / "store").version


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_tools_read_the_current_version_and_nothing_else(
    library, rebuilt, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    paths = [shard_uri(rebuilt.uri, shard.key) for shard in rebuilt.shards]
    Path("files.txt").write_text("\n".join(paths))
    names: dict[str, np.ndarray] = {}
    exec(f"{PATHS}\n{reading_code('qf10', 32)[library]}", names)
    ours = [
        read_rows(rebuilt, shard, group, ["qf10"])[0]
        for shard in rebuilt.shards
        for group in range(-(-shard.rows // rebuilt.row_group_rows))
    ]
    np.testing.assert_array_equal(names["patches"], np.concatenate(ours))
    every = len(duckdb.read_parquet(f"{rebuilt.uri}/shards/*.parquet"))
    assert every > rebuilt.rows, "the folder holds a superseded shard"


def test_the_readme_shows_the_same_code():
    text = "\n".join(line for line in README.read_text().splitlines() if line)
    assert PATHS in text
    assert set(reading_code("qf10", 64)) == set(LIBRARIES)
    for library, code in reading_code("qf10", 64).items():
        assert f"# {library}\n{code}\n" in text
