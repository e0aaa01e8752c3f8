// The table of conversation formats, and tokens from it.
#include "chat.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"
#include "text/bpe.h"

#include <string.h>

enum { MARKS = 4, SIGNS = 2, TEMPLATE_LIMIT = 1 << 20 };

// In the texts, marks and EOS stand for tokens of their own where the tokenizer has them.
#define EOS "\x01"

struct qn_chat_format {
    const char *name;
    const char *sign[SIGNS]; // what a template of this form holds
    const char *mark[MARKS];
    const char *begin;
    const char *before[QN_ROLES], *after[QN_ROLES];
    const char *answer; // what an answer begins behind
    const char *end;    // the mark or the text that ends one
};

static const qn_chat_format formats[] = {
    { .name = "plain",
      .sign = { "User:", "Assistant:" },
      .before = { "", "User: ", "Assistant: " },
      .after = { "\n\n", "\n", "\n" },
      .answer = "Assistant:",
      .end = "\nUser:" },
    { .name = "chatml",
      .sign = { "<|im_start|>" },
      .mark = { "<|im_start|>", "<|im_end|>" },
      .before = { "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n" },
      .after = { "<|im_end|>\n", "<|im_end|>\n", "<|im_end|>\n" },
      .answer = "<|im_start|>assistant\n",
      .end = "<|im_end|>" },
    { .name = "llama3",
      .sign = { "<|start_header_id|>" },
      .mark = { "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" },
      .begin = "<|begin_of_text|>",
      .before = { "<|start_header_id|>system<|end_header_id|>\n\n",
                  "<|start_header_id|>user<|end_header_id|>\n\n",
                  "<|start_header_id|>assistant<|end_header_id|>\n\n" },
      .after = { "<|eot_id|>", "<|eot_id|>", "<|eot_id|>" },
      .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
      .end = "<|eot_id|>" },
    { .name = "phi3",
      .sign = { "<|user|>", "<|end|>" },
      .mark = { "<|system|>", "<|user|>", "<|assistant|>", "<|end|>" },
      .before = { "<|system|>\n", "<|user|>\n", "<|assistant|>\n" },
      .after = { "<|end|>\n", "<|end|>\n", "<|end|>\n" },
      .answer = "<|assistant|>\n",
      .end = "<|end|>" },
    { .name = "zephyr",
      .sign = { "<|user|>" },
      .mark = { "<|system|>", "<|user|>", "<|assistant|>" },
      .before = { "<|system|>\n", "<|user|>\n", "<|assistant|>\n" },
      .after = { EOS "\n", EOS "\n", EOS "\n" },
      .answer = "<|assistant|>\n",
      .end = "<|user|>" },
    { .name = "alpaca",
      .sign = { "### Instruction:" },
      .before = { "", "### Instruction:\n", "### Response:\n" },
      .after = { "\n\n", "\n\n", "\n\n" },
      .answer = "### Response:\n",
      .end = "\n### Instruction:" },
};

enum { FORMATS = sizeof formats / sizeof *formats };

const char *qn_role_name(qn_role r)
{
    static const char *const names[QN_ROLES] = { "system", "user", "assistant" };
    return names[r];
}

const char *qn_chat_format_name(const qn_chat_format *f)
{
    return f->name;
}

const qn_chat_format *qn_chat_format_find(const char *name)
{
    for (int i = 0; i < FORMATS; i++)
        if (!strcmp(formats[i].name, name)) return &formats[i];
    return NULL;
}

// ------------------------------------------------------------------------------ folders

static const qn_chat_format *recognise(const char *jinja)
{
    for (int i = 0; i < FORMATS; i++) {
        bool all = true;
        for (int k = 0; k < SIGNS && formats[i].sign[k]; k++)
            all &= strstr(jinja, formats[i].sign[k]) != NULL;
        if (all) return &formats[i];
    }
    return NULL;
}

