"""Training checkpoints: safetensors files and one JSON that is written last and seals them.

<folder>/step-000001200/<group>.safetensors    one file a group of tensors
<folder>/step-000001200/state.json             the state, and the SHA-256 of every file

A checkpoint exists when its state.json does; whatever is damaged is found before it is used.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from storage import files

PREFIX = "step-"
STATE = "state.json"

logger = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file and the next step."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One checkpoint, verified and in memory."""

    uri: str
    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """Group -> name -> tensor on the CPU."""
    state: Mapping[str, Any]
    """What was given to `save_checkpoint`, through JSON."""


def save_checkpoint(
    folder: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
) -> str:
    """Publish a checkpoint and return its URI; one of the same step is replaced.

    `tensors` is group -> name -> tensor on any device; `state` must be what JSON can hold. Raises
    StoreError when the disk is full; older checkpoints stay whole.
    """
    uri = checkpoint_uri(folder, step)
    files.delete(files.join(uri, STATE))
    digests = {}
    for group, named in tensors.items():
        content = save({name: _plain(tensor) for name, tensor in named.items()})
        digests[group] = hashlib.sha256(content).hexdigest()
        files.write_bytes(files.join(uri, f"{group}.safetensors"), content)
    seal = {"step": step, "sha256": digests, "state": dict(state)}
    files.write_bytes(
        files.join(uri, STATE), json.dumps({**seal, "digest": _digest(seal)}, indent=1).encode()
    )
    return uri


def load_checkpoint(folder: str, step: int | None = None) -> Checkpoint | None:
    """Return the checkpoint of a step, or the newest that is whole; None if there is none.

    A damaged one is skipped with a warning when no step is asked for. Raises CheckpointError when
    the step asked for is missing or damaged, or when none of those that are there is whole.
    """
    if step is not None:
        return _load(folder, step)
    steps = checkpoint_steps(folder)
    for number in reversed(steps):
        try:
            return _load(folder, number)
        except CheckpointError as error:
            logger.warning("%s. The checkpoint before it is used", error)
    if steps:
        raise CheckpointError(
            f"{folder}: none of the checkpoints {steps} is whole; delete the folder to train anew"
        )
    return None


def checkpoint_steps(folder: str) -> list[int]:
    """Return the steps of all published checkpoints, ascending."""
    return [step for step in _step_folders(folder) if _is_published(folder, step)]


def prune_checkpoints(folder: str, keep: int = 2) -> list[int]:
    """Remove all but the newest `keep` checkpoints, and unfinished ones before them.

    Returns the steps that were removed. A checkpoint is unpublished before its files go.
    """
    if keep < 1:
        raise ValueError(f"keep {keep}: at least the newest checkpoint stays, give 1 or more")
    published = checkpoint_steps(folder)
    if len(published) < keep:
        return []
    removed = [step for step in _step_folders(folder) if step < published[-keep]]
    _remove(folder, removed)
    return removed


def remove_checkpoints(folder: str) -> None:
    """Remove all checkpoints, published or not; what else lies in the folder stays."""
    _remove(folder, _step_folders(folder))


def _remove(folder: str, steps: Sequence[int]) -> None:
    """Unpublish each checkpoint before its files go."""
    for step in steps:
        uri = checkpoint_uri(folder, step)
        files.delete(files.join(uri, STATE))
        files.delete(uri)


def checkpoint_uri(folder: str, step: int) -> str:
    """Return where the checkpoint of a step lies."""
    return files.join(folder, f"{PREFIX}{step:09}")


def _load(folder: str, step: int) -> Checkpoint:
    uri = checkpoint_uri(folder, step)
    seal = _read_seal(files.join(uri, STATE))
    tensors = {
        group: _read_tensors(files.join(uri, f"{group}.safetensors"), digest)
        for group, digest in seal["sha256"].items()
    }
    return Checkpoint(uri=uri, step=seal["step"], tensors=tensors, state=seal["state"])


def _read_seal(uri: str) -> dict[str, Any]:
    try:
        seal = json.loads(files.read_bytes(uri))
        if seal.pop("digest") != _digest(seal):
            raise ValueError("its digest does not match")
    except (FileNotFoundError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(uri, error) from error
    return seal


def _read_tensors(uri: str, sha256: str) -> dict[str, Tensor]:
    try:
        content = files.read_bytes(uri)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("its SHA-256 is not the recorded one")
        return load(content)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise _damaged(uri, error) from error


def _damaged(uri: str, reason: Exception) -> CheckpointError:
    return CheckpointError(
        f"{uri} is missing or damaged ({reason}); delete its folder to go on from an older one"
    )


def _step_folders(folder: str) -> list[int]:
    names = [name.removeprefix(PREFIX) for name in files.list_names(folder)]
    return sorted(int(name) for name in names if name.isdigit())


def _is_published(folder: str, step: int) -> bool:
    return files.exists(files.join(checkpoint_uri(folder, step), STATE))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()


def _digest(seal: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(seal, sort_keys=True).encode()).hexdigest()
