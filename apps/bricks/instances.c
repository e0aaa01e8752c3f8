// Reading examples.
#include "instances.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <quoin/ops.h>

#include <stdio.h>
#include <string.h>

typedef struct reading {
    qn_instances *s;
    const qn_tokenizer *t;
    size_t length, most;
    const char *path;
    int function;
    size_t found; // examples of this file
} reading;

static qn_result encode(reading *r, const char *text, size_t size)
{
    const qn_encode_opts plain = { .plain = true };
    return qn_tokenizer_encode(r->t, text, size, &plain, &r->s->tokens);
}

static qn_result add(reading *r, const char *prompt, size_t size, const char *response)
{
    qn_instances *s = r->s;
    qn_instance one = { .first = s->tokens.count, .function = r->function };
    QN_TRY(encode(r, prompt, size));
    one.prompt = s->tokens.count - one.first;
    if (response) QN_TRY(encode(r, response, strlen(response)));
    one.count = s->tokens.count - one.first;
    if (one.count > r->length) one.count = r->length;
    if (one.prompt > one.count) one.prompt = one.count;
    s->tokens.count = one.first + one.count;
    if (one.count < 2 || !one.prompt) {
        s->tokens.count = one.first;
        return QN_OK;
    }
    QN_TRY(qn_grow((void **)&s->items, &s->capacity, s->count + 1, sizeof *s->items));
    s->items[s->count++] = one;
    r->found++;
    return QN_OK;
}

static qn_result add_json(reading *r, const char *line, size_t size, int number)
{
    char name[600];
    const char *prompt, *response;
    qn_json_doc *doc;
    snprintf(name, sizeof name, "%s, line %d", r->path, number);
    QN_TRY(qn_json_parse(name, line, size, NULL, &doc));
    qn_json root = qn_json_root(doc);
    qn_result res = qn_json_kind_of(root) == QN_JSON_OBJECT
                        ? qn_json_string(root, "prompt", &prompt)
                        : qn_json_fail(root, "expected an object with prompt and response");
    if (res == QN_OK) res = qn_json_string_or(root, "response", NULL, &response);
    if (res == QN_OK) res = add(r, prompt, strlen(prompt), response);
    qn_json_close(&doc);
    return res;
}

static qn_result read_file(reading *r, bool json)
{
    const uint64_t limit = (uint64_t)1 << 30;
    char *text;
    size_t size;
    QN_TRY(qn_read_file(r->path, limit, &text, &size));
    qn_result res = QN_OK;
    int number = 0;
    for (char *s = text; res == QN_OK && s < text + size && (!r->most || r->found < r->most);) {
        char *end = memchr(s, '\n', (size_t)(text + size - s));
        const size_t n = end ? (size_t)(end - s) : (size_t)(text + size - s);
        number++;
        if (n && json)
            res = add_json(r, s, n, number);
        else if (n)
            res = add(r, s, n, NULL);
        s += n + 1;
    }
    qn_free(text);
    if (res == QN_OK && !r->found)
        res = qn_fail(QN_ERR_INVALID, "%s holds no example of two tokens or more", r->path);
    return res;
}

// "code.jsonl" -> 1, "code.txt" -> 0; -1: neither.
static int form_of(const char *name)
{
    static const char *const ends[] = { ".txt", ".jsonl" };
    for (int i = 0; i < 2; i++) {
        const size_t n = strlen(name), k = strlen(ends[i]);
        if (n > k && name[0] != '.' && !strcmp(name + n - k, ends[i])) return i;
    }
    return -1;
}

static qn_result read_one(reading *r, const char *dir, const char *name)
{
    const int form = form_of(name);
    if (form < 0) return QN_OK;
    qn_instances *s = r->s;
    char *path = qn_path_join(dir, name);
    char **grown = qn_realloc(s->functions, (s->function_count + 1) * sizeof *grown);
    if (grown) s->functions = grown;
    char *word = qn_strndup(name, strlen(name) - (form ? 6 : 4));
    if (!path || !grown || !word) {
        qn_free(path);
        qn_free(word);
        return qn_no_memory(strlen(name));
    }
    s->functions[s->function_count] = word;
    r->path = path;
    r->function = (int)s->function_count++;
    r->found = 0;
    qn_result res = read_file(r, form == 1);
    qn_free(path);
    return res;
}

qn_result qn_instances_open(const char *dir, const qn_tokenizer *t, size_t length, size_t most,
                            qn_instances *out)
{
    char **names;
    size_t count;
    *out = (qn_instances){ 0 };
    QN_TRY(qn_list_dir(dir, &names, &count));
    reading r = { .s = out, .t = t, .length = length, .most = most };
    qn_result res = QN_OK;
    for (size_t i = 0; res == QN_OK && i < count; i++) res = read_one(&r, dir, names[i]);
    qn_free_names(names, count);
    if (res == QN_OK && !out->function_count)
        res = qn_fail(QN_ERR_INVALID, "%s: expected files NAME.jsonl or NAME.txt, one for each "
                                      "function", dir);
    if (res != QN_OK) qn_instances_close(out);
    return res;
}

void qn_instances_close(qn_instances *s)
{
    for (size_t i = 0; i < s->function_count; i++) qn_free(s->functions[i]);
    qn_free(s->functions);
    qn_free(s->items);
    qn_tokens_free(&s->tokens);
    *s = (qn_instances){ 0 };
}

size_t qn_instances_batch(const qn_instances *s, size_t first, size_t rows, size_t length,
                          int32_t *ids, int32_t *labels)
{
    size_t placed = 0;
    for (size_t r = 0; r < rows; r++) {
        const qn_instance *one = first + r < s->count ? &s->items[first + r] : NULL;
        const int32_t *id = one ? s->tokens.id + one->first : NULL;
        for (size_t t = 0; t < length; t++) {
            ids[r * length + t] = one && t < one->count ? id[t] : 0;
            labels[r * length + t] = one && t + 1 < one->count ? id[t + 1] : QN_IGNORE;
        }
        placed += one != NULL;
    }
    return placed;
}
