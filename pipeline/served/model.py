"""The MLflow model that is registered: JPEG photographs to PNG, and arrays to arrays."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pytorch import load_model

from .facts import ProgramFacts
from .header import pixels_of
from .network import ServedNetwork
from .photographs import MAX_PIXELS
from .precision import lay_out

REFUSE, RESTORE = "refuse", "restore"
FACTS = "served.json"
"""Name of the file with ProgramFacts, beside the program."""
MAX_BYTES = 64 * 2**20
"""Of one JPEG."""
CALL_ITEMS = 256
CALL_BYTES = 2 * MAX_BYTES
CALL_PIXELS = MAX_PIXELS
"""Caps of all items of one call together: a request must not hold a server for hours."""
GIVE = (
    "give a JPEG's bytes, its base64, an array (N, 1, H, W) float32 in [0, 1] or (H, W) uint8, "
    'a dictionary {"image": array, "table": (8, 8) array}, or a list of these'
)

Restored = bytes | np.ndarray | list


class RefusedInputError(MlflowException, ValueError):
    """What cannot be restored, and why; MLflow's server answers with the reason alone.

    Of other errors it sends a stack trace, and of its own the whole request.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, error_code=BAD_REQUEST)
        self.reason = reason

    def serialize_as_json(self) -> str:
        """Return what the server answers."""
        return json.dumps({"error_code": self.error_code, "message": self.reason})


class ServedModel:
    """What `mlflow.pyfunc.load_model` holds; its threads may share it."""

    def __init__(self, network: ServedNetwork, damaged: str = REFUSE) -> None:
        if damaged not in (REFUSE, RESTORE):
            raise ValueError(f"damaged {damaged!r}: choose {REFUSE} or {RESTORE}")
        self._network = network
        self._damaged = damaged

    def predict(self, model_input: object, params: Mapping | None = None) -> Restored:
        """Restore what JPEG compression took away.

        Args:
            model_input: a JPEG's bytes, or its base64 text, gives a PNG's bytes: grey or colour,
                metadata kept, upright; one of QF 90 and above has its picture left as it is.
                (N, 1, H, W) float32 in [0, 1], H and W from 8, and luma (H, W) uint8 give the same
                shape and type. {"image": array, "table": array} tells the JPEG's quantisation
                table, (8, 8) or (N, 8, 8), to a network that needs it. A list or a column `image`
                of these gives a list, one result an item.
            params: `damaged` is what happens to a truncated or damaged JPEG: `refuse`, which is
                the default, or `restore`, which leaves blank what cannot be decoded. `precision` is
                what the network computes in, `float32` or `bfloat16`; else it is bfloat16 where the
                processor has it and the version says that little is lost.

        Raises RefusedInputError, a ValueError, that says what was wrong, and with which item of a
        list; also where a list has more items, bytes or pixels together than one call may ask for.
        """
        try:
            _check_call(model_input)
            given = params or {}
            network = self._network.computing_in(given.get("precision", "auto"))
            damaged = given.get("damaged", REFUSE)
            return ServedModel(network, damaged)._restored(model_input)
        except ValueError as error:
            raise RefusedInputError(str(error)) from error

    def _restored(self, model_input: object) -> Restored:
        given = _unpacked(model_input)
        if isinstance(given, dict):
            return self._of_dictionary(given)
        if isinstance(given, list | tuple):
            return self._of_list(given)
        if isinstance(given, np.ndarray):
            return self._of_array(given, None)
        return self._network.photograph(_jpeg_bytes(given), damaged=self._damaged == RESTORE)

    def _of_list(self, items: Sequence[object]) -> list:
        restored = []
        for number, item in enumerate(items, 1):
            if isinstance(_unpacked(item), list | tuple):
                raise ValueError(f"image {number} of {len(items)} is a list: {GIVE}")
            try:
                restored.append(self._restored(item))
            except ValueError as error:
                raise ValueError(f"image {number} of {len(items)}: {error}") from None
        return restored

    def _of_dictionary(self, given: Mapping[str, object]) -> Restored:
        if "image" not in given or given.keys() - {"image", "table"}:
            raise ValueError(f"a dictionary with {sorted(map(str, given))}: {GIVE}")
        image = _unpacked(given["image"])
        if "table" not in given:
            return self._restored(image)
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
    return ServedModel(ServedNetwork(lay_out(load_model(str(folder.parent))), facts))


def _check_call(model_input: object) -> None:
    """Raise ValueError where several items are too much together."""
    items = list(islice(_items_of(model_input), CALL_ITEMS + 1))
    if len(items) > CALL_ITEMS:
        raise ValueError(f"more than {CALL_ITEMS} images in one call: give them in several")
    if len(items) < 2:
        return  # one has caps of its own
    size = sum(_size_of(item) for item in items)
    if size > CALL_BYTES:
        raise _too_much(len(items), size, "bytes", CALL_BYTES)
    pixels = sum(_pixels_of(item) for item in items)
    if pixels > CALL_PIXELS:
        raise _too_much(len(items), pixels, "pixels", CALL_PIXELS)


def _items_of(model_input: object) -> Iterator[object]:
    """Yield the JPEGs and arrays of one call, whatever they are wrapped in."""
    given = _unpacked(model_input)
    if isinstance(given, list | tuple):
        for item in given:
            yield from _items_of(item)
    elif isinstance(given, dict):
        yield from _items_of(given.get("image"))
    else:
        yield given


def _size_of(item: object) -> int:
    if isinstance(item, str):
        return len(item) * 3 // 4  # base64
    return len(item) if isinstance(item, bytes | bytearray | memoryview) else 0


def _pixels_of(item: object) -> int:
    if isinstance(item, np.ndarray):
        return item.size
    try:
        return pixels_of(_jpeg_bytes(item))
    except ValueError:
        return 0  # it is refused when its turn comes


def _too_much(items: int, amount: int, unit: str, cap: int) -> ValueError:
    return ValueError(
        f"{items} images have {amount:,} {unit} together, above the cap of {cap:,} of one call: "
        "give them in several"
    )


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
