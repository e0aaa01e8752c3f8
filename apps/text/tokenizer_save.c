// Writing tokenizer.json in the layout of the Hugging Face libraries.
#include "bpe.h"
#include "fail.h"
#include "io/json.h"

#include <string.h>

static void put_added(const qn_tokenizer *t, qn_json_writer *w)
{
    qn_json_put_array(w, "added_tokens");
    for (size_t id = 0; id < t->count; id++) {
        const qn_token *token = &t->tokens[id];
        if (!token->added) continue;
        qn_json_put_object(w, NULL);
        qn_json_put_int(w, "id", (int64_t)id);
        qn_json_put_string(w, "content", token->bytes);
        qn_json_put_bool(w, "single_word", false);
        qn_json_put_bool(w, "lstrip", token->lstrip);
        qn_json_put_bool(w, "rstrip", token->rstrip);
        qn_json_put_bool(w, "normalized", !token->special);
        qn_json_put_bool(w, "special", token->special);
        qn_json_put_end(w, '}');
    }
    qn_json_put_end(w, ']');
}

static void put_byte_level(qn_json_writer *w, const char *key, bool trim, bool regex)
{
    qn_json_put_object(w, key);
    qn_json_put_string(w, "type", "ByteLevel");
    qn_json_put_bool(w, "add_prefix_space", false);
    qn_json_put_bool(w, "trim_offsets", trim);
    qn_json_put_bool(w, "use_regex", regex);
    qn_json_put_end(w, '}');
}

static void put_pre_tokenizer(const qn_tokenizer *t, qn_json_writer *w)
{
    if (qn_splitter_is_default(t->splitter)) {
        put_byte_level(w, "pre_tokenizer", true, true);
        return;
    }
    qn_json_put_object(w, "pre_tokenizer");
    qn_json_put_string(w, "type", "Sequence");
    qn_json_put_array(w, "pretokenizers");
    qn_json_put_object(w, NULL);
    qn_json_put_string(w, "type", "Split");
    qn_json_put_object(w, "pattern");
    qn_json_put_string(w, "Regex", qn_splitter_pattern(t->splitter));
    qn_json_put_end(w, '}');
    qn_json_put_string(w, "behavior", "Isolated");
    qn_json_put_bool(w, "invert", false);
    qn_json_put_end(w, '}');
    put_byte_level(w, NULL, true, false);
    qn_json_put_end(w, ']');
    qn_json_put_end(w, '}');
}

// How a template calls a token: as the vocabulary spells it, or by its text.
static const char *token_name(const qn_tokenizer *t, int32_t id)
{
    const qn_token *token = &t->tokens[id];
    return token->key ? token->key : token->bytes;
}

static void put_template_token(qn_json_writer *w, const char *kind, const char *name)
{
    qn_json_put_object(w, NULL);
    qn_json_put_object(w, kind);
    qn_json_put_string(w, "id", name);
    qn_json_put_int(w, "type_id", 0);
    qn_json_put_end(w, '}');
    qn_json_put_end(w, '}');
}

static bool is_first(const qn_tokens *list, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (list->id[k] == list->id[i]) return false;
    return true;
}

static bool contains(const qn_tokens *list, int32_t id)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->id[i] == id) return true;
    return false;
}

static void put_template_ids(const qn_tokenizer *t, qn_json_writer *w, const qn_tokens *list,
                             const qn_tokens *done)
{
    for (size_t i = 0; i < list->count; i++) {
        int32_t id = list->id[i];
        if (!is_first(list, i) || (done && contains(done, id))) continue;
        qn_json_put_object(w, token_name(t, id));
        qn_json_put_string(w, "id", token_name(t, id));
        qn_json_put_array(w, "ids");
        qn_json_put_int(w, NULL, id);
        qn_json_put_end(w, ']');
        qn_json_put_array(w, "tokens");
        qn_json_put_string(w, NULL, token_name(t, id));
        qn_json_put_end(w, ']');
        qn_json_put_end(w, '}');
    }
}

