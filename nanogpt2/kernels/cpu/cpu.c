// Kernels for training on a CPU: causal attention with dropout inside, rotary positions, RMS norm,
// mixing tokens, GELU, and dropout.
//
// Tensors are float32 or, where `bf16` is 1, bfloat16; all arithmetic is float32. Every result is
// the same whatever the number of threads, since no sum is shared between two of them.
// HEAD_SIZE, the channels of a head, is given by the compiler's -D.
//
// B: batch, H: heads of queries, G: heads of keys and values, T: tokens, D: HEAD_SIZE.

#include "../../device/vectors.h"

#define QUERIES 16  // that share one pass over the keys; a multiple of STRIPES
#define D ((HEAD_SIZE + STRIPES - 1) / STRIPES * STRIPES)  // padded with zeros
#define CHUNK 1024  // elements that one stream of random numbers serves

// --- bfloat16 and float32 in memory ---

INLINE float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

INLINE uint16_t narrow(float x) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE void read_floats(float *to, const void *from, int64_t at, int n, int bf16, float factor) {
    const uint16_t *halves = (const uint16_t *)from + at;
    const float *floats = (const float *)from + at;
    if (bf16)
        for (int i = 0; i < n; i++) to[i] = widen(halves[i]) * factor;
    else
        for (int i = 0; i < n; i++) to[i] = floats[i] * factor;
}

INLINE void write_floats(void *to, int64_t at, const float *from, int n, int bf16, float factor) {
    uint16_t *halves = (uint16_t *)to + at;
    float *floats = (float *)to + at;
    if (bf16)
        for (int i = 0; i < n; i++) halves[i] = narrow(from[i] * factor);
    else
        for (int i = 0; i < n; i++) floats[i] = from[i] * factor;
}

// --- Random numbers: a function of (seed, stream, counter) ---

typedef struct {
    uint32_t first, second;
} Key;

// splitmix64's finalizer (Steele et al. 2014).
INLINE uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

INLINE Key stream_key(uint64_t seed, uint64_t stream) {
    uint64_t x = mix(seed + mix(stream));
    return (Key){(uint32_t)x, (uint32_t)(x >> 32)};
}

// MurmurHash3's finalizer over a Weyl sequence. The second key, between its rounds, keeps two
// streams apart that meet at some counters.
INLINE Words random_words(Key key, uint32_t counter) {
    Words x = ((Words)LANE + counter) * 0x9E3779B1u + key.first;
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu + key.second;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    return x ^ (x >> 16);
}

typedef struct {
    uint32_t threshold;  // a random word below it drops the element
    float factor;        // of those that stay
} Dropout;

INLINE Dropout dropout_at(float rate) {
    return (Dropout){(uint32_t)(rate * 4294967296.0), 1 / (1 - rate)};
}

// 0 or `factor` for the elements numbered from `counter`.
INLINE Floats mask(Dropout dropout, Key key, uint32_t counter) {
    Ints stays = (Ints)(random_words(key, counter) >= dropout.threshold);
    return choose(stays, splat(dropout.factor), splat(0));
}

// --- Small matrix products, in the registers ---

// c[m][n] (+)= sum over k of a[m * am + k * ak] * b[k * ldb + n], for `columns` vectors of n.
INLINE void product_columns(int M, int K, const float *a, int am, int ak, const float *b, int ldb,
                            float *c, int ldc, int adds, const int columns) {
    const int rows = 8 / columns;
    Floats s[8][2];
    for (int m = 0; m < M; m += rows) {
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < columns; q++)
                s[r][q] = adds ? load(c + (m + r) * ldc + q * LANES) : splat(0);
        for (int k = 0; k < K; k++)
            for (int r = 0; r < rows; r++)
                for (int q = 0; q < columns; q++)
                    s[r][q] += a[(m + r) * am + k * ak] * load(b + k * ldb + q * LANES);
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < columns; q++) store(c + (m + r) * ldc + q * LANES, s[r][q]);
    }
}

// M is a multiple of 8, N of LANES.
INLINE void product(int M, int N, int K, const float *a, int am, int ak, const float *b, int ldb,
                    float *c, int ldc, int adds) {
    int n = 0;
    for (; n + 2 * LANES <= N; n += 2 * LANES)
        product_columns(M, K, a, am, ak, b + n, ldb, c + n, ldc, adds, 2);
    if (n < N) product_columns(M, K, a, am, ak, b + n, ldb, c + n, ldc, adds, 1);
}

// --- Attention ---

