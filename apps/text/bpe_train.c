// Learning merges. Pairs are counted once; a merge then touches only the places where its pair
// stands, so that the whole training costs O(n log n) in the bytes n of the distinct pieces.
// [bpe] algorithm 1, over bytes.
#include "bpe.h"
#include "fail.h"
#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define SYMBOL_LIMIT ((size_t)1 << 30) // keeps the places of pairs below 2^32

// A distinct piece of the corpus.
typedef struct word {
    const uint8_t *bytes;
    size_t size;
    uint64_t count;
} word;

// The symbols of all words, each word a list linked by position.
typedef struct symbol {
    int32_t id; // -1: merged into its left neighbour
    uint32_t previous, next;
    uint32_t word;
} symbol;

typedef struct place {
    uint32_t symbol; // of the left half
    uint32_t next;   // place of the same pair
} place;

typedef struct pair {
    uint32_t left, right;
    uint64_t count;  // frequency of the word, summed over the places where the pair stands
    uint32_t places; // where it stood when it came into being; some may be gone
    bool grown;      // in trainer.grown
} pair;

typedef struct candidate {
    uint64_t count; // when it was pushed; never less than now, or there is a newer candidate
    uint32_t left, right;
} candidate;

typedef struct trainer {
    qn_tokenizer *tokenizer;
    const qn_tokenizer_train_opts *opts;
    qn_strmap word_of;
    word *words;
    size_t word_count, word_capacity;
    symbol *symbols;
    size_t symbol_count, symbol_capacity;
    qn_pairmap pair_of;
    pair *pairs;
    size_t pair_count, pair_capacity;
    place *places;
    size_t place_count, place_capacity;
    candidate *heap;
    size_t heap_count, heap_capacity;
    uint32_t *grown; // pairs that the current merge has made more frequent
    size_t grown_count, grown_capacity;
    uint32_t *work; // places of the current pair
    size_t work_capacity;
    char *spelled;
    size_t spelled_capacity;
} trainer;

static qn_result count_piece(trainer *t, const uint8_t *bytes, size_t size)
{
    uint32_t w;
    QN_TRY(qn_strmap_add(&t->word_of, (const char *)bytes, size, (uint32_t)t->word_count, &w));
    if (w == t->word_count) {
        QN_TRY(qn_grow((void **)&t->words, &t->word_capacity, w + (size_t)1, sizeof *t->words));
        t->words[t->word_count++] = (word){ .bytes = bytes, .size = size };
        t->symbol_count += size;
        if (t->symbol_count > SYMBOL_LIMIT)
            return qn_fail(QN_ERR_UNSUPPORTED, "more than %zu bytes of distinct pieces",
                           SYMBOL_LIMIT);
    }
    t->words[w].count++;
    return QN_OK;
}

static qn_result count_words(trainer *t, const qn_splitter *splitter, const uint8_t *text,
                             size_t size)
{
    uint8_t *clean;
    qn_pieces pieces;
    QN_TRY(qn_clean_utf8(text, size, &clean));
    qn_result r = qn_pieces_create(splitter, &pieces);
    if (r == QN_OK) {
        size_t begin = 0, end = 0;
        qn_pieces_start(&pieces, clean ? clean : text, size);
        while ((r = qn_pieces_next(&pieces, &begin, &end)) == QN_OK && begin < end)
            if ((r = count_piece(t, text + begin, end - begin)) != QN_OK) break;
        qn_pieces_destroy(&pieces);
    }
    qn_free(clean);
    return r;
}

// Specials first, then the characters of the bytes in the order of their code points.
static qn_result first_tokens(trainer *t)
{
    const qn_tokenizer_train_opts *o = t->opts;
    qn_tokenizer *k = t->tokenizer;
    for (size_t i = 0; i < o->special_count; i++) {
        const char *text = o->special[i];
        if (qn_utf8_valid(text, strlen(text)) != strlen(text))
            return qn_fail(QN_ERR_INVALID, "special token %zu is not valid UTF-8", i);
        QN_TRY(qn_bpe_add_vocab(k, text, strlen(text), (int64_t)i));
        QN_TRY(
            qn_bpe_add_token(k, &(qn_added){ .content = text, .id = (int64_t)i, .special = true }));
    }
    for (uint32_t c = 0, id = (uint32_t)o->special_count; id < o->special_count + 256; c++) {
        char key[4];
        int byte = qn_char_byte(c);
        if (byte < 0) continue;
        k->byte_id[byte] = (int32_t)id;
        QN_TRY(qn_bpe_add_vocab(k, key, qn_utf8_put(c, key), id++));
    }
    return QN_OK;
}

static qn_result lay_out_symbols(trainer *t)
{
    QN_TRY(qn_grow((void **)&t->symbols, &t->symbol_capacity, t->symbol_count, sizeof(symbol)));
    uint32_t at = 0;
    for (uint32_t w = 0; w < t->word_count; w++) {
        uint32_t first = at, end = at + (uint32_t)t->words[w].size;
        for (; at < end; at++)
            t->symbols[at] = (symbol){
                .id = t->tokenizer->byte_id[t->words[w].bytes[at - first]],
                .previous = at == first ? NONE : at - 1,
                .next = at + 1 == end ? NONE : at + 1,
                .word = w,
            };
    }
    return QN_OK;
}

