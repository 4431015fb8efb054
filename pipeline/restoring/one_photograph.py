"""One JPEG restored: its quality estimated, a network chosen, its luma restored, the rest kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import numpy as np

from pipeline.images.jpeg import quantization_table
from pipeline.networks.devices import Precision
from pipeline.networks.restorer import Restorer
from pipeline.served.good_jpegs import estimate_qf, log2_steps, reason_to_leave
from pipeline.served.metadata import SIDEWAYS
from pipeline.served.photographs import (
    MAX_PIXELS,
    MIN_SIDE,
    Photograph,
    jpeg_of,
    left_out,
    padded,
    png_of,
    read_photograph,
)
from pipeline.served.quantization_cells import within_cells

NEAR = 0.25
"""Octaves between quantisation steps; up to so many a network of one QF is used."""
REACH = 1.0
"""Octaves beyond which a network that the user has not asked for is not used at all."""
ENCODERS = MappingProxyType({"png": png_of, "jpeg": jpeg_of})
UNCHANGED = "none"
"""The network's name for a photograph that is already good."""


class NetworkUnavailable(ValueError):  # noqa: N818 - an outcome that is listed, not a failure
    """A network cannot be opened, such as when its store does not answer; others may do."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that is ready, and the quality factors that it is for."""

    name: str
    """For people, such as `quickres-blind (shipped)`."""
    qfs: tuple[int, ...]
    """One for a network of one QF, several for a blind one."""
    restorer: Restorer
    asked: bool = False
    """Whether the user named it: then it is used on whatever is not good already."""
    precision: Precision = "float32"
    """What `restorer` computes in."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A restored photograph as the content of a new file, and how it was made."""

    content: bytes
    """Of the new file."""
    qf: int
    """Quality factor, estimated from the file's own luma quantisation table."""
    exact: bool
    """Whether the table is exactly that of `qf` (libjpeg's)."""
    network: str
    """Name of the network; UNCHANGED where none was used."""
    precision: Precision | None
    """What the network computed in; None where none was used."""
    width: int
    """Of the new picture, upright, in pixels."""
    height: int
    notes: tuple[str, ...]
    """What people should know of it."""


def choose_network(networks: Sequence[Network], table: np.ndarray) -> Network:
    """Return the network to restore a photograph with: one of its QF, else a blind one.

    `table` is the photograph's luma quantisation table, (8, 8). Of networks that are equally
    suitable the first is taken. Raises ValueError when there is no network.

    The distance is that of the mean log2 of the 16 lowest frequencies' steps, in octaves. Luma gain
    in dB of quickres-qf10 on 10 BSDS500 test images, least gain in brackets:

    | QF | octaves | alone | with changes within the cells (quantization_cells.py) |
    |---|---|---|---|
    | 5 | 1.0 | .90 (.55) | .90 (.54) |
    | 8 | .3 | 1.01 (.57) | 1.02 (.58) |
    | 10 | 0 | .97 (.51) | 1.00 (.55) |
    | 12 | .3 | .87 (.46) | .94 (.53) |
    | 14 | .5 | .75 (.38) | .89 (.50) |
    | 20 | 1.0 | .37 (.01) | .72 (.38) |
    | 28 | 1.5 | -.15 (-1.03) | .52 (.25) |

    So a network of one QF is the first choice up to NEAR, and without a blind one it still gains up
    to REACH. quickres-blind on 29 of these images at half size gains .95 at QF 20, .71 (.20) at QF
    85 and .55 (-.14, one image loses) at QF 89; what is better is left (served/good_jpegs.py).
    """
    if not networks:
        raise ValueError(
            "no network to restore with: name one with `--model`, or train one with "
            "`qfactory study`"
        )
    near = [n for n in networks if len(n.qfs) == 1 and _octaves(n, table) <= NEAR]
    if near:
        return min(near, key=lambda n: _octaves(n, table))
    blind = [n for n in networks if len(n.qfs) > 1 and _octaves(n, table) <= NEAR]
    return blind[0] if blind else min(networks, key=lambda n: _octaves(n, table))


