"""The leak rule: images that are evaluated or validated on are not trained on."""

from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import leaks, references
from pipeline.datasets.catalogue import DATASETS, Archive, Dataset
from pipeline.datasets.leaks import (
    evaluation_images,
    refuse_evaluation_images,
    refuse_shared_images,
)
from pipeline.datasets.references import DatasetError, list_images, pinned_hashes
from pipeline.datasets.sources import hashes_by_name, scan_images


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16), value, np.uint8)).save(path)


def hashes_in(folder):
    return hashes_by_name(scan_images(list_images(f"folder:{folder}", root=None, purpose="train")))


def test_evaluation_images_are_known_by_their_bytes_whatever_their_name(tmp_path, datasets_root):
    (tmp_path / "holiday.png").write_bytes((datasets_root / "LIVE1/monarch.png").read_bytes())
    picture(tmp_path / "own.png")
    with pytest.raises(ValueError, match=r"1 images .* holiday\.png, which is live1/monarch\.png"):
        refuse_evaluation_images("mine", hashes_in(tmp_path), evaluation_images(None))


def test_what_is_allowed_is_told_and_the_rest_passes(tmp_path):
    picture(tmp_path / "own.png")
    hashes = hashes_in(tmp_path)
    assert refuse_evaluation_images("mine", hashes, evaluation_images(None)) is None
    evaluated = evaluation_images(None, [f"folder:{tmp_path}"])
    told = refuse_evaluation_images("mine", hashes, evaluated, allowed=True)
    assert told is not None
    assert f"own.png, which is folder:{tmp_path}/own.png; allowed by request" in told


def test_an_evaluation_set_of_the_study_that_is_not_there_is_refused():
    with pytest.raises(DatasetError, match="fetch bsds500"):
        evaluation_images(None, ["bsds500:test"])


def test_no_training_split_holds_an_evaluation_image():
    training = {path: sha for path, sha in pinned_hashes().items() if "BSDS500" in path}
    training |= {
        f"sample/{name}": pinned_hashes()[f"scikit-image/{name}"]
        for name in DATASETS["sample"].members["train"]
    }
    assert len(training) == 508
    assert refuse_evaluation_images("all", training, evaluation_images(None)) is None
    assert len(evaluation_images(None)) == 29 + 5 + 3


def test_an_evaluation_set_that_comes_as_an_archive_counts_where_it_lies(tmp_path, monkeypatch):
    archive = Archive(url="", sha256="", split="all", members="", images=1)
    added = Dataset(
        name="urban",
        description="",
        licence="",
        role="evaluation",
        splits={"all": ("Urban",)},
        train=("all",),
        evaluate=("all",),
        archives=(archive,),
    )
    known = MappingProxyType({**DATASETS, "urban": added})
    monkeypatch.setattr(leaks, "DATASETS", known)
    monkeypatch.setattr(references, "DATASETS", known)
    assert len(evaluation_images(tmp_path)) == 29 + 5 + 3  # it was not fetched: nothing to find
    picture(tmp_path / "Urban" / "street.png", 7)
    picture(tmp_path / "mine" / "copy.png", 7)
    with pytest.raises(ValueError, match=r"copy\.png, which is urban/street\.png"):
        refuse_evaluation_images("m", hashes_in(tmp_path / "mine"), evaluation_images(tmp_path))


def test_images_of_a_validation_set_are_not_trained_on():
    with pytest.raises(ValueError, match=r"validation set classic5: 1 .* b\.png, which is x\.png"):
        refuse_shared_images("classic5", {"a.png": "1", "b.png": "2"}, {"x.png": "2"})
    refuse_shared_images("classic5", {"a.png": "1"}, {"x.png": "2"})