static void put_post_processor(const qn_tokenizer *t, qn_json_writer *w)
{
    if (!t->before.count && !t->after.count) {
        put_byte_level(w, "post_processor", false, true);
        return;
    }
    qn_json_put_object(w, "post_processor");
    qn_json_put_string(w, "type", "TemplateProcessing");
    for (int pair = 0; pair < 2; pair++) {
        qn_json_put_array(w, pair ? "pair" : "single");
        for (int k = 0; k <= pair; k++) {
            for (size_t i = 0; i < t->before.count; i++)
                put_template_token(w, "SpecialToken", token_name(t, t->before.id[i]));
            put_template_token(w, "Sequence", k ? "B" : "A");
            for (size_t i = 0; i < t->after.count; i++)
                put_template_token(w, "SpecialToken", token_name(t, t->after.id[i]));
        }
        qn_json_put_end(w, ']');
    }
    qn_json_put_object(w, "special_tokens");
    put_template_ids(t, w, &t->before, NULL);
    put_template_ids(t, w, &t->after, &t->before);
    qn_json_put_end(w, '}');
    qn_json_put_end(w, '}');
}

// Merges as "a b", which readers of every age understand: no byte's character is a space.
static void put_merges(const qn_tokenizer *t, qn_json_writer *w, char *scratch)
{
    qn_json_put_array(w, "merges");
    for (size_t i = 0; i < t->merge_count; i++) {
        const qn_token *left = &t->tokens[t->merges[i].left];
        const qn_token *right = &t->tokens[t->merges[i].right];
        memcpy(scratch, left->key, left->key_size);
        scratch[left->key_size] = ' ';
        memcpy(scratch + left->key_size + 1, right->key, right->key_size);
        qn_json_put_text(w, NULL, 0, scratch, left->key_size + 1 + (size_t)right->key_size);
    }
    qn_json_put_end(w, ']');
}

static void put_model(const qn_tokenizer *t, qn_json_writer *w, char *scratch)
{
    qn_json_put_object(w, "model");
    qn_json_put_string(w, "type", "BPE");
    qn_json_put_null(w, "dropout");
    qn_json_put_null(w, "unk_token");
    qn_json_put_string(w, "continuing_subword_prefix", "");
    qn_json_put_string(w, "end_of_word_suffix", "");
    qn_json_put_bool(w, "fuse_unk", false);
    qn_json_put_bool(w, "byte_fallback", false);
    qn_json_put_bool(w, "ignore_merges", t->ignore_merges);
    qn_json_put_object(w, "vocab");
    for (size_t id = 0; id < t->count; id++)
        if (t->tokens[id].key)
            qn_json_put_key_int(w, t->tokens[id].key, t->tokens[id].key_size, (int64_t)id);
    qn_json_put_end(w, '}');
    put_merges(t, w, scratch);
    qn_json_put_end(w, '}');
}

static qn_result put_all(const qn_tokenizer *t, qn_json_writer *out)
{
    qn_json_writer w = *out;
    char *scratch = qn_malloc(2 * t->longest + 1);
    if (!scratch) return qn_no_memory(2 * t->longest + 1);
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "version", "1.0");
    qn_json_put_null(&w, "truncation");
    qn_json_put_null(&w, "padding");
    put_added(t, &w);
    qn_json_put_null(&w, "normalizer");
    put_pre_tokenizer(t, &w);
    put_post_processor(t, &w);
    put_byte_level(&w, "decoder", true, true);
    put_model(t, &w, scratch);
    qn_json_put_end(&w, '}');
    qn_free(scratch);
    *out = w;
    return w.status;
}

qn_result qn_tokenizer_save(const qn_tokenizer *t, const char *path)
{
    qn_json_writer w = { 0 };
    qn_result r = put_all(t, &w);
    if (r == QN_OK) return qn_json_save(&w, path);
    qn_json_writer_free(&w);
    return r;
}

qn_result qn_tokenizer_text(const qn_tokenizer *t, char **out)
{
    qn_json_writer w = { .compact = true };
    qn_result r = put_all(t, &w);
    *out = r == QN_OK ? qn_strndup(w.text, w.size) : NULL;
    qn_json_writer_free(&w);
    return r == QN_OK && !*out ? qn_no_memory(0) : r;
}