static qn_result need(const char *path, const char *jinja, const qn_chat_format **out)
{
    *out = recognise(jinja);
    return *out ? QN_OK
                : qn_fail(QN_ERR_UNSUPPORTED,
                          "%s: its chat template is none of those known (%s); "
                          "name one of them with --template",
                          path, QN_CHAT_FORMATS);
}

// tokenizer_config.json: "chat_template" is a text, or a list of {name, template} whose "default"
// counts.
static qn_result from_config(const char *path, const qn_chat_format **out)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, NULL, &doc));
    qn_json v = qn_json_find(qn_json_root(doc), "chat_template");
    const char *text = NULL, *name;
    qn_result r = QN_OK;
    if (qn_json_kind_of(v) == QN_JSON_ARRAY) {
        for (qn_json e = qn_json_first(v); r == QN_OK && e.node; e = qn_json_next(e)) {
            r = qn_json_string_or(e, "name", "", &name);
            if (r == QN_OK && !strcmp(name, "default")) r = qn_json_string(e, "template", &text);
        }
    } else if (v.node && qn_json_kind_of(v) != QN_JSON_NULL) {
        r = qn_json_string(v, NULL, &text);
    }
    if (r == QN_OK && text) r = need(path, text, out);
    qn_json_close(&doc);
    return r;
}

static qn_result from_jinja(const char *path, const qn_chat_format **out)
{
    char *text;
    size_t size;
    QN_TRY(qn_read_file(path, TEMPLATE_LIMIT, &text, &size));
    qn_result r = need(path, text, out);
    qn_free(text);
    return r;
}

static qn_result add_end(qn_chat *c, int64_t token)
{
    if (token < 0 || token >= qn_tokenizer_size(c->tokenizer) || qn_chat_ends(c, (int32_t)token))
        return QN_OK;
    if (c->end_count == QN_CHAT_ENDS)
        return qn_fail(QN_ERR_UNSUPPORTED, "more than %d tokens end a text", QN_CHAT_ENDS);
    c->end[c->end_count++] = (int32_t)token;
    return QN_OK;
}

// "eos_token_id" is a number or a list of them.
static qn_result read_ends(qn_json v, qn_chat *c)
{
    int64_t id;
    if (qn_json_kind_of(v) == QN_JSON_NUMBER) {
        QN_TRY(qn_json_int(v, NULL, 0, INT32_MAX, &id));
        return add_end(c, id);
    }
    for (v = qn_json_first(v); v.node; v = qn_json_next(v)) {
        QN_TRY(qn_json_int(v, NULL, 0, INT32_MAX, &id));
        QN_TRY(add_end(c, id));
    }
    return QN_OK;
}

static qn_result read_sampling(qn_json root, qn_sampling *s)
{
    bool draw;
    QN_TRY(qn_json_number_or(root, "temperature", 0, 100, s->temperature, &s->temperature));
    QN_TRY(qn_json_int_or(root, "top_k", 0, INT32_MAX, s->top_k, &s->top_k));
    QN_TRY(qn_json_number_or(root, "top_p", 0, 1, s->top_p, &s->top_p));
    QN_TRY(qn_json_number_or(root, "min_p", 0, 1, s->min_p, &s->min_p));
    QN_TRY(qn_json_number_or(root, "repetition_penalty", 0.01, 100, s->repeat_penalty,
                             &s->repeat_penalty));
    QN_TRY(qn_json_bool_or(root, "do_sample", true, &draw));
    if (!draw) s->temperature = 0;
    return QN_OK;
}

static qn_result from_generation(const char *path, qn_chat *c)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_open(path, NULL, &doc));
    qn_json root = qn_json_root(doc);
    qn_result r = read_ends(qn_json_find(root, "eos_token_id"), c);
    if (r == QN_OK) r = read_sampling(root, &c->sampling);
    qn_json_close(&doc);
    return r;
}

// Calls read() for a file of the folder; one that is not there says nothing.
#define READ(dir, file, read, into)                                                                \
    do {                                                                                           \
        char *path_ = qn_path_join(dir, file);                                                     \
        if (!path_) return qn_no_memory(strlen(dir));                                              \
        qn_result r_ = qn_file_exists(path_) ? read(path_, into) : QN_OK;                          \
        qn_free(path_);                                                                            \
        QN_TRY(r_);                                                                                \
    } while (0)

