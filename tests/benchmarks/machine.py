"""What a result file says of the machine that it was measured on."""

import os

import torch

from pipeline.networks.devices import processor_name


def machine() -> dict[str, object]:
    """Return the processor's name and cores, and the GPU's name where there is one."""
    told: dict[str, object] = {"processor": processor(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        told["gpu"] = torch.cuda.get_device_name()
    return told


def processor() -> str:
    """Return the processor's name, with what multiplies bfloat16 if something does."""
    return processor_name(torch.device("cpu"))
