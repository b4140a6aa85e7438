"""The loss of a model that follows teachers: Hinton et al. 2015, "Distilling the Knowledge".

N: rows, one for each token of a batch; C: channels of a model; V: rows of the student's head.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.model.operators import cap_logits, mean_loss, working_dtype
from nanogpt2.train.distil.rows import Rows


class Lesson(NamedTuple):
    """What a teacher makes of a batch; its logits, `head` of `hidden`, are not made yet."""

    hidden: Tensor  # (B, T, C)
    head: Tensor  # (at least n_tokens, C)
    softcap: float


class Mixture(NamedTuple):
    """How much of the loss follows the teachers, and how they are read."""

    weight: float  # their share, 0 to 1
    temperature: float  # what logits are divided by, above 0
    n_tokens: int  # rows of the heads that are tokens; teachers say nothing of others


class SoftLoss:
    """The loss as it is written down, with whole logits in float32; others are compared with it."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        lessons: Sequence[Lesson],
        *,
        softcap: float,
        mixture: Mixture,
    ) -> Tensor:
        """Return the mean loss in nats of `x` (B, T, C) under the head `weight` (V, C).

        It is (1 - w) CE(target, q) + w t^2 CE(p, q_t): q is the softmax of the student's logits,
        q_t of these over the temperature t, and p the mean of the teachers' at t. Left out is the
        entropy of p, which no weight changes: the second part is that much above the divergence
        of q_t from p. t^2 keeps the size of its gradient (Hinton et al. 2015, section 2). A
        target of -1 in `targets` (B, T) counts in neither part.
        """
        w, t, n = mixture
        logits = cap_logits(F.linear(x, weight), softcap)
        hard = mean_loss(logits, targets)
        shares = [
            F.softmax(cap_logits(F.linear(hidden, head[:n]), cap).float() / t, dim=-1)
            for hidden, head, cap in lessons
        ]
        probabilities = torch.stack(shares).mean(0)
        surprises = -F.log_softmax(logits.float() / t, dim=-1)[..., :n]
        losses = (probabilities * surprises).sum(-1)
        counts = targets >= 0
        soft = losses.masked_fill(~counts, 0).sum() / counts.sum()
        return (1 - w) * hard + w * t * t * soft


class ChunkedLoss(SoftLoss):
    """The same in chunks of rows: no logits are there but those of a chunk.

    The gradients of `x` and of the head are taken while they are, as `rows` does it best.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        lessons: Sequence[Lesson],
        *,
        softcap: float,
        mixture: Mixture,
    ) -> Tensor:
        dtype, backward = working_dtype(x), torch.is_grad_enabled()
        loss: Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
            self.rows, x.to(dtype).flatten(0, -2), weight, targets.flatten().contiguous(),
            [Lesson(own.hidden.to(dtype).flatten(0, -2), *own[1:]) for own in lessons],
            softcap, mixture, backward,
        )  # fmt: skip
        return loss


class _Chunked(torch.autograd.Function):
    """Heads get rows of zeros up to a multiple of eight, as tensor cores want it."""

    @staticmethod
    def forward(
        ctx: Any, rows: Rows, x: Tensor, weight: Tensor, targets: Tensor, lessons: list[Lesson],
        softcap: float, mixture: Mixture, backward: bool,
    ) -> Tensor:  # fmt: skip
        N, (V, n) = len(x), (len(weight), mixture.n_tokens)
        with torch.autocast(x.device.type, enabled=False):
            heads = [_padded(rows.cast(own.head, x.dtype)[:n]) for own in lessons]
            head = _padded(rows.cast(weight, x.dtype))
            size = rows.chunk(N, len(head), x.element_size())
            total = x.new_empty(size, n, dtype=torch.float32)
            room = x.new_empty(size * max(map(len, [head, *heads])))  # of one head's at a time
            losses = x.new_empty(N, dtype=torch.float32)
            dx = torch.empty_like(x) if backward else None
            dhead = torch.empty_like(head, dtype=torch.float32) if backward else None
            for start in range(0, N, size):
                part = slice(start, start + size)
                R = len(x[part])
                shares = total[:R]
                for number, (own, rest) in enumerate(zip(heads, lessons, strict=True)):
                    logits = room[: R * len(own)].view(R, -1)
                    rows.multiply(rest.hidden[part], own.t(), out=logits)
                    rows.add_probabilities(
                        shares, logits, rest.softcap, mixture.temperature,
                        share=1 / len(lessons), add=number > 0,
                    )  # fmt: skip
                logits = room[: R * len(head)].view(R, -1)
                rows.multiply(x[part], head.t(), out=logits)
                rows.replace_by_gradient(
                    logits, shares, targets[part], losses[part], V, softcap,
                    mixture.weight, mixture.temperature,
                )  # fmt: skip
                if dx is not None:
                    rows.multiply(logits, head, out=dx[part])
                    rows.multiply(logits.t(), x[part], out=dhead, add=start > 0)
        count = (targets >= 0).sum()
        ctx.save_for_backward(dx, dhead, count)
        ctx.V = V
        return losses.sum() / count

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dx, dhead, count = ctx.saved_tensors
        factor = dloss / count
        grads = (dx * factor).to(dx.dtype), dhead[: ctx.V] * factor
        return None, *grads, None, None, None, None, None


def _padded(head: Tensor) -> Tensor:
    return F.pad(head, (0, 0, 0, -len(head) % 8)) if head.is_cuda and len(head) % 8 else head
