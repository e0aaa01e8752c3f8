// Reading tokenizer.json in the layout of the Hugging Face libraries.
#include "bpe.h"
#include "fail.h"
#include "io/json.h"
#include "platform.h"

#include <string.h>

#define TEMPLATE_LIMIT 64 // special tokens on either side

static const qn_json_limits limits = { .size = (uint64_t)256 << 20, .values = (uint64_t)16 << 20 };

// Puts the file before messages that do not name it yet.
static qn_result name_file(qn_result r, const char *path)
{
    bool named = r == QN_OK || strstr(qn_error_message(), path);
    return named ? r : qn_context_add(r, "%s", path);
}

// Well-formed, but not done here: names the place and what is there.
static qn_result unsupported(qn_json v, const char *what)
{
    qn_json_fail(v, "%s is not supported", what);
    return QN_ERR_UNSUPPORTED;
}

static qn_result unsupported_type(qn_json v, const char *type)
{
    qn_json_fail(v, "type \"%.60s\" is not supported", type);
    return QN_ERR_UNSUPPORTED;
}

// Refuses an option that is set to anything but what `off` says.
static qn_result expect_off(qn_json object, const char *key, const char *off)
{
    qn_json v = qn_json_find(object, key);
    const char *text;
    double number;
    bool flag, good = false;
    switch (qn_json_kind_of(v)) {
    case QN_JSON_ABSENT:
    case QN_JSON_NULL:
        good = true;
        break;
    case QN_JSON_STRING:
        QN_TRY(qn_json_string(v, NULL, &text));
        good = !strcmp(text, off);
        break;
    case QN_JSON_NUMBER:
        QN_TRY(qn_json_number(v, NULL, -1e300, 1e300, &number));
        good = number == 0;
        break;
    case QN_JSON_BOOL:
        QN_TRY(qn_json_bool(v, NULL, &flag));
        good = !flag;
        break;
    default:
        break;
    }
    return good ? QN_OK : unsupported(v, "this setting");
}

static qn_result check_model(qn_tokenizer *t, qn_json model)
{
    static const char *const off[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix",
                                       "byte_fallback" };
    const char *type;
    QN_TRY(qn_json_string_or(model, "type", "BPE", &type));
    if (strcmp(type, "BPE")) return unsupported_type(model, type);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) QN_TRY(expect_off(model, off[i], ""));
    return qn_json_bool_or(model, "ignore_merges", false, &t->ignore_merges);
}

static qn_result read_byte_level(qn_json v, bool regex)
{
    bool use_regex;
    QN_TRY(expect_off(v, "add_prefix_space", ""));
    QN_TRY(qn_json_bool_or(v, "use_regex", true, &use_regex));
    if (use_regex != regex)
        return unsupported(v, regex ? "ByteLevel without its pattern"
                                    : "ByteLevel with its own pattern after another");
    return QN_OK;
}

static qn_result read_split(qn_json v, const char **pattern)
{
    const char *behavior;
    qn_json regex;
    QN_TRY(qn_json_string(v, "behavior", &behavior));
    if (strcmp(behavior, "Isolated")) return unsupported_type(v, behavior);
    QN_TRY(expect_off(v, "invert", ""));
    QN_TRY(qn_json_object(v, "pattern", &regex));
    return qn_json_string(regex, "Regex", pattern);
}

// ByteLevel, or Split followed by ByteLevel, alone or as a Sequence.
static qn_result read_pre_tokenizer(qn_json root, const char **pattern)
{
    qn_json v, list;
    const char *type;
    *pattern = NULL;
    QN_TRY(qn_json_object(root, "pre_tokenizer", &v));
    QN_TRY(qn_json_string(v, "type", &type));
    if (!strcmp(type, "ByteLevel")) return read_byte_level(v, true);
    if (strcmp(type, "Sequence")) return unsupported_type(v, type);
    QN_TRY(qn_json_array(v, "pretokenizers", &list));
    bool bytes = false;
    for (v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        QN_TRY(qn_json_object(v, NULL, &v));
        QN_TRY(qn_json_string(v, "type", &type));
        if (!strcmp(type, "Split") && !*pattern && !bytes) {
            QN_TRY(read_split(v, pattern));
        } else if (!strcmp(type, "ByteLevel") && !bytes) {
            QN_TRY(read_byte_level(v, !*pattern));
            bytes = true;
        } else {
            return unsupported_type(v, type);
        }
    }
    return bytes ? QN_OK : unsupported(list, "a sequence without ByteLevel");
}

