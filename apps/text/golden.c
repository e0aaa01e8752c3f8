// Golden tokenizer folders. See golden.h.
#include "golden.h"
#include "bpe.h"
#include "fail.h"
#include "io/json.h"
#include "platform.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PARENTS 8 // directories above the folder in which a corpus is looked for

typedef struct replay {
    const char *dir;
    qn_golden_token_line line;
    void *user;
    qn_tokenizer *tokenizer;
} replay;

// A file of the folder; NULL and QN_OK when it is not there.
static qn_result file_of(const char *dir, const char *name, char **path)
{
    *path = qn_path_join(dir, name);
    if (!*path) return qn_no_memory(strlen(dir));
    if (qn_file_exists(*path)) return QN_OK;
    qn_free(*path);
    *path = NULL;
    return QN_OK;
}

static bool has(const char *dir, const char *name)
{
    char *path = qn_path_join(dir, name);
    bool found = path && qn_file_exists(path);
    qn_free(path);
    return found;
}

bool qn_golden_tokenizer_matches(const char *dir)
{
    return has(dir, "trainer_cases.json") ||
           (has(dir, "tokenizer.json") && has(dir, "encodings.json"));
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The case's bytes: "text", or "bytes_hex" where they are no text.
static qn_result read_bytes(qn_json c, qn_text *out)
{
    const char *text;
    out->size = 0;
    if (!qn_json_find(c, "bytes_hex").node) {
        QN_TRY(qn_json_nul_string(c, "text", &text));
        for (const char *nul; (nul = strstr(text, "\xC0\x80")); text = nul + 2) {
            QN_TRY(qn_text_append(out, text, (size_t)(nul - text)));
            QN_TRY(qn_text_append(out, "", 1));
        }
        return qn_text_append(out, text, strlen(text));
    }
    QN_TRY(qn_json_string(c, "bytes_hex", &text));
    for (; *text; text += 2) {
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0) return qn_json_fail(c, "bytes_hex: expected pairs of hexadecimal digits");
        QN_TRY(qn_text_append(out, &(char){ (char)(high << 4 | low) }, 1));
    }
    return QN_OK;
}

static qn_result read_ids(qn_json c, const char *key, qn_tokens *out)
{
    qn_json list;
    out->count = 0;
    QN_TRY(qn_json_array(c, key, &list));
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        int64_t id;
        QN_TRY(qn_json_int(v, NULL, 0, INT32_MAX, &id));
        QN_TRY(qn_tokens_append(out, &(int32_t){ (int32_t)id }, 1));
    }
    return QN_OK;
}

// Says where two lists of ids part; false when they do not.
static bool differ(const qn_tokens *got, const qn_tokens *want, char *detail, size_t size)
{
    size_t i = 0;
    while (i < got->count && i < want->count && got->id[i] == want->id[i]) i++;
    if (i == got->count && i == want->count) return false;
    if (i < got->count && i < want->count)
        snprintf(detail, size, "token %zu is %" PRId32 ", expected %" PRId32, i, got->id[i],
                 want->id[i]);
    else
        snprintf(detail, size, "%zu tokens, expected %zu", got->count, want->count);
    return true;
}

typedef struct buffers {
    qn_tokens got, want;
    qn_text bytes, back;
} buffers;

static void free_buffers(buffers *b)
{
    qn_tokens_free(&b->got);
    qn_tokens_free(&b->want);
    qn_text_free(&b->bytes);
    qn_text_free(&b->back);
}

static bool same_bytes(const qn_text *a, const qn_text *b)
{
    return a->size == b->size && (!a->size || !memcmp(a->data, b->data, a->size));
}

static qn_result replay_encode(const replay *r, qn_json c, buffers *b)
{
    const char *name;
    bool roundtrip;
    char detail[128] = "";
    QN_TRY(qn_json_string(c, "name", &name));
    QN_TRY(qn_json_bool_or(c, "roundtrip", true, &roundtrip));
    QN_TRY(read_bytes(c, &b->bytes));
    QN_TRY(read_ids(c, "ids", &b->want));
    b->got.count = b->back.size = 0;
    QN_TRY(qn_tokenizer_encode(r->tokenizer, b->bytes.data, b->bytes.size, NULL, &b->got));
    QN_TRY(qn_tokenizer_decode(r->tokenizer, b->got.id, b->got.count, NULL, &b->back));
    bool good = !differ(&b->got, &b->want, detail, sizeof detail);
    if (good && roundtrip && !same_bytes(&b->bytes, &b->back)) {
        snprintf(detail, sizeof detail, "decoding gives %zu bytes that differ from the %zu encoded",
                 b->back.size, b->bytes.size);
        good = false;
    }
    r->line(r->user, name, good, detail);
    return QN_OK;
}

