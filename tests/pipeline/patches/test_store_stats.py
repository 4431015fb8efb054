"""What `patches stats` measures, against the same figures computed from all pixels at once."""

import numpy as np
import pytest
from PIL import Image

from pipeline.images.jpeg import encode
from pipeline.images.metrics import ssim
from pipeline.patches import store_stats
from pipeline.patches.store_stats import keep, measure, measured_before
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import read_rows
from storage.patches.upkeep import gc
from tests.support.store_images import build, image_folder, texture


@pytest.fixture
def photos(tmp_path):
    """Twenty clouds and two skies, each of which gives as many patches as a cloud."""
    folder = image_folder(tmp_path / "photos")
    for level in (40, 200):
        Image.new("L", (90, 70), level).save(folder / f"sky{level}.png")
    return folder


@pytest.fixture
def version(photos, tmp_path):
    return build(photos, tmp_path / "store").version


def every_row(version, column):
    groups = [(s, g) for s in version.shards for g in range(-(-s.rows // version.row_group_rows))]
    return np.concatenate([read_rows(version, s, g, [column])[0] for s, g in groups])


def test_all_patches_measure_what_their_pixels_say(version):
    found = measure(version, rows=None)
    original = every_row(version, "original")
    assert (found.rows, found.seed) == (version.rows, None)
    assert found.flat_share == pytest.approx(2 / 22)
    assert found.luma == tuple(np.bincount(original.ravel(), minlength=256))
    assert found.luma_mean == pytest.approx(original.mean())
    assert [one.qf for one in found.quality] == [10, 40]
    for one in found.quality:
        degraded = every_row(version, f"qf{one.qf}")
        error = np.mean(np.square(original.astype(float) - degraded))
        assert one.psnr == pytest.approx(10 * np.log10(255**2 / error))
        pairs = zip(original, degraded, strict=True)
        assert one.ssim == pytest.approx(np.mean([ssim(*pair) for pair in pairs]))
        alone = [len(encode(p, one.qf)) - len(encode(p[:8, :8] * 0, one.qf)) for p in original]
        assert one.bpp == pytest.approx(8 * sum(alone) / original.size, rel=0.1)


def test_a_sample_is_drawn_by_the_seed_and_says_how_much_it_is(version, monkeypatch):
    monkeypatch.setattr(store_stats, "SAMPLED_GROUPS", 2)
    assert len(version.shards) > 2
    found = measure(version, rows=10)
    assert (found.rows, found.row_groups) == (10, 2)
    assert (found.of_rows, found.of_row_groups) == (version.rows, len(version.shards))
    assert measure(version, rows=10) == found
    assert measure(version, rows=10, seed=1).luma != found.luma
    assert measure(version, rows=10**6).rows == version.rows, "the whole store, if it is smaller"
    with pytest.raises(ValueError, match="rows 0: measure 1 or more"):
        measure(version, rows=0)


def test_what_was_measured_is_kept_beside_the_version_and_goes_with_it(photos, version, tmp_path):
    assert measured_before(version, rows=50, seed=0) is None
    found = measure(version, rows=50)
    keep(version, found)
    assert measured_before(version, rows=50, seed=0) == found
    assert measured_before(version, rows=50, seed=1) is None
    kept = tmp_path / "store" / "versions" / "1-stats.json"
    kept.write_text(kept.read_text().replace('"flat_share": 0.', '"flat_share": 0.1', 1))
    assert measured_before(version, rows=50, seed=0) is None
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    build(photos, tmp_path / "store")
    assert gc(version.uri, keep=2, grace_s=0).files == 0
    gc(version.uri)
    assert not kept.exists()


def test_of_originals_alone_luma_is_told(photos, tmp_path):
    spec = PatchSpec(side=32, stride=16, qfs=(), degradation="none")
    found = measure(build(photos, tmp_path / "originals", spec=spec).version)
    assert found.quality == ()
    assert found.flat_share == pytest.approx(2 / 22)
