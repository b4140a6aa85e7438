// Decoding on a CPU: one call reads tokens of any rows into a cache of keys and values, and gives the
// logits after the last of each row.
//
// A sum runs over its terms in order, whatever is read beside it and by however many threads: a
// token's logits have the same bits in any batch.
//
// Where one row is read, weights pass through the processor once: what counts is that they come in
// long streams. Where many are, a piece of the weights stays in the nearest cache for all of them.

#include "../../device/vectors.h"

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define WIDTH (2 * LANES)  // outputs of a panel
#define ROWS 6             // of a tile: with WIDTH columns its sums fill the registers
#define BESIDE 4           // panels that one row takes at once: enough sums are then under way
#define DEPTH 768          // inputs of a piece of a panel that stays in a near cache
#define NEAR 192           // rows that take turns with it
#define GROUP 32           // inputs whose rounding has one scale
#define GELU 0
#define RELU2 1
#define SWIGLU 2

// A linear layer of `in` inputs, in panels of WIDTH outputs: each a row of biases, then a row of
// weights for each input. What lacks in the last panel is 0. With weights of 8 bits `panels` has of
// each panel a row of biases and one of scales alone, and `bytes` the weights.
typedef struct {
    const float *panels;
    const uint8_t *bytes;
    int in, out;
} Linear;

// The gain and, or null, the shift of each channel, zeros up to a multiple of WIDTH.
typedef struct {
    const float *gain, *shift;
} Norm;

typedef struct {
    Norm norm_1, norm_2;
    Linear attention_in, attention_out, mlp_in, mlp_out;
    const float *taps;  // of mix_tokens: a row of channels for each
} Block;

typedef struct {
    int n_layer, n_head, n_kv_head, head_size, n_embd, n_hidden, block_size, vocab_size;
    int centred;  // the norms are layer norms
    int qk_norm, mlp, n_taps;  // 0 taps: no mix_tokens
    float eps, qk_eps, softcap;
    const float *tokens;       // (vocab_size, n_embd)
    const float *positions;    // (block_size, n_embd), or null: rotary
    const float *frequencies;  // (head_size / 2)
    const Block *blocks;
    Norm norm;
    Linear head;
} Model;

// Keys and values: from one layer to the next are `layer_step` floats, 0 where none is kept longer.
// A row holds those of each head: keys in panels of WIDTH slots, as weights are, then values, a row of
// channels for each slot. Where there are taps, what mix_tokens reads follows, likewise by slot.
typedef struct {
    float *rows;
    int64_t layer_step;
} Cache;

typedef struct {
    int row, position;
} Place;

// What the threads share while tokens are read: activations, each row a multiple of WIDTH.
typedef struct {
    const Model *model;
    const Cache *cache;
    int count, blocks;  // of tokens, and of groups of tokens that attend together
    Place *places;
    int *starts;  // of the groups, and the end
    float *x, *branch, *y, *qkv, *hidden, *cosines, *sines;
    int8_t *rounded;  // what a layer of 8 bits reads, and of each group of it:
    float *scales;
    int *sums;
    float *own;  // of each thread: `own_floats`
} Work;

INLINE int64_t padded(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }

INLINE int64_t whole_groups(int64_t n) { return (n + GROUP - 1) / GROUP * GROUP; }

INLINE int qkv_width(const Model *m) { return (m->n_head + 2 * m->n_kv_head) * m->head_size; }

INLINE int hidden_width(const Model *m) {
    return (int)padded(m->n_hidden) * (m->mlp == SWIGLU ? 2 : 1);
}

// From one slot's values to the next's: as little as whole vectors take, since a batch reads all of
// them from a far cache.
INLINE int64_t value_step(const Model *m) { return (m->head_size + LANES - 1) / LANES * LANES; }

INLINE int64_t head_floats(const Model *m) {
    return padded(m->block_size) * (m->head_size + value_step(m));
}

// The last slot's values are read with what follows them.
INLINE int64_t row_floats(const Model *m) {
    return m->n_kv_head * head_floats(m) + LANES +
           (m->n_taps ? m->block_size * padded(m->n_embd) : 0);
}

INLINE int64_t own_floats(const Model *m) {
    return ROWS * padded(m->block_size) + padded(m->head_size);
}

// --- Sizes, for the caller ---

int64_t padded_size(int64_t n) { return padded(n); }

int64_t panel_floats(int in, int out) { return padded(out) * (in + 1); }

int64_t cache_floats(const Model *m) { return row_floats(m); }

// Inputs of the widest layer, in whole groups.
INLINE int64_t widest(const Model *m) {
    return whole_groups(m->n_hidden > m->n_embd ? m->n_hidden : m->n_embd);
}

