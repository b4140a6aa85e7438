// What the search for copies does with each window, item and match, as numpy does it elsewhere.
//
// A text is `codes`, numbers of characters of `width` bytes, 1 or 4. BASE, INVERSE, SPREAD and the
// names in capitals that are not set here come from Python.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNSIGNED_(number) number##ull
#define UNSIGNED(number) UNSIGNED_(number)
#define BLOCK 4096  // characters that are cleared of white space together, in the cache

typedef struct {
    uint64_t hash, out, in;  // of a window; factors of the character that leaves, and that comes
} Window;

INLINE uint64_t code_at(const void *codes, int width, int64_t at) {
    return width == 1 ? ((const uint8_t *)codes)[at] : ((const uint32_t *)codes)[at];
}

// Return the first window of `length`: SPREAD times the sum of its codes times powers of BASE.
INLINE Window begin_window(const void *codes, int width, int64_t length) {
    uint64_t hash = 0, power = UNSIGNED(SPREAD);
    for (int64_t at = length - 1; at >= 0; at--)
        hash = hash * UNSIGNED(BASE) + code_at(codes, width, at);
    for (int64_t at = 1; at < length; at++) power *= UNSIGNED(BASE);
    uint64_t out = UNSIGNED(SPREAD) * UNSIGNED(INVERSE);
    return (Window){hash * UNSIGNED(SPREAD), out, power};
}

// Move a window on by a character: what it is waited for is one product and one sum.
INLINE void move_window(Window *window, uint64_t leaves, uint64_t comes) {
    window->hash = window->hash * UNSIGNED(INVERSE) + (comes * window->in - leaves * window->out);
}

// --- windows.py ---

static uint64_t mix(uint64_t number) {
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ull;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBull;
    return number ^ (number >> 31);
}

static int repeats_itself(const uint32_t *black) {
    for (int period = PERIOD / 2 + 1; period <= PERIOD; period++) {
        int at = 0;
        while (at < WINDOW - period && black[at] == black[at + period]) at++;
        if (at == WINDOW - period) return 1;
    }
    return 0;
}

// Sample the windows that begin in the first `size` of `total` codes; BLOCK at most.
INLINE int64_t sample_block(
    const void *codes, int width, int64_t size, int64_t total, const uint8_t *is_black,
    int64_t known, uint64_t limit, int64_t start, uint64_t *hashes, int64_t *starts, int64_t *ends
) {
    uint32_t black[BLOCK + REACH + 1];
    int32_t places[BLOCK + REACH + 1];
    int32_t which[BLOCK + REACH + 1];
    uint64_t found[BLOCK + REACH + 1];
    int64_t count = 0, n_found = 0, kept = 0;
    for (int64_t at = 0; at < total; at++) {
        uint64_t code = code_at(codes, width, at);
        black[count] = code;
        places[count] = at;
        count += is_black[width == 1 || code < (uint64_t)known ? code : (uint64_t)known - 1];
    }
    if (count < WINDOW) return 0;
    Window window = begin_window(black, 4, WINDOW);
    for (int64_t at = 0; at <= count - WINDOW; at++) {
        which[n_found] = at;
        found[n_found] = window.hash;
        n_found += window.hash <= limit;
        move_window(&window, black[at], black[at + WINDOW]);  // past the last: not looked at
    }
    for (int64_t each = 0; each < n_found; each++) {
        int64_t at = which[each], begin = places[at], end = places[at + WINDOW - 1] + 1;
        if (begin >= size || end - begin > REACH || repeats_itself(black + at)) continue;
        hashes[kept] = mix(found[each]);
        starts[kept] = begin + start;
        ends[kept++] = end + start;
    }
    return kept;
}

