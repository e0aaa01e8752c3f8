// Building a tokenizer: vocabulary, added tokens, merges; what each call demands of a file.
#include "bpe.h"
#include "fail.h"
#include "io/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

qn_result qn_bpe_create(qn_tokenizer **out)
{
    *out = qn_calloc(1, sizeof **out);
    return *out ? QN_OK : qn_no_memory(sizeof **out);
}

void qn_tokenizer_close(qn_tokenizer **t)
{
    if (!*t) return;
    qn_strmap_free(&(*t)->vocab);
    qn_pairmap_free(&(*t)->ranks);
    qn_free((*t)->tokens);
    qn_free((*t)->merges);
    qn_free((*t)->added);
    qn_tokens_free(&(*t)->before);
    qn_tokens_free(&(*t)->after);
    qn_splitter_destroy(&(*t)->splitter);
    qn_arena_free(&(*t)->arena);
    qn_free(*t);
    *t = NULL;
}

static qn_result keep(qn_tokenizer *t, const char *text, size_t size, const char **out)
{
    char *copy = qn_arena_alloc(&t->arena, size + 1);
    if (!copy) return qn_no_memory(size + 1);
    memcpy(copy, text, size); // the arena is zeroed
    *out = copy;
    return QN_OK;
}

// Makes room for the id and returns its place.
static qn_result reserve(qn_tokenizer *t, int64_t id, qn_token **out)
{
    if (id < 0 || id >= QN_TOKEN_LIMIT)
        return qn_fail(QN_ERR_FORMAT, "token id %" PRId64 ", expected 0 to %d", id,
                       QN_TOKEN_LIMIT - 1);
    size_t need = (size_t)id + 1;
    QN_TRY(qn_grow((void **)&t->tokens, &t->capacity, need, sizeof *t->tokens));
    if (need > t->count) {
        memset(t->tokens + t->count, 0, (need - t->count) * sizeof *t->tokens);
        t->count = need;
    }
    *out = &t->tokens[id];
    return QN_OK;
}

// The bytes that the key's characters stand for; *bytes stays NULL when some stand for none.
static qn_result decode_key(qn_tokenizer *t, const char *key, size_t size, qn_token *token)
{
    char *bytes = qn_arena_alloc(&t->arena, size + 1);
    if (!bytes) return qn_no_memory(size + 1);
    uint32_t n = 0, cp = 0;
    for (size_t i = 0; i < size;) {
        size_t length = qn_utf8_char(key + i, size - i, &cp);
        int byte = length ? qn_char_byte(cp) : -1;
        if (byte < 0) return QN_OK;
        bytes[n++] = (char)byte;
        i += length;
    }
    token->bytes = bytes;
    token->size = n;
    return QN_OK;
}

qn_result qn_bpe_add_vocab(qn_tokenizer *t, const char *key, size_t size, int64_t id)
{
    qn_token *token = NULL;
    uint32_t found;
    if (!size || size > QN_TOKEN_BYTES_LIMIT)
        return qn_fail(QN_ERR_FORMAT, "a token of %zu bytes", size);
    QN_TRY(reserve(t, id, &token));
    if (token->key)
        return qn_fail(QN_ERR_FORMAT, "tokens \"%.40s\" and \"%.*s\" have the same id %" PRId64,
                       token->key, size < 40 ? (int)size : 40, key, id);
    QN_TRY(keep(t, key, size, &token->key));
    token->key_size = (uint32_t)size;
    QN_TRY(decode_key(t, token->key, size, token));
    QN_TRY(qn_strmap_add(&t->vocab, token->key, size, (uint32_t)id, &found));
    if (found != (uint32_t)id)
        return qn_fail(QN_ERR_FORMAT, "token \"%.40s\" is in the vocabulary twice", token->key);
    if (size > t->longest) t->longest = size;
    return QN_OK;
}

qn_result qn_bpe_add_token(qn_tokenizer *t, const qn_added *a)
{
    qn_token *token = NULL;
    size_t size = strlen(a->content);
    if (!size || size > QN_ADDED_BYTES_LIMIT)
        return qn_fail(QN_ERR_FORMAT, "an added token of %zu bytes, expected 1 to %d", size,
                       QN_ADDED_BYTES_LIMIT);
    QN_TRY(reserve(t, a->id, &token));
    uint32_t listed = qn_strmap_find(&t->vocab, a->content, size);
    if (listed != QN_MAP_NONE && listed != (uint32_t)a->id)
        return qn_fail(QN_ERR_FORMAT,
                       "added token \"%.40s\": id %" PRId64 ", but the vocabulary says %" PRIu32,
                       a->content, a->id, listed);
    if (listed == QN_MAP_NONE && token->key)
        return qn_fail(QN_ERR_FORMAT, "added token \"%.40s\": id %" PRId64 " belongs to \"%.40s\"",
                       a->content, a->id, token->key);
    if (token->added)
        return qn_fail(QN_ERR_FORMAT, "added token \"%.40s\": id %" PRId64 " is there twice",
                       a->content, a->id);
    QN_TRY(keep(t, a->content, size, &token->bytes));
    token->size = (uint32_t)size;
    token->added = true;
    token->special = a->special;
    token->lstrip = a->lstrip;
    token->rstrip = a->rstrip;
    QN_TRY(qn_grow((void **)&t->added, &t->added_capacity, t->added_count + 1, sizeof *t->added));
    t->added[t->added_count++] = (int32_t)a->id;
    return QN_OK;
}

