"""What lies beside a registered program for its consumers: code that serves it, and ONNX."""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

import torch
from mlflow import onnx as onnx_flavor
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec
from torch.export import ExportedProgram

INPUTS = ("image", "table")
ONNX = "onnx/model.onnx"
ONNX_TAG = "onnx"
BYTE_CACHE = "__pycache__"
"""A file of this name, where Python would make a folder: importing writes nothing then, and runs
nothing but the files whose digests are known."""
INTERFACE = {
    "input": "a JPEG's bytes or their base64, an array (N,1,H,W) float32 in [0,1] with H and W "
    'from 8, luma (H,W) uint8, {"image": array, "table": (8,8) array} with the quantisation '
    "table, or a list of these",
    "precision": 'with params={"precision": "float32"} or "bfloat16" it computes in that; else in '
    "bfloat16 where the processor has it and the tag bfloat16_loss_db is below 0.005",
    "damaged": 'a truncated or damaged JPEG is an error; with params={"damaged": "restore"} what '
    "can be decoded is restored, the rest is blank",
    "output": "a PNG's bytes for a JPEG, the same shape and type for an array",
}


@dataclass(frozen=True, kw_only=True)
class ServedCode:
    """Code that travels with a network and serves it: a package that imports itself relatively."""

    package: Path
    """Its folder; its Python files are copied, under a name that tells their digest."""
    loader: str
    """Module in it with `_load_pyfunc(path of the folder "data")`, as MLflow asks for."""
    facts_file: str
    """Name, in the folder "data", of a JSON file that the loader reads."""
    facts: Mapping[str, object]
    """What that file says."""

    @property
    def name(self) -> str:
        """What the copy is called: versions that differ can be loaded side by side."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
        return f"qfactory_{self.package.name}_{digest.hexdigest()[:8]}"

    @property
    def files(self) -> list[Path]:
        """Its Python files, in the order of their names."""
        return sorted(self.package.glob("*.py"))


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a program as one self-contained ONNX file, for any batch, height and width.

    Its inputs are called as in INPUTS, its output `restored`. Raises torch.onnx.OnnxExporterError
    for a program that ONNX cannot express.
    """
    inputs = len(program.graph_signature.user_inputs)
    with _quiet():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS[:inputs]),
            output_names=["restored"],
        )
    assert converted is not None
    path.parent.mkdir(exist_ok=True)
    converted.save(str(path), external_data=False)


def add_onnx(program: ExportedProgram, folder: Path, model: Model) -> dict[str, str]:
    """Write ONNX beside the program, and tell MLflow; return the tag that says where."""
    try:
        write_onnx(program, folder / ONNX)
    except torch.onnx.OnnxExporterError as error:
        return {ONNX_TAG: f"not written: {' '.join(str(error).split())[:400]}"}
    model.add_flavor(
        onnx_flavor.FLAVOR_NAME,
        onnx_version=package_version("onnx"),
        data=ONNX,
        providers=onnx_flavor.ONNX_EXECUTION_PROVIDERS,
        onnx_session_options=None,
        code=None,
    )
    return {ONNX_TAG: ONNX}


def add_code(served: ServedCode, folder: Path, model: Model) -> None:
    """Copy the code, and make it what MLflow's pyfunc loads."""
    package = folder / "code" / served.name
    package.mkdir(parents=True)
    for path in served.files:
        (package / path.name).write_bytes(path.read_bytes())
    (package / BYTE_CACHE).write_text("Nothing is cached here: see the SHA-256 of each file.\n")
    (folder / "data" / served.facts_file).write_text(json.dumps(dict(served.facts), indent=1))
    pyfunc.add_to_model(
        model,
        loader_module=f"{served.name}.{served.loader}",
        data="data",
        code="code",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    # with the arrays' signature, pyfunc would refuse a JPEG's bytes
    model.signature = ModelSignature(
        params=ParamSchema(
            [
                ParamSpec("damaged", "string", "refuse"),
                ParamSpec("precision", "string", "auto"),
            ]
        )
    )
    model.metadata = {**(model.metadata or {}), "interface": INTERFACE}
    model.model_size_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's notes on its ONNX exporter, such as that torchvision is not there, to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
