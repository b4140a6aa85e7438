"""Kernels for training on a GPU, in Triton; `kernels.gpu` calls them.

A pointer's name ends in _ptr, and a null pointer is an absent tensor; C is the number of channels.
"""

import triton
import triton.language as tl


@triton.jit
def keep_mask(seed_ptr, call, row, rate, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return which of the (ROWS, COLUMNS) elements of `row` (ROWS, 1) stay.

    Philox with seven rounds (Salmon et al. 2011): each call draws four numbers.
    """
    seed = tl.load(seed_ptr) + call
    fours = row * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)[None, :]
    a, b, c, d = tl.randint4x(seed, fours.to(tl.int32), 7)
    bits = tl.join(tl.join(a, b), tl.join(c, d)).reshape(ROWS, COLUMNS)
    return tl.uint_to_uniform_float(bits) >= rate


@triton.jit
def bend(logit, CAP: tl.constexpr):
    """Return tanh(logit / CAP)."""
    return 2 * tl.sigmoid(2 / CAP * logit) - 1


@triton.jit
def scale_kernel(x_ptr, factor_ptr, out_ptr, n, SIZE: tl.constexpr):
    """Store the n elements of x times a factor."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (x * tl.load(factor_ptr)).to(out_ptr.dtype.element_ty), mask=at < n)


@triton.jit
def embed_kernel(
    idx_ptr, tokens_ptr, positions_ptr, x_ptr, rows, T, V,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store the sum of the embedding of each of the rows' tokens and that of its position.

    A token that is not one of V gives no numbers.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    valid = (row < rows) & (column < C)
    token = tl.load(idx_ptr + row, mask=row < rows, other=0)
    known = valid & (token >= 0) & (token < V)
    x = tl.load(tokens_ptr + token * C + column, mask=known, other=float("nan"))
    x += tl.load(positions_ptr + row % T * C + column, mask=valid, other=0.0)
    tl.store(x_ptr + row * C + column, x, mask=valid)


@triton.jit(do_not_specialize=["call"])
def add_norm_forward(
    x_ptr, branch_ptr, weight_ptr, bias_ptr, sum_ptr, y_ptr, mean_ptr, scale_ptr, seed_ptr,
    rows, call, rate, C: tl.constexpr, EPS: tl.constexpr,
    CENTRED: tl.constexpr, DROPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store sum = x + dropout(branch) and y = norm(sum)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    valid = (row < rows) & (column < C)
    at = row * C + column
    x = tl.load(x_ptr + at, mask=valid, other=0.0).to(tl.float32)
    if branch_ptr is not None:
        branch = tl.load(branch_ptr + at, mask=valid, other=0.0).to(tl.float32)
        if DROPS:
            keep = keep_mask(seed_ptr, call, row, rate, ROWS, COLUMNS)
            branch = tl.where(keep, branch / (1 - rate), 0.0)
        x += branch
        tl.store(sum_ptr + at, x.to(sum_ptr.dtype.element_ty), mask=valid)
    if CENTRED:
        mean = tl.sum(x, axis=1, keep_dims=True) / C
        tl.store(mean_ptr + row, mean, mask=row < rows)
        x = tl.where(valid, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(x * x, axis=1, keep_dims=True) / C + EPS)
    tl.store(scale_ptr + row, scale, mask=row < rows)
    y = x * scale * tl.load(weight_ptr + column, mask=column < C, other=0.0)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + column, mask=column < C, other=0.0)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["tiles", "call"])
def add_norm_backward(
    sum_ptr, dy_ptr, dsum_ptr, weight_ptr, mean_ptr, scale_ptr, seed_ptr,
    dx_ptr, dbranch_ptr, dweight_ptr, dbias_ptr,
    rows, tiles, call, rate, C: tl.constexpr,
    CENTRED: tl.constexpr, DROPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store dx, dbranch, and this program's part of the sums over rows dweight and dbias."""
    column = tl.arange(0, COLUMNS)[None, :]
    weight = tl.load(weight_ptr + column, mask=column < C, other=0.0)
    dweight = tl.zeros((1, COLUMNS), tl.float32)
    dbias = tl.zeros((1, COLUMNS), tl.float32)
    for tile in range(tiles):
        row = (tl.program_id(0).to(tl.int64) * tiles + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        valid = (row < rows) & (column < C)
        at = row * C + column
        x = tl.load(sum_ptr + at, mask=valid, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=valid, other=0.0).to(tl.float32)
        scale = tl.load(scale_ptr + row, mask=row < rows, other=0.0)
        if CENTRED:
            x = tl.where(valid, x - tl.load(mean_ptr + row, mask=row < rows, other=0.0), 0.0)
        normed = x * scale
        dweight += tl.sum(dy * normed, axis=0, keep_dims=True)
        dnormed = dy * weight
        dx = dnormed - normed * (tl.sum(dnormed * normed, axis=1, keep_dims=True) / C)
        if CENTRED:
            dbias += tl.sum(dy, axis=0, keep_dims=True)
            dx -= tl.sum(dnormed, axis=1, keep_dims=True) / C
        dx *= scale
        if dsum_ptr is not None:
            dx += tl.load(dsum_ptr + at, mask=valid, other=0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=valid)
        if dbranch_ptr is not None:
            if DROPS:
                keep = keep_mask(seed_ptr, call, row, rate, ROWS, COLUMNS)
                dx = tl.where(keep, dx / (1 - rate), 0.0)
            tl.store(dbranch_ptr + at, dx.to(dbranch_ptr.dtype.element_ty), mask=valid)
    part = tl.program_id(0) * C + column
    tl.store(dweight_ptr + part, dweight, mask=column < C)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + part, dbias, mask=column < C)


@triton.jit
def quantize_rows_kernel(
    x_ptr, out_ptr, scale_ptr, C, HIGHEST: tl.constexpr, COLUMNS: tl.constexpr
):
    """Store a row of x (rows, C) divided by a scale that makes its largest element HIGHEST."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + row * C + column, mask=column < C, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-12) / HIGHEST
    tl.store(scale_ptr + row, scale)
    tl.store(out_ptr + row * C + column, (x / scale).to(out_ptr.dtype.element_ty), mask=column < C)


@triton.jit
def quantize_weight_kernel(
    weight_ptr, highest_ptr, out_ptr, scale_ptr, rows, columns, row_stride, column_stride,
    HIGHEST: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Store a matrix (rows, columns), whose largest element is at highest_ptr, in eight bits.

    As bytes, and once a launch: ptxas 12.9 spoils the second store of a kernel that writes e4m3
    both straight and transposed (Triton's issue 11111).
    """
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)[:, None]
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)[None, :]
    valid = (row < rows) & (column < columns)
    at = row * row_stride + column * column_stride
    scale = tl.maximum(tl.load(highest_ptr).to(tl.float32), 1e-12) / HIGHEST
    x = tl.load(weight_ptr + at, mask=valid, other=0.0).to(tl.float32) / scale
    quantized = x.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
    tl.store(out_ptr + row * columns + column, quantized, mask=valid)
    first = (row < rows) & (tl.program_id(1) == 0)
    tl.store(scale_ptr + row, tl.zeros((TILE, 1), tl.float32) + scale, mask=first)