INLINE int64_t token_floats(const Model *m) {
    return 3 * padded(m->n_embd) + padded(qkv_width(m)) + padded(hidden_width(m)) +
           padded(m->head_size) + 4 +  // places and starts
           widest(m) / 4 + 2 * widest(m) / GROUP;
}

int64_t draw_floats(int V, int threads) { return 2 * padded(V) * threads; }

// Tokens of a row that attend together, counted from the first that a call reads.
int group_size(void) { return ROWS; }

// What reading `count` tokens needs, and drawing after it.
int64_t scratch_floats(const Model *m, int count, int threads) {
    const int64_t reads = count * token_floats(m) + 4 + threads * own_floats(m);
    const int64_t draws = draw_floats(m->head.out, threads);
    return reads > draws ? reads : draws;
}

// --- Matrix products ---

// Writes weight (out, in) and bias (out), or null for 0, as panels.
void pack(const float *weight, const float *bias, float *panels, int in, int out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int first = 0; first < out; first += WIDTH) {
        const int columns = out - first < WIDTH ? out - first : WIDTH;
        float *panel = panels + (int64_t)first * (in + 1);
        memset(panel, 0, sizeof(float) * WIDTH);
        for (int c = 0; c < columns; c++) panel[c] = bias ? bias[first + c] : 0;
        for (int k = 0; k < in; k++) {
            float *row = panel + (int64_t)(k + 1) * WIDTH;
            for (int c = 0; c < columns; c++) row[c] = weight[(int64_t)(first + c) * in + k];
            for (int c = columns; c < WIDTH; c++) row[c] = 0;
        }
    }
}

// Where a tile's sums start: `at` + row * `row_step` + panel * `panel_step`; null: at 0.
typedef struct {
    const float *at;
    int64_t row_step, panel_step;
} Start;

// Panels beside one another: from one input to the next are `step` floats.
typedef struct {
    const float *at;
    int64_t step, panel_step;
} Panels;

// out (rows, panels * WIDTH) = start + x (rows, depth) times the panels.
INLINE void tile(const float *x, int64_t x_step, Panels w, int depth, Start start, float *out,
                 int64_t out_step, const int rows, const int panels) {
    Floats s[ROWS][2 * BESIDE];
    for (int r = 0; r < rows; r++)
        for (int q = 0; q < 2 * panels; q++)
            s[r][q] = start.at ? load(start.at + r * start.row_step + q / 2 * start.panel_step +
                                      q % 2 * LANES)
                               : splat(0);
    for (int k = 0; k < depth; k++) {
        Floats weights[2 * BESIDE];
        for (int q = 0; q < 2 * panels; q++)
            weights[q] = load(w.at + k * w.step + q / 2 * w.panel_step + q % 2 * LANES);
        for (int r = 0; r < rows; r++) {
            Floats value = splat(x[r * x_step + k]);
            for (int q = 0; q < 2 * panels; q++) s[r][q] += value * weights[q];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int q = 0; q < 2 * panels; q++) store(out + r * out_step + q * LANES, s[r][q]);
}

// Panels that a tile of `rows` takes at once, of `left`.
INLINE int beside(int rows, int left) {
    const int most = rows == 1 ? BESIDE : rows < 4 ? 2 : 1;
    return left >= most ? most : left >= 2 && most >= 2 ? 2 : 1;
}

#define TILES                        \
    TILE(1, 4) TILE(1, 2) TILE(1, 1) \
    TILE(2, 2) TILE(2, 1)            \
    TILE(3, 2) TILE(3, 1)            \
    TILE(4, 1) TILE(5, 1) TILE(6, 1)

static void multiply(const float *x, int64_t x_step, Panels w, int depth, Start start, float *out,
                     int64_t out_step, int rows, int panels) {
#define TILE(r, p) \
    case 8 * r + p: tile(x, x_step, w, depth, start, out, out_step, r, p); break;
    switch (8 * rows + panels) { TILES }
#undef TILE
}

// --- Weights of 8 bits ---
//
// An output's weights are whole numbers from -127 to 127 times one scale, kept with 128 added, those
// of four inputs beside one another. What they are multiplied by is rounded likewise, with a scale for
// each GROUP of inputs: sums over a group are exact, and groups follow one another in order.

int64_t panel_bytes(int in, int out) { return padded(out) * whole_groups(in); }

// Writes weight (out, in) and bias (out), or null for 0, as panels of 8 bits.
void pack_bytes(const float *weight, const float *bias, float *panels, uint8_t *bytes, int in,
                int out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int first = 0; first < out; first += WIDTH) {
        uint8_t *panel = bytes + first * whole_groups(in);
        memset(panel, 128, WIDTH * whole_groups(in));
        memset(panels + 2 * (int64_t)first, 0, sizeof(float) * 2 * WIDTH);
        for (int c = 0; c < WIDTH && first + c < out; c++) {
            const float *w = weight + (int64_t)(first + c) * in;
            float most = 0;
            for (int k = 0; k < in; k++) most = fmaxf(most, fabsf(w[k]));
            const float scale = most / 127;
            panels[2 * first + c] = bias ? bias[first + c] : 0;
            panels[2 * first + WIDTH + c] = scale;
            for (int k = 0; scale > 0 && k < in; k++)
                panel[k / 4 * 4 * WIDTH + 4 * c + k % 4] = (uint8_t)(128 + lrintf(w[k] / scale));
        }
    }
}

