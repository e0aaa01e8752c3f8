// Cutting text into the pieces that merges never cross.
#ifndef QN_PRETOKENIZE_H
#define QN_PRETOKENIZE_H

#include <quoin/base.h>

// A compiled splitting pattern. Immutable.
typedef struct qn_splitter qn_splitter;

// `pattern` is a name of the table ("gpt2", also NULL; "llama3") or a regular expression.
qn_result qn_splitter_create(const char *pattern, qn_splitter **out);
void qn_splitter_destroy(qn_splitter **s);
// As files spell it, and whether it is the one of the ByteLevel pre-tokenizer itself.
const char *qn_splitter_pattern(const qn_splitter *s);
bool qn_splitter_is_default(const qn_splitter *s);

// Patterns see characters. A byte that is not part of valid UTF-8 counts as one of class "other"
// (no letter, number or space): in the copy made here it is U+007F. *copy stays NULL when the
// text is valid as it is. Offsets do not change.
qn_result qn_clean_utf8(const uint8_t *text, size_t size, uint8_t **copy);

// Walks the pieces of a text, which cover all of it.
typedef struct qn_pieces {
    const qn_splitter *splitter;
    struct pcre2_real_match_data_8 *match;
    struct pcre2_real_match_context_8 *context;
    const uint8_t *text;
    size_t size;
    size_t at;                  // where the next piece begins
    size_t match_at, match_end; // the match found ahead of it; empty: none yet
} qn_pieces;
qn_result qn_pieces_create(const qn_splitter *s, qn_pieces *out);
void qn_pieces_destroy(qn_pieces *p);
void qn_pieces_start(qn_pieces *p, const uint8_t *clean, size_t size);
// The next piece; *end == *begin when there is none.
qn_result qn_pieces_next(qn_pieces *p, size_t *begin, size_t *end);

#endif
