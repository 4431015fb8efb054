"""The gate: when a new model version takes the place of the champion."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CHAMPION = "champion"
CHALLENGER = "challenger"
MARGIN_DB = 0.01


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
        for name in ("psnr", "ssim", "psnr_b"):
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


def best_of(candidates: Mapping[int, GateScores], margin_db: float = MARGIN_DB) -> int:
    """Return the version that is champion after the candidates met the gate in version order."""
    first, *rest = sorted(candidates)
    best = first
    for version in rest:
        if decide(candidates[version], candidates[best], margin_db).alias == CHAMPION:
            best = version
    return best
