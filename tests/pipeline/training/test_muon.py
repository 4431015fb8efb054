"""Muon's updates are orthogonal and of AdamW's size; what is not a matrix gets AdamW's own."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from models import build_model
from pipeline.training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonal
from pipeline.training.optimization import make_optimizer, optimizer_tensors, restore_optimizer
from tests.support.training_recipes import STAGE

MUON = replace(STAGE, optimizer="muon", weight_decay=0.0)


@pytest.mark.parametrize("shape", [(3, 8, 40), (2, 40, 8), (1, 16, 16)])
def test_all_singular_values_become_about_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_it_is_the_newton_schulz_iteration():
    torch.manual_seed(0)
    matrices = torch.randn(2, 16, 72) * torch.logspace(0, -4, 16)[:, None]
    x = matrices.double() / matrices.double().norm(dim=(1, 2), keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(orthogonal(matrices), x.float(), rtol=0, atol=1e-5)


def test_no_gradient_gives_no_update():
    assert not orthogonal(torch.zeros(1, 4, 9)).any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_update_has_the_size_of_adamws_whatever_the_gradients_size_and_the_layout(layout):
    torch.manual_seed(0)
    gradient = torch.randn(64, 64, 3, 3)
    steps = []
    for size in (1e-6, 1e3):
        conv = nn.Conv2d(64, 64, 3, bias=False)
        convert_conv2d_weight_memory_format(conv, layout)
        before = conv.weight.detach().clone()
        conv.weight.grad = (size * gradient).contiguous(memory_format=layout)
        Muon([{"params": [conv.weight], "orthogonal": True}], lr=1e-3).step()
        steps.append((conv.weight.detach() - before).contiguous())
    assert steps[0].square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.3)
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-7)
    assert (steps[0] * gradient).sum() < 0, "downhill"


def test_first_and_last_layer_and_biases_are_adamws():
    network = build_model("quickres", {"channels": 8})
    optimizer = make_optimizer(MUON, network)
    matrices = {id(p) for g in optimizer.param_groups if g["orthogonal"] for p in g["params"]}
    named = {name for name, p in network.named_parameters() if id(p) in matrices}
    assert named == {"layer2.0.weight", "layer3.0.weight", "layer4.0.weight"}
    every = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in network.parameters())


def test_the_adamw_part_is_torchs():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    muon = Muon([{"params": [ours]}], lr=0.1, weight_decay=0.01)
    adamw = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01, betas=(0.9, 0.99))
    for _ in range(4):
        ours.grad = torch.randn(5)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_what_it_remembers_is_kept_and_restored():
    torch.manual_seed(0)
    network = build_model("quickres", {"channels": 8})
    optimizer = make_optimizer(MUON, network)

    def step(chosen):
        chosen.zero_grad()
        network(torch.full((1, 1, 16, 16), 0.5)).square().mean().backward()
        chosen.step()

    step(optimizer)
    kept = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    step(optimizer)
    after = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    fresh = make_optimizer(MUON, network)
    restore_optimizer(fresh, kept)
    step(fresh)
    assert all(torch.equal(value, after[name]) for name, value in network.state_dict().items())