// A tensor (B, heads, T, HEAD_SIZE): its steps between batches, heads and tokens, in elements.
typedef struct {
    void *data;
    int64_t batch, head, token;
} Heads;

INLINE int64_t offset(const Heads *x, int b, int h, int t) {
    return b * x->batch + h * x->head + t * x->token;
}

// Each thread's own memory: the caller gives `scratch`, as much for each of `threads`.
typedef struct {
    float *scratch;
    int64_t each;
    int threads;
} Memory;

INLINE float *own_memory(Memory memory) {
    return memory.scratch + omp_get_thread_num() * memory.each;
}

INLINE float *take(float **from, int64_t n) {
    float *taken = *from;
    *from += n;
    return taken;
}

// One head as (padded T, D), zeros where `x` has nothing.
static void gather(float *to, const Heads *x, int b, int h, int T, int padded, int bf16, float factor) {
    memset(to, 0, sizeof(float) * padded * D);
    for (int t = 0; t < T; t++)
        read_floats(to + t * D, x->data, offset(x, b, h, t), HEAD_SIZE, bf16, factor);
}

static void transpose(float *to, const float *from, int rows) {
    for (int t = 0; t < rows; t++)
        for (int d = 0; d < D; d++) to[d * rows + t] = from[t * D + d];
}

// y = dropout(softmax(q k' / sqrt(D))) v; `lse` (B, H, T) receives each row's log2 of the softmax's
// denominator, which the backward pass needs.
void attention_forward(const Heads *q, const Heads *k, const Heads *v, const Heads *y, float *lse,
                       int B, int H, int G, int T, int bf16, float rate, uint64_t seed,
                       Memory memory) {
    const int padded = (T + QUERIES - 1) / QUERIES * QUERIES;
    const float scale = LOG2E / sqrtf(HEAD_SIZE);
    const Dropout dropout = dropout_at(rate);
#pragma omp parallel num_threads(memory.threads)
    {
        float *own = own_memory(memory);
        float *Q = take(&own, padded * D), *K = take(&own, padded * D);
        float *Kt = take(&own, padded * D), *V = take(&own, padded * D);
        float *P = take(&own, QUERIES * padded), *Y = take(&own, QUERIES * D);
#pragma omp for schedule(static)
        for (int head = 0; head < B * H; head++) {
            const int b = head / H, h = head % H, g = h / (H / G);
            const Key key = stream_key(seed, head);
            gather(Q, q, b, h, T, padded, bf16, scale);
            gather(K, k, b, g, T, padded, bf16, 1);
            gather(V, v, b, g, T, padded, bf16, 1);
            transpose(Kt, K, padded);
            for (int first = 0; first < T; first += QUERIES) {
                const int n = first + QUERIES;  // keys that a query of this block may see
                float inverse[QUERIES];
                product(QUERIES, n, D, Q + first * D, D, 1, Kt, padded, P, padded, 0);
                for (int r = 0; r < QUERIES; r++) {
                    const int i = first + r;
                    float *p = P + r * padded;
                    Floats high = splat(-1e30f);
                    Sums sums = {0};
                    for (int j = 0; j < n; j += LANES) {
                        Floats s = choose(LANE + j <= i, load(p + j), high);
                        high = choose(s > high, s, high);
                    }
                    const float top = largest(high);
                    for (int j = 0; j < n; j += LANES) {
                        Floats e = power_of_two(load(p + j) - top);
                        e = choose(LANE + j <= i, e, splat(0));
                        sums.part[j / LANES % PARTS] += e;
                        if (rate > 0) e *= mask(dropout, key, (uint32_t)(i * padded + j));
                        store(p + j, e);
                    }
                    inverse[r] = 1 / total(&sums);
                    if (i < T) lse[(int64_t)head * T + i] = top - log2f(inverse[r]);
                }
                product(QUERIES, D, n, P, padded, 1, V, D, Y, D, 0);
                for (int r = 0; r < QUERIES && first + r < T; r++)
                    write_floats(y->data, offset(y, b, h, first + r), Y + r * D, HEAD_SIZE, bf16,
                                 inverse[r]);
            }
        }
    }
}

