// The inside of a tokenizer, for the files that load, train, save and use it.
#ifndef QN_BPE_H
#define QN_BPE_H

#include <quoin/tokenizer.h>

#include "io/map.h"
#include "mem.h"
#include "text/pretokenize.h"

#define QN_TOKEN_LIMIT (1 << 21) // ids are below
#define QN_TOKEN_BYTES_LIMIT (1 << 30)
#define QN_ADDED_BYTES_LIMIT 256 // of one added token: what a position may cost to match

// Files spell each byte as a printable character: itself where it is one in Latin-1; the other 68
// are U+0100 and on, in order.
static inline uint32_t qn_byte_char(uint8_t b)
{
    if (b <= 0x20) return 0x100u + b;
    if (b >= 0x7F && b <= 0xA0) return 0x100u + 33 + (b - 0x7Fu);
    return b == 0xAD ? 0x100 + 33 + 34 : b;
}
// The byte, or -1 for characters that stand for none.
static inline int qn_char_byte(uint32_t c)
{
    if (c < 0x100) return qn_byte_char((uint8_t)c) == c ? (int)c : -1;
    if (c < 0x100 + 33) return (int)c - 0x100;
    if (c < 0x100 + 33 + 34) return (int)c - (0x100 + 33) + 0x7F;
    return c == 0x100 + 33 + 34 ? 0xAD : -1;
}

typedef struct qn_token {
    const char *key;   // as the vocabulary spells it, terminated; NULL: not in the vocabulary
    const char *bytes; // what it decodes to; NULL: the id is unused
    uint32_t key_size, size;
    bool added, special, lstrip, rstrip;
} qn_token;

typedef struct qn_merge {
    int32_t left, right, result;
} qn_merge;

struct qn_tokenizer {
    qn_arena arena;
    qn_token *tokens;
    size_t count, capacity; // of ids
    qn_strmap vocab;        // key -> id
    qn_merge *merges;       // by rank
    size_t merge_count, merge_capacity;
    qn_pairmap ranks; // (left, right) -> rank
    int32_t byte_id[256];
    int32_t *added; // ids, sorted by content
    size_t added_count, added_capacity;
    bool added_first[256]; // bytes that added tokens begin with
    bool ignore_merges;    // a piece that is a token as a whole stays one
    size_t longest;        // key in bytes
    qn_splitter *splitter;
    qn_tokens before, after; // around a sequence
};

// Building, in this order. Messages say what is wrong, not in which file.
qn_result qn_bpe_create(qn_tokenizer **out);
qn_result qn_bpe_add_vocab(qn_tokenizer *t, const char *key, size_t size, int64_t id);
typedef struct qn_added {
    const char *content;
    int64_t id;
    bool special, lstrip, rstrip;
} qn_added;
qn_result qn_bpe_add_token(qn_tokenizer *t, const qn_added *a);
qn_result qn_bpe_add_merge(qn_tokenizer *t, const char *left, size_t left_size, const char *right,
                           size_t right_size);
qn_result qn_bpe_finish(qn_tokenizer *t, const char *pattern); // NULL: gpt2

// Appends to growable lists.
qn_result qn_tokens_append(qn_tokens *t, const int32_t *ids, size_t count);
qn_result qn_text_append(qn_text *t, const char *data, size_t size);

// The content of a tokenizer.json; free with qn_free().
qn_result qn_tokenizer_text(const qn_tokenizer *t, char **out);
// Reads the content of a tokenizer.json; `name` stands for the file in messages.
qn_result qn_tokenizer_parse(const char *name, const char *text, size_t size, qn_tokenizer **out);

#endif