static qn_result replay_decode(const replay *r, qn_json c, buffers *b)
{
    const char *name;
    qn_decode_opts opts = { 0 };
    QN_TRY(qn_json_string(c, "name", &name));
    QN_TRY(qn_json_bool_or(c, "skip_special", false, &opts.skip_special));
    QN_TRY(read_bytes(c, &b->bytes));
    QN_TRY(read_ids(c, "ids", &b->want));
    b->back.size = 0;
    QN_TRY(qn_tokenizer_decode(r->tokenizer, b->want.id, b->want.count, &opts, &b->back));
    bool good = same_bytes(&b->bytes, &b->back);
    r->line(r->user, name, good, good ? "" : "other bytes than expected");
    return QN_OK;
}

static qn_result replay_cases(const replay *r, qn_json root, const char *key,
                              qn_result (*one)(const replay *, qn_json, buffers *))
{
    qn_json list;
    buffers b = { 0 };
    QN_TRY(qn_json_array_or(root, key, &list));
    qn_result result = QN_OK;
    for (qn_json c = qn_json_first(list); c.node && result == QN_OK; c = qn_json_next(c))
        result = one(r, c, &b);
    free_buffers(&b);
    return result;
}

static qn_result replay_encodings(const replay *r, qn_json root)
{
    QN_TRY(replay_cases(r, root, "encode", replay_encode));
    return replay_cases(r, root, "decode", replay_decode);
}

// FNV-1a, 64 bits wide, a whole id at a time, from the start value the golden data were made with
// (it lacks the last digit of the usual one).
static uint64_t fingerprint(const qn_tokens *t)
{
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < t->count; i++) h = (h ^ (uint32_t)t->id[i]) * 0x100000001B3ull;
    return h;
}

// The corpus in the folder or above it; *path NULL when it is nowhere.
static qn_result find_corpus(const char *dir, qn_json root, char **path)
{
    const char *corpus;
    QN_TRY(qn_json_string(root, "corpus", &corpus));
    if (*corpus == '/' || strstr(corpus, ".."))
        return qn_json_fail(root, "corpus: expected a path below the data's directory");
    char *at = qn_strdup(dir);
    qn_result r = at ? QN_OK : qn_no_memory(strlen(dir));
    *path = NULL;
    for (int i = 0; i <= PARENTS && r == QN_OK && !*path; i++) {
        r = file_of(at, corpus, path);
        char *up = r == QN_OK ? qn_path_join(at, "..") : NULL;
        if (r == QN_OK && !up) r = qn_no_memory(strlen(at));
        qn_free(at);
        at = up;
    }
    qn_free(at);
    if (r != QN_OK) qn_free(*path);
    return r;
}

static qn_result compare_corpus(const replay *r, qn_json root, const qn_mapping *corpus)
{
    int64_t bytes, count;
    const char *hash;
    char detail[128] = "", found[17];
    QN_TRY(qn_json_int(root, "bytes", 0, INT32_MAX, &bytes));
    QN_TRY(qn_json_int(root, "n_ids", 0, INT32_MAX, &count));
    QN_TRY(qn_json_string(root, "fnv1a64_over_ids_as_integers", &hash));
    if ((uint64_t)bytes > corpus->size)
        return qn_json_fail(root, "bytes: the corpus has only %" PRIu64, corpus->size);
    buffers b = { 0 };
    qn_result result = read_ids(root, "first_ids", &b.want);
    if (result == QN_OK)
        result = qn_tokenizer_encode(r->tokenizer, corpus->data, (size_t)bytes, NULL, &b.got);
    if (result == QN_OK) {
        qn_tokens first = { b.got.id, b.got.count < b.want.count ? b.got.count : b.want.count, 0 };
        snprintf(found, sizeof found, "%016" PRIx64, fingerprint(&b.got));
        bool good = !differ(&first, &b.want, detail, sizeof detail);
        if (good && (b.got.count != (size_t)count || strcmp(found, hash))) {
            snprintf(detail, sizeof detail,
                     "%zu ids with fingerprint %s, expected %" PRId64 ", %.20s", b.got.count, found,
                     count, hash);
            good = false;
        }
        r->line(r->user, "corpus_fingerprint", good, detail);
    }
    free_buffers(&b);
    return result;
}

