"""Train the SRCNN that `qfactory analyze downstream` enlarges with, and write its weights.

Usage: python -m tests.benchmarks.srcnn

x2, on the photographs that `sample` trains on, in a minute or two: Adam with a cosine schedule on
patches of 44x44 enlarged pixels, whose inner 32x32 are compared with the original.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.srcnn import SRCNN
from pipeline.datasets.references import list_images
from pipeline.evaluation.protocol import load_images
from pipeline.evaluation.super_resolution import (
    FACTOR,
    SRCNN_WEIGHTS,
    cropped,
    enlarged,
    reduced,
)
from pipeline.networks.weights import Origin, _publish

STEPS, BATCH, SIDE, LR, SEED = 300, 16, 44, 1e-3, 0
MARGIN = SRCNN.receptive_field // 2
"""Pixels that the network takes off each side in training."""


def train_srcnn(originals: Sequence[np.ndarray], steps: int = STEPS) -> SRCNN:
    """Train SRCNN to improve photographs, (H, W) uint8, that were reduced and enlarged by FACTOR.

    The network starts as the identity, that is as the bicubic kernel: images are not negative, so
    ReLU lets them pass.
    """
    whole = [cropped(luma, FACTOR) for luma in originals]
    pairs = [(enlarged(reduced(image, FACTOR), FACTOR), image) for image in whole]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = identity(SRCNN(shrink_in_training=True, init="he"))
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    inner = slice(MARGIN, SIDE - MARGIN)
    for x, y in batches(pairs, steps):
        loss = F.mse_loss(network(x), y[..., inner, inner])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def identity(network: SRCNN) -> SRCNN:
    """Let the first channel alone pass the image on; the others add nothing at first."""
    with torch.no_grad():
        for conv in (network.conv1, network.conv2, network.conv3):
            middle = conv.kernel_size[0] // 2
            conv.weight[0].zero_()
            conv.weight[0, 0, middle, middle] = 1
    return network


def batches(
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


if __name__ == "__main__":
    photographs = load_images(list_images("sample", root=None, purpose="train"))
    trained = train_srcnn([luma for _, luma in photographs])
    origin = Origin(
        recipe="srcnn-x2", fingerprint="", architecture="srcnn", options={}, qfs=(), step=STEPS
    )
    _publish(str(SRCNN_WEIGHTS), trained.state_dict(), origin)
