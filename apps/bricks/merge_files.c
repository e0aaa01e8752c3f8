// What stands beside the merged tensors: configuration, tokenizer, model card, audit.
#include "merge.h"

#include "io/textbuf.h"
#include "platform.h"
#include "vocabulary.h"

#include <stdio.h>
#include <string.h>

#define FILE_LIMIT ((uint64_t)1 << 30)

static qn_result save_json(qn_json_writer *w, const char *dir, const char *name)
{
    char *path = qn_path_join(dir, name);
    if (!path) {
        qn_json_writer_free(w);
        return qn_no_memory(strlen(dir));
    }
    qn_result r = qn_json_save(w, path);
    qn_free(path);
    return r;
}

// ---------------------------------------------------------------------------------- config.json

static const char *output_type(const qn_merge_plan *p)
{
    if (p->recipe->out_dtype) return p->recipe->out_dtype;
    return p->recipe->dtype;
}

qn_result qn_merge_save_config(const qn_merge_plan *p, const char *dir)
{
    const qn_checkpoint *c = qn_merge_plan_template(p);
    const char *type = output_type(p), *layers = c->arch->layers_key;
    qn_json root = qn_json_root(c->config);
    if (!qn_json_find(root, layers).node) layers = "n_layer";
    qn_json_writer w = { 0 };
    bool typed = false;
    qn_json_put_object(&w, NULL);
    for (qn_json v = qn_json_first(root); v.node; v = qn_json_next(v)) {
        const char *key = qn_json_key(v);
        bool tied = false, is_type = strcmp(key, "torch_dtype") == 0 || strcmp(key, "dtype") == 0;
        typed |= is_type;
        if (strcmp(key, "tie_word_embeddings") == 0 && p->has_head &&
            qn_json_bool(v, NULL, &tied) == QN_OK && tied) {
            qn_log(QN_LOG_WARN,
                   "the result has a head of its own: tie_word_embeddings is now false");
            qn_json_put_bool(&w, key, false);
        } else if (strcmp(key, layers) == 0) {
            qn_json_put_int(&w, key, p->layers);
        } else if (is_type && type) {
            qn_json_put_string(&w, key, type);
        } else if (strcmp(key, "vocab_size") == 0 && p->vocabulary) {
            qn_json_put_int(&w, key, qn_vocabulary_rows(p->vocabulary));
        } else {
            qn_json_put_value(&w, key, v);
        }
    }
    if (!typed && type) qn_json_put_string(&w, "torch_dtype", type);
    qn_json_put_end(&w, '}');
    return save_json(&w, dir, "config.json");
}

// ---------------------------------------------------------------------------------- tokenizer

qn_result qn_merge_copy_file(const char *from, const char *to, const char *name)
{
    char *source = qn_path_join(from, name), *target = qn_path_join(to, name), *data = NULL;
    size_t size = 0;
    qn_result r = source && target ? QN_OK : qn_no_memory(strlen(name));
    if (r == QN_OK && qn_file_exists(source)) {
        r = qn_read_file(source, FILE_LIMIT, &data, &size);
        if (r == QN_OK) r = qn_write_file(target, data, size);
    }
    qn_free(data);
    qn_free(source);
    qn_free(target);
    return r;
}

static void put_added(qn_json_writer *w, const qn_vocab_token *t)
{
    qn_json_put_object(w, NULL);
    qn_json_put_int(w, "id", t->id);
    qn_json_put_string(w, "content", t->text);
    static const char *const flags[] = { "single_word", "lstrip", "rstrip", "normalized" };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) qn_json_put_bool(w, flags[i], false);
    qn_json_put_bool(w, "special", t->special);
    qn_json_put_end(w, '}');
}