static qn_result replay_fingerprint(const replay *r, qn_json root)
{
    char *path = NULL;
    qn_mapping corpus;
    QN_TRY(find_corpus(r->dir, root, &path));
    if (!path) return QN_OK;
    qn_result result = qn_map_file(path, &corpus);
    qn_free(path);
    QN_TRY(result);
    result = compare_corpus(r, root, &corpus);
    qn_unmap_file(&corpus);
    return result;
}

static bool same_merge(const qn_tokenizer *t, const qn_merge *m, const char *left,
                       const char *right)
{
    return !strcmp(t->tokens[m->left].key, left) && !strcmp(t->tokens[m->right].key, right);
}

static qn_result compare_merges(const qn_tokenizer *t, qn_json c, char *detail, size_t size)
{
    qn_json list;
    int64_t vocab;
    size_t i = 0;
    QN_TRY(qn_json_array(c, "merges", &list));
    QN_TRY(qn_json_int(c, "n_vocab", 0, QN_TOKEN_LIMIT, &vocab));
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v), i++) {
        const char *left, *right;
        QN_TRY(qn_json_string(qn_json_first(v), NULL, &left));
        QN_TRY(qn_json_string(qn_json_next(qn_json_first(v)), NULL, &right));
        if (i < t->merge_count && same_merge(t, &t->merges[i], left, right)) continue;
        snprintf(detail, size, "merge %zu differs from \"%.40s\" \"%.40s\"", i, left, right);
        return QN_OK;
    }
    if (i != t->merge_count || vocab != (int64_t)t->count)
        snprintf(detail, size, "%zu merges, %zu tokens, expected %zu and %" PRId64, t->merge_count,
                 t->count, i, vocab);
    return QN_OK;
}

static qn_result replay_training(const replay *r, qn_json c)
{
    const char *name, *text, *special[16];
    char detail[128] = "";
    qn_json list;
    int64_t size;
    qn_tokenizer_train_opts opts = { .special = special };
    QN_TRY(qn_json_string(c, "name", &name));
    QN_TRY(qn_json_string(c, "text", &text));
    QN_TRY(qn_json_int(c, "size", 256, QN_TOKEN_LIMIT, &size));
    QN_TRY(qn_json_array(c, "special", &list));
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        if (opts.special_count == sizeof special / sizeof *special)
            return qn_json_fail(list, "expected at most %zu", opts.special_count);
        QN_TRY(qn_json_string(v, NULL, &special[opts.special_count++]));
    }
    opts.size = (uint32_t)size;
    qn_tokenizer *t;
    QN_TRY(qn_tokenizer_train(text, strlen(text), &opts, &t));
    qn_result result = compare_merges(t, c, detail, sizeof detail);
    if (result == QN_OK) r->line(r->user, name, !*detail, detail);
    qn_tokenizer_close(&t);
    return result;
}

static qn_result replay_trainings(const replay *r, qn_json root)
{
    QN_TRY(qn_json_array(root, NULL, &root));
    for (qn_json c = qn_json_first(root); c.node; c = qn_json_next(c))
        QN_TRY(replay_training(r, c));
    return QN_OK;
}

// Runs `one` over a file of the folder, if it is there.
static qn_result replay_file(const replay *r, const char *name,
                             qn_result (*one)(const replay *, qn_json))
{
    char *path = NULL;
    qn_json_doc *doc;
    QN_TRY(file_of(r->dir, name, &path));
    if (!path) return QN_OK;
    qn_result result = qn_json_open(path, NULL, &doc);
    qn_free(path);
    QN_TRY(result);
    result = one(r, qn_json_root(doc));
    qn_json_close(&doc);
    return result;
}

qn_result qn_golden_tokenizer(const char *dir, qn_golden_token_line line, void *user)
{
    replay r = { .dir = dir, .line = line, .user = user };
    QN_TRY(replay_file(&r, "trainer_cases.json", replay_trainings));
    if (!has(dir, "tokenizer.json") || !has(dir, "encodings.json")) return QN_OK;
    QN_TRY(qn_tokenizer_open(dir, &r.tokenizer));
    qn_result result = replay_file(&r, "encodings.json", replay_encodings);
    if (result == QN_OK) result = replay_file(&r, "corpus_fingerprint.json", replay_fingerprint);
    qn_tokenizer_close(&r.tokenizer);
    return result;
}
