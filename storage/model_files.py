"""The files of a registered model: a pt2 program without pickle, and the SHA-256 of each file."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.pytorch import save_model
from mlflow.types import Schema, TensorSpec
from torch import nn

LOAD_NOTE = "registered_model_meta"
REQUIRED = ("torch", "numpy", "mlflow")
PROBE_SHAPES = ((1, 1, 8, 8), (3, 1, 33, 47))


class RegistryError(Exception):
    """The registry cannot do what was asked; the message names the next step."""


def check_exportable(network: nn.Module, example: np.ndarray) -> None:
    """Raise ValueError unless a network and its example can be exported for any size."""
    if network.training:
        raise ValueError(f"{type(network).__name__} is in training mode: call eval() first")
    devices = {str(t.device) for t in [*network.parameters(), *network.buffers()]}
    if devices - {"cpu"}:
        raise ValueError(f"{type(network).__name__} is on {sorted(devices)}: move it to the CPU")
    one_channel = example.ndim == 4 and example.shape[1] == 1 and example.dtype == np.float32
    if not one_channel or min(example.shape[0], *example.shape[2:]) < 2:
        raise ValueError(
            f"input example {example.shape} {example.dtype}: give (N,1,H,W) float32 with N, H and "
            "W of 2 or more, because torch.export freezes what is 1"
        )


def save_network(
    network: nn.Module, folder: Path, input_example: np.ndarray, model: Model | None = None
) -> None:
    """Write a network as a pt2 MLflow model into a new folder: no pickle, no code of ours.

    Raises ValueError when the exported program does not equal the network at other sizes and
    batches than the example's.
    """
    sizes = (-1, 1, -1, -1)
    save_model(
        network,
        str(folder),
        mlflow_model=model,
        serialization_format="pt2",
        input_example=input_example,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), sizes)]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), sizes)]),
        ),
        pip_requirements=requirements(),
    )
    exported = torch.export.load(folder / "data" / "model.pt2").module()
    for shape in PROBE_SHAPES:
        probe = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                torch.testing.assert_close(exported(probe), network(probe), rtol=0, atol=1e-5)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"{type(network).__name__} exports, but at {shape} the program is wrong: {error}. "
                "Pad and crop by index_select, so that no size is frozen"
            ) from error


def requirements() -> list[str]:
    """Return the packages that a consumer needs, pinned to what is installed here."""
    return [f"{name}=={package_version(name).partition('+')[0]}" for name in REQUIRED]


def digests_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path relative to the folder.

    MLflow writes a note of its own, LOAD_NOTE, into a local model's folder when it is loaded by
    name; it is not part of the model.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in found if path.relative_to(folder).as_posix() != LOAD_NOTE]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def check_files(folder: Path, expected: Mapping[str, str], uri: str) -> None:
    """Compare a folder with recorded digests. Raises RegistryError that names the files."""
    found = digests_of(folder)
    if not expected:
        raise RegistryError(f"{uri} has no SHA-256 tags: it was not registered by qfactory")
    wrong = sorted(p for p in found.keys() | expected.keys() if found.get(p) != expected.get(p))
    if wrong:
        raise RegistryError(
            f"{uri}: {', '.join(wrong)} changed since it was registered; do not use it. "
            "Restore its files from a backup or register the network again"
        )
