// The words that GPT-2's pattern cuts ASCII text into, counted: words.py has the pattern.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OTHER, LETTER, DIGIT, SPACE };

static void set_kinds(uint8_t *kinds) {
    memset(kinds, OTHER, 128);
    memset(&kinds['\t'], SPACE, '\r' - '\t' + 1);
    kinds[' '] = SPACE;
    memset(&kinds['0'], DIGIT, 10);
    memset(&kinds['A'], LETTER, 26);
    memset(&kinds['a'], LETTER, 26);
}

// Return where the word ends that begins at `at`.
static int64_t find_end(const uint8_t *text, int64_t size, int64_t at, const uint8_t *kinds) {
    if (text[at] == '\'' && at + 1 < size) {
        uint8_t next = text[at + 1], last = at + 2 < size ? text[at + 2] : 0;
        if (next == 's' || next == 'd' || next == 'm' || next == 't') return at + 2;
        if (next == 'l' && last == 'l') return at + 3;
        if ((next == 'v' || next == 'r') && last == 'e') return at + 3;
    }
    int64_t end = at;
    if (text[at] == ' ' && at + 1 < size && kinds[text[at + 1]] != SPACE) end++;
    uint8_t kind = kinds[text[end]];
    while (end < size && kinds[text[end]] == kind) end++;
    // the last character of white space goes with the word after it, or is one by itself
    return kind == SPACE && end < size && end > at + 1 ? end - 1 : end;
}

// Put where each word stands first, its length and how often it stands in `text` into arrays that
// have room for all; return how many words there are, each once, or -1 without memory.
int64_t count_words(
    const uint8_t *text, int64_t size, int64_t *starts, int64_t *lengths, int64_t *counts
) {
    uint8_t kinds[128];
    set_kinds(kinds);
    int64_t n = 0;
    int bits = 12;
    int64_t *table = calloc((size_t)1 << bits, sizeof *table);  // numbers of words, from 1 on
    uint64_t *hashes = malloc((size / 2 + 129) * sizeof *hashes);
    for (int64_t at = 0, end; at < size && table && hashes; at = end) {
        end = find_end(text, size, at, kinds);
        uint64_t hash = 0xCBF29CE484222325ull, mask = ((uint64_t)1 << bits) - 1;
        for (int64_t each = at; each < end; each++) hash = (hash ^ text[each]) * 0x100000001B3ull;
        uint64_t place = (hash ^ hash >> 32) & mask;
        int64_t word;
        while ((word = table[place] - 1) >= 0) {
            if (hashes[word] == hash && lengths[word] == end - at
                && !memcmp(text + starts[word], text + at, end - at)) break;
            place = (place + 1) & mask;
        }
        if (word >= 0) {
            counts[word]++;
            continue;
        }
        hashes[n] = hash;
        starts[n] = at;
        lengths[n] = end - at;
        counts[n] = 1;
        table[place] = ++n;
        if (2 * n < (int64_t)mask) continue;
        free(table);
        table = calloc((size_t)1 << ++bits, sizeof *table);
        mask = ((uint64_t)1 << bits) - 1;
        for (word = 0; word < n && table; word++) {
            place = (hashes[word] ^ hashes[word] >> 32) & mask;
            while (table[place]) place = (place + 1) & mask;
            table[place] = word + 1;
        }
    }
    if (!table || !hashes) n = -1;
    free(table);
    free(hashes);
    return n;
}
