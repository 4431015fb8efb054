"""The row contract of a patch store: what a patch is, and how Parquet holds it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import pyarrow as pa

from storage.files import StoreError

FORMAT_VERSION = 1
SIDES = range(32, 225, 8)
QUALITY_FACTORS = range(1, 101)
LUMA_RULE = "matlab-studio-y"  # floor(16 + (65.481 R + 128.553 G + 24.966 B) / 255 + 0.5)
ORIGINAL = "original"

Degradation = Literal["image", "patch", "rescaled", "none"]


@dataclass(frozen=True, kw_only=True)
class PatchSpec:
    """Which patches are cut out of an image, and which JPEG quality factors they get."""

    side: int
    """Height and width of a patch in pixels: a multiple of 8 from 32 to 224."""
    stride: int
    """Distance in pixels between the corners of neighbouring patches."""
    qfs: tuple[int, ...]
    """JPEG quality factors, 1 to 100, ascending; each becomes one column. None with degradation
    `none`."""
    degradation: Degradation
    """`image`: the whole image is compressed, then cut. `patch`: cut first, then each patch is
    compressed on its own, so that it starts at a JPEG block (AR-CNN's sub-images). `rescaled`: the
    image is made smaller, compressed, then cut (pipeline/images/degrade.py). `none`: originals
    alone, for a loader that compresses what it reads (pipeline/loading/fresh_pairs.py)."""
    luma: str = LUMA_RULE
    """The rule that made one channel out of colour (uint8 in, uint8 out)."""

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side {self.side}: choose a multiple of 8 from 32 to 224")
        if self.stride < 1:
            raise ValueError(f"stride {self.stride}: choose 1 or more pixels")
        if self.degradation not in get_args(Degradation):
            raise ValueError(
                f"degradation {self.degradation!r}: choose one of {list(get_args(Degradation))}"
            )
        self._check_qfs()
        if self.luma != LUMA_RULE:
            raise ValueError(f"luma rule {self.luma!r}: this version knows only {LUMA_RULE!r}")
        object.__setattr__(self, "qfs", tuple(sorted(set(self.qfs))))

    def _check_qfs(self) -> None:
        if self.degradation == "none":
            if self.qfs:
                raise ValueError(
                    f"qfs {list(self.qfs)}: a store of degradation 'none' holds originals alone, "
                    "give it none"
                )
        elif not self.qfs or any(qf not in QUALITY_FACTORS for qf in self.qfs):
            raise ValueError(f"qfs {list(self.qfs)}: choose one or more from 1 to 100")

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of every setting; it changes whenever a patch would."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the canonical JSON of the spec (sorted keys)."""
        return json.dumps({**asdict(self), "format": FORMAT_VERSION}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "PatchSpec":
        """Read `to_json` back. Raises StoreError for another format version."""
        values = json.loads(text)
        if (found := values.pop("format", None)) != FORMAT_VERSION:
            raise StoreError(
                f"patch format {found} is not {FORMAT_VERSION}: read the store with the version of "
                "qfactory that wrote it, or build one with this version"
            )
        return PatchSpec(**{**values, "qfs": tuple(values["qfs"])})


def qf_column(qf: int) -> str:
    """Return the name of the column that holds the patches compressed at `qf`."""
    return f"qf{qf}"


def pixel_columns(spec: PatchSpec) -> list[str]:
    """Return the names of every pixel column of a row, `original` first."""
    return [ORIGINAL, *(qf_column(qf) for qf in spec.qfs)]


def arrow_schema(spec: PatchSpec, metadata: dict[str, str]) -> pa.Schema:
    """Return the schema of a shard: image, y, x, then `side * side` bytes a pixel column.

    Pixels are uint8 luma, rows from top to bottom, as fixed-size binary: Parquet has no uint8, and
    lists of INT32 are ten times slower.
    """
    pixels = pa.binary(spec.side * spec.side)
    columns = [(name, pixels) for name in pixel_columns(spec)]
    return pa.schema(
        [
            pa.field("image", pa.string(), nullable=False),
            pa.field("y", pa.int32(), nullable=False),
            pa.field("x", pa.int32(), nullable=False),
            *(pa.field(name, kind, nullable=False) for name, kind in columns),
        ],
        metadata=metadata,
    )
