"""Muon: momentum whose matrices are made orthogonal, for convolutions; AdamW for all else.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon); the step's size and weight decay as
Liu et al. 2025 (arXiv:2502.16982) scale them, so that both parts share AdamW's learning rate.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz polynomial: it takes singular values to between 0.7 and 1.2 (Jordan)."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of an update before the learning rate, that of AdamW's usual ones (Liu)."""


class Muon(torch.optim.Optimizer):
    """Parameter groups with `orthogonal` set get Muon's update, the others AdamW's.

    A convolution's weight, (out, in, h, w), is the matrix (out, in * h * w).
    """

    def __init__(
        self,
        groups: Iterable[dict],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        """Take groups such as `{"params": [...], "orthogonal": True}`.

        Args:
            groups: parameter groups; `orthogonal` is False where it is not given.
            lr: learning rate.
            weight_decay: share of every weight that is taken off a step, times the learning rate.
            momentum: Nesterov momentum of the orthogonal updates.
            betas: decays of AdamW's two averages.
            eps: AdamW's guard against division by zero.
        """
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "orthogonal": False,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; `closure` must be None."""
        assert closure is None
        for group in self.param_groups:
            learned = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._step_orthogonal if group["orthogonal"] else self._step_adamw)(group, learned)

    def _step_orthogonal(self, group: dict, parameters: list[Tensor]) -> None:
        for alike in _by_shape(parameters):
            updates = torch.stack([self._momentum(group, parameter) for parameter in alike])
            rows, columns = updates.shape[1:]
            scale = group["lr"] * RMS * max(rows, columns) ** 0.5
            for parameter, update in zip(alike, orthogonal(updates), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(_as_weight(update, parameter), alpha=scale)

    def _momentum(self, group: dict, parameter: Tensor) -> Tensor:
        """Take in the gradient and return the Nesterov momentum, (out, in * h * w)."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        update = parameter.grad.lerp(state["momentum"], group["momentum"])
        return update.permute(0, 2, 3, 1).flatten(1)  # which copies nothing with channels last

    def _step_adamw(self, group: dict, parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices, (N, rows, columns), with all their singular values made about 1.

    By the Newton-Schulz iteration; zero stays zero. Convolutions' matrices are many times wider
    than high, so what the polynomials do is worked out on the small square X X' alone, and X is
    multiplied once. In float32, as squares halve the digits that small singular values have.
    """
    wide = matrices.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else matrices
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    a, b, c = COEFFICIENTS
    gram = x @ x.transpose(1, 2)
    product = torch.eye(gram.shape[1], device=x.device)
    for iteration in range(ITERATIONS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial @ product
        if iteration < ITERATIONS - 1:
            gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else x


def _by_shape(parameters: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    found: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        found.setdefault(parameter.shape, []).append(parameter)
    return found.values()


def _as_weight(update: Tensor, parameter: Tensor) -> Tensor:
    """Return an update (out, in * h * w) as the weight it belongs to, (out, in, h, w)."""
    outputs, inputs, height, width = parameter.shape
    return update.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
