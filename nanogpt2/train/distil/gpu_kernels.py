"""Kernels for training on a GPU that follows teachers, in Triton; `train.distil.gpu` calls them.

A program has a row; EACH columns of a tile share a highest logit and a sum, which meet once, at the
end, and a second pass goes backwards: what the first has read last is still in the cache.
"""

import triton
import triton.language as tl

from nanogpt2.kernels.gpu_kernels import bend


@triton.jit
def add_probabilities_kernel(
    shares_ptr, logits_ptr, n, width, scale, share, CAP: tl.constexpr, ADD: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store, or add, `share` of the softmax of the first n logits of a row (rows, width).

    Logits are bent by CAP, and times `scale` they are in units of log2 at the temperature.
    """
    LOWEST: tl.constexpr = -1e30
    EACH: tl.constexpr = 8
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * width
    shares_ptr += row * n
    high = tl.full((COLUMNS // EACH,), LOWEST, tl.float32)
    total = tl.zeros((COLUMNS // EACH,), tl.float32)
    tiles = tl.cdiv(n, COLUMNS)
    for tile in tl.range(0, tiles):
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        logit = tl.load(logits_ptr + column, mask=column < n, other=0.0).to(tl.float32)
        if CAP > 0:
            logit = CAP * bend(logit, CAP)
        logit = tl.where(column < n, scale * logit, LOWEST)
        shared = tl.reshape(logit, (COLUMNS // EACH, EACH))
        higher = tl.maximum(high, tl.max(shared, axis=1))
        total *= tl.exp2(high - higher)
        total += tl.sum(tl.exp2(shared - higher[:, None]), axis=1)
        high = higher
    highest = tl.max(high, axis=0)
    norm = highest + tl.log2(tl.sum(total * tl.exp2(high - highest), axis=0))
    for done in tl.range(0, tiles):
        column = (tiles - 1 - done) * COLUMNS + tl.arange(0, COLUMNS)
        logit = tl.load(logits_ptr + column, mask=column < n, other=0.0).to(tl.float32)
        if CAP > 0:
            logit = CAP * bend(logit, CAP)
        shares = share * tl.exp2(scale * logit - norm)
        if ADD:
            shares += tl.load(shares_ptr + column, mask=column < n, other=0.0)
        tl.store(shares_ptr + column, shares, mask=column < n)


@triton.jit
def replace_by_gradient_kernel(
    logits_ptr, shares_ptr, targets_ptr, losses_ptr, V, n, width, weight, temperature,
    CAP: tl.constexpr, TWO: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store the mixed loss of a row of logits (rows, width), and put its gradient in their place.

    Only V logits of a row count; the gradient of the others is 0. TWO says that the temperature is
    not 1, so that there are two softmaxes.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    LOWEST: tl.constexpr = -1e30
    EACH: tl.constexpr = 8
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * width
    shares_ptr += row * n
    target = tl.load(targets_ptr + row)
    counts = target >= 0
    inverse = 1 / temperature
    high = tl.full((COLUMNS // EACH,), LOWEST, tl.float32)
    total = tl.zeros((COLUMNS // EACH,), tl.float32)
    soft_total = tl.zeros((COLUMNS // EACH,), tl.float32)
    dots = tl.zeros((COLUMNS // EACH,), tl.float32)
    all_shares = tl.zeros((COLUMNS // EACH,), tl.float32)
    tiles = tl.cdiv(width, COLUMNS)
    for tile in tl.range(0, tiles):
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        logit = tl.load(logits_ptr + column, mask=column < V, other=0.0).to(tl.float32)
        if CAP > 0:
            logit = CAP * bend(logit, CAP)
        logit = LOG2E * logit
        shares = tl.load(shares_ptr + column, mask=column < n, other=0.0)
        dots += tl.sum(tl.reshape(shares * logit, (COLUMNS // EACH, EACH)), axis=1)
        all_shares += tl.sum(tl.reshape(shares, (COLUMNS // EACH, EACH)), axis=1)
        logit = tl.where(column < V, logit, LOWEST)
        shared = tl.reshape(logit, (COLUMNS // EACH, EACH))
        higher = tl.maximum(high, tl.max(shared, axis=1))
        total *= tl.exp2(high - higher)
        total += tl.sum(tl.exp2(shared - higher[:, None]), axis=1)
        if TWO:
            soft_total *= tl.exp2(inverse * (high - higher))
            soft_total += tl.sum(tl.exp2(inverse * (shared - higher[:, None])), axis=1)
        high = higher
    highest = tl.max(high, axis=0)
    norm = highest + tl.log2(tl.sum(total * tl.exp2(high - highest), axis=0))
    soft_norm = norm
    if TWO:
        soft_sum = tl.sum(soft_total * tl.exp2(inverse * (high - highest)), axis=0)
        soft_norm = inverse * highest + tl.log2(soft_sum)
    at_target = tl.load(logits_ptr + tl.where(counts, target, 0)).to(tl.float32)
    if CAP > 0:
        at_target = CAP * bend(at_target, CAP)
    surprise = soft_norm * tl.sum(all_shares, axis=0) - inverse * tl.sum(dots, axis=0)
    loss = (1 - weight) * (norm / LOG2E - at_target)
    loss += weight * temperature * temperature * surprise / LOG2E
    tl.store(losses_ptr + row, tl.where(counts, loss, 0.0))
    for done in tl.range(0, tiles):
        column = (tiles - 1 - done) * COLUMNS + tl.arange(0, COLUMNS)
        at = logits_ptr + column
        logit = tl.load(at, mask=column < V, other=0.0).to(tl.float32)
        slope = 1.0
        if CAP > 0:
            bent = bend(logit, CAP)
            logit, slope = CAP * bent, 1 - bent * bent
        hard = tl.exp2(LOG2E * logit - norm)
        soft = hard
        if TWO:
            soft = tl.exp2(inverse * LOG2E * logit - soft_norm)
        soft -= tl.load(shares_ptr + column, mask=column < n, other=0.0)
        hard -= tl.where(column == target, 1.0, 0.0)
        change = ((1 - weight) * hard + weight * temperature * soft) * slope
        change = tl.where(counts & (column < V), change, 0.0)
        tl.store(at, change.to(logits_ptr.dtype.element_ty), mask=column < width)