// Rounds rows of x, of `in` inputs each.
static void round_rows(const Work *work, const float *x, int64_t x_step, int in, int rows) {
    const int64_t step = whole_groups(in);
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++)
        for (int64_t k = 0; k < step; k += GROUP) {
            const float *from = x + r * x_step + k;
            int8_t *to = work->rounded + r * step + k;
            const int n = in - k < GROUP ? (int)(in - k) : GROUP;
            float most = 0;
            int sum = 0;
            for (int i = 0; i < n; i++) most = fmaxf(most, fabsf(from[i]));
            const float factor = most > 0 ? 127 / most : 0;
            for (int i = 0; i < GROUP; i++) to[i] = i < n ? (int8_t)rintf(from[i] * factor) : 0;
            for (int i = 0; i < GROUP; i++) sum += to[i];
            work->scales[(r * step + k) / GROUP] = most / 127;
            work->sums[(r * step + k) / GROUP] = sum;
        }
}

// s + the products of four weights, unsigned, and four signed numbers, in each lane.
INLINE Ints add_products(Ints s, Words weights, Words numbers) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)s, (__m512i)weights, (__m512i)numbers);
#elif defined(__AVX2__) && LANES == 8
    const Words even = weights & 0x00ff00ff, odd = weights >> 8 & 0x00ff00ff;
    const Ints low = (Ints)_mm256_srai_epi16((__m256i)(numbers << 8), 8);
    const Ints high = (Ints)_mm256_srai_epi16((__m256i)numbers, 8);
    s += (Ints)_mm256_madd_epi16((__m256i)even, (__m256i)low);
    return s + (Ints)_mm256_madd_epi16((__m256i)odd, (__m256i)high);
#else
    for (int i = 0; i < 32; i += 8)
        s += (Ints)(weights >> i & 255) * ((Ints)(numbers << (24 - i)) >> 24);
    return s;
#endif
}

// out (rows, panels * WIDTH) = bias + what was rounded times the panels.
INLINE void byte_tile(const Linear *layer, const int8_t *numbers, const float *scales,
                      const int *sums, int panel, float *out, int64_t out_step, const int rows,
                      const int panels) {
    const int64_t depth = whole_groups(layer->in), panel_step = depth * WIDTH;
    const uint8_t *bytes = layer->bytes + panel * panel_step;
    Floats s[ROWS][2 * BESIDE] = {0};
    for (int64_t g = 0; g < depth / GROUP; g++) {
        Ints whole[ROWS][2 * BESIDE];
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 2 * panels; q++)
                whole[r][q] = (Ints){0} - 128 * sums[r * depth / GROUP + g];
        for (int k = 0; k < GROUP; k += 4) {
            Words weights[2 * BESIDE];
            for (int q = 0; q < 2 * panels; q++)
                memcpy(weights + q, bytes + (g * GROUP + k) * WIDTH + q / 2 * panel_step +
                                        q % 2 * 4 * LANES, sizeof(Words));
            for (int r = 0; r < rows; r++) {
                uint32_t four;
                memcpy(&four, numbers + r * depth + g * GROUP + k, 4);
                const Words all = (Words){0} + four;
                for (int q = 0; q < 2 * panels; q++)
                    whole[r][q] = add_products(whole[r][q], weights[q], all);
            }
        }
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 2 * panels; q++)
                s[r][q] += __builtin_convertvector(whole[r][q], Floats) *
                           scales[r * depth / GROUP + g];
    }
    for (int r = 0; r < rows; r++)
        for (int q = 0; q < 2 * panels; q++) {
            const float *bias = layer->panels + 2 * (panel + q / 2) * WIDTH + q % 2 * LANES;
            store(out + r * out_step + q * LANES, s[r][q] * load(bias + WIDTH) + load(bias));
        }
}

