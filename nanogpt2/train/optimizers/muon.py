"""Muon: momentum whose update is made orthogonal, and NorMuon, which evens out its rows.

Jordan 2024, "Muon: An optimizer for hidden layers in neural networks"; Li et al. 2025, "NorMuon:
Making Muon more efficient and scalable".
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.device.torch_private import (
    foreach_add_,
    foreach_div,
    foreach_lerp,
    foreach_lerp_,
    foreach_mul_,
)
from nanogpt2.train.optimizers.plain import Plain
from nanogpt2.train.optimizers.rows import Whole, lying

# Jordan's quintic Newton-Schulz iteration, whose slope at zero is as steep as can be.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
SQUARES_KEPT = 0.95  # NorMuon's second beta


class Muon(Plain):
    """Momentum whose update is made orthogonal, for matrices; the same as torch.optim.Muon.

    Matrices of one shape go through Newton-Schulz together, in one batched product, where torch's
    takes them one by one. Like torch's fused optimizers it has two attributes to set before a step.
    """

    grad_scale: Tensor | None = None  # what gradients are to be divided by
    found_inf: Tensor | None = None  # 1 where one of them is not finite: weights stay as they are

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in same_shape.values():
                self._update(matrices, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        rows, columns = matrices[0].shape
        lie, found_inf = lying(matrices[0]), self.found_inf
        weights = lie.own(matrices)
        grads = lie.own(m.grad for m in matrices if m.grad is not None)
        if self.grad_scale is not None:
            grads = list(foreach_div(grads, self.grad_scale))
        means = lie.own(self._kept(matrix, "momentum_buffer", matrix) for matrix in matrices)
        if found_inf is not None:  # with these gradients the means stay as they are
            pairs = zip(means, grads, strict=True)
            grads = [torch.where(found_inf > 0, mean, grad) for mean, grad in pairs]
        momentum = group["momentum"]
        foreach_lerp_(means, grads, 1 - momentum)
        ahead = torch.stack(foreach_lerp(grads, means, momentum))  # Nesterov's
        update = self._even_out(orthogonalise(lie.gather(ahead.bfloat16())), matrices, lie)
        update = lie.hand_on(update * math.sqrt(max(1.0, rows / columns)), len(matrices))
        keep: float | Tensor = 1.0 if found_inf is None else (found_inf == 0).float()
        rate = group["lr"] * keep
        foreach_mul_(weights, 1 - rate * group["weight_decay"])
        foreach_add_(weights, list((update * -rate).to(weights[0].dtype).unbind()))

    def _even_out(self, update: Tensor, matrices: list[Tensor], lie: Whole) -> Tensor:
        """Return `update` (n, rows, columns) as it is; NorMuon changes it.

        It is of those of `matrices` that this process looks at; `lie` is how they lie.
        """
        return update

    def _kept(self, matrix: Tensor, name: str, like: Tensor) -> Tensor:
        """Return the tensor `name` of the state of `matrix`: at first zeros, shaped as `like`."""
        state = self.state[matrix]
        if name not in state:
            state[name] = torch.zeros_like(like, dtype=matrix.dtype)
        kept: Tensor = state[name]
        return kept


class NorMuon(Muon):
    """Muon in which each neuron moves as far as any other of its matrix.

    A neuron is a row of a matrix that has as many rows as columns or more, else a column. Each is
    divided by the root of a running mean of its squares; the update's norm stays what it was.
    """

    def _even_out(self, update: Tensor, matrices: list[Tensor], lie: Whole) -> Tensor:
        """Return `update` (n, rows, columns) in float32, its neurons equally long in the mean."""
        update = update.float()
        along = 2 if update.shape[1] >= update.shape[2] else 1
        squares = lie.of_all(update.square().mean(dim=along), len(matrices))
        means = [self._kept(m, "squares", squares[0]) for m in matrices]
        keep: Tensor | float = 1.0 if self.found_inf is None else (self.found_inf == 0).float()
        weight = (1 - SQUARES_KEPT) * keep
        for mean, now in zip(means, squares, strict=True):
            mean.add_((now - mean) * weight)
        mine = lie.of_mine(torch.stack(means))
        evened = update * mine.clamp(min=1e-10).rsqrt().unsqueeze(along)
        norms = [each.norm(dim=(1, 2), keepdim=True) for each in (update, evened)]
        length: Tensor = norms[0] / norms[1].clamp(min=1e-10)
        return evened * length


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return `matrices` (N, rows, columns) with all singular values near 1, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
