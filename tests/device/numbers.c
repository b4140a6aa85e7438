// What the kernels of training compute of fixed numbers, a line for each result: another processor
// must print the same, but for rounding. KERNELS is the source, HEAD_SIZE its heads' channels.

#include KERNELS
#include <stdio.h>
#include <stdlib.h>

enum { B = 2, H = 2, T = 37, C = H * HEAD_SIZE, ROWS_OF = B * T, N = ROWS_OF * C, TAPS = 4 };

// Numbers around 0 whose bits are the same everywhere.
static float *fixed(int n, uint32_t state) {
    float *x = malloc(sizeof(float) * n);
    for (int i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)((int)(state >> 8) - (1 << 23)) / (1 << 22);
    }
    return x;
}

static void show(const char *name, const float *x, int n) {
    printf("%s", name);
    for (int i = 0; i < n; i++) printf(" %.9g", x[i]);
    printf("\n");
}

static Heads heads(float *data) { return (Heads){data, (int64_t)T * C, HEAD_SIZE, C}; }

static void attend(Memory memory) {
    float *in[4], *out[4], lse[B * H * T];
    Heads x[4], y[4];
    for (int i = 0; i < 4; i++) {
        x[i] = heads(in[i] = fixed(N, i + 1));
        y[i] = heads(out[i] = calloc(N, sizeof(float)));
    }
    attention_forward(x, x + 1, x + 2, y, lse, B, H, H, T, 0, 0.25f, 7, memory);
    show("attention", out[0], N);
    show("sums", lse, B * H * T);
    attention_backward(x, x + 1, x + 2, y, x + 3, lse, y + 1, y + 2, y + 3, B, H, H, T, 0, 0.25f, 7,
                       memory);
    for (int i = 1; i < 4; i++) show("gradient", out[i], N);
}

int main(void) {
    float *x = fixed(N, 11), *dy = fixed(N, 12), *y = calloc(N, sizeof(float));
    float *weight = fixed(TAPS * C, 13), *dweight = calloc((ROWS_OF + 64) * C, sizeof(float));
    const int64_t each = attention_backward_floats(T) + 64 * C;
    Memory memory = {malloc(sizeof(float) * each), each, 1};
    attend(memory);
    rms_norm_forward(x, weight, y, ROWS_OF, C, 0, 1e-6f, memory);
    show("rms_norm", y, N);
    rms_norm_backward(x, weight, dy, y, dweight, ROWS_OF, C, 0, 1e-6f, memory);
    show("rms_norm_backward", y, N);
    mix_forward(x, weight, y, ROWS_OF, T, C, TAPS, 0, memory);
    show("mix", y, N);
    gelu_forward(x, y, N, 0);
    show("gelu", y, N);
    gelu_backward(x, dy, y, N, 0);
    show("gelu_backward", y, N);
    dropout_add(x, dy, y, N, 0, 0, 0.5f, 99);
    show("dropout_add", y, N);
    return 0;
}