static qn_result check_surroundings(qn_json root)
{
    qn_json v;
    const char *type;
    QN_TRY(qn_json_object_or(root, "normalizer", &v));
    if (v.node) {
        QN_TRY(qn_json_string(v, "type", &type));
        return unsupported_type(v, type);
    }
    QN_TRY(qn_json_object_or(root, "decoder", &v));
    if (v.node) {
        QN_TRY(qn_json_string(v, "type", &type));
        if (strcmp(type, "ByteLevel")) return unsupported_type(v, type);
    }
    for (int i = 0; i < 2; i++) {
        v = qn_json_find(root, i ? "padding" : "truncation");
        if (qn_json_kind_of(v) > QN_JSON_NULL)
            qn_log(QN_LOG_WARN, "tokenizer: \"%s\" of the file is not applied", qn_json_key(v));
    }
    return QN_OK;
}

static qn_result read_vocab(qn_tokenizer *t, qn_json vocab)
{
    for (qn_json v = qn_json_first(vocab); v.node; v = qn_json_next(v)) {
        int64_t id;
        const char *key = qn_json_key(v);
        QN_TRY(qn_json_int(v, NULL, 0, QN_TOKEN_LIMIT - 1, &id));
        QN_TRY(qn_bpe_add_vocab(t, key, strlen(key), id));
    }
    return QN_OK;
}

static qn_result read_added(qn_tokenizer *t, qn_json root)
{
    qn_json list;
    QN_TRY(qn_json_array_or(root, "added_tokens", &list));
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        qn_added a = { 0 };
        QN_TRY(qn_json_object(v, NULL, &v));
        QN_TRY(qn_json_string(v, "content", &a.content));
        QN_TRY(qn_json_int(v, "id", 0, QN_TOKEN_LIMIT - 1, &a.id));
        QN_TRY(qn_json_bool_or(v, "special", false, &a.special));
        QN_TRY(qn_json_bool_or(v, "lstrip", false, &a.lstrip));
        QN_TRY(qn_json_bool_or(v, "rstrip", false, &a.rstrip));
        QN_TRY(expect_off(v, "single_word", ""));
        QN_TRY(qn_bpe_add_token(t, &a));
    }
    return QN_OK;
}

static qn_result read_merge(qn_tokenizer *t, qn_json v)
{
    const char *left, *right;
    size_t left_size;
    if (qn_json_kind_of(v) == QN_JSON_ARRAY) {
        qn_json first = qn_json_first(v);
        if (qn_json_count(v) != 2) return qn_json_fail(v, "expected a pair of tokens");
        QN_TRY(qn_json_string(first, NULL, &left));
        QN_TRY(qn_json_string(qn_json_next(first), NULL, &right));
        left_size = strlen(left);
    } else {
        QN_TRY(qn_json_string(v, NULL, &left));
        right = strchr(left, ' ');
        if (!right || strchr(right + 1, ' '))
            return qn_json_fail(v, "found \"%.60s\", expected two tokens and a space", left);
        left_size = (size_t)(right++ - left);
    }
    qn_result r = qn_bpe_add_merge(t, left, left_size, right, strlen(right));
    if (r != QN_ERR_FORMAT) return r;
    char what[256];
    size_t n = strlen(qn_error_message());
    if (n >= sizeof what) n = sizeof what - 1;
    memcpy(what, qn_error_message(), n);
    what[n] = 0;
    return qn_json_fail(v, "%s", what);
}

static qn_result read_merges(qn_tokenizer *t, qn_json model)
{
    qn_json list;
    QN_TRY(qn_json_array(model, "merges", &list));
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) QN_TRY(read_merge(t, v));
    return QN_OK;
}

