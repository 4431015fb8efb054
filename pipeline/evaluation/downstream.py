"""What restoration does for the steps that come after it: super-resolution and contrast.

Source: Dong, Deng, Loy, Tang, "Compression artifacts reduction by a deep convolutional network"
(AR-CNN, 2015), section 5: later steps enlarge and amplify artifacts that were hardly seen. Every
step is given a JPEG, the restored JPEG and the original. What super-resolution makes of them is
compared with the large original; what a contrast curve makes of them, with what it makes of the
original. Whole images are compared, as in pipeline.evaluation.protocol: no border is cropped.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.evaluation.protocol import NamedImage, jpeg_table
from pipeline.evaluation.scores import median_image
from pipeline.evaluation.super_resolution import FACTOR, Enlarger, cropped, enlarged, reduced
from pipeline.images import jpeg
from pipeline.images.metrics import METRICS, MIN_SIDE
from pipeline.networks.restorer import Restorer

JPEG, RESTORED, ORIGINAL = INPUTS = ("JPEG", "restored", "original")
"""What a step is given."""
SCORED = ("psnr", "ssim")
"""Names in METRICS; `ssim` is the uniform one."""
STEEPNESS = 8.0
"""Of the tone curve: its slope in the middle is 2.07."""
LOCAL_SIGMA, LOCAL_AMOUNT = 8.0, 1.0
"""Of the local contrast: standard deviation in pixels, and how much of the detail is added."""

Images = Mapping[str, np.ndarray]
"""For each of INPUTS, luma (H, W) uint8."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that is done with a picture after it was restored."""

    name: str
    factor: int = 1
    """The picture is reduced by it before it is compressed, and the step enlarges it again."""
    apply: Callable[[np.ndarray], np.ndarray]
    """Luma (H, W) uint8 -> (factor H, factor W) uint8."""


@dataclass(frozen=True, kw_only=True)
class StepScore:
    """How close a step came to its reference, for one image and one kind of input."""

    step: str
    qf: int
    image: str
    given: str
    """One of INPUTS."""
    metrics: Mapping[str, float]
    """A value for each name in SCORED."""


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """What the steps made of JPEGs, restored JPEGs and originals, image by image."""

    dataset: str
    per_image: tuple[StepScore, ...]

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps, in their order."""
        return tuple(dict.fromkeys(score.step for score in self.per_image))

    @property
    def qfs(self) -> tuple[int, ...]:
        """Quality factors, in the order they were asked for."""
        return tuple(dict.fromkeys(score.qf for score in self.per_image))

    def mean(self, step: str, qf: int, given: str, metric: str = "psnr") -> float:
        """Return the mean over the images. Raises ValueError for what was not scored."""
        found = [
            score.metrics[metric]
            for score in self.per_image
            if (score.step, score.qf, score.given) == (step, qf, given) and metric in score.metrics
        ]
        if not found:
            raise ValueError(
                f"{metric} of {step!r} at QF {qf} of {given!r} was not scored: choose of "
                f"{list(self.steps)}, {list(self.qfs)}, {list(INPUTS)}, {list(SCORED)}"
            )
        return fmean(found)

    def gain(self, step: str, qf: int, metric: str = "psnr") -> float:
        """Return how much restoring before a step raises the mean of a metric."""
        restored = self.mean(step, qf, RESTORED, metric)
        return restored - self.mean(step, qf, JPEG, metric)

    def typical_image(self, step: str, qf: int) -> str:
        """Return the image whose gain in PSNR is the median, the upper one of an even number."""
        values = {
            (score.image, score.given): score.metrics["psnr"]
            for score in self.per_image
            if (score.step, score.qf) == (step, qf)
        }
        names = {image for image, _ in values}
        return median_image({name: values[name, RESTORED] - values[name, JPEG] for name in names})

    def rows(self) -> list[dict[str, object]]:
        """Return every image's values: `dataset, step, qf, image, input`, then the metrics."""
        return [
            {
                **{"dataset": self.dataset, "step": score.step, "qf": score.qf},
                **{"image": score.image, "input": score.given, **score.metrics},
            }
            for score in self.per_image
        ]


