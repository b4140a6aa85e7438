"""Whether operators compute what torch's do: each is tried on small random numbers.

What fails is named, and torch's operator serves in its place.
"""

from collections.abc import Callable, Iterable, Mapping

import torch

from nanogpt2.config.config import Config
from nanogpt2.device.group import Group
from nanogpt2.kernels.checks.samples import Pair, Samples
from nanogpt2.kernels.checks.trials import TRIALS
from nanogpt2.model.modes import kept_generators
from nanogpt2.model.operators import TORCH, Operators

# How far a number may be off, as a share of the largest: by float32's rounding, in units of its
# epsilon, since sums have another order and powers are approximations; and by each time that it is
# stored in the dtype of the run on its way, in units of that one's.
EXACTNESS = {
    "embed": (8, 1),  # a sum of two; a gradient is one over the rows with the same token
    "attention": (64, 4),  # softmax over a row; backward reads the stored result again
    "linear": (64, 4),  # a sum over C, of which a GPU may store parts
    "split_linear": (64, 4),
    "rotate": (32, 3),  # stored between turn and norm
    "rms_norm": (32, 2),
    "mix_tokens": (64, 2),  # sums over all rows
    "gelu": (32, 2),  # an exponential
    "gelu_mlp": (64, 6),  # what the first layer gives, GELU of it, and what the second gives
    "dropout": (2, 1),  # a quotient
    "add": (2, 1),
    "add_norm": (64, 2),  # the gradients of weights are sums over all rows
    "cross_entropy": (64, 4),  # the logits, and their gradients in their place
}


def find_fault(pairs: Callable[[], Iterable[Pair]]) -> str | None:
    """Return what is wrong where one of `pairs` differs or cannot be made, or None."""
    try:
        for found, expected, tolerance in pairs():
            if found.shape != expected.shape:
                return f"gives {tuple(found.shape)} here where torch gives {tuple(expected.shape)}"
            wide = expected.float()
            difference = (found.float() - wide).abs().max()
            if not difference <= tolerance * wide.abs().max():  # also where it is not a number
                what = f"largest difference {difference.item():.2g}"
                return f"computes something else here than torch ({what})"
    except Exception as error:  # Triton's, its compilers' and ctypes' are of many kinds
        reason = (str(error).splitlines() or [""])[0]
        return f"does not work here ({type(error).__name__}: {reason})"
    return None


def check_operators(
    operators: Operators,
    config: Config,
    device: torch.device,
    dtype: torch.dtype,
    *,
    say: Callable[[str], None],
    tolerances: Mapping[str, float] | None = None,
) -> set[str]:
    """Let torch's serve for each of `operators` that fails; return the names of these.

    `dtype` is what matrix products of the run compute in; `tolerances` replace those of the
    operators that they name. `say` gets a line for each that is refused.
    """
    # A GPU compiles a kernel anew for each dtype, in a second or so: there only for the run's.
    dtypes = {dtype} if device.type == "cuda" else {torch.float32, dtype}
    refused = set()
    with kept_generators(device):
        for name, trial in TRIALS.items():
            for each in dtypes if not is_torchs(operators, name) else ():
                allowed = (tolerances or {}).get(name, tolerance(name, each))
                samples = Samples(config, device, each, allowed)
                fault = find_fault(lambda: trial(operators, samples))  # noqa: B023
                if fault is not None and name not in refused:
                    say(f"note: {name}: {fault}: torch's serves in its place")
                    use_torchs(operators, name)
                    refused.add(name)
    return refused


def agree(operators: Operators, group: Group, *, say: Callable[[str], None]) -> Operators:
    """Return `operators`, with torch's for each that is torch's in any process of `group`.

    Else their dropout and last bits would be others in one process, whose notes nobody reads.
    `say` gets a line for each that works here.
    """
    own = [operators is TORCH, *(is_torchs(operators, name) for name in TRIALS)]
    shared = group.in_turn(torch.tensor(own, dtype=torch.int64)).view(len(own), group.size)
    all_torchs, *torchs = shared.any(1).tolist()
    if all_torchs:
        return TORCH
    for name, anywhere, here in zip(TRIALS, torchs, own[1:], strict=True):
        if anywhere and not here:
            say(f"note: {name}: does not work in another process: torch's serves here too")
            use_torchs(operators, name)
    return operators


def tolerance(name: str, dtype: torch.dtype) -> float:
    """Return how far results of the operator `name` may be off, as a share of the largest."""
    sums, stored = EXACTNESS[name]
    return sums * torch.finfo(torch.float32).eps + stored * torch.finfo(dtype).eps


def is_torchs(operators: Operators, name: str) -> bool:
    """Return whether the operator `name` is the one that all operators inherit."""
    return getattr(getattr(operators, name), "__func__", None) is getattr(Operators, name)


def use_torchs(operators: Operators, name: str) -> None:
    """Let `operators` have torch's `name`, which calls its other operators."""
    setattr(operators, name, getattr(Operators, name).__get__(operators))