qn_result qn_chat_open(const char *dir, const char *name, const qn_tokenizer *t, int64_t eos,
                       qn_chat *out)
{
    qn_chat c = { .tokenizer = t,
                  .named = true,
                  .sampling = { .temperature = 0.8,
                                .top_k = 40,
                                .top_p = 0.95,
                                .min_p = 0.05,
                                .repeat_penalty = 1,
                                .repeat_last_n = 64,
                                .seed = 1 } };
    QN_TRY(add_end(&c, eos));
    READ(dir, "generation_config.json", from_generation, &c);
    if (name) {
        c.format = qn_chat_format_find(name);
        if (!c.format)
            return qn_fail(QN_ERR_INVALID, "there is no template '%s', expected one of %s", name,
                           QN_CHAT_FORMATS);
    } else {
        READ(dir, "tokenizer_config.json", from_config, &c.format);
        if (!c.format) READ(dir, "chat_template.jinja", from_jinja, &c.format);
        c.named = c.format != NULL;
        if (!c.format) c.format = &formats[0];
    }
    int32_t end = qn_tokenizer_find(t, c.format->end);
    if (end >= 0)
        QN_TRY(add_end(&c, end));
    else
        c.stop = c.format->end;
    *out = c;
    return QN_OK;
}

bool qn_chat_ends(const qn_chat *c, int32_t token)
{
    for (size_t i = 0; i < c->end_count; i++)
        if (c->end[i] == token) return true;
    return false;
}

// ------------------------------------------------------------------------------ tokens

// Text that waits to be tokenised as a whole: pieces of words must not depend on where a message
// begins.
typedef struct rendering {
    const qn_chat *c;
    qn_text text;
    qn_tokens *out;
} rendering;

static qn_result flush(rendering *r)
{
    const qn_encode_opts opts = { .blanks_only = true };
    size_t size = r->text.size;
    r->text.size = 0;
    return size ? qn_tokenizer_encode(r->c->tokenizer, r->text.data, size, &opts, r->out) : QN_OK;
}

// The token that a mark at the beginning of s stands for, and the mark's length; -1: none.
static int32_t mark_at(const qn_chat *c, const char *s, size_t *size)
{
    if (*s == *EOS && c->end_count) {
        *size = 1;
        return c->end[0];
    }
    for (int i = 0; i < MARKS && c->format->mark[i]; i++) {
        *size = strlen(c->format->mark[i]);
        if (!strncmp(s, c->format->mark[i], *size))
            return qn_tokenizer_find(c->tokenizer, c->format->mark[i]);
    }
    return -1;
}

static qn_result add_trusted(rendering *r, const char *s)
{
    for (size_t size; s && *s; s += size) {
        int32_t id = mark_at(r->c, s, &size);
        if (id < 0) {
            size = 1;
            if (*s != *EOS) QN_TRY(qn_text_append(&r->text, s, 1));
            continue;
        }
        QN_TRY(flush(r));
        QN_TRY(qn_tokens_append(r->out, &id, 1));
    }
    return QN_OK;
}

static qn_result render(rendering *r, const qn_message *messages, size_t count)
{
    const qn_chat_format *f = r->c->format;
    QN_TRY(add_trusted(r, f->begin));
    for (size_t i = 0; i < count; i++) {
        const qn_message *m = &messages[i];
        QN_TRY(add_trusted(r, f->before[m->role]));
        QN_TRY(qn_text_append(&r->text, m->content, strlen(m->content)));
        QN_TRY(add_trusted(r, f->after[m->role]));
    }
    QN_TRY(add_trusted(r, f->answer));
    return flush(r);
}

qn_result qn_chat_encode(const qn_chat *c, const qn_message *messages, size_t count, qn_tokens *out)
{
    rendering r = { .c = c, .out = out };
    qn_result result = render(&r, messages, count);
    qn_text_free(&r.text);
    return result;
}
