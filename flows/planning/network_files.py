"""Networks of restore-batch: which an output folder is made with, and their files, to travel."""

from collections.abc import Sequence

from flows.planning.restoring_networks import REGISTERED, network_choices
from flows.planning.shipped_networks import weights_of
from pipeline.restoring.batch_file import NetworkSource
from storage import files
from storage.batches.batch_settings import UsedNetwork, read_settings


def networks_for(
    outputs: str, model: str | None = None, *, new_networks: bool = False
) -> tuple[UsedNetwork, ...]:
    """Return the networks to restore with: those that an output folder was begun with, if any.

    With `model`, see `network_choices`, or `new_networks` the folder is not asked. Raises
    ConnectionError when the registry does not answer, and ValueError when there is no such network
    or one that was recorded is gone.
    """
    recorded = None if model or new_networks else read_settings(outputs)
    if recorded is None:
        return tuple(network_choices(model, strict=True))
    for network in recorded.networks:
        _check_is_there(network, outputs)
    return recorded.networks


def fetch(network: UsedNetwork) -> NetworkSource:
    """Return the file of a network, downloaded once.

    A registered program's digests are verified, and one with a pickle inside is refused.
    """
    if network.uri.startswith(REGISTERED):
        from flows.planning import registered_networks  # imports MLflow, which takes seconds

        return registered_networks.program_of(network)
    return NetworkSource(
        name=network.name,
        qfs=network.qfs,
        file="weights.safetensors",
        content=files.read_bytes(weights_of(network.uri)),
        asked=network.asked,
        bfloat16_loss_db=network.bfloat16_loss_db,
    )


def names_of(networks: Sequence[UsedNetwork]) -> str:
    """Return the networks' names for people."""
    return ", ".join(network.name for network in networks)


def _check_is_there(network: UsedNetwork, outputs: str) -> None:
    """Raise ValueError unless a recorded network is there and its file is the same."""
    try:
        (found,) = network_choices(network.uri, strict=True)
        reason = "" if found.sha256 == network.sha256 else "its file has changed"
    except ValueError as error:
        reason = str(error)
    if reason:
        raise ValueError(
            f"{outputs} was begun with {network.name}, which is gone: {reason}. Add "
            "--new-networks to restore what is not done yet with today's"
        )