// The gradients of q, k and v from that of y. The probabilities are computed again, and the same
// mask is drawn again.
void attention_backward(const Heads *q, const Heads *k, const Heads *v, const Heads *y,
                        const Heads *dy, const float *lse, const Heads *dq, const Heads *dk,
                        const Heads *dv, int B, int H, int G, int T, int bf16, float rate,
                        uint64_t seed, Memory memory) {
    const int padded = (T + QUERIES - 1) / QUERIES * QUERIES, shared = H / G;
    const float scale = 1 / sqrtf(HEAD_SIZE);
    const Dropout dropout = dropout_at(rate);
#pragma omp parallel num_threads(memory.threads)
    {
        float *own = own_memory(memory);
        float *Q = take(&own, padded * D), *Y = take(&own, padded * D);
        float *K = take(&own, padded * D), *Kt = take(&own, padded * D);
        float *V = take(&own, padded * D), *Vt = take(&own, padded * D);
        float *dY = take(&own, padded * D), *dQ = take(&own, QUERIES * D);
        float *dK = take(&own, padded * D), *dV = take(&own, padded * D);
        float *P = take(&own, QUERIES * padded), *dS = take(&own, QUERIES * padded);
#pragma omp for schedule(static)
        for (int group = 0; group < B * G; group++) {
            const int b = group / G, g = group % G;
            gather(K, k, b, g, T, padded, bf16, 1);
            gather(V, v, b, g, T, padded, bf16, 1);
            transpose(Kt, K, padded);
            transpose(Vt, V, padded);
            memset(dK, 0, sizeof(float) * padded * D);
            memset(dV, 0, sizeof(float) * padded * D);
            for (int h = g * shared; h < (g + 1) * shared; h++) {
                const int head = b * H + h;
                const Key key = stream_key(seed, head);
                gather(Q, q, b, h, T, padded, bf16, scale * LOG2E);
                gather(Y, y, b, h, T, padded, bf16, 1);
                gather(dY, dy, b, h, T, padded, bf16, 1);
                for (int first = 0; first < T; first += QUERIES) {
                    const int n = first + QUERIES;
                    const float *dy_rows = dY + first * D, *q_rows = Q + first * D;
                    product(QUERIES, n, D, q_rows, D, 1, Kt, padded, P, padded, 0);
                    product(QUERIES, n, D, dy_rows, D, 1, Vt, padded, dS, padded, 0);
                    for (int r = 0; r < QUERIES; r++) {
                        const int i = first + r;
                        float *p = P + r * padded, *ds = dS + r * padded;
                        if (i >= T) {
                            memset(p, 0, sizeof(float) * n);
                            memset(ds, 0, sizeof(float) * n);
                            continue;
                        }
                        Sums dots = {0};
                        for (int d = 0; d < D; d += LANES)
                            dots.part[d / LANES % PARTS] +=
                                load(Y + i * D + d) * load(dY + i * D + d);
                        const float dot = total(&dots), log_sum = lse[(int64_t)head * T + i];
                        for (int j = 0; j < n; j += LANES) {
                            Floats e = power_of_two(load(p + j) - log_sum), stays = splat(1);
                            e = choose(LANE + j <= i, e, splat(0));
                            if (rate > 0) stays = mask(dropout, key, (uint32_t)(i * padded + j));
                            store(ds + j, e * (load(ds + j) * stays - dot));
                            store(p + j, e * stays);
                        }
                    }
                    product(QUERIES, D, n, dS, padded, 1, K, D, dQ, D, 0);
                    product(n, D, QUERIES, P, 1, padded, dy_rows, D, dV, D, 1);
                    product(n, D, QUERIES, dS, 1, padded, q_rows, D, dK, D, 1);
                    for (int r = 0; r < QUERIES && first + r < T; r++)
                        write_floats(dq->data, offset(dq, b, h, first + r), dQ + r * D, HEAD_SIZE,
                                     bf16, scale);
                }
            }
            for (int t = 0; t < T; t++) {
                write_floats(dk->data, offset(dk, b, g, t), dK + t * D, HEAD_SIZE, bf16, 1 / LOG2E);
                write_floats(dv->data, offset(dv, b, g, t), dV + t * D, HEAD_SIZE, bf16, 1);
            }
        }
    }
}

// --- Rotary positions and RMS norm ---

#define HALF (HEAD_SIZE / 2)

// y = x (B, H, T, HEAD_SIZE), each pair of channels (i, i + HEAD_SIZE / 2) turned by the angles of
// its position, whose cosines and sines are (T, HEAD_SIZE / 2), and then normed where asked.
void rotate_forward(const Heads *x, const float *cosines, const float *sines, const Heads *y, int B,
                    int H, int T, int bf16, int normed, float eps) {
#pragma omp parallel for schedule(static)
    for (int at = 0; at < B * T; at++) {
        const int b = at / T, t = at % T;
        const float *c = cosines + t * HALF, *s = sines + t * HALF;
        float row[HEAD_SIZE], z[HEAD_SIZE];
        for (int h = 0; h < H; h++) {
            read_floats(row, x->data, offset(x, b, h, t), HEAD_SIZE, bf16, 1);
            const float factor = turn(row, c, s, z, HEAD_SIZE, normed, eps);
            write_floats(y->data, offset(y, b, h, t), z, HEAD_SIZE, bf16, factor);
        }
    }
}

