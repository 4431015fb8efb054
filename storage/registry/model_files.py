"""The files of a registered model: a pt2 program without pickle, and what lies beside it."""

import warnings
from collections.abc import Sequence
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.pytorch import save_model
from mlflow.types import ColSpec, Schema, TensorSpec
from torch import nn
from torch.export import ExportedProgram

from storage.registry.consumer_files import INPUTS, ServedCode, add_code, add_onnx

REQUIRED = ("torch", "numpy", "mlflow", "pillow")
PROBE_SHAPES = ((1, 1, 8, 8), (3, 1, 33, 47))
PROGRAM = "data/model.pt2"


def check_exportable(network: nn.Module, examples: Sequence[np.ndarray]) -> None:
    """Raise ValueError unless a network and its examples can be exported for any size."""
    if network.training:
        raise ValueError(f"{type(network).__name__} is in training mode: call eval() first")
    devices = {str(t.device) for t in [*network.parameters(), *network.buffers()]}
    if devices - {"cpu"}:
        raise ValueError(f"{type(network).__name__} is on {sorted(devices)}: move it to the CPU")
    example = examples[0]
    one_channel = example.ndim == 4 and example.shape[1] == 1 and example.dtype == np.float32
    if not one_channel or min(example.shape[0], *example.shape[2:]) < 2:
        raise ValueError(
            f"input example {example.shape} {example.dtype}: give (N,1,H,W) float32 with N, H and "
            "W of 2 or more, because torch.export freezes what is 1"
        )
    for table in examples[1:]:
        if table.shape != (len(example), 8, 8) or table.dtype != np.float32 or len(examples) > 2:
            raise ValueError(
                f"table example {table.shape} {table.dtype}: give one, ({len(example)},8,8) float32"
            )


def save_network(
    network: nn.Module,
    folder: Path,
    examples: Sequence[np.ndarray],
    model: Model,
    served: ServedCode | None = None,
) -> dict[str, str]:
    """Write a network as a pt2 MLflow model into a new folder, without pickle; return tags.

    With `served`, its code is what `mlflow.pyfunc` loads, and the network lies beside as ONNX,
    where it can be written as such; the tag `onnx` says where, or why not. Raises ValueError when
    the exported program does not equal the network at other sizes and batches than the example's.
    """
    with_table = len(examples) == 2
    image = TensorSpec(np.dtype(np.float32), (-1, 1, -1, -1), INPUTS[0] if with_table else None)
    table = TensorSpec(np.dtype(np.float32), (-1, 8, 8), INPUTS[1])
    output = TensorSpec(np.dtype(np.float32), (-1, 1, -1, -1))
    inputs: list[ColSpec | TensorSpec] = [image, table] if with_table else [image]
    with warnings.catch_warnings():  # of weights in channels_last, which the check below proves
        warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
        save_model(
            network,
            str(folder),
            mlflow_model=model,
            serialization_format="pt2",
            input_example=list(examples) if with_table else examples[0],
            signature=ModelSignature(inputs=Schema(inputs), outputs=Schema([output])),
            pip_requirements=requirements(),
        )
    program = torch.export.load(folder / PROGRAM)
    _check_program(program, network, with_table=with_table)
    if served is None:
        return {}
    tags = add_onnx(program, folder, model)
    add_code(served, folder, model)
    model.save(str(folder / "MLmodel"))
    return tags


def _check_program(program: ExportedProgram, network: nn.Module, *, with_table: bool) -> None:
    exported, random = program.module(), torch.Generator().manual_seed(0)
    for shape in PROBE_SHAPES:
        probe = (torch.rand(shape, generator=random),)
        if with_table:
            probe = (*probe, torch.randint(1, 99, (shape[0], 8, 8), generator=random).float())
        try:
            with torch.no_grad():
                torch.testing.assert_close(exported(*probe), network(*probe), rtol=0, atol=1e-5)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"{type(network).__name__} exports, but at {shape} the program is wrong: {error}. "
                "Pad and crop by index_select, so that no size is frozen"
            ) from error


def requirements() -> list[str]:
    """Return the packages that a consumer needs, pinned to what is installed here."""
    return [f"{name}=={package_version(name).partition('+')[0]}" for name in REQUIRED]
