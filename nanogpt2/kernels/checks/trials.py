"""A trial of each operator: what it makes of samples, beside what torch's makes of them.

What a run does not use is not tried, for a GPU would have to compile it. Dropout is tried by its
mask: each element is 0 or the input's over 1 - rate, the gradient has the same mask, and that is
a draw at the rate and a function of the seed.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nanogpt2.kernels.checks.samples import Pair, Samples
from nanogpt2.model.gpt import RMSNorm, rope_angles
from nanogpt2.model.operators import TORCH, Operators

DEVIATIONS = 6  # that a share of dropped elements may be from the rate
# Of the tolerance: in the mean over rows the rounding of logits cancels, and one row must show.
MEAN_LOSS, EXACT_MEAN = 1 / 32, 8e-6


class MaskError(Exception):
    """A mask of dropout that is none."""


def try_embed(fast: Operators, samples: Samples) -> Iterator[Pair]:
    tables = [samples.draw(samples.V, samples.C)]
    if samples.config.positions == "learned":
        tables.append(samples.draw(samples.T, samples.C))
    idx = samples.draw_integers(samples.V, samples.B, samples.T)
    idx[0, 0], idx[0, 1] = 0, samples.V - 1
    yield from samples.compare(
        fast, lambda own, *tables: [own.embed(idx, tables[0], *(tables[1:] or [None]))], tables
    )


def try_attention(fast: Operators, samples: Samples) -> Iterator[Pair]:
    packed, rate = samples.draw_heads(scale=0.5), samples.config.attention_dropout or 0.0

    def attend(own: Operators, packed: Tensor, rate: float = 0.0) -> list[Tensor]:
        return [seeded(own, 1).attention(*samples.split_heads(packed), dropout=rate)]

    yield from samples.compare(fast, attend, [packed])
    if not rate:
        return
    seen = torch.ones(samples.T, samples.T, device=samples.device).tril()
    factors = attention_mask(fast, samples, rate, 1) * seen
    mask = factors > 0
    yield factors, mask / (1 - rate), samples.tolerance
    check_mask(mask[..., seen > 0], rate)
    check_seeds(lambda seed: attention_mask(fast, samples, rate, seed) * seen > 0, mask, rate)

    def expected(own: Operators, packed: Tensor) -> list[Tensor]:
        q, k, v = samples.split_heads(packed)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(seen == 0, -math.inf)
        return [(scores.softmax(-1) * mask / (1 - rate)) @ v]

    yield from samples.compare(
        fast, lambda own, packed: attend(own, packed, rate), [packed], expected=expected
    )


def attention_mask(fast: Operators, samples: Samples, rate: float, seed: int) -> Tensor:
    """Return what attention multiplies its probabilities with: (B, H, T, T).

    Where scores are equal, row i reads 1 / (i + 1) of each value: of an identity, its mask.
    """
    (H, G), B, T, D = samples.heads, samples.B, samples.T, samples.head_size
    scores = torch.zeros(B, H, T, D, dtype=samples.dtype, device=samples.device)
    identity = torch.eye(T, -(-T // D) * D, dtype=samples.dtype, device=samples.device)
    values = [columns.expand(B, G, T, D) for columns in torch.split(identity, D, dim=1)]
    read = [seeded(fast, seed).attention(scores, scores[:, :G], v, dropout=rate) for v in values]
    counts = torch.arange(1, T + 1, device=samples.device)[:, None]
    return torch.cat(read, dim=-1)[..., :T].float() * counts


def try_linear(fast: Operators, samples: Samples) -> Iterator[Pair]:
    layer = samples.draw_layer(samples.C, samples.C)
    x = samples.draw_cast(samples.B, samples.T, samples.C)
    yield from samples.compare(fast, lambda own, x: [own.linear(x, layer)], [x], layer.parameters())


def try_split_linear(fast: Operators, samples: Samples) -> Iterator[Pair]:
    H, G = samples.heads
    widths = [count * samples.head_size for count in (H, G, G)]
    layer = samples.draw_layer(samples.C, sum(widths))
    x = samples.draw_cast(samples.B, samples.T, samples.C)
    yield from samples.compare(
        fast, lambda own, x: own.split_linear(x, layer, widths), [x], layer.parameters()
    )


def try_gelu_mlp(fast: Operators, samples: Samples) -> Iterator[Pair]:
    if samples.config.mlp != "gelu":
        return
    C = samples.C
    first, second = samples.draw_layer(C, 4 * C), samples.draw_layer(4 * C, C)
    weights = [*first.parameters(), *second.parameters()]
    x = samples.draw_cast(samples.B, samples.T, C)
    yield from samples.compare(fast, lambda own, x: [own.gelu_mlp(x, first, second)], [x], weights)


def try_rotate(fast: Operators, samples: Samples) -> Iterator[Pair]:
    if samples.config.positions != "rotary":
        return
    positions = torch.arange(samples.T, device=samples.device)
    angles, normed = rope_angles(positions, samples.head_size), bool(samples.config.qk_norm)

    def rotate(own: Operators, packed: Tensor) -> list[Tensor]:
        return [own.rotate(x, angles, normed=normed) for x in samples.split_heads(packed)[:2]]

    # small numbers, so that another epsilon of the norm would show
    yield from samples.compare(fast, rotate, [samples.draw_heads(scale=0.1)])


def try_rms_norm(fast: Operators, samples: Samples) -> Iterator[Pair]:
    norm = samples.draw_norm()
    if not isinstance(norm, RMSNorm):
        return
    weight, eps = norm.weight, float(norm.eps or 0)
    x = samples.draw(samples.B, samples.T, samples.C, scale=0.01)  # eps would show
    yield from samples.compare(fast, lambda own, x, w: [own.rms_norm(x, w, eps)], [x, weight])


def try_mix_tokens(fast: Operators, samples: Samples) -> Iterator[Pair]:
    if taps := samples.config.mlp_conv:
        x, weight = (
            samples.draw_cast(samples.B, samples.T, samples.C),
            samples.draw(taps, 1, samples.C),
        )
        yield from samples.compare(fast, lambda own, x, w: [own.mix_tokens(x, w)], [x, weight])


def try_gelu(fast: Operators, samples: Samples) -> Iterator[Pair]:
    if samples.config.mlp == "gelu":
        x = samples.draw_cast(odd_count(samples), scale=2.0)
        yield from samples.compare(fast, lambda own, x: [own.gelu(x)], [x])


def try_dropout(fast: Operators, samples: Samples) -> Iterator[Pair]:
    rate = samples.config.dropout
    if not rate:
        return
    x = samples.draw(odd_count(samples))

    def drop(own: Operators, x: Tensor, seed: int = 1) -> list[Tensor]:
        return [seeded(own, seed).dropout(x, rate)]

    mask = drop(fast, x)[0] != 0
    check_mask(mask, rate)
    check_seeds(lambda seed: drop(fast, x, seed)[0] != 0, mask, rate)
    yield from samples.compare(fast, drop, [x], expected=lambda _, x: [x * mask / (1 - rate)])


def try_add(fast: Operators, samples: Samples) -> Iterator[Pair]:
    n, rate = odd_count(samples), samples.config.dropout
    both = samples.draw(n), samples.draw_cast(n)

    def add(own: Operators, x: Tensor, branch: Tensor, seed: int = 1) -> list[Tensor]:
        return [seeded(own, seed).add(x, branch, dropout=rate)]

    mask = add(fast, *both)[0] != both[0]
    check_mask(mask, rate)
    check_seeds(lambda seed: add(fast, *both, seed)[0] != both[0], mask, rate)
    yield from samples.compare(
        fast, add, both, expected=lambda _, x, branch: [x + branch * mask / (1 - rate)]
    )
    # as in evaluation
    yield from samples.compare(fast, lambda own, x, y: [own.add(x, y, dropout=0.0)], both)


def try_add_norm(fast: Operators, samples: Samples) -> Iterator[Pair]:
    shape, rate = (samples.B, samples.T, samples.C), samples.config.dropout
    norm = samples.draw_norm()
    weights = list(norm.parameters())
    x, branch = samples.draw(*shape, scale=0.01), samples.draw_cast(*shape, scale=0.01)

    def add(own: Operators, x: Tensor, branch: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
        return seeded(own, seed).add_norm(x, branch, norm, dropout=rate)

    def draw_mask(seed: int) -> Tensor:
        with torch.no_grad(), samples.autocast():
            return add(fast, x, branch, seed)[0] != x

    mask = draw_mask(1)
    check_mask(mask, rate)
    check_seeds(draw_mask, mask, rate)

    def expected(own: Operators, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        return own.add_norm(x, branch * mask / (1 - rate), norm, dropout=0.0)

    yield from samples.compare(fast, add, [x, branch], weights, expected=expected)
    # what follows the last block: the sum is not used
    yield from samples.compare(
        fast, lambda *inputs: add(*inputs)[1:], [x, branch], weights,
        expected=lambda *inputs: expected(*inputs)[1:],
    )  # fmt: skip
    # what comes before the first
    yield from samples.compare(
        fast, lambda own, x: own.add_norm(x, None, norm, dropout=rate), [x], weights
    )
    with torch.no_grad(), samples.autocast():  # as in evaluation
        found = fast.add_norm(x, branch, norm, dropout=0.0)
    right = TORCH.add_norm(x, branch.float(), norm, dropout=0.0)
    yield from zip(found, right, [samples.tolerance] * 2, strict=True)


def try_cross_entropy(fast: Operators, samples: Samples) -> Iterator[Pair]:
    C, V, softcap = samples.C, samples.V, float(samples.config.logit_softcap or 0)
    x, weight = samples.draw_cast(1, samples.T, C), samples.draw(V, C, scale=C**-0.5)
    targets = samples.draw_integers(V, 1, samples.T)
    targets[0, 0], targets[0, -2:] = V - 1, -1
    tolerance = max(EXACT_MEAN, MEAN_LOSS * samples.tolerance)

    def loss(own: Operators, x: Tensor) -> list[Tensor]:
        return [own.cross_entropy(x, weight, targets, softcap=softcap)]

    yield from samples.compare(fast, loss, [x], [weight], results=tolerance)
    with torch.no_grad(), samples.autocast():  # as in evaluation
        found = loss(fast, x)
    yield found[0], loss(TORCH, x.float())[0], tolerance


def odd_count(samples: Samples) -> int:
    """Return a number of elements: several tiles and a part of one."""
    return samples.B * samples.T * samples.C - 5


def seeded(operators: Operators, seed: int) -> Operators:
    """Return `operators`, whose masks now follow from `seed`."""
    operators.seed(seed)
    return operators


def check_mask(mask: Tensor, rate: float) -> None:
    """Raise MaskError where the share of elements that `mask` drops is no draw at `rate`."""
    share = 1 - mask.float().mean().item()
    deviation = math.sqrt(rate * (1 - rate) / mask.numel())
    if abs(share - rate) > DEVIATIONS * deviation:
        raise MaskError(f"dropout {rate:g} drops a share of {share:.2g}")


def check_seeds(draw: Callable[[int], Tensor], mask: Tensor, rate: float) -> None:
    """Raise MaskError where `draw` of seed 1 is not `mask`, or that of seed 2 is the same."""
    if not torch.equal(draw(1), mask):
        raise MaskError("one seed has two masks")
    differs = rate * (1 - rate) * mask.numel() > DEVIATIONS**2  # with near certainty
    if differs and torch.equal(draw(2), mask):
        raise MaskError("two seeds have one mask")


# Those that others call come before them.
TRIALS: dict[str, Callable[[Operators, Samples], Iterator[Pair]]] = {
    "embed": try_embed,
    "attention": try_attention,
    "linear": try_linear,
    "split_linear": try_split_linear,
    "rotate": try_rotate,
    "rms_norm": try_rms_norm,
    "mix_tokens": try_mix_tokens,
    "gelu": try_gelu,
    "gelu_mlp": try_gelu_mlp,
    "dropout": try_dropout,
    "add": try_add,
    "add_norm": try_add_norm,
    "cross_entropy": try_cross_entropy,
}