// Sample the windows that begin in the first `size` of `total` codes; return how many there are.
// `is_black` says of the first `known` characters whether they are no white space.
int64_t sample_windows(
    const void *codes, int width, int64_t size, int64_t total, const uint8_t *is_black,
    int64_t known, uint64_t limit, uint64_t *hashes, int64_t *starts, int64_t *ends
) {
    int64_t count = 0;
    for (int64_t start = 0; start < size; start += BLOCK) {
        const char *here = (const char *)codes + start * width;
        int64_t own = size - start < BLOCK ? size - start : BLOCK;
        int64_t all = total - start < own + REACH ? total - start : own + REACH;
        uint64_t *to = hashes + count;
        int64_t *first = starts + count, *last = ends + count;
        count += width == 1
            ? sample_block(here, 1, own, all, is_black, known, limit, start, to, first, last)
            : sample_block(here, 4, own, all, is_black, known, limit, start, to, first, last);
    }
    return count;
}

// --- held_out.py ---

INLINE int64_t keep_low(
    const void *codes, int width, int64_t count, int64_t length, uint64_t limit, uint64_t *low
) {
    Window window = begin_window(codes, width, length);
    int64_t kept = 0;
    for (int64_t at = 0;; at++) {
        low[kept] = window.hash;
        kept += window.hash <= limit;
        if (at == count - 1) return kept;
        move_window(&window, code_at(codes, width, at), code_at(codes, width, at + length));
    }
}

// Put the hashes of `count` windows, one at least, that are no higher than `limit` into `low`.
int64_t low_windows(
    const void *codes, int width, int64_t count, int64_t length, uint64_t limit, uint64_t *low
) {
    return width == 1 ? keep_low(codes, 1, count, length, limit, low)
                      : keep_low(codes, 4, count, length, limit, low);
}

typedef struct {
    const uint64_t *hashes;   // in order
    const uint32_t *buckets;  // where those with the same first bits begin
    const uint8_t *first, *second;  // bits: what is not set is not among the hashes
    uint64_t level, other;
    int32_t shift, shift_of_looks;
} Sought;

INLINE int is_set(const uint8_t *bits, uint64_t at) { return bits[at >> 3] >> (at & 7) & 1; }

// Mark those of `count` hashes, which are no higher than the level allows, that are sought.
void mark_found(const uint64_t *low, int64_t count, const Sought *sought, uint8_t *met) {
    for (int64_t each = 0; each < count; each++) {
        uint64_t hash = low[each], shifted = hash << sought->level;
        if (!is_set(sought->first, shifted >> sought->shift_of_looks)) continue;
        if (!is_set(sought->second, shifted * sought->other >> sought->shift_of_looks)) continue;
        const uint32_t *bucket = sought->buckets + (shifted >> sought->shift);
        for (uint32_t at = bucket[0]; at < bucket[1]; at++)
            if (sought->hashes[at] == hash) met[at] = 1;
    }
}

// --- index.py ---

// Put records of `words` numbers each in the order of their parts; `ends` are where each part ends.
void group_records(
    const uint64_t *records, const uint16_t *parts, int64_t count, int words, int64_t n_parts,
    uint64_t *grouped, int64_t *ends
) {
    memset(ends, 0, n_parts * sizeof *ends);
    for (int64_t each = 0; each < count; each++) ends[parts[each]]++;
    for (int64_t part = 0, before = 0; part < n_parts; part++) {
        int64_t size = ends[part];
        ends[part] = before;
        before += size;
    }
    for (int64_t each = 0; each < count; each++) {
        uint64_t *to = grouped + words * ends[parts[each]]++;
        for (int word = 0; word < words; word++) to[word] = records[words * each + word];
    }
}

typedef struct {
    uint64_t hash;
    int64_t item;
} Item;

typedef struct {
    int64_t item, first, previous;
} Repeat;

typedef struct {
    uint64_t hash;
    int64_t first, previous;  // first -1: an empty place
} Seen;