def tone_curve(luma: np.ndarray) -> np.ndarray:
    """Raise the contrast of the middle tones by a sigmoid, black and white kept.

    y = (s(x) - s(0)) / (s(1) - s(0)), s(x) = 1 / (1 + exp(-STEEPNESS (x - 1/2))), x in [0, 1].
    """
    x = np.arange(256) / 255
    s = 1 / (1 + np.exp(-STEEPNESS * (x - 0.5)))
    return _rounded(255 * (s - s[0]) / (s[-1] - s[0]))[luma]


def equalised(luma: np.ndarray) -> np.ndarray:
    """Equalise the picture's own histogram: y = 255 (share of its pixels that are at most x)."""
    counts = np.bincount(luma.ravel(), minlength=256)
    return _rounded(255 * counts.cumsum() / luma.size)[luma]


def local_contrast(luma: np.ndarray) -> np.ndarray:
    """Add LOCAL_AMOUNT times what a Gaussian blur takes away; borders are mirrored."""
    values = luma.astype(np.float64)
    return _rounded(values + LOCAL_AMOUNT * (values - gaussian_filter(values, LOCAL_SIGMA)))


CONTRAST: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"tone-curve": tone_curve, "equalised": equalised, "local-contrast": local_contrast}
)


def steps_of(srcnn: Enlarger | None) -> tuple[Step, ...]:
    """Return the steps: bicubic x2 and x3, SRCNN x2 unless it is None, and the contrast curves."""
    bicubic = [
        Step(name=f"bicubic-x{n}", factor=n, apply=lambda luma, n=n: enlarged(luma, n))
        for n in (2, 3)
    ]
    if srcnn is not None:
        bicubic.append(Step(name=f"srcnn-x{FACTOR}", factor=FACTOR, apply=srcnn))
    return (*bicubic, *(Step(name=name, apply=curve) for name, curve in CONTRAST.items()))


def downstream(
    restorer: Restorer,
    steps: Sequence[Step],
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
) -> Downstream:
    """Apply every step to the JPEG, the restored JPEG and the original of every image.

    Args:
        restorer: the network, given the table of each quality factor.
        steps: see `steps_of`.
        images: name and luma, read once and one at a time.
        dataset: the name that stands in the results.
        qfs: JPEG quality factors, 1 to 100.

    Raises ValueError for no step, no image or quality factor, or an image that is below 8x8 pixels
    once a step has reduced it.
    """
    qfs = list(dict.fromkeys(qfs))
    if not steps or not qfs or not all(1 <= qf <= 100 for qf in qfs):
        raise ValueError(f"{len(steps)} steps at QFs {qfs}: give one or more, QFs from 1 to 100")
    scores = [
        StepScore(
            step=step.name,
            qf=qf,
            image=name,
            given=given,
            metrics={metric: METRICS[metric].measure(reference, output) for metric in SCORED},
        )
        for name, luma in images
        for qf in qfs
        for step, outputs, reference in applied(restorer, steps, name, luma, qf)
        for given, output in outputs.items()
    ]
    if not scores:
        raise ValueError(f"{dataset}: there is no image to apply the steps to")
    return Downstream(dataset=dataset, per_image=tuple(scores))


def applied(
    restorer: Restorer, steps: Sequence[Step], name: str, luma: np.ndarray, qf: int
) -> Iterator[tuple[Step, Images, np.ndarray]]:
    """Yield what each step makes of each of INPUTS, and its reference, all of one shape.

    A JPEG is made and restored once for all steps of one factor.
    """
    for factor in dict.fromkeys(step.factor for step in steps):
        whole = cropped(luma, factor)
        source = reduced(whole, factor) if factor > 1 else whole
        if min(source.shape) < MIN_SIDE:
            height, width = luma.shape
            raise ValueError(
                f"{name} is {width}x{height}: too small to be reduced by {factor}, sides of "
                f"{factor * MIN_SIDE} pixels are needed"
            )
        compressed, _ = jpeg.compress(source, qf)
        restored = restorer(compressed, jpeg_table(qf))
        given = {JPEG: compressed, RESTORED: restored, ORIGINAL: source}
        for step in steps:
            if step.factor == factor:
                outputs = {kind: step.apply(image) for kind, image in given.items()}
                yield step, outputs, whole if factor > 1 else outputs[ORIGINAL]


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
