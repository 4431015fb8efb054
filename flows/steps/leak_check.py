"""The leak rule (pipeline/datasets/leaks.py) as flows apply it: once, with all that is scored."""

from collections.abc import Mapping

from flows.runtime import say
from pipeline.datasets.leaks import refuse_evaluation_images, refuse_shared_images
from pipeline.datasets.sources import ScannedImage, hashes_by_name


def keep_apart(
    dataset: str,
    training: Mapping[str, str],
    evaluated: Mapping[str, str],
    validated: Mapping[str, tuple[ScannedImage, ...]] | None = None,
    *,
    allowed: bool,
) -> None:
    """Raise ValueError when images of `dataset` are trained on that are evaluated or validated on.

    Args:
        dataset: what is trained on
        training: its images' names -> SHA-256
        evaluated: see `pipeline.datasets.leaks.evaluation_images`
        validated: the recipes' validation sets by reference
        allowed: whether evaluation images may be trained on; it is said which are
    """
    told = refuse_evaluation_images(dataset, training, evaluated, allowed=allowed)
    if told is not None:
        say(f"WARNING: {told}")
    for reference, images in (validated or {}).items():
        refuse_shared_images(reference, hashes_by_name(images), training)
