"""Triton kernels for one cached step of a model on a GPU; `decode.kernels.gpu` calls them.

A pointer's name ends in _ptr, and a null pointer is an absent tensor. Sums are in float32; what
the model's modules round to the dtype of its weights is rounded here too.

With EARLY a kernel begins while the one before it runs (NVIDIA: programmatic dependent launch). It
reads weights, and what earlier steps kept, until `await_last`, and all else, and writes, after it.
Each kernel awaits the last, so all before that one have ended too.
"""

import triton
import triton.language as tl


@triton.jit
def await_last(EARLY: tl.constexpr):
    """Let the next kernel begin, and wait until the last one has ended, its results there."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def embed(tokens_ptr, positions_ptr, wte_ptr, wpe_ptr, x_ptr, C, COLUMNS: tl.constexpr):
    """Store x (rows, C): each row's token embedding, plus that of its position."""
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid = column < C
    x = tl.load(wte_ptr + tl.load(tokens_ptr + row) * C + column, mask=valid).to(tl.float32)
    if wpe_ptr is not None:
        place = tl.load(wpe_ptr + tl.load(positions_ptr + row) * C + column, mask=valid)
        x += place.to(tl.float32)
    tl.store(x_ptr + row * C + column, x.to(x_ptr.dtype.element_ty), mask=valid)


