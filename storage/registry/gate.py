"""The gate: when a new model version takes the place of the champion."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

CHAMPION = "champion"
CHALLENGER = "challenger"
MARGIN_DB = 0.01
COMPARED = ("psnr", "ssim", "psnr_b")
GATE_TAG = "gate."
"""How the tags begin in which a version carries its scores and the gate's decision."""
JPEG_TAG = "gate.jpeg_"
"""The same for the scores of the JPEGs that it was scored on."""


@dataclass(frozen=True, kw_only=True)
class GateScores:
    """What the gate compares: means over one dataset at one or more quality factors."""

    dataset: str
    qfs: tuple[int, ...]
    """The scores are the means over these; a network for one quality factor has one."""
    psnr: float
    """dB."""
    ssim: float
    """Uniform 8x8 window."""
    psnr_b: float
    """dB."""

    @property
    def label(self) -> str:
        """The dataset and the quality factors, such as `live1 QF10` or `live1 QF10,20`."""
        return f"{self.dataset} QF{','.join(map(str, self.qfs))}"

    def __post_init__(self) -> None:
        if not self.qfs:
            raise ValueError(f"qfs {self.qfs}: gate scores are of one quality factor or more")
        for name in COMPARED:
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)}: a gate score must be a number")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which alias a version gets, and why."""

    alias: Literal["champion", "challenger"]
    reason: str


def decide(
    new: GateScores,
    champion: GateScores | None,
    margin_db: float = MARGIN_DB,
    jpeg: GateScores | None = None,
) -> Decision:
    """Apply the gate: at least `margin_db` more PSNR than the champion, no SSIM or PSNR-B lost.

    Without a champion, `jpeg` (the scores of the JPEGs themselves) is what a version has to beat;
    without that too, every version passes. Scores of another dataset or other quality factors
    cannot be compared and do not pass.
    """
    holder = "the champion"
    if champion is None:
        if jpeg is None:
            return Decision(alias=CHAMPION, reason="the first version with scores")
        champion, holder = jpeg, "JPEG"
    if new.label != champion.label:
        return Decision(
            alias=CHALLENGER,
            reason=f"scored on {new.label}, {holder} on {champion.label}: score both on the same "
            "set",
        )
    gain = new.psnr - champion.psnr
    losses = [
        f"{label} {after:.4f} is below {holder}'s {before:.4f}"
        for label, after, before in (
            ("SSIM", new.ssim, champion.ssim),
            ("PSNR-B", new.psnr_b, champion.psnr_b),
        )
        if after < before
    ]
    if gain < margin_db:
        losses.insert(0, f"PSNR gain over {holder} {gain:+.3f} dB is below {margin_db} dB")
    if losses:
        return Decision(alias=CHALLENGER, reason="; ".join(losses))
    told = f"PSNR gain over {holder} {gain:+.3f} dB on {new.label}"
    return Decision(alias=CHAMPION, reason=told)


def gate_tags(scores: GateScores, decision: Decision, jpeg: GateScores | None) -> dict[str, str]:
    """Return the tags of a version that tell what the gate saw and said."""
    of_jpeg = {} if jpeg is None else _score_tags(jpeg, JPEG_TAG)
    said = {GATE_TAG + "reason": decision.reason, GATE_TAG + "decision": decision.alias}
    return {**_score_tags(scores, GATE_TAG), **of_jpeg, **said}


def scores_in(tags: Mapping[str, str], prefix: str = GATE_TAG) -> GateScores | None:
    """Read scores back from a version's tags; None if they are not there.

    The prefix JPEG_TAG gives those of the JPEGs themselves. `gate.qfs` holds the quality factors
    with spaces between them; versions promoted before there were blind networks have one, in
    `gate.qf`.
    """
    if any(prefix + name not in tags for name in ("dataset", *COMPARED)):
        return None
    qfs = tags.get(prefix + "qfs") or tags[prefix + "qf"]
    values = {name: float(tags[prefix + name]) for name in COMPARED}
    return GateScores(dataset=tags[prefix + "dataset"], qfs=tuple(map(int, qfs.split())), **values)


def _score_tags(scores: GateScores, prefix: str) -> dict[str, str]:
    values = {**asdict(scores), "qfs": " ".join(map(str, scores.qfs))}
    return {prefix + name: str(value) for name, value in values.items()}
