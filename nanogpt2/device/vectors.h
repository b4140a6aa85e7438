// Vectors of floats as wide as the processor's, and what all kernels for a CPU compute with them.

#ifndef VECTORS_H
#define VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

int omp_get_thread_num(void);  // OpenMP's, declared here since Apple's clang has no omp.h
int omp_get_num_threads(void);

// Floats in one vector: as many as the processor's have, since the compiler takes wider ones apart
// into single floats.
#if defined(__AVX512F__)
#define LANES 16
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif defined(__AVX2__)
#define LANES 8
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define LANES 4
#define LANE_NUMBERS {0, 1, 2, 3}
#endif

#define STRIPES 16  // partial sums of a row, whatever LANES is: it changes no bit
#define PARTS (STRIPES / LANES)
#define LOG2E 1.44269504f

#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

typedef struct {
    Floats part[PARTS];
} Sums;  // of a row's elements, each in the stripe of its number modulo STRIPES

static const Ints LANE = LANE_NUMBERS;

INLINE Floats load(const float *from) {
    Floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE void store(float *to, Floats x) { memcpy(to, &x, sizeof x); }

INLINE Floats splat(float x) { return x - (Floats){0}; }

INLINE Floats choose(Ints mask, Floats yes, Floats no) {
    return (Floats)(((Ints)yes & mask) | ((Ints)no & ~mask));
}

INLINE float total(const Sums *sums) {
    float s = 0;
    for (int i = 0; i < STRIPES; i++) s += sums->part[i / LANES][i % LANES];
    return s;
}

INLINE float largest(Floats x) {
    float m = x[0];
    for (int i = 1; i < LANES; i++) m = x[i] > m ? x[i] : m;
    return m;
}

// 2^x, where x is at most 126, to 2e-7 of its value: 2^whole by the exponent's bits, 2^rest by a
// polynomial on [-0.5, 0.5].
INLINE Floats power_of_low(Floats x) {
    const float to_whole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    x = choose(x > -126.0f, x, splat(-126.0f));
    Floats whole = (x + to_whole) - to_whole, rest = x - whole;
    Floats y = splat(1.5403530e-4f);
    y = y * rest + 1.3333558e-3f;
    y = y * rest + 9.6181291e-3f;
    y = y * rest + 5.5504109e-2f;
    y = y * rest + 2.4022651e-1f;
    y = y * rest + 6.9314718e-1f;
    y = y * rest + 1.0f;
    return (Floats)((Ints)y + (__builtin_convertvector(whole, Ints) << 23));
}

// The same for any x, of which none beyond 126 counts as more.
INLINE Floats power_of_two(Floats x) {
    return power_of_low(choose(x < 126.0f, x, splat(126.0f)));
}

// GELU's tanh form as x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3): returns the sigmoid.
INLINE Floats gelu_gate(Floats x) {
    return 1 / (1 + power_of_two(x * (-2.30220819f - 0.10294324f * x * x)));
}

// z = x turned by its position's angles, over a head's `size` channels; returns what z is multiplied
// by to have a mean square of 1, or 1 where it is not `normed`.
INLINE float turn(const float *x, const float *cosines, const float *sines, float *z, int size,
                  int normed, float eps) {
    const int half = size / 2;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int i = 0; i < half; i++) {
        z[i] = x[i] * cosines[i] - x[half + i] * sines[i];
        z[half + i] = x[i] * sines[i] + x[half + i] * cosines[i];
        squares += z[i] * z[i] + z[half + i] * z[half + i];
    }
    return normed ? 1 / sqrtf(squares / size + eps) : 1;
}

#endif
