"""Precisions and devices, for all of the project; served/precision.py decides, as it travels."""

import torch

from pipeline.served.precision import (
    LOSS_LIMIT_DB,
    Precision,
    PrecisionChoice,
    autocast,
    bfloat16_units,
    checked,
    choose_precision,
    inference_precision,
    lay_out,
    processor_name,
)

__all__ = [
    "LOSS_LIMIT_DB",
    "Precision",
    "PrecisionChoice",
    "autocast",
    "best_device",
    "bfloat16_units",
    "checked",
    "choose_precision",
    "inference_precision",
    "lay_out",
    "processor_name",
]


def best_device() -> torch.device:
    """Return the device for networks of weights: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