void rotate_backward(const Heads *x, const float *cosines, const float *sines, const Heads *dy,
                     const Heads *dx, int B, int H, int T, int bf16, int normed, float eps) {
#pragma omp parallel for schedule(static)
    for (int at = 0; at < B * T; at++) {
        const int b = at / T, t = at % T;
        const float *c = cosines + t * HALF, *s = sines + t * HALF;
        float row[HEAD_SIZE], z[HEAD_SIZE], dz[HEAD_SIZE];
        for (int h = 0; h < H; h++) {
            read_floats(row, x->data, offset(x, b, h, t), HEAD_SIZE, bf16, 1);
            read_floats(dz, dy->data, offset(dy, b, h, t), HEAD_SIZE, bf16, 1);
            if (normed) {
                const float factor = turn(row, c, s, z, HEAD_SIZE, 1, eps);
                float dot = 0;
#pragma omp simd reduction(+ : dot)
                for (int i = 0; i < HEAD_SIZE; i++) dot += dz[i] * z[i];
                dot *= factor * factor / HEAD_SIZE;
                for (int i = 0; i < HEAD_SIZE; i++) dz[i] = factor * (dz[i] - z[i] * dot);
            }
            for (int i = 0; i < HALF; i++) {
                row[i] = dz[i] * c[i] + dz[HALF + i] * s[i];
                row[HALF + i] = dz[HALF + i] * c[i] - dz[i] * s[i];
            }
            write_floats(dx->data, offset(dx, b, h, t), row, HEAD_SIZE, bf16, 1);
        }
    }
}

// y = x * weight / sqrt(mean of x^2 + eps) over rows of C floats.
void rms_norm_forward(const float *x, const float *weight, void *y, int64_t rows, int C, int bf16,
                      float eps, Memory memory) {
#pragma omp parallel num_threads(memory.threads)
    {
        float *out = own_memory(memory);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const float *row = x + r * C;
            float squares = 0;
#pragma omp simd reduction(+ : squares)
            for (int i = 0; i < C; i++) squares += row[i] * row[i];
            for (int i = 0; i < C; i++) out[i] = row[i] * weight[i];
            write_floats(y, r * C, out, C, bf16, 1 / sqrtf(squares / C + eps));
        }
    }
}

// dx, and in dweight (blocks, C) the sum over each block of ROWS rows.
#define ROWS 64
void rms_norm_backward(const float *x, const float *weight, const void *dy, float *dx,
                       float *dweight, int64_t rows, int C, int bf16, float eps,
                       Memory memory) {
#pragma omp parallel num_threads(memory.threads)
    {
        float *grad = own_memory(memory);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < (rows + ROWS - 1) / ROWS; block++) {
            float *dw = dweight + block * C;
            memset(dw, 0, sizeof(float) * C);
            for (int64_t r = block * ROWS; r < rows && r < (block + 1) * ROWS; r++) {
                const float *row = x + r * C;
                float squares = 0, dot = 0;
                read_floats(grad, dy, r * C, C, bf16, 1);
#pragma omp simd reduction(+ : squares, dot)
                for (int i = 0; i < C; i++) {
                    squares += row[i] * row[i];
                    dot += grad[i] * weight[i] * row[i];
                }
                const float factor = 1 / sqrtf(squares / C + eps);
                dot *= factor * factor / C;
                for (int i = 0; i < C; i++) {
                    dw[i] += grad[i] * row[i] * factor;
                    dx[r * C + i] = factor * (grad[i] * weight[i] - row[i] * dot);
                }
            }
        }
    }
}

// --- Mixing tokens ---

// to[i] += from[i] * by[i].
INLINE void add_product(float *restrict to, const void *from, int64_t at, const float *by, int n,
                        int bf16) {
    const uint16_t *halves = (const uint16_t *)from + at;
    const float *floats = (const float *)from + at;
    if (bf16)
        for (int i = 0; i < n; i++) to[i] += widen(halves[i]) * by[i];
    else
        for (int i = 0; i < n; i++) to[i] += floats[i] * by[i];
}