// The first vocabulary's tokenizer.json with the tokens that it lacks, as added tokens.
static qn_result save_tokenizer_json(const qn_merge_plan *p, const char *from, const char *dir)
{
    const qn_json_limits limits = { .size = (uint64_t)256 << 20, .values = (uint64_t)32 << 20 };
    qn_json_doc *doc;
    size_t count, old;
    const qn_vocab_token *tokens = qn_vocabulary_tokens(p->vocabulary, &count, &old);
    char *path = qn_path_join(from, "tokenizer.json");
    qn_result r = path ? qn_json_open(path, &limits, &doc) : qn_no_memory(1);
    qn_free(path);
    QN_TRY(r);
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    for (qn_json v = qn_json_first(qn_json_root(doc)); v.node; v = qn_json_next(v)) {
        if (strcmp(qn_json_key(v), "added_tokens") != 0) {
            qn_json_put_value(&w, qn_json_key(v), v);
            continue;
        }
        qn_json_put_array(&w, "added_tokens");
        for (qn_json t = qn_json_first(v); t.node; t = qn_json_next(t))
            qn_json_put_value(&w, NULL, t);
        for (size_t i = old; i < count; i++) put_added(&w, &tokens[i]);
        qn_json_put_end(&w, ']');
    }
    if (!qn_json_find(qn_json_root(doc), "added_tokens").node && count > old) {
        qn_json_put_array(&w, "added_tokens");
        for (size_t i = old; i < count; i++) put_added(&w, &tokens[i]);
        qn_json_put_end(&w, ']');
    }
    qn_json_put_end(&w, '}');
    r = save_json(&w, dir, "tokenizer.json");
    qn_json_close(&doc);
    return r;
}

// Templates that a recipe may name.
static const struct {
    const char *name, *text;
} templates[] = {
    { "alpaca",
      "{{ (messages|selectattr('role','equalto','system')|list|last).content|trim if "
      "(messages|selectattr('role','equalto','system')|list) else '' }}\n\n"
      "{% for message in messages %}{% if message['role'] == 'user' %}### Instruction:\n"
      "{{ message['content']|trim }}\n\n{% elif message['role'] == 'assistant' %}### Response:\n"
      "{{ message['content']|trim }}{% if not loop.last %}\n\n{% endif %}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}### Response:\n{% endif %}" },
    { "chatml", "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
                "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}" },
    { "exaone", "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
                "{{ '[|system|][|endofturn|]\n' }}{% endif %}{{ '[|' + message['role'] + '|]' + "
                "message['content'] }}{% if message['role'] == 'user' %}{{ '\n' }}{% else %}"
                "{{ '[|endofturn|]\n' }}{% endif %}{% endfor %}"
                "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}" },
    { "llama3",
      "{% for message in messages %}{{ (bos_token if loop.first else '') + '<|start_header_id|>' + "
      "message['role'] + '<|end_header_id|>\n\n' + message['content']|trim + '<|eot_id|>' }}"
      "{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}" },
    { "mistral",
      "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
      "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
      "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}" },
};

// The template of a model, in a fresh string; *out is NULL when it has none.
static qn_result template_of(const qn_checkpoint *c, char **out)
{
    qn_json_doc *doc = NULL;
    const char *text = NULL;
    char *path = qn_path_join(c->dir, "tokenizer_config.json");
    qn_result r = path ? QN_OK : qn_no_memory(1);
    *out = NULL;
    if (r == QN_OK && qn_file_exists(path)) r = qn_json_open(path, NULL, &doc);
    if (r == QN_OK && doc &&
        qn_json_kind_of(qn_json_find(qn_json_root(doc), "chat_template")) == QN_JSON_STRING)
        r = qn_json_string(qn_json_root(doc), "chat_template", &text);
    if (r == QN_OK && text && !(*out = qn_strdup(text))) r = qn_no_memory(strlen(text));
    qn_json_close(&doc);
    qn_free(path);
    return r;
}

// `auto`: the one that most models have, the first of equally frequent ones.
static qn_result most_frequent(const qn_merge_plan *p, char **out)
{
    char **texts = qn_calloc(p->model_count, sizeof *texts);
    if (!texts) return qn_no_memory(p->model_count * sizeof *texts);
    qn_result r = QN_OK;
    size_t best = 0, most = 0;
    for (size_t i = 0; r == QN_OK && i < p->model_count; i++)
        r = template_of(&p->models[i], &texts[i]);
    for (size_t i = 0; r == QN_OK && i < p->model_count; i++) {
        size_t n = 0;
        for (size_t k = 0; texts[i] && k < p->model_count; k++)
            n += texts[k] && strcmp(texts[k], texts[i]) == 0;
        if (n > most) {
            most = n;
            best = i;
        }
    }
    *out = NULL;
    if (r == QN_OK && most && !(*out = qn_strdup(texts[best]))) r = qn_no_memory(1);
    if (r == QN_OK && !most) qn_log(QN_LOG_WARN, "chat_template: no model has one");
    for (size_t i = 0; i < p->model_count; i++) qn_free(texts[i]);
    qn_free(texts);
    return r;
}

