// Encoding: added tokens, pieces, merges. [gpt2] section 2.2.
#include "bpe.h"
#include "fail.h"
#include "io/utf8.h"

#include <string.h>

#define CACHE_PIECES (1 << 16) // distinct pieces remembered within one call
#define CACHE_BYTES 64         // longer ones rarely come again

// A piece met before: where in the text it was and where in the output its tokens are.
typedef struct memo {
    uint32_t at, size; // size 0: empty slot
    uint32_t hash;
    uint32_t count;
    size_t token;
} memo;

// A symbol of a piece under work, in a list linked by position.
typedef struct symbol {
    int32_t id; // -1: merged into its left neighbour
    uint32_t previous, next;
} symbol;

// One call of qn_tokenizer_encode().
typedef struct encoder {
    const qn_tokenizer *tokenizer;
    const uint8_t *text;
    size_t size;
    qn_tokens *out;
    qn_pieces pieces;
    memo *memos;
    size_t memo_count, memo_capacity;
    symbol *symbols;
    size_t symbol_capacity;
    uint64_t *heap; // rank << 32 | position: the lowest rank, leftmost on ties, is the minimum
    size_t heap_count, heap_capacity;
    char *spelled;
    size_t spelled_capacity;
    bool blanks_only;
} encoder;

void qn_tokens_free(qn_tokens *t)
{
    qn_free(t->id);
    *t = (qn_tokens){ 0 };
}

qn_result qn_tokens_append(qn_tokens *t, const int32_t *ids, size_t count)
{
    QN_TRY(qn_grow((void **)&t->id, &t->capacity, t->count + count, sizeof *t->id));
    if (count) memcpy(t->id + t->count, ids, count * sizeof *ids);
    t->count += count;
    return QN_OK;
}

