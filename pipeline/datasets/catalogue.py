"""The catalogue of known datasets: a new one is one entry in DATASETS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

SCIKIT_IMAGE = "scikit-image"  # stands for the folder of its photographs, wherever pip put it

_FBCNN = (
    "https://raw.githubusercontent.com/jiaxi-jiang/FBCNN/"
    "54d1831927506b3247e2d4d245abb4f4dab1a1cd/testsets/"
)
_BSDS500 = (
    "https://raw.githubusercontent.com/BIDS/BSDS500/"
    "a04b7c6c3a9f0ace74bf205c72a43d32e1c72722/BSDS500/data/images/"
)
_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file that holds one split."""

    url: str
    sha256: str
    split: str
    members: str
    """The folder in the archive whose files are the images; everything else is ignored."""
    images: int
    """How many there are."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Where the images of one dataset come from and what they are for."""

    name: str
    description: str
    licence: str
    role: Literal["training", "evaluation", "both"]
    """`evaluation`: training on these images is refused unless forced."""
    splits: Mapping[str, Sequence[str]]
    """Split -> folders below the datasets' root where it may lie, the first being ours."""
    train: tuple[str, ...]
    """The splits that a reference without a split means for training."""
    evaluate: tuple[str, ...]
    """The same for evaluation."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """Folder below the root -> URL of its files, which datasets.sha256 lists."""
    archives: tuple[Archive, ...] = ()
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> file names, for photographs that an installed package brings."""
    how: str = ""
    """What the user does where nothing can be downloaded."""


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        "sample": Dataset(
            name="sample",
            description="11 photographs inside scikit-image's wheel: no download",
            licence="CC0: brick, camera, chelsea, coffee, grass, gravel; public domain: astronaut "
            "(NASA), rocket (SpaceX); no known restrictions: coins (Brooklyn Museum); none stated: "
            "motorcycle (Middlebury stereo 2014)",
            role="both",
            splits={"train": (SCIKIT_IMAGE,), "test": (SCIKIT_IMAGE,)},
            train=("train",),
            evaluate=("test",),
            members={
                "train": (
                    "astronaut.png",
                    "brick.png",
                    "coins.png",
                    "grass.png",
                    "gravel.png",
                    "motorcycle_left.png",
                    "motorcycle_right.png",
                    "rocket.jpg",
                ),
                "test": ("camera.png", "chelsea.png", "coffee.png"),
            },
            how="pip install scikit-image",
        ),
        "bsds500": Dataset(
            name="bsds500",
            description="Berkeley segmentation set: 200 train, 100 val, 200 test colour JPEG; "
            "AR-CNN trains on train+test and validates on val",
            licence="non-commercial research (UC Berkeley)",
            role="both",
            splits={split: (f"BSDS500/{split}",) for split in ("train", "val", "test")},
            train=("train", "test"),
            evaluate=("test",),
            urls={f"BSDS500/{split}": f"{_BSDS500}{split}/" for split in ("train", "val", "test")},
        ),
        "live1": Dataset(
            name="live1",
            description="29 grey PNG, MATLAB luma of LIVE1",
            licence="research, with attribution (LIVE, UT Austin)",
            role="evaluation",
            splits={"all": ("LIVE1",)},
            train=("all",),
            evaluate=("all",),
            urls={"LIVE1": f"{_FBCNN}LIVE1_gray/"},
        ),
        "classic5": Dataset(
            name="classic5",
            description="5 grey BMP, 512x512",
            licence="research (no licence stated)",
            role="evaluation",
            splits={"all": ("Classic5",)},
            train=("all",),
            evaluate=("all",),
            urls={"Classic5": f"{_FBCNN}Classic5/"},
        ),
        "div2k": Dataset(
            name="div2k",
            description="800 train and 100 valid colour PNG of about 2040x1356; 4 GB to download",
            licence="academic research only (ETH Zurich)",
            role="training",
            splits={
                "train": ("DIV2K/train", "DIV2K/DIV2K_train_HR", "DIV2K_train_HR"),
                "valid": ("DIV2K/valid", "DIV2K/DIV2K_valid_HR", "DIV2K_valid_HR"),
            },
            train=("train",),
            evaluate=("valid",),
            archives=(  # hashes as TensorFlow Datasets' url_checksums/div2k.txt has them
                Archive(
                    url=f"{_DIV2K}DIV2K_train_HR.zip",
                    sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
                    split="train",
                    members="DIV2K_train_HR",
                    images=800,
                ),
                Archive(
                    url=f"{_DIV2K}DIV2K_valid_HR.zip",
                    sha256="20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
                    split="valid",
                    members="DIV2K_valid_HR",
                    images=100,
                ),
            ),
        ),
        "imagenet": Dataset(
            name="imagenet",
            description="ImageNet (ILSVRC 2012): folders of colour JPEG that you already have",
            licence="non-commercial research, by agreement with ImageNet",
            role="training",
            splits={
                split: (f"ImageNet/{split}", f"imagenet/{split}", f"ILSVRC/Data/CLS-LOC/{split}")
                for split in ("train", "val")
            },
            train=("train",),
            evaluate=("val",),
            how="get it from image-net.org and put or link it at ImageNet/train and ImageNet/val",
        ),
    }
)