// A pair has come into being at symbol `at`.
static qn_result gain(trainer *t, uint32_t at)
{
    const symbol *left = &t->symbols[at], *right = &t->symbols[left->next];
    uint32_t p;
    QN_TRY(qn_pairmap_add(&t->pair_of, (uint32_t)left->id, (uint32_t)right->id,
                          (uint32_t)t->pair_count, &p));
    if (p == t->pair_count) {
        QN_TRY(qn_grow((void **)&t->pairs, &t->pair_capacity, p + (size_t)1, sizeof *t->pairs));
        t->pairs[t->pair_count++] =
            (pair){ .left = (uint32_t)left->id, .right = (uint32_t)right->id, .places = NONE };
    }
    pair *q = &t->pairs[p];
    QN_TRY(qn_grow((void **)&t->places, &t->place_capacity, t->place_count + 1, sizeof(place)));
    t->places[t->place_count] = (place){ .symbol = at, .next = q->places };
    q->places = (uint32_t)t->place_count++;
    q->count += t->words[left->word].count;
    if (q->grown) return QN_OK;
    q->grown = true;
    QN_TRY(qn_grow((void **)&t->grown, &t->grown_capacity, t->grown_count + 1, sizeof *t->grown));
    t->grown[t->grown_count++] = p;
    return QN_OK;
}

// The pair at symbol `at` is about to vanish.
static void lose(trainer *t, uint32_t at)
{
    const symbol *left = &t->symbols[at], *right = &t->symbols[left->next];
    uint32_t p = qn_pairmap_find(&t->pair_of, (uint32_t)left->id, (uint32_t)right->id);
    t->pairs[p].count -= t->words[left->word].count;
}