// Put each item whose hash came before into `repeats`, with the first and the one before; return
// how many there are, or -1 without memory.
int64_t find_repeats(const Item *items, int64_t count, Repeat *repeats) {
    int bits = 4;
    while ((int64_t)1 << bits < 2 * count) bits++;
    Seen *table = malloc(sizeof *table << bits);
    if (table == NULL) return -1;
    for (int64_t at = 0; at < (int64_t)1 << bits; at++) table[at].first = -1;
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    int64_t found = 0;
    for (int64_t each = 0; each < count; each++) {
        uint64_t hash = items[each].hash, at = hash * UNSIGNED(BASE) >> (64 - bits);
        int64_t item = items[each].item;
        while (table[at].first >= 0 && table[at].hash != hash) at = (at + 1) & mask;
        Seen *seen = table + at;
        if (seen->first < 0)
            *seen = (Seen){hash, item, item};
        else
            repeats[found++] = (Repeat){item, seen->first, seen->previous};
        seen->previous = item;
    }
    free(table);
    return found;
}

// --- near.py and similarity.py ---

// Put into `links` for each match the first of its chain: those that go on from one another.
void chain_matches(
    const int64_t *items, const int64_t *sources, int64_t count, int64_t gap, int64_t drift,
    int32_t *links
) {
    for (int64_t at = 0; at < count; at++) {
        links[at] = at;
        for (int64_t back = 1; back <= 2 * gap && back <= at; back++) {
            int64_t step = items[at] - items[at - back];
            int64_t source_step = sources[at] - sources[at - back];
            if (step > gap) break;
            if (step <= 0 || source_step < 1 || source_step > gap) continue;
            if (step - source_step < -drift || step - source_step > drift) continue;
            links[at] = links[at - back];
            break;
        }
    }
}

// Cut the chains of `least` matches and more into segments of `size` items and more, in the order of
// chains and items. Put those that end before the item `limit` into `columns`, 7 rows of `count`;
// return how many there are, or -1 without memory. Say what is to be looked at `again`.
int64_t cut_segments(
    const int64_t *items, const int64_t *sources, const int32_t *links, int64_t count,
    int64_t limit, int64_t least, int64_t size, int64_t *columns, uint8_t *again
) {
    typedef struct {
        int64_t last;
        int32_t matches, pieces, begin;  // begin: the number of its first segment
    } Chain;
    int64_t *chain = columns, *first = chain + count, *last = first + count, *lowest = last + count;
    int64_t *highest = lowest + count, *matches = highest + count, *breaks = matches + count;
    Chain *chains = calloc(count + 1, sizeof *chains);
    int64_t *before = malloc((count + 1) * sizeof *before);  // the source of a segment's last match
    int64_t n = 0, kept = -1;
    if (chains == NULL || before == NULL) goto end;
    for (int64_t at = 0; at < count; at++) {
        chains[links[at]].matches++;
        chains[links[at]].last = items[at];
    }
    for (int64_t at = 0; at < count; at++) {
        Chain *of = chains + at;
        if (of->matches < least) continue;
        of->begin = n;
        of->pieces = (of->last - items[at] + 1) / size;
        of->pieces += !of->pieces;
        for (int64_t each = n; each < n + of->pieces; each++) matches[each] = 0;
        n += of->pieces;
    }
    for (int64_t at = 0; at < count; at++) {
        Chain *of = chains + links[at];
        again[at] = items[at] >= limit;
        if (of->matches < least) continue;
        int64_t piece = (items[at] - items[links[at]]) / size, source = sources[at];
        int64_t each = of->begin + (piece < of->pieces ? piece : of->pieces - 1);
        if (!matches[each]) {
            chain[each] = links[at];
            first[each] = last[each] = items[at];
            lowest[each] = highest[each] = source;
            matches[each] = 1;
            breaks[each] = 0;
        } else {  // an item can match twice in a chain
            matches[each] += items[at] > last[each];
            breaks[each] += items[at] - last[each] > 1 || source - before[each] > 1;
            last[each] = items[at];
            if (source < lowest[each]) lowest[each] = source;
            if (source > highest[each]) highest[each] = source;
        }
        before[each] = source;
    }
    for (int64_t at = 0; at < count; at++) {
        Chain *of = chains + links[at];
        if (of->matches < least) continue;
        int64_t piece = (items[at] - items[links[at]]) / size;
        again[at] |= last[of->begin + (piece < of->pieces ? piece : of->pieces - 1)] >= limit;
    }
    kept = 0;
    for (int64_t each = 0; each < n; each++) {
        if (last[each] >= limit || matches[each] < least) continue;
        for (int row = 0; row < 7; row++) columns[row * count + kept] = columns[row * count + each];
        kept++;
    }
end:
    free(chains);
    free(before);
    return kept;
}

