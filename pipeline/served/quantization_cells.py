"""Keep a restored JPEG close to what its file says: a coefficient lost at most half a step."""

import numpy as np

SHARE = 0.3
"""Of a quantisation step: a coefficient is moved by at most this much."""
SIDE = 8
STRIP_BLOCKS = 1 << 13
"""Blocks that are worked on at a time: 2 MB each of a few temporaries."""

_frequency, _pixel = np.mgrid[:SIDE, :SIDE]
DCT = np.sqrt(2 / SIDE) * np.cos((2 * _pixel + 1) * _frequency * np.pi / (2 * SIDE))
"""The orthonormal DCT-II of 8 samples, (8, 8), a row a frequency."""
DCT[0] /= np.sqrt(2)
DCT = DCT.astype(np.float32)


def within_cells(decoded: np.ndarray, restored: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `restored` with its block DCT at most SHARE steps away from that of `decoded`.

    Both are luma, (H, W) uint8, of a JPEG whose blocks start in the top left corner; `table`, (8,
    8), holds its steps in rows of rising vertical frequency. The original lies within half a step,
    mostly well within. On 29 halved BSDS500 test images quickres-blind gained, in dB of luma PSNR:

    | QF | as restored (least) | within 0.5 | within 0.35 | within 0.25 |
    |---|---|---|---|---|
    | 10 | .935 (.417) | .938 (.418) | .944 (.420) | .929 (.412) |
    | 40 | .946 (.585) | .956 (.587) | .971 (.589) | .955 (.577) |
    | 80 | .733 (.327) | .771 (.341) | .808 (.378) | .819 (.425) |
    | 90 | .205 (-.876) | .340 (-.542) | .442 (-.275) | .523 (-.031) |
    """
    height, width = decoded.shape
    kept = np.empty_like(decoded)
    across = -(-width // SIDE)
    rows = max(1, STRIP_BLOCKS // across) * SIDE
    limit = SHARE * table.astype(np.float32)
    for top in range(0, height, rows):
        own = slice(top, min(top + rows, height))
        change = restored[own].astype(np.float32) - decoded[own]
        lacking = [(0, -side % SIDE) for side in change.shape]
        blocks = np.pad(change, lacking, mode="edge").reshape(-1, SIDE, across, SIDE)
        moves = DCT @ blocks.swapaxes(1, 2) @ DCT.T
        clipped = DCT.T @ np.clip(moves, -limit, limit) @ DCT
        change = clipped.swapaxes(1, 2).reshape(-1, across * SIDE)[: change.shape[0], :width]
        kept[own] = np.clip(np.rint(decoded[own] + change), 0, 255)
    return kept