@triton.jit
def gelu_quantize_kernel(
    x_ptr, dy_ptr, y_ptr, quantized_ptr, scale_ptr, C, HIGHEST: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Store y = GELU(x), or with dy the gradient, of a row of x (rows, C); and in eight bits."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    valid = column < C
    at = row * C + column
    x = tl.load(x_ptr + at, mask=valid, other=0.0).to(tl.float32)
    bent = bend(0.7978845608028654 * (x + 0.044715 * x * x * x), 1.0)
    if dy_ptr is None:
        y = 0.5 * x * (1 + bent)
    else:
        slope = 0.7978845608028654 * (1 + 3 * 0.044715 * x * x)
        dy = tl.load(dy_ptr + at, mask=valid, other=0.0).to(tl.float32)
        y = dy * 0.5 * (1 + bent + x * (1 - bent * bent) * slope)
    scale = tl.maximum(tl.max(tl.abs(y), axis=0), 1e-12) / HIGHEST
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=valid)
    tl.store(scale_ptr + row, scale)
    tl.store(quantized_ptr + at, (y / scale).to(quantized_ptr.dtype.element_ty), mask=valid)


@triton.jit
def rotate_kernel(
    x_ptr, cos_ptr, sin_ptr, dy_ptr, out_ptr,
    x_batch, x_head, x_token, dy_batch, dy_head, dy_token, rows, H, T, batch_angles, EPS,
    D: tl.constexpr, NORMED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store x rotated and perhaps normed; or, with dy, the gradient with respect to x.

    A row is one head of one token; out is (B, T, H, D).
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]  # the pair of channels, column and column + D / 2
    valid = (row < rows) & (column < D // 2)
    h, t, b = row % H, (row // H) % T, row // (H * T)
    at = b * x_batch + h * x_head + t * x_token + column
    first = tl.load(x_ptr + at, mask=valid, other=0.0)
    second = tl.load(x_ptr + at + D // 2, mask=valid, other=0.0)
    angle = b * batch_angles + t * (D // 2) + column
    cos = tl.load(cos_ptr + angle, mask=valid, other=0.0)
    sin = tl.load(sin_ptr + angle, mask=valid, other=0.0)
    dtype = first.dtype
    first, second = first.to(tl.float32), second.to(tl.float32)
    a = (first * cos - second * sin).to(dtype).to(tl.float32)
    c = (first * sin + second * cos).to(dtype).to(tl.float32)
    scale = 1.0
    if NORMED:
        scale = tl.rsqrt(tl.sum(a * a + c * c, axis=1, keep_dims=True) / D + EPS)
        a, c = a * scale, c * scale
    if dy_ptr is not None:
        at = b * dy_batch + h * dy_head + t * dy_token + column
        da = tl.load(dy_ptr + at, mask=valid, other=0.0).to(tl.float32)
        dc = tl.load(dy_ptr + at + D // 2, mask=valid, other=0.0).to(tl.float32)
        if NORMED:
            along = tl.sum(a * da + c * dc, axis=1, keep_dims=True) / D
            da, dc = scale * (da - a * along), scale * (dc - c * along)
        a, c = da * cos + dc * sin, dc * cos - da * sin
    tl.store(out_ptr + row * D + column, a.to(dtype), mask=valid)
    tl.store(out_ptr + row * D + D // 2 + column, c.to(dtype), mask=valid)


@triton.jit
def cross_entropy_kernel(
    logits_ptr, targets_ptr, losses_ptr, V, width, CAP: tl.constexpr,
    BACKWARD: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store the loss of a row of logits (rows, width), and put its gradient in their place.

    Only V logits of a row count; the gradient of the others is 0. EACH columns of a tile share a
    highest logit and a sum; these meet once, at the end. The second pass goes backwards: what the
    first has read last is still in the cache.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    LOWEST: tl.constexpr = -1e30
    EACH: tl.constexpr = 8
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * width
    target = tl.load(targets_ptr + row)
    counts = target >= 0
    high = tl.full((COLUMNS // EACH,), LOWEST, tl.float32)
    total = tl.zeros((COLUMNS // EACH,), tl.float32)
    tiles = tl.cdiv(width, COLUMNS)
    for tile in tl.range(0, tiles, loop_unroll_factor=2):
        column = tile * COLUMNS + tl.arange(0, COLUMNS)
        logit = tl.load(logits_ptr + column, mask=column < V, other=0.0).to(tl.float32)
        if CAP > 0:
            logit = CAP * bend(logit, CAP)
        logit = tl.where(column < V, LOG2E * logit, LOWEST)
        shared = tl.reshape(logit, (COLUMNS // EACH, EACH))
        higher = tl.maximum(high, tl.max(shared, axis=1))
        total *= tl.exp2(high - higher)
        total += tl.sum(tl.exp2(shared - higher[:, None]), axis=1)
        high = higher
    highest = tl.max(high, axis=0)
    norm = highest + tl.log2(tl.sum(total * tl.exp2(high - highest), axis=0))
    at_target = tl.load(logits_ptr + tl.where(counts, target, 0)).to(tl.float32)
    if CAP > 0:
        at_target = CAP * bend(at_target, CAP)
    tl.store(losses_ptr + row, tl.where(counts, norm / LOG2E - at_target, 0.0))
    if BACKWARD:
        for done in tl.range(0, tiles, loop_unroll_factor=2):
            column = (tiles - 1 - done) * COLUMNS + tl.arange(0, COLUMNS)
            at = logits_ptr + column
            logit = tl.load(at, mask=column < V, other=0.0).to(tl.float32)
            slope = 1.0
            if CAP > 0:
                bent = bend(logit, CAP)
                logit, slope = CAP * bent, 1 - bent * bent
            share = tl.exp2(LOG2E * logit - norm)
            change = (share - tl.where(column == target, 1.0, 0.0)) * slope
            change = tl.where(counts & (column < V), change, 0.0)
            tl.store(at, change.to(logits_ptr.dtype.element_ty), mask=column < width)