def when_used(load: Callable[[], Restorer]) -> Restorer:
    """Return a restorer that `load` makes when it is first used.

    It raises NetworkUnavailable where `load` raised OSError or ValueError; it is not asked again.
    """

    @cache
    def loaded() -> Restorer | OSError | ValueError:
        try:
            return load()
        except (OSError, ValueError) as error:
            return error

    def restore(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        opened = loaded()
        if isinstance(opened, OSError | ValueError):
            raise NetworkUnavailable(str(opened)) from opened
        return opened(luma, table)

    return restore


def open_asked(networks: Sequence[Network]) -> None:
    """Open the networks that the user named, so that one which does not open is told at once.

    Raises NetworkUnavailable, or what else a network raises.
    """
    for network in networks:
        if network.asked:
            grey = np.full((MIN_SIDE, MIN_SIDE), 128, np.uint8)
            network.restorer(grey, quantization_table(network.qfs[0]))


def restore_jpeg(
    data: bytes,
    networks: Sequence[Network],
    *,
    kind: Literal["png", "jpeg"],
    max_pixels: int = MAX_PIXELS,
) -> Restored:
    """Restore a JPEG file with the network that suits it, as the content of a new file.

    Luma is restored; chroma, colour profile and metadata are kept, the EXIF orientation is applied.
    A JPEG that is left as it is stays the very same file; as a PNG it is what a decoder shows.
    Where a network cannot be opened, the next suitable one is used, with a note. Raises
    PhotographRejected for what is no JPEG photograph that can be restored, NetworkUnavailable when
    no suitable network opens or the one that the user named does not, and ValueError when there is
    no network.
    """
    photograph = read_photograph(data, max_pixels=max_pixels)
    qf, exact = estimate_qf(photograph.table)
    luma, used, notes = _restored_luma(photograph, networks, qf)
    same = used is None and kind == "jpeg"
    height, width = luma.shape
    if photograph.orientation >= SIDEWAYS:
        height, width = width, height
    return Restored(
        content=data if same else ENCODERS[kind](photograph, luma),
        qf=qf,
        exact=exact,
        network=UNCHANGED if used is None else used.name,
        precision=None if used is None else used.precision,
        width=width,
        height=height,
        notes=(*photograph.notes, *([] if same else left_out(photograph, kind)), *notes),
    )


def _restored_luma(
    photograph: Photograph, networks: Sequence[Network], qf: int
) -> tuple[np.ndarray, Network | None, list[str]]:
    """Return luma, the network that was used on it, and notes."""
    luma, table, notes = photograph.luma, photograph.table, []
    left = list(networks)
    while True:
        network = choose_network(left, table)
        good, against = reason_to_leave(qf), _reason_against(network, qf, table)
        if good or (against and not network.asked):
            return luma, None, [*notes, f"left as it is: {good or against}"]
        try:
            restored = network.restorer(padded(luma), table)[: luma.shape[0], : luma.shape[1]]
        except NetworkUnavailable as error:
            left.remove(network)
            if network.asked or not left:
                raise
            notes.append(f"{network.name} could not be opened, another was used: {error}")
            continue
        notes += [] if against is None else [against]
        return within_cells(luma, restored, table), network, notes


def _reason_against(network: Network, qf: int, table: np.ndarray) -> str | None:
    """Say why the network that suits a photograph best would rather not be used on it."""
    if _octaves(network, table) > (NEAR if network.asked else REACH):
        return f"QF {qf} is far from QF {_text(network.qfs)}, which {network.name} is for"
    return None


def _text(qfs: Sequence[int]) -> str:
    return str(qfs[0]) if len(qfs) == 1 else f"{min(qfs)} to {max(qfs)}"


def _octaves(network: Network, table: np.ndarray) -> float:
    """Return how far a table is from the nearest of a network's, in octaves of its steps."""
    return min(abs(_step(table) - _step(quantization_table(qf))) for qf in network.qfs)


def _step(table: np.ndarray) -> float:
    """Return the mean log2 of the steps of the 16 lowest frequencies."""
    return float(log2_steps(table[:4, :4]).mean())
