"""What Ray runs of a training on its nodes: Ray Train, and in its workers the training loop."""

import fcntl
import os
import pickle
import socket
import struct
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from logging import LogRecord
from threading import Event, Thread
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from pipeline.cluster import tell_prometheus
from pipeline.logs import about, warnings_sent_to
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.training.job import Record, TrainingError, TrainingJob, TrainingResult, World
from pipeline.training.loop import train
from storage.checkpoints import CheckpointError
from storage.files import StoreError

TOLD_ERRORS = (StoreError, CheckpointError, TrainingError, ValueError)  # say it all themselves
SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A worker has what it asked for, and begins."""

    workers: int
    """How many begin together."""


News = Begun | Record | LogRecord | TrainingResult | Exception
"""What workers report: that they begin, a step, a warning, what the training gave, or why it would
fail again."""


class _OnRaysNetwork(_TorchBackend):
    """Torch's process group, on the network interface by which Ray reaches each node.

    gloo and NCCL would take the one that the host's name resolves to, which may be loopback.
    """

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:  # noqa: ANN401 - Ray's own
        worker_group.execute(_use_interface_of_ray)
        if not all(worker_group.execute(torch.cuda.is_available)):
            backend_config = replace(backend_config, backend="gloo")  # which _check tells
        super().on_start(worker_group, backend_config)


class OnRaysNetwork(TorchConfig):
    """Ray Train's configuration of it."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Its backend."""
        return _OnRaysNetwork


def _use_interface_of_ray() -> None:
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")


def interface_of(address: str) -> str | None:
    """Return the network interface that has an IPv4 address; None if that cannot be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            with suppress(OSError):  # it has no address
                answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFADDR, request)
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def fit(settings: dict[str, Any], scaling: ScalingConfig, run: RunConfig | None) -> None:
    """Train on the workers of `scaling`, or here if they are none."""
    ray.train.torch.TorchTrainer(
        _train_on_worker,
        train_loop_config=settings,
        scaling_config=scaling,
        run_config=run,
        torch_config=OnRaysNetwork(backend="gloo" if settings["device"] == "cpu" else None),
    ).fit()


def made_with(architecture: str) -> dict[str, str]:
    """Return what decides a network's weights besides the job, by name: the same on every node."""
    return {
        "torch": torch.__version__,
        "ray": ray.__version__,
        "code": code_fingerprint(architecture)[:12],
    }


def check_node(job: TrainingJob, wanted: Mapping[str, str]) -> None:
    """Raise TrainingError, which names host and versions, unless this node has what is wanted."""
    here = made_with(job.recipe.architecture)
    other = [
        f"{name} {here[name]} instead of {text}"
        for name, text in wanted.items()
        if here[name] != text
    ]
    if other:
        raise TrainingError(
            f"recipe {job.recipe.name}: node {socket.gethostname()} has {' and '.join(other)}, "
            "which may give other weights: install there what the flow's process has"
        )


def _check(settings: dict[str, Any], world: World) -> None:
    """Raise TrainingError, which names the host, unless this node has what the training needs."""
    job = settings["job"]
    if ray.get_runtime_context().get_node_id() != settings["node"]:
        check_node(job, settings["made_with"])
    if settings["device"] is None and world.device.type == "cpu" and ray.get_gpu_ids():
        raise TrainingError(
            f"recipe {job.recipe.name}: node {socket.gethostname()} has a GPU for Ray that torch "
            "does not see: look at nvidia-smi there, or install a torch with CUDA"
        )


def _train_on_worker(settings: dict[str, Any]) -> None:
    job, deadline, mailbox = settings["job"], settings["deadline"], settings["mailbox"]
    if deadline is not None:
        job = replace(job, stop_after_s=max(0.0, deadline - time.time()))
    tell_prometheus()
    context = ray.train.get_context()
    world = World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=torch.device(settings["device"] or ray.train.torch.get_device()),
    )
    sent: list[ray.ObjectRef] = []

    def report(news: News) -> None:
        ray.wait(sent)  # an actor may take letters in another order than they come
        sent[:] = [mailbox.put.remote(pickle.dumps(news))]

    try:
        _check(settings, world)
        report(Begun(workers=world.size))
        with warnings_sent_to(report), about(recipe=job.recipe.name):
            result = train(job, world=world, on_record=report, stop=_stop_from(mailbox))
    except Exception as error:
        if may_pass(error, world):
            raise
        report(_with_place(error))
        ray.get(sent)
        if world.size > 1:
            raise  # which ends the others
        return
    if world.rank == 0:
        report(result)
        ray.get(sent)


def _with_place(error: Exception) -> Exception:
    """Return an error with its traceback as a note, as the one it has does not travel."""
    if not isinstance(error, TOLD_ERRORS):
        error.add_note(f"on {socket.gethostname()}: {traceback.format_exc()}")
    return error


def may_pass(error: Exception, world: World) -> bool:
    """Tell whether other workers may do better: if a disk, network, device or other worker failed.

    What a worker sees of another's end is a RuntimeError of gloo's or NCCL's.
    """
    if isinstance(error, (FileNotFoundError, PermissionError, *TOLD_ERRORS)):
        return False
    return isinstance(error, (OSError, torch.AcceleratorError)) or (
        isinstance(error, RuntimeError) and world.size > 1
    )


def _stop_from(mailbox: ActorHandle) -> Event:
    """Return an event that is set once the mailbox says so."""
    stop = Event()

    def listen() -> None:
        with suppress(RayError):  # the mailbox is gone
            while not ray.get(mailbox.listen.remote()):
                pass
            stop.set()

    Thread(target=listen, daemon=True).start()
    return stop
