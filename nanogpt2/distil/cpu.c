// Kernels for training on a CPU that follows teachers: what is made of a chunk of rows of logits.
//
// Tensors are float32, and rows of logits lie `width` apart. Every result is the same whatever the
// number of threads, since no sum is shared between two of them.

#include "../device/vectors.h"

#define LOWEST -1e30f  // a logit of the probability 0

// Floats of a row of which `left` remain; `rest` stands for those after its end.
INLINE Floats load_left(const float *from, int left, float rest) {
    if (left >= LANES) return load(from);
    Floats x = splat(rest);
    memcpy(&x, from, sizeof(float) * left);
    return x;
}

INLINE void store_left(float *to, Floats x, int left) {
    memcpy(to, &x, sizeof(float) * (left < LANES ? left : LANES));
}

// cap * tanh(x / cap); x where there is no cap.
INLINE Floats bend(Floats x, float cap) {
    return cap > 0 ? cap * (2 / (1 + power_of_two(x * (-2 * LOG2E / cap))) - 1) : x;
}

// shares (rows, n) = or += share * softmax(bend(logits) / temperature), over the first n logits of
// each row. These are spoiled.
void add_probabilities(float *shares, float *logits, int64_t rows, int64_t width, int n, float cap,
                       float temperature, float share, int adds, int threads) {
    const float scale = LOG2E / temperature;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        float *row = logits + r * width, *to = shares + r * n;
        Floats high = splat(LOWEST);
        for (int j = 0; j < n; j += LANES) {
            Floats z = bend(load_left(row + j, n - j, 0), cap) * scale;
            z = choose(LANE + j < n, z, splat(LOWEST));
            store_left(row + j, z, n - j);
            high = choose(z > high, z, high);
        }
        const float top = largest(high);
        Sums sums = {0};
        for (int j = 0; j < n; j += LANES) {
            Floats e = power_of_two(load_left(row + j, n - j, LOWEST) - top);
            e = choose(LANE + j < n, e, splat(0));
            sums.part[j / LANES % PARTS] += e;
            store_left(row + j, e, n - j);
        }
        const float factor = share / total(&sums);
        for (int j = 0; j < n; j += LANES) {
            Floats e = load_left(row + j, n - j, 0) * factor;
            if (adds) e += load_left(to + j, n - j, 0);
            store_left(to + j, e, n - j);
        }
    }
}

// The loss of each row of logits (rows, V), and in their place its gradient:
// (1 - weight) CE(target, q) + weight t^2 CE(shares, q_t), where q is the softmax of the bent logits
// z, and q_t that of z / t. A row whose target is below 0 has none of both.
void replace_by_gradient(float *logits, const float *shares, const int64_t *targets, float *losses,
                         int64_t rows, int64_t width, int V, int n, float cap, float temperature,
                         float weight, int threads) {
    const float inverse = 1 / temperature, hard = 1 - weight, soft = weight * temperature;
    const int two = temperature != 1;  // softmaxes
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        float *row = logits + r * width;
        const float *p = shares + r * n;
        const int64_t target = targets[r];
        if (target < 0) {
            memset(row, 0, sizeof(float) * V);
            losses[r] = 0;
            continue;
        }
        Floats high = splat(LOWEST);
        for (int j = 0; j < V; j += LANES) {
            Floats z = bend(load_left(row + j, V - j, 0), cap);
            z = choose(LANE + j < V, z, splat(LOWEST));
            store_left(row + j, z, V - j);
            high = choose(z > high, z, high);
        }
        const float top = largest(high), at_target = row[target] - top;
        Sums sums = {0}, soft_sums = {0}, dots = {0}, all = {0};
        for (int j = 0; j < V; j += LANES) {
            const int part = j / LANES % PARTS;
            Floats z = load_left(row + j, V - j, LOWEST) - top;
            sums.part[part] += choose(LANE + j < V, power_of_two(z * LOG2E), splat(0));
            if (two)
                soft_sums.part[part] +=
                    choose(LANE + j < V, power_of_two(z * (inverse * LOG2E)), splat(0));
            if (j < n) {
                Floats q = load_left(p + j, n - j, 0);
                dots.part[part] += q * choose(LANE + j < n, z, splat(0));
                all.part[part] += q;
            }
        }
        const float sum = total(&sums), soft_sum = two ? total(&soft_sums) : sum;
        losses[r] = hard * (logf(sum) - at_target) +
                    soft * temperature * (logf(soft_sum) * total(&all) - inverse * total(&dots));
        const float share = (two ? hard : hard + soft) / sum, soft_share = soft / soft_sum;
        const float slope = cap > 0 ? 1 / (cap * cap) : 0;
        const float at = row[target];
        for (int j = 0; j < V; j += LANES) {
            Floats value = load_left(row + j, V - j, 0), z = value - top;
            Floats change = share * power_of_two(z * LOG2E);
            if (two) change += soft_share * power_of_two(z * (inverse * LOG2E));
            if (j < n) change -= soft * load_left(p + j, n - j, 0);
            store_left(row + j, change * (1 - slope * value * value), V - j);
        }
        row[target] -= hard * (1 - slope * at * at);
    }
}
