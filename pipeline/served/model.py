"""The MLflow model that is registered: JPEG photographs to PNG, and arrays to arrays."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mlflow.pytorch import load_model

from .network import ProgramFacts, ServedNetwork

FACTS = "served.json"
"""Name of the file with ProgramFacts, beside the program."""
MAX_BYTES = 64 * 2**20
"""Of one JPEG."""
GIVE = (
    "give a JPEG's bytes, its base64, an array (N, 1, H, W) float32 in [0, 1] or (H, W) uint8, "
    'a dictionary {"image": array, "table": (8, 8) array}, or a list of these'
)

Restored = bytes | np.ndarray | list


class ServedModel:
    """What `mlflow.pyfunc.load_model` holds; its threads may share it."""

    def __init__(self, network: ServedNetwork) -> None:
        self._network = network

    def predict(self, model_input: object, params: object = None) -> Restored:
        """Restore what JPEG compression took away. Nothing is asked of `params`.

        Args:
            model_input: a JPEG's bytes, or its base64 text, gives a PNG's bytes: grey or colour,
                metadata kept, upright. (N, 1, H, W) float32 in [0, 1], H and W from 8, and luma
                (H, W) uint8 give the same shape and type. {"image": array, "table": array} tells
                the JPEG's quantisation table, (8, 8) or (N, 8, 8), to a network that needs it. A
                list or a column `image` of these gives a list, one result an item.
            params: MLflow's, unused.

        Raises ValueError that says what was wrong, and with which item of a list.
        """
        given = _unpacked(model_input)
        if isinstance(given, dict):
            return self._of_dictionary(given)
        if isinstance(given, list | tuple):
            return self._of_list(given)
        if isinstance(given, np.ndarray):
            return self._of_array(given, None)
        return self._network.photograph(_jpeg_bytes(given))

    def _of_list(self, items: Sequence[object]) -> list:
        restored = []
        for number, item in enumerate(items, 1):
            if isinstance(_unpacked(item), list | tuple):
                raise ValueError(f"image {number} of {len(items)} is a list: {GIVE}")
            try:
                restored.append(self.predict(item))
            except ValueError as error:
                raise ValueError(f"image {number} of {len(items)}: {error}") from None
        return restored

    def _of_dictionary(self, given: Mapping[str, object]) -> Restored:
        if "image" not in given or given.keys() - {"image", "table"}:
            raise ValueError(f"a dictionary with {sorted(map(str, given))}: {GIVE}")
        image = _unpacked(given["image"])
        if "table" not in given:
            return self.predict(image)
        if not isinstance(image, np.ndarray):
            raise ValueError("a table belongs to an array: a JPEG brings its own, and a list none")
        return self._of_array(image, np.asarray(given["table"]))

    def _of_array(self, image: np.ndarray, table: np.ndarray | None) -> np.ndarray:
        whole = image.dtype.kind in "iu"
        if image.ndim == 2 and whole and image.size and _within(image, 255):
            return self._network.luma(image.astype(np.uint8), table)
        if image.ndim == 4 and image.shape[1] == 1 and image.size and _within(image, 1):
            return self._network.images(image.astype(np.float32), table)
        values = f", values {image.min()} to {image.max()}" if image.size else ""
        raise ValueError(f"array of shape {image.shape} and type {image.dtype}{values}: {GIVE}")


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load what the registry wrote; MLflow looks for pickles in it as its settings say."""
    folder = Path(data_path)
    facts = ProgramFacts(**json.loads((folder / FACTS).read_text()))
    return ServedModel(ServedNetwork(load_model(str(folder.parent)), facts))


def _unpacked(given: object) -> object:
    """Return pandas columns and arrays of texts or bytes as what they hold."""
    if hasattr(given, "columns"):  # a DataFrame; MLflow brings pandas, arrays do not need it
        names = [str(name) for name in given.columns]  # type: ignore[attr-defined]
        if names not in (["image"], ["0"]):
            raise ValueError(f"a table with the columns {names}: give one column, `image`")
        return given.iloc[:, 0].tolist()  # type: ignore[attr-defined]
    if isinstance(given, np.ndarray):
        return given if given.dtype.kind in "fiu" else given.tolist()
    return given.tolist() if hasattr(given, "tolist") else given  # type: ignore[attr-defined]


def _jpeg_bytes(given: object) -> bytes:
    if isinstance(given, str):
        if len(given) > MAX_BYTES // 3 * 4 * 1.1:  # base64, and its line ends
            raise _too_long(len(given) * 3 // 4)
        try:
            given = base64.b64decode("".join(given.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"a text that is not base64 ({error}): {GIVE}") from error
    if not isinstance(given, bytes | bytearray | memoryview):
        raise ValueError(f"a value of type {type(given).__name__}: {GIVE}")
    if len(given) > MAX_BYTES:
        raise _too_long(len(given))
    return bytes(given)


def _too_long(size: int) -> ValueError:
    return ValueError(
        f"a JPEG of {size:,} bytes is above the cap of {MAX_BYTES:,}: give a smaller one"
    )


def _within(image: np.ndarray, largest: int) -> bool:
    return bool(image.min() >= 0 and image.max() <= largest)  # false for nan as well
