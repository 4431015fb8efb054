"""Networks that cannot be trained, exported or tiled are refused before anything is built."""

import inspect
import json
import shutil
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from flows.settings import PROJECT
from models.layers.padding import crop, replicate_to_multiple
from pipeline.networks.contract import QUICK, NetworkError, check_network
from tests.support.commands import several
from tests.support.embedded import prefect_database


class Halving(nn.Module):
    """Works at half resolution, at any size."""

    layer_names = ("conv",)
    receptive_field = 7
    multiple = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        halved = self.conv(F.pixel_unshuffle(replicate_to_multiple(x, 2), 2))
        return x + crop(F.pixel_shuffle(halved, 2), *x.shape[-2:])


class Padded(Halving):
    """The same with F.pad and slices, as one would write it."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        halved = self.conv(F.pixel_unshuffle(padded, 2))
        return x + F.pixel_shuffle(halved, 2)[..., :height, :width]


class Even(Halving):
    """The same for even sides alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x + F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, 2)), 2)


class Growing(Halving):
    """Gives odd sides a row and a column more."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(F.pixel_unshuffle(replicate_to_multiple(x, 2), 2)), 2)


class Unnamed(Halving):
    """Names no layers."""

    layer_names = ()


class Misnamed(Halving):
    """Names a layer that is not there."""

    layer_names = ("convolution",)


class Outside(Halving):
    """Learns something that no named layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Modest(Halving):
    """Says that it sees less than it does."""

    receptive_field = 3


class Undeclared(Halving):
    """Does not say what it sees."""

    receptive_field = None


class Wide(Halving):
    """So large that measuring its receptive field takes long."""

    receptive_field = round(QUICK / 4e3)
    layer_names = ("conv", "unused")

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(64, 64, 3)


FAULTS = [
    pytest.param(
        *(Padded, r"cannot be exported .* crop, both of models/layers/padding\.py"),
        marks=pytest.mark.slow,
    ),
    (Even, r"fails at an image of 33x47 .* models/layers/padding\.py"),
    (Growing, r"\(1, 1, 34, 48\) instead of \(1, 1, 33, 47\): .* models/layers/padding\.py"),
    (Unnamed, "declares no layers: give it a `layer_names` tuple"),
    (Misnamed, "no usable layer_names: .*convolution"),
    (Outside, "outside of its layer_names, such as 'scale'"),
    (Modest, "declares receptive_field 3, but a pixel depends on 7x7: declare 7"),
    (Undeclared, "declares receptive_field None"),
]


def check(monkeypatch, network, **options):
    monkeypatch.setattr(models, "ARCHITECTURES", MappingProxyType({"mine": network}))
    return check_network("mine", **options)


@pytest.mark.slow
def test_a_network_that_keeps_the_rules_is_described(monkeypatch):
    found = check(monkeypatch, Halving)
    assert (found.layers, found.receptive_field, found.measured) == (1, 7, True)


@pytest.mark.parametrize(("network", "told"), FAULTS)
def test_a_fault_is_told_with_the_file_and_what_to_change(monkeypatch, network, told):
    with pytest.raises(
        NetworkError, match=rf"network mine \(tests/pipeline/networks/test_contract\.py\).*{told}"
    ):
        check(monkeypatch, network)


def test_the_receptive_field_of_a_very_large_network_is_measured_only_when_asked(monkeypatch):
    assert not check(monkeypatch, Wide).measured


FILE = """
from torch import Tensor, nn
from torch.nn import functional as F
from models.layers.padding import crop, replicate_to_multiple

"""


def checkout_with(folder, **networks):
    """Copy the project to a folder and add networks as one would: a file and a line for each."""
    for part in ("flows", "pipeline", "models", "storage"):
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("zoo"))
    known = folder / "models" / "__init__.py"
    text = known.read_text()
    for name, network in networks.items():
        classes = "\n\n".join(inspect.getsource(one) for one in network.__mro__[:-2][::-1])
        (folder / "models" / f"{name}.py").write_text(FILE + classes)
        line = f'"{name}": __import__("models.{name}").{name}.{network.__name__},'
        text = text.replace('"unet": UNet,', f'"unet": UNet, {line}')
    known.write_text(text)


@pytest.mark.slow
def test_one_file_and_one_line_make_a_network_with_recipes_and_a_fault_is_told_first(
    tmp_path,
):
    prefect_database(tmp_path / "workspace" / "prefect" / "prefect.db")
    checkout_with(tmp_path, mine=Halving, faulty=Padded)
    checked, listed, *refused = several(
        tmp_path,
        [
            ("models", "check", "mine"),
            ("recipes", "list", "mine-*", "--json"),
            ("models", "check", "faulty"),
            ("study", "--recipes", "faulty-fast-qf10"),
        ],
    )
    assert checked.code == 0, checked.err
    names = [row["recipe"] for row in json.loads(listed.out)]
    assert names == [f"mine-fast-qf{qf}" for qf in (10, 20, 30, 40)]
    for done in refused:
        assert done.code == 2
        assert "Traceback" not in done.err
        assert "TORCH_LOGS" not in done.err
        assert "models/layers/padding.py" in done.err.splitlines()[-1]
    assert not (tmp_path / "workspace" / "stores").exists()
    assert not (tmp_path / "workspace" / "checkpoints").exists()