static void apply_bytes(const Work *work, const Linear *layer, const float *x, int64_t x_step,
                        float *out, int64_t out_step, int rows, int first, int end) {
    const int64_t depth = whole_groups(layer->in);
    round_rows(work, x, x_step, layer->in, rows);
    for (int near = 0; near < rows; near += NEAR) {
        const int here = rows - near < NEAR ? rows - near : NEAR;
        const int tiles = (here + ROWS - 1) / ROWS;
        for (int p = first, taken; p < end; p += taken) {
            taken = beside(here, end - p);
            for (int t = 0; t < tiles; t++) {
                const int row = near + here * t / tiles, next = near + here * (t + 1) / tiles;
                const int8_t *numbers = work->rounded + row * depth;
                const float *scales = work->scales + row * depth / GROUP;
                const int *sums = work->sums + row * depth / GROUP;
                float *to = out + row * out_step + p * WIDTH;
#define TILE(r, q) \
    case 8 * r + q: byte_tile(layer, numbers, scales, sums, p, to, out_step, r, q); break;
                switch (8 * (next - row) + taken) { TILES }
#undef TILE
            }
        }
    }
}

// out = what the layer makes of x; each thread makes some panels of it.
static void apply(const Work *work, const Linear *layer, const float *x, int64_t x_step, float *out,
                  int64_t out_step, int rows) {
    const int panels = (int)(padded(layer->out) / WIDTH), threads = omp_get_num_threads();
    const int first = (int)((int64_t)panels * omp_get_thread_num() / threads);
    const int end = (int)((int64_t)panels * (omp_get_thread_num() + 1) / threads);
    if (layer->bytes) {
        apply_bytes(work, layer, x, x_step, out, out_step, rows, first, end);
#pragma omp barrier
        return;
    }
    const int depth = rows > ROWS ? DEPTH : layer->in;
    const int64_t panel_step = (int64_t)(layer->in + 1) * WIDTH;
    for (int near = 0; near < rows; near += NEAR) {
        const int here = rows - near < NEAR ? rows - near : NEAR;
        const int tiles = (here + ROWS - 1) / ROWS;
        for (int k = 0; k < layer->in; k += depth) {
            const int terms = layer->in - k < depth ? layer->in - k : depth;
            for (int p = first, taken; p < end; p += taken) {
                taken = beside(here, end - p);
                const float *panel = layer->panels + p * panel_step;
                const Panels w = {panel + (int64_t)(1 + k) * WIDTH, WIDTH, panel_step};
                for (int t = 0; t < tiles; t++) {
                    const int row = near + here * t / tiles, next = near + here * (t + 1) / tiles;
                    float *to = out + row * out_step + p * WIDTH;
                    const Start start = k ? (Start){to, out_step, WIDTH}
                                          : (Start){panel, 0, panel_step};
                    multiply(x + row * x_step + k, x_step, w, terms, start, to, out_step,
                             next - row, taken);
                }
            }
        }
    }
#pragma omp barrier
}

// --- The parts of the model; each is done by all threads, which go on together ---

static void embed(const Work *work, const int64_t *tokens) {
    const Model *m = work->model;
    const int C = m->n_embd, half = m->head_size / 2;
    const int64_t step = padded(C);
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++) {
        float *x = work->x + t * step;
        const float *token = m->tokens + tokens[t] * C;
        memcpy(x, token, sizeof(float) * C);
        for (int64_t i = C; i < step; i++) x[i] = 0;
        const int position = work->places[t].position;
        if (m->positions)
            for (int i = 0; i < C; i++) x[i] += m->positions[(int64_t)position * C + i];
        else
            for (int i = 0; i < half; i++) {
                work->cosines[t * half + i] = cosf((float)position * m->frequencies[i]);
                work->sines[t * half + i] = sinf((float)position * m->frequencies[i]);
            }
    }
}

// y = norm of x, after the branch, where there is one, has been added to x.
static void add_norm(const Work *work, const Norm *norm, int adds) {
    const Model *m = work->model;
    const int C = m->n_embd;
    const int64_t step = padded(C);
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++) {
        float *x = work->x + t * step, *y = work->y + t * step, *branch = work->branch + t * step;
        Sums sums = {0}, squares = {0};
        for (int i = 0; i < C; i += LANES) {
            Floats v = load(x + i);
            if (adds) store(x + i, v += load(branch + i));
            sums.part[i / LANES % PARTS] += v;
        }
        const float mean = m->centred ? total(&sums) / C : 0;
        for (int i = 0; i < C; i += LANES) {
            Floats v = choose(LANE + i < C, load(x + i) - mean, splat(0));
            squares.part[i / LANES % PARTS] += v * v;
        }
        const float factor = 1 / sqrtf(total(&squares) / C + m->eps);
        for (int i = 0; i < C; i += LANES) {
            Floats v = (load(x + i) - mean) * factor * load(norm->gain + i);
            store(y + i, norm->shift ? v + load(norm->shift + i) : v);
        }
    }
}

