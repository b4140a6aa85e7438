"""A step's update: the gradient is clipped, then the optimizers move the weights."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nanogpt2.device.group import Group
from nanogpt2.device.torch_private import foreach_mul_
from nanogpt2.train.optimizers.loss_scale import LossScale


def clip_and_step(
    optimizers: Iterable[torch.optim.Optimizer],
    weights: Sequence[Tensor],
    grad_clip: float,
    loss_scale: LossScale | None,
    group: Group,
) -> Tensor:
    """Clip, let the optimizers update the weights, and return the gradient's norm.

    `grad_clip` is the longest that it may be, without a limit where it is 0. An update with a
    gradient that is not finite is kept from the weights, without the host waiting for the device,
    but for MPS.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    scale = 1.0 if loss_scale is None else loss_scale.value
    kind = gradients[0].device.type
    on_mps = kind == "mps"  # whose tensors torch takes one by one
    norm = group.whole(nn.utils.get_total_norm(gradients, foreach=not on_mps)) / scale
    found_inf = (~norm.isfinite()).float()
    limit = grad_clip or float("inf")
    clip = (limit / (norm + 1e-6)).clamp(max=1.0)
    on_gpu = kind == "cuda"  # where the update itself divides
    if not on_gpu:
        foreach_mul_(gradients, clip / scale)
    # MPS's fused AdamW heeds no found_inf (pytorch/pytorch#186360): there the host waits for it
    for optimizer in optimizers if not (on_mps and found_inf) else ():
        optimizer.grad_scale = scale / clip if on_gpu else None  # type: ignore[attr-defined]
        optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        optimizer.step()
    if loss_scale is not None:
        loss_scale.update(found_inf)
    return norm
