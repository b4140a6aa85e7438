"""Full sharding by torch's FSDP2: which weights are gathered together, and in how many bits."""

import warnings
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import DeviceMesh


def shard(
    model: nn.Module, parts: Iterable[list[nn.Module]], mesh: DeviceMesh, dtype: torch.dtype
) -> None:
    """Spread `model` over the processes of `mesh`; products of `parts` compute in `dtype`.

    The modules of a part run in turn. Their weights are gathered in `dtype`, so that what a product
    keeps for the backward pass is what was gathered: it is freed, and gathered again. A copy in
    `dtype` of what is gathered in float32 would wait there, for each of all weights.
    """
    # A part's last product is a view, which torch warns of; nothing changes it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    policy = fsdp.MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for part in parts:
        fsdp.fully_shard(part, mesh=mesh, mp_policy=policy)
        part[0].register_forward_pre_hook(partial(keep_gradients_wide, part))
    # The rest too is gathered anew each time, so that no copy outlives a change of its parts.
    fsdp.fully_shard(model, mesh=mesh, reshard_after_forward=True)
    fsdp.register_fsdp_forward_method(model, "loss")  # what training calls gathers weights too


def keep_gradients_wide(part: list[nn.Module], *_: object) -> None:
    """Let gradients of the weights of `part` be float32, as the operators make them for a GPU."""
    for module in part:
        for weight in module.parameters():
            weight.grad_dtype = torch.float32  # which torch has from 2.10 on