static qn_result choose_template(const qn_merge_plan *p, char **out)
{
    const char *wanted = p->recipe->chat_template, *text = NULL;
    *out = NULL;
    if (strcmp(wanted, "auto") == 0) return most_frequent(p, out);
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, wanted) == 0) text = templates[i].text;
    if (!text && strlen(wanted) >= 20 && strchr(wanted, '{')) text = wanted;
    if (!text)
        return qn_yaml_fail(
            qn_yaml_find(p->recipe->root, "chat_template"),
            "chat_template \"%.60s\", expected auto, alpaca, chatml, exaone, llama3, "
            "mistral or the text of a template",
            wanted);
    *out = qn_strdup(text);
    return *out ? QN_OK : qn_no_memory(strlen(text));
}

static qn_result save_template(const qn_merge_plan *p, const char *dir)
{
    char *text, *path = qn_path_join(dir, "tokenizer_config.json");
    qn_json_doc *doc = NULL;
    if (!path) return qn_no_memory(1);
    qn_result r = choose_template(p, &text);
    if (r != QN_OK || !text) {
        qn_free(path);
        return r;
    }
    if (qn_file_exists(path)) r = qn_json_open(path, NULL, &doc);
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    for (qn_json v = qn_json_first(doc ? qn_json_root(doc) : (qn_json){ 0 }); v.node;
         v = qn_json_next(v))
        if (strcmp(qn_json_key(v), "chat_template") != 0) qn_json_put_value(&w, qn_json_key(v), v);
    qn_json_put_string(&w, "chat_template", text);
    qn_json_put_end(&w, '}');
    if (r == QN_OK)
        r = qn_json_save(&w, path);
    else
        qn_json_writer_free(&w);
    qn_json_close(&doc);
    qn_free(text);
    qn_free(path);
    return r;
}

qn_result qn_merge_save_tokenizer(const qn_merge_plan *p, const char *dir)
{
    static const char *const files[] = {
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "added_tokens.json",
        "merges.txt",
        "vocab.json",
        "chat_template.jinja",
        "generation_config.json",
    };
    const char *from =
        p->vocabulary ? qn_vocabulary_dir(p->vocabulary) : qn_merge_plan_template(p)->dir;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        QN_TRY(qn_merge_copy_file(from, dir, files[i]));
    size_t count = 0, old = 0;
    if (p->vocabulary) (void)qn_vocabulary_tokens(p->vocabulary, &count, &old);
    if (count > old) {
        char *path = qn_path_join(from, "tokenizer.json");
        bool there = path && qn_file_exists(path);
        qn_free(path);
        if (there)
            QN_TRY(save_tokenizer_json(p, from, dir));
        else
            qn_log(QN_LOG_WARN, "%s has no tokenizer.json to which the new tokens could be added",
                   from);
    }
    return p->recipe->chat_template ? save_template(p, dir) : QN_OK;
}

// ---------------------------------------------------------------------------------- card

static bool is_reference(const char *path)
{
    const char *slash = strchr(path, '/');
    return slash && slash != path && slash[1] && !strchr(slash + 1, '/') && *path != '.';
}

static const char *base_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    for (size_t i = n; i-- > 0;)
        if (path[i] == '/') return path + i + 1;
    return path;
}