INLINE float *keys_of(const Work *work, int layer, int row, int head) {
    const Model *m = work->model;
    return work->cache->rows + layer * work->cache->layer_step + row * row_floats(m) +
           head * head_floats(m);
}

INLINE float *own_memory(const Work *work) {
    return work->own + omp_get_thread_num() * own_floats(work->model);
}

// A head's channels, turned to their position and normed where the model does so, times `scale`.
INLINE void turn_head(const Work *work, int t, const float *x, float *to, float scale) {
    const Model *m = work->model;
    const int D = m->head_size, half = D / 2;
    if (!m->positions) {
        scale *= turn(x, work->cosines + t * half, work->sines + t * half, to, D, m->qk_norm,
                      m->qk_eps);
        x = to;
    } else if (m->qk_norm) {
        float squares = 0;
        for (int i = 0; i < D; i++) squares += x[i] * x[i];
        scale /= sqrtf(squares / D + m->qk_eps);
    }
    for (int i = 0; i < D; i++) to[i] = x[i] * scale;
}

// Puts keys and values into the cache; queries become what the exponent of 2 is made of.
static void keep(const Work *work, int layer) {
    const Model *m = work->model;
    const int D = m->head_size;
    const float scale = LOG2E / sqrtf((float)D);
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++) {
        float *turned = own_memory(work), *x = work->qkv + t * padded(qkv_width(m));
        const int slot = work->places[t].position % m->block_size;
        for (int h = 0; h < m->n_head; h++, x += D) {
            turn_head(work, t, x, turned, scale);
            memcpy(x, turned, sizeof(float) * D);
        }
        for (int h = 0; h < m->n_kv_head; h++, x += D) {
            float *keys = keys_of(work, layer, work->places[t].row, h);
            float *values = keys + padded(m->block_size) * D;
            float *panel = keys + slot / WIDTH * WIDTH * D + slot % WIDTH;
            turn_head(work, t, x, turned, 1);
            for (int i = 0; i < D; i++) panel[i * WIDTH] = turned[i];
            memcpy(values + slot * value_step(m), x + m->n_kv_head * D, sizeof(float) * D);
        }
    }
}

// p[j] = 2^(p[j] - the largest) for j < n, and 0 up to `end`; returns the inverse of their sum.
INLINE float soften(float *p, int n, int end) {
    Floats high = splat(-1e30f);
    Sums sums = {0};
    for (int j = 0; j < n; j += LANES) {
        Floats s = choose(LANE + j < n, load(p + j), high);
        high = choose(s > high, s, high);
    }
    const float top = largest(high);
    for (int j = 0; j < end; j += LANES) {
        Floats e = choose(LANE + j < n, power_of_two(load(p + j) - top), splat(0));
        sums.part[j / LANES % PARTS] += e;
        store(p + j, e);
    }
    return 1 / total(&sums);
}

// out (vectors * LANES) = the sum of n values, a multiple of 4, times p: four sums are under way.
INLINE void mix(const float *p, const float *values, int64_t step, int n, float *out,
                const int vectors) {
    Floats s[4][2] = {0};
    for (int j = 0; j < n; j += 4)
        for (int i = 0; i < 4; i++)
            for (int q = 0; q < vectors; q++)
                s[i][q] += p[j + i] * load(values + (j + i) * step + q * LANES);
    for (int q = 0; q < vectors; q++)
        store(out + q * LANES, (s[0][q] + s[1][q]) + (s[2][q] + s[3][q]));
}

// y = what one head of a group's queries reads of the cache.
static void attend(const Work *work, int layer, int group, int head) {
    const Model *m = work->model;
    const int D = m->head_size, first = work->starts[group];
    const int queries = work->starts[group + 1] - first;
    const Place last = work->places[first + queries - 1];
    const int filled = last.position < m->block_size ? last.position + 1 : m->block_size;
    const int64_t q_step = padded(qkv_width(m)), y_step = padded(m->n_embd);
    const int64_t p_step = padded(m->block_size), end = padded(filled);
    const float *keys = keys_of(work, layer, last.row, head / (m->n_head / m->n_kv_head));
    const float *values = keys + p_step * D, *q = work->qkv + first * q_step + head * D;
    float *y = work->y + first * y_step + head * D, *p = own_memory(work), inverse[ROWS];
    for (int64_t j = 0, taken; j < end; j += taken * WIDTH) {
        taken = beside(queries, (int)((end - j) / WIDTH));
        const Panels panels = {keys + j * D, WIDTH, WIDTH * D};
        multiply(q, q_step, panels, D, (Start){0}, p + j, p_step, queries, (int)taken);
    }
    for (int r = 0; r < queries; r++)
        inverse[r] = soften(p + r * p_step, filled - (queries - 1 - r), (int)end);
    for (int d = 0; d < D; d += WIDTH) {
        const int n = D - d < WIDTH ? D - d : WIDTH;
        float out[ROWS * WIDTH];
        if (queries == 1 && n <= LANES)
            mix(p, values + d, value_step(m), (filled + 3) / 4 * 4, out, 1);
        else if (queries == 1)
            mix(p, values + d, value_step(m), (filled + 3) / 4 * 4, out, 2);
        else
            multiply(p, p_step, (Panels){values + d, value_step(m), WIDTH}, filled, (Start){0}, out,
                     WIDTH, queries, 1);
        for (int r = 0; r < queries; r++)
            for (int i = 0; i < n; i++) y[r * y_step + d + i] = out[r * WIDTH + i] * inverse[r];
    }
}