// The simple form of a template: special tokens before and after one sequence.
static qn_result read_template(qn_tokenizer *t, qn_json v)
{
    qn_json single, special, part, ids;
    bool seen = false;
    QN_TRY(qn_json_array(v, "single", &single));
    QN_TRY(qn_json_object(v, "special_tokens", &special));
    for (qn_json item = qn_json_first(single); item.node; item = qn_json_next(item)) {
        const char *name;
        QN_TRY(qn_json_object_or(item, "Sequence", &part));
        if (part.node && seen) return unsupported(item, "a second sequence");
        seen = seen || part.node;
        if (part.node) continue;
        QN_TRY(qn_json_object(item, "SpecialToken", &part));
        QN_TRY(qn_json_string(part, "id", &name));
        QN_TRY(qn_json_object(special, name, &part));
        QN_TRY(qn_json_array(part, "ids", &ids));
        for (qn_json id = qn_json_first(ids); id.node; id = qn_json_next(id)) {
            int64_t value;
            size_t size;
            QN_TRY(qn_json_int(id, NULL, 0, QN_TOKEN_LIMIT - 1, &value));
            if (!qn_token_bytes(t, (int32_t)value, &size))
                return qn_json_fail(id, "not the id of a token");
            qn_tokens *list = seen ? &t->after : &t->before;
            if (list->count == TEMPLATE_LIMIT) return unsupported(single, "a template so long");
            QN_TRY(qn_tokens_append(list, &(int32_t){ (int32_t)value }, 1));
        }
    }
    return seen ? QN_OK : unsupported(single, "a template without a sequence");
}

static qn_result read_post_processor(qn_tokenizer *t, qn_json v)
{
    const char *type;
    QN_TRY(qn_json_string(v, "type", &type));
    if (!strcmp(type, "ByteLevel")) return QN_OK;
    if (strcmp(type, "TemplateProcessing")) return unsupported_type(v, type);
    if (t->before.count || t->after.count) return unsupported(v, "a second template");
    return read_template(t, v);
}

static qn_result read_post_processors(qn_tokenizer *t, qn_json root)
{
    qn_json v, list;
    const char *type;
    QN_TRY(qn_json_object_or(root, "post_processor", &v));
    if (!v.node) return QN_OK;
    QN_TRY(qn_json_string(v, "type", &type));
    if (strcmp(type, "Sequence")) return read_post_processor(t, v);
    QN_TRY(qn_json_array(v, "processors", &list));
    for (v = qn_json_first(list); v.node; v = qn_json_next(v)) QN_TRY(read_post_processor(t, v));
    return QN_OK;
}

static qn_result read_root(qn_tokenizer *t, qn_json root)
{
    qn_json model, vocab;
    const char *pattern;
    QN_TRY(qn_json_object(root, "model", &model));
    QN_TRY(check_model(t, model));
    QN_TRY(check_surroundings(root));
    QN_TRY(read_pre_tokenizer(root, &pattern));
    QN_TRY(qn_json_object(model, "vocab", &vocab));
    QN_TRY(read_vocab(t, vocab));
    QN_TRY(read_added(t, root));
    QN_TRY(read_merges(t, model));
    QN_TRY(read_post_processors(t, root));
    return qn_bpe_finish(t, pattern);
}

static qn_result load_json(qn_tokenizer *t, const char *path)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, &limits, &doc));
    qn_result r = read_root(t, qn_json_root(doc));
    qn_json_close(&doc);
    return name_file(r, path);
}

// added_tokens.json: {"text": id}. These files do not say which tokens are special.
static const char end_of_text[] = "<|endoftext|>";

static qn_result read_added_map(qn_tokenizer *t, const char *path, bool *has_end)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, &limits, &doc));
    qn_json map;
    qn_result r = qn_json_object(qn_json_root(doc), NULL, &map);
    for (qn_json v = qn_json_first(map); r == QN_OK && v.node; v = qn_json_next(v)) {
        qn_added a = { .content = qn_json_key(v) };
        a.special = !strcmp(a.content, end_of_text);
        *has_end = *has_end || a.special;
        r = qn_json_int(v, NULL, 0, QN_TOKEN_LIMIT - 1, &a.id);
        if (r == QN_OK) r = qn_bpe_add_token(t, &a);
    }
    qn_json_close(&doc);
    return name_file(r, path);
}

static qn_result read_vocab_map(qn_tokenizer *t, const char *path)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, &limits, &doc));
    qn_json map;
    qn_result r = qn_json_object(qn_json_root(doc), NULL, &map);
    if (r == QN_OK) r = read_vocab(t, map);
    qn_json_close(&doc);
    return name_file(r, path);
}