// More frequent first, then the smaller ids.
static bool before(const candidate *a, const candidate *b)
{
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static qn_result push(trainer *t, const pair *p)
{
    candidate c = { p->count, p->left, p->right };
    QN_TRY(qn_grow((void **)&t->heap, &t->heap_capacity, t->heap_count + 1, sizeof *t->heap));
    size_t i = t->heap_count++;
    for (; i && before(&c, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
    return QN_OK;
}

static candidate pop(trainer *t)
{
    candidate top = t->heap[0], last = t->heap[--t->heap_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < t->heap_count) {
        if (child + 1 < t->heap_count && before(&t->heap[child + 1], &t->heap[child])) child++;
        if (!before(&t->heap[child], &last)) break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = last;
    return top;
}

static qn_result push_grown(trainer *t)
{
    for (size_t i = 0; i < t->grown_count; i++) {
        pair *p = &t->pairs[t->grown[i]];
        p->grown = false;
        if (p->count) QN_TRY(push(t, p));
    }
    t->grown_count = 0;
    return QN_OK;
}

static qn_result count_pairs(trainer *t)
{
    for (uint32_t i = 0; i < t->symbol_count; i++)
        if (t->symbols[i].next != NONE) QN_TRY(gain(t, i));
    return push_grown(t);
}

// The most frequent pair; NULL when none is left.
static qn_result choose(trainer *t, pair **out)
{
    *out = NULL;
    while (t->heap_count) {
        candidate c = pop(t);
        pair *p = &t->pairs[qn_pairmap_find(&t->pair_of, c.left, c.right)];
        if (p->count == c.count) {
            *out = p;
            return QN_OK;
        }
        if (p->count && p->count < c.count) QN_TRY(push(t, p)); // it has become rarer since
    }
    return QN_OK;
}

// The token that the pair makes: new, or one of the same spelling.
static qn_result name_merge(trainer *t, const pair *p, int32_t *id)
{
    qn_tokenizer *k = t->tokenizer;
    const qn_token *left = &k->tokens[p->left], *right = &k->tokens[p->right];
    size_t size = (size_t)left->key_size + right->key_size;
    QN_TRY(qn_grow((void **)&t->spelled, &t->spelled_capacity, size + 1, 1));
    memcpy(t->spelled, left->key, left->key_size);
    memcpy(t->spelled + left->key_size, right->key, right->key_size);
    t->spelled[size] = 0;
    uint32_t found = qn_strmap_find(&k->vocab, t->spelled, size);
    *id = (int32_t)(found != QN_MAP_NONE ? found : k->count);
    if (found == QN_MAP_NONE) QN_TRY(qn_bpe_add_vocab(k, t->spelled, size, *id));
    left = &k->tokens[p->left]; // the table may have moved
    right = &k->tokens[p->right];
    return qn_bpe_add_merge(k, left->key, left->key_size, right->key, right->key_size);
}

static int by_symbol(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

// Takes the places of p out of it, in the order of the text where that matters: in a run of
// equal symbols the leftmost two are joined first.
static qn_result take_places(trainer *t, pair *p, size_t *count)
{
    *count = 0;
    for (uint32_t i = p->places; i != NONE; i = t->places[i].next) {
        QN_TRY(qn_grow((void **)&t->work, &t->work_capacity, *count + 1, sizeof *t->work));
        t->work[(*count)++] = t->places[i].symbol;
    }
    p->places = NONE;
    if (p->left == p->right && *count) qsort(t->work, *count, sizeof *t->work, by_symbol);
    return QN_OK;
}

static qn_result merge_at(trainer *t, uint32_t at, int32_t id)
{
    symbol *s = t->symbols;
    uint32_t right = s[at].next, after = s[right].next, previous = s[at].previous;
    lose(t, at);
    if (previous != NONE) lose(t, previous);
    if (after != NONE) lose(t, right);
    s[at].id = id;
    s[at].next = after;
    s[right].id = -1;
    if (after != NONE) s[after].previous = at;
    if (previous != NONE) QN_TRY(gain(t, previous));
    return after != NONE ? gain(t, at) : QN_OK;
}

static qn_result apply(trainer *t, pair *p)
{
    int32_t id, left = (int32_t)p->left, right = (int32_t)p->right;
    size_t count;
    QN_TRY(name_merge(t, p, &id));
    QN_TRY(take_places(t, p, &count)); // p may move from here on
    for (size_t i = 0; i < count; i++) {
        const symbol *s = &t->symbols[t->work[i]];
        if (s->id != left || s->next == NONE || t->symbols[s->next].id != right) continue;
        QN_TRY(merge_at(t, t->work[i], id));
    }
    return push_grown(t);
}

static qn_result learn(trainer *t)
{
    const qn_tokenizer_train_opts *o = t->opts;
    while (t->tokenizer->count < o->size) {
        pair *p;
        QN_TRY(choose(t, &p));
        if (!p) return QN_OK;
        QN_TRY(apply(t, p));
        if (o->progress && !o->progress(o->user, (uint32_t)t->tokenizer->count, o->size))
            return qn_fail(QN_ERR_CANCELLED, "the training was stopped");
    }
    return QN_OK;
}

// Tokens behind the vocabulary; one that the vocabulary has keeps its id.
static qn_result last_tokens(trainer *t)
{
    const qn_tokenizer_train_opts *o = t->opts;
    for (size_t i = 0; i < o->added_count; i++) {
        const char *text = o->added[i];
        size_t size = strlen(text);
        if (qn_utf8_valid(text, size) != size)
            return qn_fail(QN_ERR_INVALID, "added token %zu is not valid UTF-8", i);
        uint32_t listed = qn_strmap_find(&t->tokenizer->vocab, text, size);
        qn_added a = { .content = text, .id = (int64_t)t->tokenizer->count };
        if (listed != QN_MAP_NONE) a.id = listed;
        QN_TRY(qn_bpe_add_token(t->tokenizer, &a));
    }
    return QN_OK;
}

static qn_result train(trainer *t, const uint8_t *text, size_t size)
{
    qn_splitter *splitter;
    QN_TRY(qn_splitter_create(t->opts->pattern, &splitter));
    qn_result r = count_words(t, splitter, text, size);
    qn_splitter_destroy(&splitter);
    QN_TRY(r);
    QN_TRY(first_tokens(t));
    QN_TRY(lay_out_symbols(t));
    QN_TRY(count_pairs(t));
    QN_TRY(learn(t));
    QN_TRY(last_tokens(t));
    return qn_bpe_finish(t->tokenizer, t->opts->pattern);
}

qn_result qn_tokenizer_train(const void *text, size_t size, const qn_tokenizer_train_opts *opts,
                             qn_tokenizer **out)
{
    if (!opts || !out || (!text && size))
        return qn_fail(QN_ERR_INVALID, "a text, options and a place for the tokenizer");
    if (opts->special_count > QN_TOKEN_LIMIT || opts->size < opts->special_count + 256 ||
        opts->size > QN_TOKEN_LIMIT)
        return qn_fail(QN_ERR_INVALID, "a vocabulary of %u, expected %zu to %d", opts->size,
                       opts->special_count + 256, QN_TOKEN_LIMIT);
    trainer t = { .opts = opts };
    QN_TRY(qn_bpe_create(&t.tokenizer));
    qn_result r = train(&t, text ? text : (const uint8_t *)"", size);
    if (r == QN_OK)
        *out = t.tokenizer;
    else
        qn_tokenizer_close(&t.tokenizer);
    qn_strmap_free(&t.word_of);
    qn_pairmap_free(&t.pair_of);
    void *const owned[] = { t.words, t.symbols, t.pairs, t.places,
                            t.heap,  t.grown,   t.work,  t.spelled };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) qn_free(owned[i]);
    return r == QN_ERR_FORMAT ? QN_ERR_INVALID : r; // what a file would say wrong, opts say here
}