static void attend_all(const Work *work, int layer) {
    const int H = work->model->n_head;
#pragma omp for schedule(static, 1)
    for (int at = 0; at < work->blocks * H; at++) attend(work, layer, at / H, at % H);
}

// y[t] += the sum over taps j of y[t - j] times tap j; none is older than what attention sees.
static void mix_tokens(const Work *work, int layer, const float *taps) {
    const Model *m = work->model;
    const int64_t step = padded(m->n_embd);
    const int most = m->n_taps < m->block_size ? m->n_taps : m->block_size;
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++) {
        const Place place = work->places[t];
        float *kept = keys_of(work, layer, place.row, m->n_kv_head);
        memcpy(kept + place.position % m->block_size * step, work->y + t * step,
               sizeof(float) * step);
    }
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++) {
        const Place place = work->places[t];
        const float *kept = keys_of(work, layer, place.row, m->n_kv_head);
        float *y = work->y + t * step;
        for (int j = 0; j < most && j <= place.position; j++) {
            const float *x = kept + (place.position - j) % m->block_size * step;
            for (int i = 0; i < m->n_embd; i += LANES)
                store(y + i, load(y + i) + load(x + i) * load(taps + j * step + i));
        }
    }
}

static void activate(const Work *work) {
    const Model *m = work->model;
    const int64_t width = padded(m->n_hidden), step = padded(hidden_width(m));
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++) {
        float *h = work->hidden + t * step;
        for (int64_t i = 0; i < width; i += LANES) {
            Floats v = load(h + i);
            if (m->mlp == GELU)
                v *= gelu_gate(v);
            else if (m->mlp == RELU2)
                v = choose(v > 0, v * v, splat(0));
            else
                v = v / (1 + power_of_two(v * -LOG2E)) * load(h + width + i);
            store(h + i, v);
        }
    }
}

static void cap(const Work *work, float *logits) {
    const Model *m = work->model;
    const int64_t step = padded(m->head.out);
#pragma omp for schedule(static)
    for (int t = 0; t < work->count; t++)
        for (int64_t i = 0; i < step; i += LANES) {
            float *at = logits + t * step + i;
            Floats x = load(at) / m->softcap;
            store(at, m->softcap * (2 / (1 + power_of_two(x * (-2 * LOG2E))) - 1));
        }
}

// Groups of up to `most` tokens attend together: they follow one another in a row.
static void group_tokens(Work *work, int most) {
    work->blocks = 0;
    for (int t = 0; t < work->count; t++)
        if (t == 0 || work->places[t].row != work->places[t - 1].row ||
            t - work->starts[work->blocks - 1] == most)
            work->starts[work->blocks++] = t;
    work->starts[work->blocks] = work->count;
}

// Goes on with the last `most` tokens of each row alone.
static void keep_last(Work *work, int most) {
    const int64_t x_step = padded(work->model->n_embd), q_step = padded(qkv_width(work->model));
    int kept = 0;
    for (int t = 0; t < work->count; t++) {
        const int later = t + most;
        if (later < work->count && work->places[later].row == work->places[t].row) continue;
        if (kept < t) {
            memcpy(work->x + kept * x_step, work->x + t * x_step, sizeof(float) * x_step);
            memcpy(work->y + kept * x_step, work->y + t * x_step, sizeof(float) * x_step);
            memcpy(work->qkv + kept * q_step, work->qkv + t * q_step, sizeof(float) * q_step);
            work->places[kept] = work->places[t];
        }
        kept++;
    }
    work->count = kept;
    group_tokens(work, ROWS);
}

// --- Reading tokens ---

static float *take(float **from, int64_t n) {
    float *taken = *from;
    *from += n;
    return taken;
}