static qn_result read_merge_line(qn_tokenizer *t, const char *line, size_t size)
{
    if (size && line[size - 1] == '\r') size--;
    const char *space = memchr(line, ' ', size);
    if (!size) return QN_OK;
    if (!space || memchr(space + 1, ' ', size - (size_t)(space + 1 - line)))
        return qn_fail(QN_ERR_FORMAT, "found \"%.*s\", expected two tokens and a space",
                       size < 60 ? (int)size : 60, line);
    return qn_bpe_add_merge(t, line, (size_t)(space - line), space + 1,
                            size - (size_t)(space + 1 - line));
}

static qn_result read_merge_lines(qn_tokenizer *t, const char *path)
{
    char *text;
    size_t size;
    QN_TRY(qn_read_file(path, limits.size, &text, &size));
    qn_result r = QN_OK;
    size_t number = 1;
    for (const char *p = text, *end = text + size; p < end && r == QN_OK; number++) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        if (!line_end) line_end = end;
        bool version = number == 1 && !strncmp(p, "#version", 8);
        if (!version) r = read_merge_line(t, p, (size_t)(line_end - p));
        p = line_end == end ? end : line_end + 1;
    }
    qn_free(text);
    return qn_context_add(r, "%s: line %zu", path, number - 1);
}

static qn_result load_vocab(qn_tokenizer *t, const char *vocab, const char *merges,
                            const char *added)
{
    bool has_end = false;
    QN_TRY(read_vocab_map(t, vocab));
    if (qn_file_exists(added)) QN_TRY(read_added_map(t, added, &has_end));
    uint32_t end = qn_strmap_find(&t->vocab, end_of_text, strlen(end_of_text));
    if (end != QN_MAP_NONE && !has_end)
        QN_TRY(
            qn_bpe_add_token(t, &(qn_added){ .content = end_of_text, .id = end, .special = true }));
    QN_TRY(read_merge_lines(t, merges));
    return qn_bpe_finish(t, NULL);
}

static qn_result load_dir(qn_tokenizer *t, const char *dir)
{
    char *vocab = qn_path_join(dir, "vocab.json");
    char *merges = qn_path_join(dir, "merges.txt");
    char *added = qn_path_join(dir, "added_tokens.json");
    qn_result r = QN_OK;
    if (!vocab || !merges || !added)
        r = qn_no_memory(strlen(dir));
    else if (!qn_file_exists(vocab) || !qn_file_exists(merges))
        r = qn_fail(QN_ERR_IO, "%s: neither tokenizer.json nor vocab.json with merges.txt", dir);
    else
        r = name_file(load_vocab(t, vocab, merges, added), dir);
    qn_free(vocab);
    qn_free(merges);
    qn_free(added);
    return r;
}

static qn_result load(qn_tokenizer *t, const char *path)
{
    if (!qn_is_dir(path)) return load_json(t, path);
    char *file = qn_path_join(path, "tokenizer.json");
    if (!file) return qn_no_memory(strlen(path));
    qn_result r = qn_file_exists(file) ? load_json(t, file) : load_dir(t, path);
    qn_free(file);
    return r;
}

// Hands out what was loaded, or closes it.
static qn_result finish(qn_tokenizer *t, qn_result r, qn_tokenizer **out)
{
    if (r == QN_OK)
        *out = t;
    else
        qn_tokenizer_close(&t);
    return qn_fail_printable(r);
}

qn_result qn_tokenizer_open(const char *path, qn_tokenizer **out)
{
    if (!path || !out) return qn_fail(QN_ERR_INVALID, "a path and a place for the tokenizer");
    qn_tokenizer *t;
    QN_TRY(qn_bpe_create(&t));
    return finish(t, load(t, path), out);
}

qn_result qn_tokenizer_parse(const char *name, const char *text, size_t size, qn_tokenizer **out)
{
    qn_json_doc *doc;
    qn_tokenizer *t;
    QN_TRY(qn_json_parse(name, text, size, &limits, &doc));
    qn_result r = qn_bpe_create(&t);
    if (r == QN_OK) r = finish(t, name_file(read_root(t, qn_json_root(doc)), name), out);
    qn_json_close(&doc);
    return r;
}
