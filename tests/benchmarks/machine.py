"""What a result file says of the machine that it was measured on."""

import os
import platform
from pathlib import Path

import torch


def machine() -> dict[str, object]:
    """Return the processor's name and cores, and the GPU's name where there is one."""
    told: dict[str, object] = {"processor": processor(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        told["gpu"] = torch.cuda.get_device_name()
    return told


def processor() -> str:
    """Return the processor's name as Linux gives it, else as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