static Work share_scratch(const Model *m, const Cache *cache, int count, float *scratch) {
    Work work = {.model = m, .cache = cache, .count = count};
    work.x = take(&scratch, count * padded(m->n_embd));
    work.branch = take(&scratch, count * padded(m->n_embd));
    work.y = take(&scratch, count * padded(m->n_embd));
    work.qkv = take(&scratch, count * padded(qkv_width(m)));
    work.hidden = take(&scratch, count * padded(hidden_width(m)));
    work.cosines = take(&scratch, count * (m->head_size / 2));
    work.sines = take(&scratch, count * (m->head_size / 2));
    work.rounded = (int8_t *)take(&scratch, count * widest(m) / 4);
    work.scales = take(&scratch, count * widest(m) / GROUP);
    work.sums = (int *)take(&scratch, count * widest(m) / GROUP);
    work.places = (Place *)take(&scratch, 2 * count);
    work.starts = (int *)take(&scratch, count + 1);
    work.own = scratch;
    return work;
}

// Reads `count` tokens, those of a row one after the other, at positions that follow one another.
// logits (rows, padded head.out) are those after the last token of each row; or, with `each`, (count,
// padded head.out) those after each token, with the bits that they have where it is read alone.
// Returns 0; or, with nothing read, 1 where a token and 2 where a position is out of range.
int read_tokens(const Model *m, const Cache *cache, int count, const int64_t *tokens,
                const int64_t *rows, const int64_t *positions, int each, float *logits,
                float *scratch, int threads) {
    Work work = share_scratch(m, cache, count, scratch);
    for (int t = 0; t < count; t++) {
        const int follows = t > 0 && rows[t] == rows[t - 1];
        const int whole = m->positions || follows || (t + 1 < count && rows[t + 1] == rows[t]);
        if (tokens[t] < 0 || tokens[t] >= m->vocab_size) return 1;
        if (positions[t] < 0 || positions[t] > INT32_MAX) return 2;
        if (whole && positions[t] >= m->block_size) return 2;
        if (follows && positions[t] != positions[t - 1] + 1) return 2;
        work.places[t] = (Place){(int)rows[t], (int)positions[t]};
    }
    group_tokens(&work, each ? 1 : ROWS);
    const int64_t C = padded(m->n_embd), Q = padded(qkv_width(m)), H = padded(hidden_width(m));
#pragma omp parallel num_threads(threads)
    {
        embed(&work, tokens);
        for (int layer = 0; layer < m->n_layer; layer++) {
            const Block *block = m->blocks + layer;
            add_norm(&work, &block->norm_1, layer > 0);
            apply(&work, &block->attention_in, work.y, C, work.qkv, Q, work.count);
            keep(&work, layer);
            if (layer == m->n_layer - 1 && !each) {
#pragma omp single
                keep_last(&work, m->n_taps ? m->n_taps : 1);
            }
            attend_all(&work, layer);
            apply(&work, &block->attention_out, work.y, C, work.branch, C, work.count);
            add_norm(&work, &block->norm_2, 1);
            if (m->n_taps) {
                mix_tokens(&work, layer, block->taps);
                if (layer == m->n_layer - 1 && !each) {
#pragma omp single
                    keep_last(&work, 1);
                }
            }
            apply(&work, &block->mlp_in, work.y, C, work.hidden, H, work.count);
            activate(&work);
            apply(&work, &block->mlp_out, work.hidden, H, work.branch, C, work.count);
        }
        add_norm(&work, &m->norm, 1);
        apply(&work, &m->head, work.y, C, logits, padded(m->head.out), work.count);
        if (m->softcap > 0) cap(&work, logits);
    }
    return 0;
}

// --- The draw: `draw_tokens` of draw.py, for the same uniform numbers ---

typedef struct {
    double temperature, top_p, min_p;  // a top_p of 1 and a min_p of 0 keep all
    float repetition_penalty;
    int top_k;  // 0 keeps all
} Controls;

// Whether token a is more likely than b, or as likely with a smaller number.
INLINE int ranks_before(const float *p, int a, int b) {
    return p[a] > p[b] || (p[a] == p[b] && a < b);
}

