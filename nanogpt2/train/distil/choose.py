"""Which loss follows teachers on a device: the one place that makes, checks and replaces it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config.config import Config
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.kernels.checks.check import find_fault
from nanogpt2.kernels.checks.samples import Pair, Samples
from nanogpt2.model.modes import kept_generators
from nanogpt2.model.operators import TORCH, Operators
from nanogpt2.train.distil.loss import ChunkedLoss, Lesson, Mixture, SoftLoss
from nanogpt2.train.distil.rows import Rows

# How far a number may be off, as for `checks.check.EXACTNESS`: cross_entropy's, and once more what
# is stored of a teacher's logits.
SUMS, STORED = 64, 6
MEAN_LOSS = 1 / 32  # of the tolerance: in the mean over rows the rounding of logits cancels
EXACT_MEAN = 8e-6


def find_loss(
    operators: Operators,
    config: Config,
    teachers: Sequence[Config],
    mixture: Mixture,
    device: torch.device,
    dtype: torch.dtype,
    *,
    say: Callable[[str], None],
    group: Group = SINGLE,
) -> SoftLoss:
    """Return the fastest loss for a run of `config` that follows `teachers`, equal to torch's.

    It computes beside `operators`, in `dtype`, in the same way in all processes of `group`. `say`
    is told why it is in torch's operations.
    """
    if not config.compile or operators is TORCH:
        return ChunkedLoss(Rows(device))
    with phase("checking kernels"), kept_generators(device):
        try:
            loss = ChunkedLoss(_find_rows(operators, device))
            fault = check_loss(loss, config, teachers, mixture, device, dtype)
        except DeviceError as error:
            fault = str(error)
    if not group.highest(int(fault is not None)):
        return loss
    fault = fault or "does not work in another process"
    say(f"note: loss that follows teachers: {fault}: torch's serves in its place")
    return ChunkedLoss(Rows(device))


def _find_rows(operators: Operators, device: torch.device) -> Rows:
    """Return the rows of a device that has operators of its own; DeviceError says why not."""
    if device.type == "cpu":
        from nanogpt2.train.distil.cpu import compile_rows

        return compile_rows()
    from nanogpt2.kernels.gpu import FusedOperators
    from nanogpt2.train.distil.gpu import FusedRows

    assert isinstance(operators, FusedOperators)
    return FusedRows(operators)


def check_loss(
    loss: SoftLoss,
    config: Config,
    teachers: Sequence[Config],
    mixture: Mixture,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    """Return what is wrong where `loss` is not the written-down one on small numbers, or None."""
    # A GPU compiles a kernel anew for each dtype, in a second or so: there only for the run's.
    for each in {dtype} if device.type == "cuda" else {torch.float32, dtype}:
        eps = torch.finfo
        tolerance = SUMS * eps(torch.float32).eps + STORED * eps(each).eps
        samples = Samples(config, device, each, tolerance)
        fault = find_fault(lambda: try_loss(loss, samples, teachers, mixture))  # noqa: B023
        if fault is not None:
            return fault
    return None


def try_loss(
    loss: SoftLoss, samples: Samples, teachers: Sequence[Config], mixture: Mixture
) -> Iterator[Pair]:
    """Yield what `loss` makes of samples, and its gradients, beside what `SoftLoss` does."""
    C, V, T = samples.C, samples.V, samples.T
    n = V if samples.config.vocab_size != V else mixture.n_tokens  # as many as of a large head
    mixture = mixture._replace(n_tokens=n)
    x, weight = samples.draw_cast(1, T, C), samples.draw(V, C, scale=C**-0.5)
    targets = samples.draw_integers(n, 1, T)
    targets[0, 0], targets[0, -2:] = n - 1, -1
    drawn = [
        Lesson(
            samples.draw_cast(1, T, config.n_embd).detach(),
            samples.draw(n, config.n_embd, scale=config.n_embd**-0.5).detach(),
            float(config.resolved().logit_softcap or 0),
        )
        for config in teachers
    ]
    wide = [own._replace(hidden=own.hidden.float()) for own in drawn]
    softcap = float(samples.config.logit_softcap or 0)

    def compute(operators: Operators, x: Tensor) -> list[Tensor]:
        own, lessons = (SoftLoss(), wide) if operators is TORCH else (loss, drawn)
        return [own(x, weight, targets, lessons, softcap=softcap, mixture=mixture)]

    tolerance = max(EXACT_MEAN, MEAN_LOSS * samples.tolerance)
    yield from samples.compare(Operators(), compute, [x], [weight], results=tolerance)