@triton.jit
def row_moments(
    x_ptr, row, rows, K: tl.constexpr, EPS: tl.constexpr,
    CENTRED: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Return what to subtract from and to multiply with each `row` (R, 1) of x (rows, K).

    Parts of DEPTH columns are joined as Chan et al. 1979 do, which loses no digits.
    """
    mean = tl.zeros(row.shape, tl.float32)
    squares = tl.zeros(row.shape, tl.float32)  # the sum of (x - mean)^2
    for start in tl.static_range(0, K, DEPTH):
        k = start + tl.arange(0, DEPTH)[None, :]
        valid = (row < rows) & (k < K)
        x = tl.load(x_ptr + row * K + k, mask=valid, other=0.0).to(tl.float32)
        if CENTRED:
            here = min(DEPTH, K - start)
            part = tl.sum(x, axis=1, keep_dims=True) / here
            x = tl.where(valid, x - part, 0.0)
            shift = part - mean
            mean += shift * (here / (start + here))
            squares += shift * shift * (start * here / (start + here))
        squares += tl.sum(x * x, axis=1, keep_dims=True)
    return mean, tl.rsqrt(squares / K + EPS)


@triton.jit
def load_if(ptr, at, mask):
    """Return what is there, or 0 where there is nothing."""
    found = 0.0
    if ptr is not None:
        found = tl.load(ptr + at, mask=mask, other=0.0).to(tl.float32)
    return found


@triton.jit
def load_weights(weight_ptr, column, k, N, K: tl.constexpr):
    """Return what takes the inputs `k` (1, D) to the outputs `column` (W,): (W, D)."""
    at = column[:, None].to(tl.int64) * K + k
    return tl.load(weight_ptr + at, mask=(column[:, None] < N) & (k < K), other=0.0)


@triton.jit
def load_normed(
    x_ptr, row, rows, k, mean, scale, gain, shift, NORMED: tl.constexpr, K: tl.constexpr
):  # fmt: skip
    """Return columns `k` (1, D) of each `row` (R, 1) of x, perhaps normed."""
    x = tl.load(x_ptr + row * K + k, mask=(row < rows) & (k < K), other=0.0)
    if NORMED:
        x = ((x.to(tl.float32) - mean) * scale * gain + shift).to(x.dtype)
    return x


@triton.jit
def product(
    first, first_gain, first_shift, x_ptr, weight_ptr, gain_ptr, shift_ptr, mean, scale,
    row, rows, column, N, K: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return norm(x) (R, K) times columns `column` (W,) of the transposed weight (N, K): (R, W).

    For one row the weights meet it in registers, where the `first` of them are.
    """
    NORMED: tl.constexpr = gain_ptr is not None
    if row.shape[0] == 1:
        partial = tl.zeros(first.shape, tl.float32)
        for start in tl.static_range(0, K, DEPTH):
            k = start + tl.arange(0, DEPTH)[None, :]
            weight, gain, shift = first, first_gain, first_shift
            if start > 0:
                weight = load_weights(weight_ptr, column, k, N, K)
                gain, shift = load_if(gain_ptr, k, k < K), load_if(shift_ptr, k, k < K)
            x = load_normed(x_ptr, row, rows, k, mean, scale, gain, shift, NORMED, K)
            partial += weight.to(tl.float32) * x.to(tl.float32)
        total = tl.sum(partial, axis=1)[None, :]
    else:
        total = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
        for start in range(0, K, DEPTH):
            k = start + tl.arange(0, DEPTH)[None, :]
            weight = load_weights(weight_ptr, column, k, N, K)
            gain, shift = load_if(gain_ptr, k, k < K), load_if(shift_ptr, k, k < K)
            x = load_normed(x_ptr, row, rows, k, mean, scale, gain, shift, NORMED, K)
            total = tl.dot(x, weight.T, total, input_precision=PRECISION)
    return total


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def linear(
    x_ptr, weight_ptr, bias_ptr, gain_ptr, shift_ptr, residual_ptr, out_ptr, rows, N,
    K: tl.constexpr, EPS: tl.constexpr, CENTRED: tl.constexpr, KIND: tl.constexpr,
    CAP: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Store out (rows, N) = residual + KIND(norm(x) W^T + bias), of x (rows, K).

    The norm is there where its gain is. KIND swiglu reads a weight of 2N rows, the gates first.
    """
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    at = row.to(tl.int64) * N + column[None, :]
    k, inside = tl.arange(0, DEPTH)[None, :], column[None, :] < N
    valid = (row < rows) & inside
    dtype = weight_ptr.dtype.element_ty
    mean, scale, first, other = 0.0, 1.0, 0.0, 0.0
    if ROWS == 1:
        first = load_weights(weight_ptr, column, k, N, K)
        if KIND == "swiglu":
            other = load_weights(weight_ptr + N * K, column, k, N, K)
    gain, shift = load_if(gain_ptr, k, k < K), load_if(shift_ptr, k, k < K)
    bias = load_if(bias_ptr, column[None, :], inside)
    await_last(EARLY)
    residual = load_if(residual_ptr, at, valid)
    if gain_ptr is not None:
        mean, scale = row_moments(x_ptr, row, rows, K, EPS, CENTRED, DEPTH)
    y = product(
        first, gain, shift, x_ptr, weight_ptr, gain_ptr, shift_ptr, mean, scale,
        row, rows, column, N, K, DEPTH, PRECISION,
    )  # fmt: skip
    y = (y + bias).to(dtype).to(tl.float32)
    if KIND == "gelu":
        y = 0.5 * y * (1 + tanh(0.7978845608028654 * (y + 0.044715 * y * y * y)))
    elif KIND == "relu2":
        y = tl.maximum(y, 0.0)
        y = y * y
    elif KIND == "swiglu":
        gate = (y * tl.sigmoid(y)).to(dtype).to(tl.float32)
        y = product(
            other, gain, shift, x_ptr, weight_ptr + N * K, gain_ptr, shift_ptr, mean, scale,
            row, rows, column, N, K, DEPTH, PRECISION,
        )  # fmt: skip
        bias = load_if(bias_ptr, N + column[None, :], inside)
        y = gate * (y + bias).to(dtype).to(tl.float32)
    elif KIND == "cap":
        y = CAP * tanh(y / CAP)
    tl.store(out_ptr + at, (y + residual).to(out_ptr.dtype.element_ty), mask=valid)


@triton.jit
def load_head(
    x_ptr, frequencies_ptr, position, column, D: tl.constexpr,
    NORMED: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Return a head (D,) of a query or key, turned to its position and perhaps RMS-normed."""
    valid = column < D
    x = tl.load(x_ptr + column, mask=valid, other=0.0)
    dtype = x.dtype
    x = x.to(tl.float32)
    if frequencies_ptr is not None:
        partner = tl.load(x_ptr + (column + D // 2) % D, mask=valid, other=0.0).to(tl.float32)
        frequency = tl.load(frequencies_ptr + column % (D // 2), mask=valid, other=0.0)
        angle = position.to(tl.float32) * frequency
        partner = tl.where(column < D // 2, -partner, partner)
        x = (x * tl.cos(angle) + partner * tl.sin(angle)).to(dtype).to(tl.float32)
    if NORMED:
        x = (x * tl.rsqrt(tl.sum(x * x, axis=0) / D + EPS)).to(dtype).to(tl.float32)
    return x


@triton.jit
def load_slots(cache_ptr, slot, there, column, D: tl.constexpr):
    """Return the slots `slot` (S,) of a head's cache (slots, D), 0 where they are not `there`."""
    at = slot[:, None] * D + column[None, :]
    return tl.load(cache_ptr + at, mask=there[:, None] & (column < D)[None, :], other=0.0)


@triton.jit
def attend(
    qkv_ptr, keys_ptr, values_ptr, frequencies_ptr, positions_ptr, out_ptr,
    slots, SCALE: tl.constexpr, EPS: tl.constexpr, NORMED: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr,
    SLOTS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Store what one head of one row's query reads of the row's cache, and add to that its key.

    qkv is (rows, (HEADS + 2 KV_HEADS) D), keys and values are (rows, KV_HEADS, slots, D). A
    program takes its own key and value from qkv: no other reads the slot that is written. The next
    SLOTS of the cache are on their way while some are read, the first ones before there is a query.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    kv_head = head // (HEADS // KV_HEADS)
    position = tl.load(positions_ptr + row)
    slot = position % slots
    filled = tl.minimum(position, slots)
    column = tl.arange(0, COLUMNS)
    valid = column < D
    kept = (row * KV_HEADS + kv_head) * slots * D
    keys_ptr += kept
    values_ptr += kept
    other = tl.arange(0, SLOTS)
    full = (other < filled) & (other != slot)
    keys = load_slots(keys_ptr, other, full, column, D)
    values = load_slots(values_ptr, other, full, column, D)
    await_last(EARLY)
    qkv_ptr += row * ((HEADS + 2 * KV_HEADS) * D)
    q = load_head(qkv_ptr + head * D, frequencies_ptr, position, column, D, NORMED, EPS)
    qkv_ptr += (HEADS + kv_head) * D
    k = load_head(qkv_ptr, frequencies_ptr, position, column, D, NORMED, EPS)
    value = tl.load(qkv_ptr + KV_HEADS * D + column, mask=valid, other=0.0)
    if head % (HEADS // KV_HEADS) == 0:
        at = slot * D + column
        tl.store(keys_ptr + at, k.to(value.dtype), mask=valid)
        tl.store(values_ptr + at, value, mask=valid)
    high = tl.sum(q * k, axis=0) * SCALE
    total = tl.full((), 1.0, tl.float32)
    read = value.to(tl.float32)
    for _ in range(0, filled, SLOTS):
        scores = tl.sum(keys.to(tl.float32) * q[None, :], axis=1) * SCALE
        scores = tl.where(full, scores, -float("inf"))
        held = values
        other += SLOTS
        full = (other < filled) & (other != slot)
        keys = load_slots(keys_ptr, other, full, column, D)
        values = load_slots(values_ptr, other, full, column, D)
        higher = tl.maximum(high, tl.max(scores, axis=0))
        shares = tl.exp(scores - higher)
        shrunk = tl.exp(high - higher)
        total = total * shrunk + tl.sum(shares, axis=0)
        read = read * shrunk + tl.sum(shares[:, None] * held.to(tl.float32), axis=0)
        high = higher
    out = (read / total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (row * HEADS + head) * D + column, out, mask=valid)


@triton.jit
def sum_parts(
    logits_ptr, stride, highs_ptr, sums_ptr, temperature, V,
    PART: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Store of each PART of each row of logits (rows, V) the largest, and the sum of exp."""
    await_last(EARLY)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = part * PART + tl.arange(0, PART)
    logits = tl.load(logits_ptr + row * stride + column, mask=column < V, other=-float("inf"))
    high = tl.max(logits, axis=0)
    chances = tl.exp((logits - high) / temperature).to(tl.float64)
    at = row * tl.num_programs(1) + part
    tl.store(highs_ptr + at, high)
    tl.store(sums_ptr + at, tl.sum(chances, axis=0))


@triton.jit
def pick(
    logits_ptr, stride, uniforms_ptr, uniforms_stride, column_ptr,
    highs_ptr, sums_ptr, tokens_ptr, temperature, V, parts,
    PARTS: tl.constexpr, PART: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Store each row's token: the first whose cumulated chance exceeds the uniform's share."""
    await_last(EARLY)
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    at = row * parts + part
    highs = tl.load(highs_ptr + at, mask=part < parts, other=-float("inf"))
    sums = tl.load(sums_ptr + at, mask=part < parts, other=0.0)
    scales = tl.exp((highs - tl.max(highs, axis=0)) / temperature).to(tl.float64)
    cumulated = tl.cumsum(sums * scales, axis=0)
    uniforms_ptr += row * uniforms_stride
    if column_ptr is not None:
        uniforms_ptr += tl.load(column_ptr)
    target = tl.load(uniforms_ptr) * tl.max(cumulated, axis=0)
    last = tl.max(tl.where(sums * scales > 0, part, 0), axis=0)  # rounding stops there
    chosen = tl.minimum(tl.sum((cumulated <= target).to(tl.int32), axis=0), last)
    # from here on in units of the chosen part
    before = tl.max(tl.where(part < chosen, cumulated, 0.0), axis=0)
    here = part == chosen
    target = (target - before) / tl.sum(tl.where(here, scales, 0.0), axis=0)
    high = tl.max(tl.where(here, highs, -float("inf")), axis=0)
    column = chosen * PART + tl.arange(0, PART)
    logits = tl.load(logits_ptr + row * stride + column, mask=column < V, other=-float("inf"))
    chances = tl.exp((logits - high) / temperature).to(tl.float64)
    token = tl.sum((tl.cumsum(chances, axis=0) <= target).to(tl.int32), axis=0)
    last = tl.max(tl.where(chances > 0, tl.arange(0, PART), 0), axis=0)
    tl.store(tokens_ptr + row, chosen * PART + tl.minimum(token, last))


@triton.jit
def note(
    new_ptr, tokens_ptr, positions_ptr, chunk_ptr, count_ptr, chunk_count_ptr, rows, size,
    ROWS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Store the new tokens (rows,) as the last ones, and in the chunk (rows, size); count them.

    One warp: each of its threads reads a count before one of them changes it.
    """
    await_last(EARLY)
    row = tl.arange(0, ROWS)
    valid = row < rows
    count, place = tl.load(count_ptr), tl.load(chunk_count_ptr)
    token = tl.load(new_ptr + row, mask=valid)
    position = tl.load(positions_ptr + row, mask=valid)
    tl.store(tokens_ptr + row, token, mask=valid)
    tl.store(chunk_ptr + row * size + place, token, mask=valid)
    tl.store(positions_ptr + row, position + 1, mask=valid)
    tl.store(count_ptr, count + 1)
    tl.store(chunk_count_ptr, place + 1)