// Lets the token at `at` sink in a heap of n tokens, below whose other parts are in order.
static void sink(const float *p, int *heap, int n, int at) {
    const int token = heap[at];
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && ranks_before(p, heap[child + 1], heap[child])) child++;
        if (ranks_before(p, token, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = token;
}

// Swaps the first of a heap of n tokens with its last, which then sinks among n - 1.
static void take_first(const float *p, int *heap, int n) {
    const int first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sink(p, heap, n - 1, 0);
}

// Sets to 0 what top-k and top-p drop of p (V). The token of rank r, once it is known, stands at
// heap[V - 1 - r]; tokens without a rank stand below, as a heap.
static void keep_likely(float *p, int V, const Controls *controls, int *heap) {
    int ranked = 0, kept = V;
    for (int i = 0; i < V; i++) heap[i] = i;
    for (int at = V / 2 - 1; at >= 0; at--) sink(p, heap, V, at);
    if (controls->top_k && controls->top_k < V) {
        while (ranked < V && (ranked < controls->top_k || p[heap[0]] == p[heap[V - ranked]]))
            take_first(p, heap, V - ranked++);
        kept = ranked;
    }
    if (controls->top_p < 1) {
        double sum = 0, before = 0;
        for (int r = 0; r < kept; r++) sum += p[heap[V - 1 - r]];
        for (int r = 0; r < kept; r++) {
            if (r == ranked) take_first(p, heap, V - ranked++);
            if (r > 0 && before >= controls->top_p * sum) kept = r;
            before += p[heap[V - 1 - r]];
        }
    }
    for (int r = kept; r < V; r++) p[heap[V - 1 - r]] = 0;
}

// The token that `uniform` picks from logits (V). p has room for V, padded, and heap for V.
static int draw(const float *logits, int V, double uniform, const Controls *controls,
                const uint8_t *seen, float *p, int *heap) {
    const float penalty = controls->repetition_penalty;
    float high = -INFINITY;
    int best = 0;
    for (int i = 0; i < V; i++) {
        const float x = logits[i];
        p[i] = !seen || !seen[i] ? x : x > 0 ? x / penalty : x * penalty;
        best = p[i] > high ? i : best;
        high = p[i] > high ? p[i] : high;
    }
    if (controls->temperature == 0) return best;
    const float scale = (float)(LOG2E / fmax(controls->temperature, 1e-30));
    for (int i = 0; i < V; i += LANES) {
        Floats x = (load(p + i) - high) * scale;
        store(p + i, choose(x > -126.0f, power_of_two(x), splat(0)));
    }
    if ((controls->top_k && controls->top_k < V) || controls->top_p < 1)
        keep_likely(p, V, controls, heap);
    double sum = 0, reached = 0;
    for (int i = 0; i < V; i++) {
        if (p[i] < controls->min_p) p[i] = 0;  // the most likely has 1
        sum += p[i];
    }
    for (int i = 0; i < V; i++)
        if ((reached += p[i]) > uniform * sum) return i;
    return V - 1;
}

// Draws a token of each row of logits (rows, `step`), of which V count, with controls of its own, or
// with those of all where `controls_step` is 0.
void draw_rows(const float *logits, int64_t step, int rows, int V, const double *uniforms,
               int64_t uniforms_step, const Controls *controls, int controls_step,
               const uint8_t *seen, int64_t *tokens, float *scratch, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int r = 0; r < rows; r++) {
        float *p = scratch + 2 * padded(V) * omp_get_thread_num();
        tokens[r] = draw(logits + r * step, V, uniforms[r * uniforms_step],
                         controls + r * controls_step, seen ? seen + (int64_t)r * V : 0, p,
                         (int *)(p + padded(V)));
    }
}

// Reads tokens as read_tokens does, and draws the next of each of `last` rows with its own controls.
int read_and_draw(const Model *m, const Cache *cache, int count, const int64_t *tokens,
                  const int64_t *rows, const int64_t *positions, float *logits, int last,
                  const double *uniforms, const Controls *controls, int64_t *drawn, float *scratch,
                  int threads) {
    const int wrong = read_tokens(m, cache, count, tokens, rows, positions, 0, logits, scratch,
                                  threads);
    if (wrong) return wrong;
    draw_rows(logits, padded(m->head.out), last, m->head.out, uniforms, 1, controls, 1, 0, drawn,
              scratch, threads);
    return 0;
}

// Reads the last token of each row and draws the next one, `steps` times: row i's tokens go to
// drawn + i * drawn_step. `uniforms` begins with the number of the first of them.
int go_on(const Model *m, const Cache *cache, int rows, int steps, int64_t *tokens,
          const int64_t *row_numbers, int64_t *positions, const double *uniforms,
          int64_t uniforms_step, const Controls *controls, uint8_t *seen, int64_t *drawn,
          int64_t drawn_step, float *logits, float *scratch, int threads) {
    const int V = m->head.out;
    for (int s = 0; s < steps; s++) {
        const int wrong = read_tokens(m, cache, rows, tokens, row_numbers, positions, 0, logits,
                                      scratch, threads);
        if (wrong) return wrong;
        draw_rows(logits, padded(V), rows, V, uniforms + s, uniforms_step, controls, 0, seen,
                  tokens, scratch, threads);
        for (int r = 0; r < rows; r++) {
            drawn[r * drawn_step + s] = tokens[r];
            if (seen) seen[(int64_t)r * V + tokens[r]] = 1;
            positions[r]++;
        }
    }
    return 0;
}
