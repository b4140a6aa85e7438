// Kernels for training on a CPU that follows teachers: what is made of a chunk of rows of logits.
//
// Tensors are float32, and rows of logits lie `width` apart. Every result is the same whatever the
// number of threads, since no sum is shared between two of them. A row's function is compiled for
// each of its variants: with a cap, and with a temperature that is not 1.

#include "../../device/vectors.h"

#define LOWEST -1e30f  // a logit that adds less than 2^-125 to a sum of at least 1

// The part of a row from `j` on: all of its lanes, or at its end the first `left`, with `rest` for
// the others.
INLINE Floats load_part(const float *from, int left, float rest) {
    if (left >= LANES) return load(from);
    Floats x = splat(rest);
    for (int i = 0; i < left; i++) x[i] = from[i];
    return x;
}

INLINE void store_part(float *to, Floats x, int left) {
    if (left >= LANES)
        store(to, x);
    else
        for (int i = 0; i < left; i++) to[i] = x[i];
}

// The sum of all stripes, and the largest lane, by halves: a row may be as short as one vector.
INLINE float sum_up(const Sums *sums) {
    float x[STRIPES];
    memcpy(x, sums, sizeof x);
    for (int half = STRIPES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[half + i];
    return x[0];
}

INLINE float highest_lane(Floats lanes) {
    float x[LANES];
    store(x, lanes);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] = x[i] > x[half + i] ? x[i] : x[half + i];
    return x[0];
}

// cap * tanh(x / cap)
INLINE Floats bend(Floats x, float cap) {
    return cap * (2 / (1 + power_of_two(x * (-2 * LOG2E / cap))) - 1);
}

// Returns the highest of `n` logits, which are bent in their place where there is a cap.
INLINE float highest(float *row, int n, float cap, const int bends) {
    Floats high = splat(LOWEST);
    for (int j = 0; j < n; j += LANES) {
        Floats z = load_part(row + j, n - j, LOWEST);
        if (bends) store_part(row + j, z = bend(z, cap), n - j);  // the lowest is bent to -cap
        high = choose(z > high, z, high);
    }
    return highest_lane(high);
}

INLINE void add_row(float *to, float *row, int n, float cap, float scale, float share, int adds,
                    const int bends) {
    const float top = highest(row, n, cap, bends);
    Sums sums = {0};
    for (int j = 0; j < n; j += LANES) {
        Floats e = power_of_low((load_part(row + j, n - j, LOWEST) - top) * scale);
        sums.part[j / LANES % PARTS] += e;
        store_part(row + j, e, n - j);
    }
    const float factor = share / sum_up(&sums);
    for (int j = 0; j < n; j += LANES) {
        Floats e = load_part(row + j, n - j, 0) * factor;
        if (adds) e += load_part(to + j, n - j, 0);
        store_part(to + j, e, n - j);
    }
}

// shares (rows, n) = or += share * softmax(bent logits / temperature), over the first n logits of
// each row. These are spoiled.
void add_probabilities(float *shares, float *logits, int64_t rows, int64_t width, int n, float cap,
                       float temperature, float share, int adds, int threads) {
    const float scale = LOG2E / temperature;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        float *row = logits + r * width, *to = shares + r * n;
        if (cap > 0)
            add_row(to, row, n, cap, scale, share, adds, 1);
        else
            add_row(to, row, n, cap, scale, share, adds, 0);
    }
}

// Returns the loss of a row of V logits, and puts its gradient in their place. Where they are
// neither bent nor divided, their powers of e stay there in between.
INLINE float mix_row(float *row, const float *p, int64_t target, int V, int n, float cap,
                     float temperature, float weight, const int bends, const int two) {
    const int keeps = !bends && !two;
    const float inverse = 1 / temperature, hard = 1 - weight, soft = weight * temperature;
    const float top = highest(row, V, cap, bends), at = row[target];
    Sums sums = {0}, soft_sums = {0}, dots = {0}, all = {0};
    for (int j = 0; j < V; j += LANES) {
        const int part = j / LANES % PARTS;
        Floats z = load_part(row + j, V - j, LOWEST) - top, e = power_of_low(z * LOG2E);
        sums.part[part] += e;
        if (two) soft_sums.part[part] += power_of_low(z * (inverse * LOG2E));
        if (keeps) store_part(row + j, e, V - j);
        if (j < n) {
            Floats q = load_part(p + j, n - j, 0);
            dots.part[part] += q * z;
            all.part[part] += q;
        }
    }
    const float sum = sum_up(&sums), soft_sum = two ? sum_up(&soft_sums) : sum;
    const float share = (two ? hard : hard + soft) / sum, soft_share = soft / soft_sum;
    const float slope = bends ? 1 / (cap * cap) : 0;
    for (int j = 0; j < V; j += LANES) {
        Floats value = load_part(row + j, V - j, 0), z = value - top;
        Floats change = share * (keeps ? value : power_of_low(z * LOG2E));
        if (two) change += soft_share * power_of_low(z * (inverse * LOG2E));
        if (j < n) change -= soft * load_part(p + j, n - j, 0);
        if (bends) change *= 1 - slope * value * value;
        store_part(row + j, change, V - j);
    }
    row[target] -= hard * (1 - slope * at * at);
    return hard * (logf(sum) - (at - top)) +
           soft * temperature * (logf(soft_sum) * sum_up(&all) - inverse * sum_up(&dots));
}

// The loss of each row of logits (rows, V), and in their place its gradient:
// (1 - weight) CE(target, q) + weight t^2 CE(shares, q_t), where q is the softmax of the bent logits
// z, and q_t that of z / t. A row whose target is below 0 has none of both.
void replace_by_gradient(float *logits, const float *shares, const int64_t *targets, float *losses,
                         int64_t rows, int64_t width, int V, int n, float cap, float temperature,
                         float weight, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        float *row = logits + r * width;
        const float *p = shares + r * n;
        const int64_t target = targets[r];
        if (target < 0) {
            memset(row, 0, sizeof(float) * V);
            losses[r] = 0;
        } else if (cap > 0) {
            losses[r] = temperature == 1
                            ? mix_row(row, p, target, V, n, cap, 1, weight, 1, 0)
                            : mix_row(row, p, target, V, n, cap, temperature, weight, 1, 1);
        } else {
            losses[r] = temperature == 1
                            ? mix_row(row, p, target, V, n, cap, 1, weight, 0, 0)
                            : mix_row(row, p, target, V, n, cap, temperature, weight, 0, 1);
        }
    }
}