static qn_result merge_side(const qn_tokenizer *t, const char *key, size_t size, uint32_t *id)
{
    *id = qn_strmap_find(&t->vocab, key, size);
    if (*id != QN_MAP_NONE && !memchr(key, ' ', size)) return QN_OK; // merges.txt has no quotes
    return qn_fail(QN_ERR_FORMAT, "\"%.*s\" is not in the vocabulary", size < 40 ? (int)size : 40,
                   key);
}

qn_result qn_bpe_add_merge(qn_tokenizer *t, const char *left, size_t left_size, const char *right,
                           size_t right_size)
{
    uint32_t a, b, c, rank;
    QN_TRY(merge_side(t, left, left_size, &a));
    QN_TRY(merge_side(t, right, right_size, &b));
    char *whole = qn_malloc(left_size + right_size);
    if (!whole) return qn_no_memory(left_size + right_size);
    memcpy(whole, left, left_size);
    memcpy(whole + left_size, right, right_size);
    qn_result r = merge_side(t, whole, left_size + right_size, &c);
    qn_free(whole);
    QN_TRY(r);
    QN_TRY(qn_pairmap_add(&t->ranks, a, b, (uint32_t)t->merge_count, &rank));
    if (rank != t->merge_count) return QN_OK; // of a pair listed twice the first counts
    QN_TRY(qn_grow((void **)&t->merges, &t->merge_capacity, t->merge_count + 1, sizeof *t->merges));
    t->merges[t->merge_count++] = (qn_merge){ (int32_t)a, (int32_t)b, (int32_t)c };
    return QN_OK;
}

typedef struct sort_item {
    const char *bytes;
    int32_t id;
} sort_item;

static int by_content(const void *a, const void *b)
{
    return strcmp(((const sort_item *)a)->bytes, ((const sort_item *)b)->bytes);
}

static qn_result sort_added(qn_tokenizer *t)
{
    if (!t->added_count) return QN_OK;
    sort_item *items = qn_malloc(t->added_count * sizeof *items);
    if (!items) return qn_no_memory(t->added_count * sizeof *items);
    for (size_t i = 0; i < t->added_count; i++)
        items[i] = (sort_item){ t->tokens[t->added[i]].bytes, t->added[i] };
    qsort(items, t->added_count, sizeof *items, by_content);
    qn_result r = QN_OK;
    for (size_t i = 0; i < t->added_count && r == QN_OK; i++) {
        if (i && !strcmp(items[i - 1].bytes, items[i].bytes))
            r = qn_fail(QN_ERR_FORMAT, "added token \"%.40s\" is there twice", items[i].bytes);
        t->added[i] = items[i].id;
        t->added_first[(uint8_t)items[i].bytes[0]] = true;
    }
    qn_free(items);
    return r;
}

qn_result qn_bpe_finish(qn_tokenizer *t, const char *pattern)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->tokens[i].key && !t->tokens[i].bytes)
            return qn_fail(QN_ERR_UNSUPPORTED,
                           "token \"%.40s\" is not spelled in the characters of byte-level BPE",
                           t->tokens[i].key);
    for (int b = 0; b < 256; b++) {
        char key[4];
        uint32_t id = qn_strmap_find(&t->vocab, key, qn_utf8_put(qn_byte_char((uint8_t)b), key));
        if (id == QN_MAP_NONE)
            return qn_fail(QN_ERR_FORMAT, "the vocabulary lacks a token for byte 0x%02x", b);
        t->byte_id[b] = (int32_t)id;
    }
    QN_TRY(sort_added(t));
    return qn_splitter_create(pattern, &t->splitter);
}

int32_t qn_tokenizer_size(const qn_tokenizer *t)
{
    return (int32_t)t->count;
}

int32_t qn_tokenizer_find(const qn_tokenizer *t, const char *token)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (!strcmp(t->tokens[t->added[i]].bytes, token)) return t->added[i];
    uint32_t id = qn_strmap_find(&t->vocab, token, strlen(token));
    return id == QN_MAP_NONE ? -1 : (int32_t)id;
}

static const qn_token *used(const qn_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->count && t->tokens[id].bytes ? &t->tokens[id] : NULL;
}

const char *qn_token_bytes(const qn_tokenizer *t, int32_t id, size_t *size)
{
    const qn_token *token = used(t, id);
    *size = token ? token->size : 0;
    return token ? token->bytes : NULL;
}

bool qn_token_is_special(const qn_tokenizer *t, int32_t id)
{
    const qn_token *token = used(t, id);
    return token && token->special;
}