static void heap_push(encoder *e, uint64_t value)
{
    size_t i = e->heap_count++;
    for (; i && e->heap[(i - 1) / 2] > value; i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = value;
}

static uint64_t heap_pop(encoder *e)
{
    uint64_t top = e->heap[0], last = e->heap[--e->heap_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < e->heap_count) {
        if (child + 1 < e->heap_count && e->heap[child + 1] < e->heap[child]) child++;
        if (e->heap[child] >= last) break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

static uint32_t pair_rank(const encoder *e, uint32_t at)
{
    const symbol *s = &e->symbols[at];
    return qn_pairmap_find(&e->tokenizer->ranks, (uint32_t)s->id, (uint32_t)e->symbols[s->next].id);
}

static void push_pair(encoder *e, uint32_t at, uint32_t size)
{
    if (e->symbols[at].next == size) return;
    uint32_t rank = pair_rank(e, at);
    if (rank != QN_MAP_NONE) heap_push(e, (uint64_t)rank << 32 | at);
}

// O(n log n): every merge removes a symbol and adds at most two entries to the heap, so that
// n - 1 of the beginning and 2 (n - 1) of the merges suffice.
static qn_result merge_piece(encoder *e, const uint8_t *piece, uint32_t size)
{
    QN_TRY(qn_grow((void **)&e->symbols, &e->symbol_capacity, size, sizeof *e->symbols));
    QN_TRY(qn_grow((void **)&e->heap, &e->heap_capacity, (size_t)3 * size, sizeof *e->heap));
    symbol *s = e->symbols;
    for (uint32_t i = 0; i < size; i++)
        s[i] = (symbol){ .id = e->tokenizer->byte_id[piece[i]], .previous = i - 1, .next = i + 1 };
    e->heap_count = 0;
    for (uint32_t i = 0; i < size; i++) push_pair(e, i, size);

    while (e->heap_count) {
        uint64_t top = heap_pop(e);
        uint32_t at = (uint32_t)top, rank = (uint32_t)(top >> 32);
        if (s[at].id < 0 || s[at].next == size || pair_rank(e, at) != rank) continue; // outdated
        symbol *right = &s[s[at].next];
        s[at].id = e->tokenizer->merges[rank].result;
        s[at].next = right->next;
        right->id = -1;
        if (s[at].next != size) s[s[at].next].previous = at;
        push_pair(e, at, size);
        if (at) push_pair(e, s[at].previous, size);
    }
    for (uint32_t i = 0; i < size; i = s[i].next) QN_TRY(qn_tokens_append(e->out, &s[i].id, 1));
    return QN_OK;
}

// The piece as a single token, QN_MAP_NONE when it is none.
static qn_result find_whole(encoder *e, const uint8_t *piece, size_t size, uint32_t *id)
{
    *id = QN_MAP_NONE;
    if (size > e->tokenizer->longest) return QN_OK;
    QN_TRY(qn_grow((void **)&e->spelled, &e->spelled_capacity, 2 * size + 4, 1));
    size_t n = 0;
    for (size_t i = 0; i < size; i++) n += qn_utf8_put(qn_byte_char(piece[i]), e->spelled + n);
    *id = qn_strmap_find(&e->tokenizer->vocab, e->spelled, n);
    return QN_OK;
}

static qn_result encode_piece(encoder *e, const uint8_t *piece, size_t size)
{
    if (size == 1) return qn_tokens_append(e->out, &e->tokenizer->byte_id[*piece], 1);
    if (e->tokenizer->ignore_merges) {
        uint32_t id;
        QN_TRY(find_whole(e, piece, size, &id));
        if (id != QN_MAP_NONE) return qn_tokens_append(e->out, &(int32_t){ (int32_t)id }, 1);
    }
    return merge_piece(e, piece, (uint32_t)size);
}

static memo *find_memo(encoder *e, const uint8_t *piece, size_t size, uint32_t hash)
{
    for (size_t i = hash;; i++) {
        memo *m = &e->memos[i & (e->memo_capacity - 1)];
        if (!m->size) return m;
        if (m->hash == hash && m->size == size && !memcmp(e->text + m->at, piece, size)) return m;
    }
}

static qn_result grow_memos(encoder *e)
{
    size_t old_capacity = e->memo_capacity;
    memo *old = e->memos;
    size_t capacity = old_capacity ? 2 * old_capacity : 64;
    memo *grown = qn_calloc(capacity, sizeof *grown);
    if (!grown) return qn_no_memory(capacity * sizeof *grown);
    e->memos = grown;
    e->memo_capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].size) *find_memo(e, e->text + old[i].at, old[i].size, old[i].hash) = old[i];
    qn_free(old);
    return QN_OK;
}

// The same piece has the same tokens: those found before are copied from the output.
static qn_result encode_remembered(encoder *e, const uint8_t *piece, size_t size)
{
    if (size == 1 || size > CACHE_BYTES) return encode_piece(e, piece, size);
    if (e->memo_count >= e->memo_capacity / 2 && e->memo_count < CACHE_PIECES)
        QN_TRY(grow_memos(e));
    uint32_t hash = (uint32_t)qn_hash_bytes(piece, size);
    memo *m = find_memo(e, piece, size, hash);
    qn_tokens *out = e->out;
    if (m->size) {
        QN_TRY(qn_grow((void **)&out->id, &out->capacity, out->count + m->count, sizeof *out->id));
        return qn_tokens_append(out, out->id + m->token, m->count);
    }
    size_t before = out->count;
    QN_TRY(encode_piece(e, piece, size));
    if (e->memo_count == CACHE_PIECES) return QN_OK;
    *m = (memo){ .at = (uint32_t)(piece - e->text),
                 .size = (uint32_t)size,
                 .hash = hash,
                 .count = (uint32_t)(out->count - before),
                 .token = before };
    e->memo_count++;
    return QN_OK;
}

static qn_result encode_segment(encoder *e, const uint8_t *clean, size_t begin, size_t end)
{
    qn_pieces_start(&e->pieces, clean + begin, end - begin);
    for (;;) {
        size_t from, to;
        QN_TRY(qn_pieces_next(&e->pieces, &from, &to));
        if (from == to) return QN_OK;
        QN_TRY(encode_remembered(e, e->text + begin + from, to - from));
    }
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool all_blank(const qn_token *t)
{
    for (uint32_t i = 0; i < t->size; i++)
        if (!is_blank((uint8_t)t->bytes[i])) return false;
    return true;
}

// The longest added token at `at`: a search that narrows the sorted list byte by byte.
static const qn_token *match_added(const encoder *e, size_t at, int32_t *id)
{
    const qn_tokenizer *t = e->tokenizer;
    const qn_token *best = NULL;
    if (!t->added_first[e->text[at]]) return NULL;
    size_t low = 0, high = t->added_count;
    for (size_t depth = 0; low < high && at + depth < e->size; depth++) {
        uint8_t wanted = e->text[at + depth];
        size_t edges[2];
        for (int upper = 0; upper < 2; upper++) { // first entry >= wanted, first entry > wanted
            size_t a = low, b = high;
            while (a < b) {
                size_t middle = a + (b - a) / 2;
                uint8_t byte = (uint8_t)t->tokens[t->added[middle]].bytes[depth];
                if (byte < wanted || (upper && byte == wanted))
                    a = middle + 1;
                else
                    b = middle;
            }
            edges[upper] = a;
        }
        low = edges[0];
        high = edges[1];
        if (low < high && t->tokens[t->added[low]].size == depth + 1) { // a prefix sorts first
            const qn_token *found = &t->tokens[t->added[low]];
            if (!e->blanks_only || all_blank(found)) {
                *id = t->added[low];
                best = found;
            }
            if (++low == high) break;
        }
    }
    return best;
}

static qn_result encode_text(encoder *e, const uint8_t *clean, bool plain)
{
    size_t done = 0; // everything before it is encoded
    for (size_t i = 0; i < e->size && !plain && e->tokenizer->added_count;) {
        int32_t id = 0;
        const qn_token *token = match_added(e, i, &id);
        if (!token) {
            i++;
            continue;
        }
        size_t begin = i, end = i + token->size;
        while (token->lstrip && begin > done && is_blank(e->text[begin - 1])) begin--;
        while (token->rstrip && end < e->size && is_blank(e->text[end])) end++;
        QN_TRY(encode_segment(e, clean, done, begin));
        QN_TRY(qn_tokens_append(e->out, &id, 1));
        done = i = end;
    }
    return encode_segment(e, clean, done, e->size);
}

static qn_result encode_all(encoder *e, const qn_encode_opts *opts)
{
    const qn_tokenizer *t = e->tokenizer;
    uint8_t *clean;
    QN_TRY(qn_clean_utf8(e->text, e->size, &clean));
    qn_result r = qn_pieces_create(t->splitter, &e->pieces);
    if (r == QN_OK && opts->sequence) r = qn_tokens_append(e->out, t->before.id, t->before.count);
    if (r == QN_OK) r = encode_text(e, clean ? clean : e->text, opts->plain);
    if (r == QN_OK && opts->sequence) r = qn_tokens_append(e->out, t->after.id, t->after.count);
    qn_pieces_destroy(&e->pieces);
    qn_free(clean);
    return r;
}

qn_result qn_tokenizer_encode(const qn_tokenizer *t, const void *text, size_t size,
                              const qn_encode_opts *opts, qn_tokens *out)
{
    if (size > INT32_MAX)
        return qn_fail(QN_ERR_INVALID, "a text of %zu bytes, expected less than 2 GiB", size);
    size_t before = out->count;
    encoder e = { .tokenizer = t, .text = text ? text : "", .size = size, .out = out,
                  .blanks_only = opts && opts->blanks_only };
    qn_result r = encode_all(&e, opts ? opts : &(qn_encode_opts){ 0 });
    if (r != QN_OK) out->count = before;
    qn_free(e.memos);
    qn_free(e.symbols);
    qn_free(e.heap);
    qn_free(e.spelled);
    return r;
}