qn_result qn_merge_save_card(const qn_merge_plan *p, const char *text, const char *dir)
{
    const qn_method *m = p->recipe->method;
    qn_textbuf t = { 0 };
    bool any = false;
    qn_textbuf_puts(&t, "---\n");
    for (size_t i = 0; i < p->model_count; i++) {
        if (!is_reference(p->models[i].ref.path)) continue;
        qn_textbuf_printf(&t, "%s- %s\n", any ? "" : "base_model:\n", p->models[i].ref.path);
        any = true;
    }
    qn_textbuf_puts(&t, "library_name: transformers\ntags:\n- mergekit\n- merge\n- quoin\n---\n");
    const char *name = base_name(dir);
    size_t n = strcspn(name, "/");
    qn_textbuf_printf(&t, "# %.*s\n\nA merge of language models, made by quoin %s.\n\n", (int)n,
                      name, qn_version());
    qn_textbuf_puts(&t, "## Method\n\n");
    if (m->link)
        qn_textbuf_printf(&t, "[%s](%s)", m->title, m->link);
    else
        qn_textbuf_puts(&t, m->title);
    if (p->base >= 0) qn_textbuf_printf(&t, " with %s as the base", p->models[p->base].ref.text);
    qn_textbuf_puts(&t, ".\n\n## Models\n\n");
    for (size_t i = 0; i < p->model_count; i++)
        if ((int)i != p->base || p->model_count == 1)
            qn_textbuf_printf(&t, "- %s\n", p->models[i].ref.text);
    qn_textbuf_printf(&t, "\n## Recipe\n\n```yaml\n%s%s```\n", text,
                      *text && text[strlen(text) - 1] == '\n' ? "" : "\n");
    char *path = qn_path_join(dir, "README.md");
    qn_result r = path ? qn_textbuf_save(&t, path) : qn_no_memory(1);
    qn_free(path);
    qn_textbuf_free(&t);
    return r;
}

// ---------------------------------------------------------------------------------- audit

static void put_params(qn_json_writer *w, const qn_method *m, const qn_merge_params *given,
                       bool of_model)
{
    qn_json_put_object(w, "parameters");
    for (size_t i = 0; i < m->param_count; i++) {
        const qn_method_param *p = &m->params[i];
        if (p->of_model != of_model) continue;
        if (p->required && !(given->given >> p->param & 1)) continue; // the base's
        double value = qn_merge_param_of(m, given, p->param);
        if (p->flag)
            qn_json_put_bool(w, qn_merge_param_name(p->param), value != 0);
        else
            qn_json_put_number(w, qn_merge_param_name(p->param), value);
    }
    qn_json_put_end(w, '}');
}

void qn_merge_put_output(qn_json_writer *w, const qn_merge_plan *p, const qn_merge_output *o)
{
    const qn_merge_tensor *t = &o->tensor;
    (void)p;
    qn_json_put_object(w, NULL);
    qn_json_put_string(w, "tensor", t->name);
    qn_json_put_string(w, "dtype", qn_st_dtype_name(t->stored));
    qn_json_put_array(w, "shape");
    for (int i = 0; i < t->rank; i++) qn_json_put_int(w, NULL, t->dim[i]);
    qn_json_put_end(w, ']');
    qn_json_put_number(w, "position", o->position);
    put_params(w, t->method, &t->params, false);
    qn_json_put_array(w, "sources");
    for (size_t i = 0; i < t->count; i++) {
        qn_json_put_object(w, NULL);
        qn_json_put_string(w, "model", t->models[i].model);
        qn_json_put_string(w, "tensor", t->sources[i].tensor->name);
        if ((int)i == t->base) qn_json_put_bool(w, "base", true);
        put_params(w, t->method, &t->models[i].params, true);
        qn_json_put_end(w, '}');
    }
    qn_json_put_end(w, ']');
    qn_json_put_end(w, '}');
}

qn_result qn_merge_save_audit(const qn_merge_plan *p, const char *dir)
{
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "quoin_version", qn_version());
    qn_json_put_string(&w, "merge_method", p->recipe->method->name);
    qn_json_put_int(&w, "seed", p->count ? (int64_t)p->outputs[0].tensor.seed : 0);
    qn_json_put_array(&w, "models");
    for (size_t i = 0; i < p->model_count; i++) {
        qn_json_put_object(&w, NULL);
        qn_json_put_string(&w, "model", p->models[i].ref.text);
        qn_json_put_string(&w, "folder", p->models[i].dir);
        if ((int)i == p->base) qn_json_put_bool(&w, "base", true);
        qn_json_put_end(&w, '}');
    }
    qn_json_put_end(&w, ']');
    qn_json_put_array(&w, "tensors");
    for (size_t i = 0; i < p->count; i++) qn_merge_put_output(&w, p, &p->outputs[i]);
    qn_json_put_end(&w, ']');
    qn_json_put_end(&w, '}');
    return save_json(&w, dir, "quoin_merge.json");
}
