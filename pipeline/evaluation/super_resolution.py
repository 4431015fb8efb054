"""Super-resolution of luma: small images as the literature makes them, bicubic, and SRCNN.

A small image is the original, cropped to a multiple of the factor, reduced by the bicubic kernel
(a = -0.5, widened by the factor, as MATLAB's `imresize` and Pillow do) and rounded to uint8. SRCNN
(Dong et al. 2014) improves what the bicubic kernel has enlarged.
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.srcnn import SRCNN
from pipeline.networks.restorer import Restorer, network_restorer
from storage import files

Enlarger = Callable[[np.ndarray], np.ndarray]
"""Luma (H, W) uint8 -> (factor H, factor W) uint8."""
Progress = Callable[[float, float], None]
"""Is told how many steps are done, and of how many."""

FACTOR, STEPS, BATCH, SIDE, LR, SEED = 2, 300, 16, 44, 1e-3, 0
"""How SRCNN is trained: x2, Adam with a cosine schedule on patches of 44x44 enlarged pixels, whose
inner 32x32 are compared with the original."""
MARGIN = SRCNN.receptive_field // 2
"""Pixels that the network takes off each side in training."""
TRAINED_AS = f"srcnn-x{FACTOR}-{STEPS}-steps-of-{BATCH}x{SIDE}x{SIDE}-lr{LR}-seed{SEED}"
"""Changes whenever the weights would."""


def cropped(luma: np.ndarray, factor: int) -> np.ndarray:
    """Return (H, W) without its last rows and columns, so that both sides are multiples."""
    height, width = (side - side % factor for side in luma.shape)
    return np.ascontiguousarray(luma[:height, :width])


def reduced(luma: np.ndarray, factor: int) -> np.ndarray:
    """Return (H, W) uint8, both multiples of `factor`, as (H / factor, W / factor) uint8."""
    height, width = luma.shape
    return _resized(luma, height // factor, width // factor)


def enlarged(luma: np.ndarray, factor: int) -> np.ndarray:
    """Return (H, W) uint8 as (factor H, factor W) uint8 by the bicubic kernel."""
    height, width = luma.shape
    return _resized(luma, height * factor, width * factor)


def srcnn_enlarger(network: nn.Module, factor: int = FACTOR, device: str | None = None) -> Enlarger:
    """Return a function that enlarges by the bicubic kernel and improves that by a network.

    `network` takes and gives (N, 1, H, W) float32 in [0, 1], as models.srcnn.SRCNN does.
    """
    improve: Restorer = network_restorer(network, device)
    no_table = np.ones((8, 8), np.uint8)
    return lambda luma: improve(enlarged(luma, factor), no_table)


def train_srcnn(
    originals: Sequence[np.ndarray],
    *,
    steps: int = STEPS,
    progress: Progress = lambda done, total: None,
) -> SRCNN:
    """Train SRCNN to improve photographs that were reduced and enlarged by FACTOR.

    Args:
        originals: luma, (H, W) uint8; those with a side below SIDE pixels are left out.
        steps: optimiser steps.
        progress: told after every step.

    The network starts as the identity, that is as the bicubic kernel: images are not negative, so
    ReLU lets them pass. Raises ValueError when no photograph is large enough.
    """
    pairs = [(enlarged(reduced(image, FACTOR), FACTOR), image) for image in _usable(originals)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _identity(SRCNN(shrink_in_training=True, init="he"))
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    inner = slice(MARGIN, SIDE - MARGIN)
    for step, (x, y) in enumerate(_batches(pairs, steps)):
        loss = F.mse_loss(network(x), y[..., inner, inner])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)
    return network.eval()


def kept_srcnn(uri: str, train: Callable[[], SRCNN]) -> SRCNN:
    """Return the SRCNN that is kept at `uri`; where none is, or a damaged one, train and keep it.

    The file holds plain arrays (NumPy's .npz), with a checksum each and no pickle.
    """
    if files.exists(uri):
        try:
            with np.load(io.BytesIO(files.read_bytes(uri)), allow_pickle=False) as arrays:
                return _with_weights({name: torch.from_numpy(arrays[name]) for name in arrays})
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
            pass  # a damaged file is replaced below
    network = train()
    content = io.BytesIO()
    np.savez(content, **{name: value.numpy() for name, value in network.state_dict().items()})
    files.write_bytes(uri, content.getvalue())
    return network


def _with_weights(weights: Mapping[str, Tensor]) -> SRCNN:
    network = SRCNN()
    network.load_state_dict(dict(weights))
    return network.eval()


def _identity(network: SRCNN) -> SRCNN:
    """Let the first channel alone pass the image on; the others add nothing at first."""
    with torch.no_grad():
        for conv in (network.conv1, network.conv2, network.conv3):
            middle = conv.kernel_size[0] // 2
            conv.weight[0].zero_()
            conv.weight[0, 0, middle, middle] = 1
    return network


def _usable(originals: Sequence[np.ndarray]) -> list[np.ndarray]:
    found = [cropped(luma, FACTOR) for luma in originals]
    found = [luma for luma in found if min(luma.shape) >= SIDE]
    if not found:
        raise ValueError(f"SRCNN: there is no photograph of {SIDE}x{SIDE} pixels to train on")
    return found


def _batches(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (BATCH, 1, SIDE, SIDE) pairs in [0, 1], cut anywhere, flipped and turned."""
    sizes = np.array([original.size for _, original in pairs], np.float64)
    for step in range(steps):
        draw = np.random.default_rng((SEED, step))
        cuts = []
        for index in draw.choice(len(pairs), BATCH, p=sizes / sizes.sum()):
            height, width = pairs[index][1].shape
            top, left = draw.integers(height - SIDE + 1), draw.integers(width - SIDE + 1)
            turns, flip = int(draw.integers(4)), draw.integers(2)
            both = np.stack([image[top : top + SIDE, left : left + SIDE] for image in pairs[index]])
            turned = np.rot90(both, turns, (1, 2))
            cuts.append(turned[:, :, ::-1] if flip else turned)
        batch = torch.from_numpy(np.ascontiguousarray(cuts)).float().div_(255)
        yield batch[:, :1], batch[:, 1:]


def _resized(luma: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(luma).resize((width, height), Image.Resampling.BICUBIC))
