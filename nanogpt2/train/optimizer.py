"""AdamW, Muon, and the learning rate's schedule.

Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization"; Jordan 2024, "Muon: An optimizer
for hidden layers in neural networks"; the cosine schedule is GPT-3's.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.config.config import Config
from nanogpt2.device.torch_private import (
    foreach_add_,
    foreach_div,
    foreach_lerp,
    foreach_lerp_,
    foreach_mul_,
    unwrap,
)
from nanogpt2.finetune.lora import PREFIX
from nanogpt2.finetune.trainable import rate_factor

# Jordan's quintic Newton-Schulz iteration, whose slope at zero is as steep as can be.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def decay_groups(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], ...]:
    """Return (matrices and embeddings, which decay; biases and norms, which do not)."""
    parameters = list(parameters)
    return [p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]


def make_optimizers(model: nn.Module, config: Config) -> list[torch.optim.Optimizer]:
    """Return the optimizers over all weights of `model` that train, each weight in one group.

    Each group keeps its highest learning rate as `peak_lr`.
    """
    for_adamw: list[dict[str, Any]] = []
    for_muon: list[dict[str, Any]] = []
    for factor, named in by_rate(model, config).items():
        blocks = {
            name: p
            for name, p in named.items()
            if config.optimizer == "muon" and name.startswith("h.") and p.dim() == 2
            if PREFIX not in name
        }
        decay, no_decay = decay_groups(p for name, p in named.items() if name not in blocks)
        rate, muon_rate = config.learning_rate * factor, config.muon_learning_rate * factor
        for_adamw += [
            {"params": decay, "weight_decay": config.weight_decay, "lr": rate},
            {"params": no_decay, "weight_decay": 0.0, "lr": rate},
        ]
        for_muon.append({"params": list(blocks.values()), "lr": muon_rate})
    optimizers: list[torch.optim.Optimizer] = []
    if groups := [group for group in for_adamw if group["params"]]:
        betas = config.beta1, config.beta2
        optimizers.append(AdamW(groups, lr=config.learning_rate, betas=betas, fused=True))
    if groups := [group for group in for_muon if group["params"]]:
        rate = config.muon_learning_rate
        optimizers.append(Muon(groups, lr=rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def by_rate(model: nn.Module, config: Config) -> dict[float, dict[str, nn.Parameter]]:
    """Return the weights that train, by name, under the factor of their learning rate."""
    rates: dict[float, dict[str, nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            rates.setdefault(rate_factor(name, config), {})[name] = weight
    return rates


class _Plain(torch.optim.Optimizer):
    """An optimizer's methods without what torch wraps them in."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(_Plain, torch.optim.AdamW):
    """torch's."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class Muon(_Plain):
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
        grads, found_inf = [m.grad for m in matrices if m.grad is not None], self.found_inf
        if self.grad_scale is not None:
            grads = list(foreach_div(grads, self.grad_scale))
        means = [self._momentum_of(matrix) for matrix in matrices]
        if found_inf is not None:  # with these gradients the means stay as they are
            pairs = zip(means, grads, strict=True)
            grads = [torch.where(found_inf > 0, mean, grad) for mean, grad in pairs]
        momentum = group["momentum"]
        foreach_lerp_(means, grads, 1 - momentum)
        update = torch.stack(foreach_lerp(grads, means, momentum))  # Nesterov's look ahead
        rows, columns = matrices[0].shape
        update = orthogonalise(update) * math.sqrt(max(1.0, rows / columns))
        keep: float | Tensor = 1.0 if found_inf is None else (found_inf == 0).float()
        rate = group["lr"] * keep
        foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        foreach_add_(matrices, list((update * -rate).to(matrices[0].dtype).unbind()))

    def _momentum_of(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean: Tensor = state["momentum_buffer"]
        return mean


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


class LossScale:
    """The factor of float16's loss, without which small gradients would be zero.

    It is halved after a step whose gradient is not finite, and doubled after 2000 that were, as
    torch.amp.GradScaler's; the host need not wait for it (Micikevicius et al. 2018).
    """

    INITIAL = 2.0**16
    PATIENCE = 2000

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), self.INITIAL, device=device)
        self.good_steps = torch.zeros((), device=device)

    def update(self, found_inf: Tensor) -> None:
        """Take note of a step; `found_inf` is 1 where its gradient was not finite, else 0."""
        good_steps = (self.good_steps + 1) * (1 - found_inf)
        grows = good_steps == self.PATIENCE
        self.value.mul_(torch.where(grows, 2.0, 1 - found_inf / 2))
        self.good_steps.copy_(torch.where(grows, 0.0, good_steps))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the scale, and the steps since it last changed."""
        return {"value": self.value, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.value.copy_(state["value"])
        self.good_steps.copy_(state["good_steps"])


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak, in place where it is a tensor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["peak_lr"] * factor)
            else:
                group["lr"] = group["peak_lr"] * factor


def keep_rates_on_device(optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
    """Make learning rates tensors on `device`, as a CUDA graph needs to see them change."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"]).to(device, copy=True)
            if "capturable" in group:
                group["capturable"] = True


def learning_rate_factor(step: int, config: Config) -> float:
    """Return the learning rate of `step` (0 is the first) as a fraction of its peak.

    It rises in a line over the warm-up, which is capped by max_iters. Then cosine falls all the
    way; trapezoid holds and falls in a line over the last decay_fraction of the steps. Both end,
    at the last step, at min_learning_rate_fraction.
    """
    warmup = min(config.warmup_iters, config.max_iters)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup + 1) / (config.max_iters - warmup)  # 0 < progress <= 1
    if config.schedule == "cosine":
        height = (1 + math.cos(math.pi * progress)) / 2
    else:
        height = min(1.0, (1 - progress) / config.decay_fraction)
    low = config.min_learning_rate_fraction
    return low + (1 - low) * height