// y[t] = x[t] + the sum over taps j of x[t - j] * weight[j], of x (B, T, C) and weight (taps, C).
void mix_forward(const void *x, const float *weight, void *y, int64_t rows, int T, int C, int taps,
                 int bf16, Memory memory) {
#pragma omp parallel num_threads(memory.threads)
    {
        float *out = own_memory(memory);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const int t = (int)(r % T);
            read_floats(out, x, r * C, C, bf16, 1);
            for (int j = 0; j < taps && j <= t; j++)
                add_product(out, x, (r - j) * C, weight + j * C, C, bf16);
            write_floats(y, r * C, out, C, bf16, 1);
        }
    }
}

// dx, and in dweight (blocks, taps, C) the sum over each block of ROWS rows.
void mix_backward(const void *x, const float *weight, const void *dy, void *dx, float *dweight,
                  int64_t rows, int T, int C, int taps, int bf16, Memory memory) {
#pragma omp parallel num_threads(memory.threads)
    {
        float *grad = own_memory(memory), *out = grad + C;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < (rows + ROWS - 1) / ROWS; block++) {
            float *dw = dweight + block * taps * C;
            memset(dw, 0, sizeof(float) * taps * C);
            for (int64_t r = block * ROWS; r < rows && r < (block + 1) * ROWS; r++) {
                const int t = (int)(r % T);
                read_floats(grad, dy, r * C, C, bf16, 1);
                memcpy(out, grad, sizeof(float) * C);
                for (int j = 0; j < taps && j <= t; j++)
                    add_product(dw + j * C, x, (r - j) * C, grad, C, bf16);
                for (int j = 0; j < taps && t + j < T; j++)
                    add_product(out, dy, (r + j) * C, weight + j * C, C, bf16);
                write_floats(dx, r * C, out, C, bf16, 1);
            }
        }
    }
}

// --- Elementwise ---

void gelu_forward(const void *x, void *y, int64_t n, int bf16) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int m = n - at < CHUNK ? (int)(n - at) : CHUNK;
        float row[CHUNK] = {0};
        read_floats(row, x, at, m, bf16, 1);
        for (int i = 0; i < m; i += LANES) {
            Floats value = load(row + i);
            store(row + i, value * gelu_gate(value));
        }
        write_floats(y, at, row, m, bf16, 1);
    }
}

void gelu_backward(const void *x, const void *dy, void *dx, int64_t n, int bf16) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int m = n - at < CHUNK ? (int)(n - at) : CHUNK;
        float row[CHUNK] = {0}, grad[CHUNK] = {0};
        read_floats(row, x, at, m, bf16, 1);
        read_floats(grad, dy, at, m, bf16, 1);
        for (int i = 0; i < m; i += LANES) {
            Floats v = load(row + i), gate = gelu_gate(v);
            Floats slope = 1 + v * (1 - gate) * (1.59576912f + 0.21406654f * v * v);
            store(grad + i, load(grad + i) * gate * slope);
        }
        write_floats(dx, at, grad, m, bf16, 1);
    }
}

// y = x + dropout(branch); without an `x`, y = dropout(branch). y is float32 where x is there.
void dropout_add(const float *x, const void *branch, void *y, int64_t n, int bf16, int y_bf16,
                 float rate, uint64_t seed) {
    const Dropout dropout = dropout_at(rate);
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int m = n - at < CHUNK ? (int)(n - at) : CHUNK;
        const Key key = stream_key(seed, at / CHUNK);
        float row[CHUNK] = {0};
        read_floats(row, branch, at, m, bf16, 1);
        if (rate > 0)
            for (int i = 0; i < m; i += LANES)
                store(row + i, load(row + i) * mask(dropout, key, i));
        if (x)
            for (int i = 0; i < m; i++) row[i] += x[at + i];
        write_floats(y, at, row, m, y_bf16, 1);
    }
}

// --- What callers must know of the above ---

int head_size(void) { return HEAD_SIZE; }

static int64_t padded_rows(int T) { return (int64_t)(T + QUERIES - 1) / QUERIES * QUERIES; }

// Floats of its own memory that a thread of attention takes.
int64_t attention_forward_floats(int T) {
    return padded_rows(T) * (4 * D + QUERIES) + QUERIES * D;
}

int64_t attention_backward_floats(int T) {
    return padded_rows(T) * (9 * D + 2 * QUERIES) + QUERIES * D;
}

// Rows of what rms_norm_backward and mix_backward leave in dweight.
int64_t row_blocks(int64_t rows) { return (rows + ROWS - 1) / ROWS; }
