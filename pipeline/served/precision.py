"""In which precision a network computes: the one place that decides, by what the device has.

bfloat16 means autocast: weights, optimiser and losses stay in float32, convolutions and products
take and give bfloat16. On a CPU that helps where the processor multiplies bfloat16 itself.
"""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]
"""What users ask for; `auto` is bfloat16 where the device computes in it, float32 elsewhere;
for a restoration only where the network is known to lose little by it."""

BFLOAT16_CAPABILITY = (8, 0)  # CUDA compute capability of the first GPUs that have it (Ampere)
LOSS_LIMIT_DB = 0.005
"""PSNR. Networks that are known to lose less by bfloat16 compute in it where the device has it."""


def choose_precision(
    choice: PrecisionChoice, device: torch.device, begun_in: Precision | None = None
) -> Precision:
    """Return the precision to compute in on a device.

    `begun_in` is that of the work which goes on, and what `auto` then means wherever the device has
    it: a training changes its precision only when asked to, or for a device without bfloat16.
    Raises ValueError for bfloat16 on such a device, and for an unknown choice.
    """
    if choice not in get_args(PrecisionChoice):
        raise ValueError(f"precision {choice!r}: choose one of {list(get_args(PrecisionChoice))}")
    if choice == "float32":
        return "float32"
    if bfloat16_units(device) is None:
        if choice == "bfloat16":
            raise ValueError(
                f"precision bfloat16: {processor_name(device)} does not compute in it (that takes "
                "AMX or AVX512-BF16, or a GPU of compute capability 8.0); choose float32 or auto"
            )
        return "float32"
    return "bfloat16" if choice == "bfloat16" or begun_in is None else begun_in


def inference_precision(
    choice: PrecisionChoice,
    device: torch.device,
    loss_db: float | None,
    begun_in: Precision | None = None,
) -> Precision:
    """Return the precision to restore in on a device, as `choose_precision` does.

    `loss_db` is the PSNR that the network loses by bfloat16; `auto` is float32 where that is
    LOSS_LIMIT_DB or more, or where nobody measured it (None), unless the work was begun otherwise.
    """
    measured_well = loss_db is not None and loss_db < LOSS_LIMIT_DB
    if choice == "auto" and begun_in is None and not measured_well:
        return "float32"
    return choose_precision(choice, device, begun_in)


def bfloat16_units(device: torch.device) -> str | None:
    """Return what multiplies bfloat16 on a device, such as `AMX`; None if nothing does."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        found = f"compute capability {capability[0]}.{capability[1]}"
        return found if capability >= BFLOAT16_CAPABILITY else None
    if device.type != "cpu":
        return None
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None


def processor_name(device: torch.device) -> str:
    """Return what computes, such as `AMD EPYC (AVX512-BF16)` or `NVIDIA H100 80GB HBM3`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    units = bfloat16_units(torch.device("cpu"))
    return f"{name} ({units})" if units else name


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which a network's forward pass computes in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def lay_out(network: nn.Module) -> nn.Module:
    """Keep the channels of 2D weights together, in place: convolutions then are faster on CPUs."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network


def checked(restore: Callable[[], Tensor], precision: Precision, name: str) -> Tensor:
    """Return what a network gives in `precision`, as float32.

    Raises ValueError, which says what was computed in which precision and the way out, for values
    that are not finite, and for a network that cannot compute in bfloat16.
    """
    in_bfloat16 = precision == "bfloat16"
    way_out = "its weights are float32: compute in that, by --precision float32"
    try:
        restored = restore().float()
    except RuntimeError as error:
        if not in_bfloat16:
            raise
        raise ValueError(f"{name} fails in bfloat16 ({error}); {way_out}") from error
    if not restored.isfinite().all():
        diverged = "its weights may have diverged, take an earlier version"
        raise ValueError(
            f"{name} gave values that are not finite in {precision}; "
            + (way_out if in_bfloat16 else diverged)
        )
    return restored
