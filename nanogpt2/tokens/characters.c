// The tokens of characters, looked up in a table: tokenizer.py does the same with numpy.

#include <stdint.h>

// Put the token of each of `size` characters into `tokens`, from a table of those of all code
// points up to `last`, negative for unknown ones, as `last` and all above it are. Return whether
// all are known.
#define ENCODE(NAME, CODE)                                                                     \
    int NAME(                                                                                  \
        const CODE *codes, int64_t size, const int32_t *table, int64_t last, uint16_t *tokens  \
    ) {                                                                                        \
        int32_t all = 0;                                                                       \
        for (int64_t at = 0; at < size; at++) {                                                \
            int32_t token = table[codes[at] < last ? codes[at] : last];                        \
            all |= token;                                                                      \
            tokens[at] = (uint16_t)token;                                                      \
        }                                                                                      \
        return all >= 0;                                                                       \
    }

ENCODE(encode_bytes, uint8_t)  // Latin-1
ENCODE(encode_points, uint32_t)  // UTF-32
