"""What the outputs of a batch restore are made of: its first run records it, later ones check."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import TypeAdapter

from storage import files
from storage.files import StoreError

PRIVATE = ".qfactory"
SETTINGS = "settings.json"
REGISTERED = "models:/"


@dataclass(frozen=True, kw_only=True)
class UsedNetwork:
    """A network that photographs are restored with, and where it is found again."""

    name: str
    """For people."""
    uri: str
    """`models:/NAME/VERSION`, the name of a shipped network, or the URI of weights."""
    qfs: tuple[int, ...]
    """Quality factors that it is for."""
    sha256: str
    """Of its file."""
    asked: bool = False
    """Whether the user named it; see pipeline.restoring.one_photograph.Network."""
    bfloat16_loss_db: float | None = None
    """PSNR that it loses by computing in bfloat16; None where nobody measured it."""

    @property
    def is_registered(self) -> bool:
        """Tell whether it is a program of the registry; the others are weights."""
        return self.uri.startswith(REGISTERED)


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What all outputs of one folder have in common."""

    inputs: str
    """Path or URI of the folder that the photographs lie below."""
    kind: Literal["png", "jpeg"]
    networks: tuple[UsedNetwork, ...]
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """What the networks compute in; the manifest tells what `auto` came to for each photograph.
    Folders that were begun before this was recorded are in float32."""


def read_settings(outputs: str) -> BatchSettings | None:
    """Return what the outputs of a folder are made of; None if no run has begun there."""
    uri = _settings_uri(outputs)
    try:
        return TypeAdapter(BatchSettings).validate_json(files.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValueError as error:
        what = " ".join(str(error).split())
        raise StoreError(f"{uri} is damaged ({what}); name another output folder") from error


def check_settings(outputs: str, wanted: BatchSettings, *, new_networks: bool = False) -> None:
    """Raise ValueError if an output folder has other settings; networks may be `new_networks`.

    The precision may always be another one: that does for what is not done yet.
    """
    found = read_settings(outputs)
    if found is None:
        return
    other = [
        f"{name} {old}, not {new}"
        for name, old, new in (
            ("inputs", found.inputs, wanted.inputs),
            ("format", found.kind, wanted.kind),
        )
        if old != new
    ]
    if other:
        raise ValueError(
            f"{outputs} was begun with other settings: {'; '.join(other)}. "
            "Name the same ones again, or another output folder"
        )
    changes = [] if new_networks else _network_changes(found, wanted)
    if changes:
        raise ValueError(
            f"{outputs} was begun with other networks: {'; '.join(changes)}. Leave out --model to "
            "go on with those, add --new-networks to restore with others what is not done yet, or "
            "name another output folder"
        )


def claim(outputs: str, wanted: BatchSettings, *, new_networks: bool = False) -> None:
    """Record the settings of an output folder. Raises ValueError if it has other ones.

    With `new_networks` the networks replace those that are recorded; another precision always does.
    """
    uri, content = _settings_uri(outputs), json.dumps(asdict(wanted), sort_keys=True, indent=1)
    files.create_bytes(uri, content.encode())
    check_settings(outputs, wanted, new_networks=new_networks)
    found = read_settings(outputs)
    if new_networks or found is None or found.precision != wanted.precision:
        files.write_bytes(uri, content.encode())


def _network_changes(found: BatchSettings, wanted: BatchSettings) -> list[str]:
    """Say which networks are not the same; empty if all are."""
    old, new = (
        {(n.qfs, n.sha256): n.name for n in settings.networks} for settings in (found, wanted)
    )
    if list(old) == list(new):
        return []
    gone = [name for key, name in old.items() if key not in new]
    added = [name for key, name in new.items() if key not in old]
    told = [f"{name}, whose file has changed" for name in gone if name in added]
    told += [f"{name}, which is not used now" for name in gone if name not in added]
    told += [f"not {name}" for name in added if name not in gone]
    return told or ["the same ones in another order"]


def _settings_uri(outputs: str) -> str:
    return files.join(outputs, PRIVATE, SETTINGS)