// Put the 5-grams of a text, white space left out, into a table of 2^(64 - shift) places: a hash,
// and in its last two bits which texts have it, `text` among them, 1 or 2. Return how many it has,
// each once. Those in whose hash one of the bits `left_out` is set are left out.
INLINE int64_t add_grams(
    const void *codes, int width, int64_t size, const uint8_t *is_black, int64_t known, int text,
    uint64_t left_out, uint64_t *table, int shift, int64_t *different
) {
    uint32_t black[BLOCK + GRAM];
    uint64_t keys[BLOCK + 1];
    uint64_t hash = 0, oldest = UNSIGNED(BASE), mask = ((uint64_t)1 << (64 - shift)) - 1;
    int64_t count = GRAM, n_own = 0, n_new = 0, missing = GRAM - 1;
    for (int part = 0; part < GRAM; part++) oldest *= UNSIGNED(BASE);
    memset(black, 0, sizeof *black * count);
    for (int64_t start = 0; start < size; start += BLOCK) {
        int64_t end = size < start + BLOCK ? size : start + BLOCK;
        for (int64_t at = start; at < end; at++) {
            uint64_t code = code_at(codes, width, at);
            black[count] = code;
            count += is_black[width == 1 || code < (uint64_t)known ? code : (uint64_t)known - 1];
        }
        int64_t n_keys = 0;
        for (int64_t at = GRAM; at < count; at++) {
            uint64_t comes = black[at], leaves = black[at - GRAM];
            hash = hash * UNSIGNED(BASE) + (comes * UNSIGNED(BASE) - leaves * oldest);
            keys[n_keys] = hash * UNSIGNED(SPREAD);
            n_keys += !(keys[n_keys] & left_out) & (missing <= 0);
            missing -= missing > 0;
        }
        for (int64_t each = 0; each < n_keys; each++) {
            uint64_t key = keys[each], place = key >> shift;
            while (table[place] && (table[place] ^ key) >> 2) place = (place + 1) & mask;
            n_new += !table[place];
            n_own += !(table[place] & text);
            table[place] = (key & ~(uint64_t)3) | (table[place] & 3) | text;
        }
        memmove(black, black + count - GRAM, sizeof *black * GRAM);
        count = GRAM;
    }
    *different += n_new;
    return n_own;
}

// Return how many 5-grams two texts have both, and put into `different` how many there are in all,
// but for those that are `left_out`; -1 without memory.
int64_t count_shared(
    const void *one, int width_one, int64_t size_one, const void *two, int width_two,
    int64_t size_two, const uint8_t *is_black, int64_t known, uint64_t left_out,
    int64_t *different
) {
    int64_t most = size_one + size_two, n_own = 0, n_different = 0;
    int bits = 4;
    while ((int64_t)1 << bits < most + most / 4) bits++;
    int s = 64 - bits;
    uint64_t *table = calloc((size_t)1 << bits, sizeof *table);
    if (table == NULL) return -1;
    for (int text = 1; text <= 2; text++) {
        const void *codes = text == 1 ? one : two;
        int64_t size = text == 1 ? size_one : size_two, *n = &n_different;
        n_own += (text == 1 ? width_one : width_two) == 1
            ? add_grams(codes, 1, size, is_black, known, text, left_out, table, s, n)
            : add_grams(codes, 4, size, is_black, known, text, left_out, table, s, n);
    }
    free(table);
    *different = n_different;
    return n_own - n_different;
}
