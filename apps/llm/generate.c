// Opening model folders and writing text with them.
#include "generate.h"
#include "decoder.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <string.h>

static qn_result open_config(const char *dir, qn_model_config *out)
{
    char *path = qn_path_join(dir, "config.json");
    if (!path) return qn_no_memory(strlen(dir));
    qn_result r = QN_OK;
    if (!qn_is_dir(dir))
        r = qn_fail(QN_ERR_IO, "%s: there is no such model folder", dir);
    else
        r = qn_model_config_read(path, out);
    qn_free(path);
    return r;
}

qn_result qn_folder_open(qn_device *dev, const char *dir, qn_dtype weights, qn_folder *out)
{
    qn_folder f = { 0 };
    qn_result r = open_config(dir, &f.config);
    if (r == QN_OK) r = qn_tokenizer_open(dir, &f.tokenizer);
    if (r == QN_OK && qn_tokenizer_size(f.tokenizer) > f.config.vocab_size)
        r = qn_fail(QN_ERR_FORMAT, "%s: the tokenizer has %d tokens, config.json has vocab_size %lld",
                    dir, qn_tokenizer_size(f.tokenizer), (long long)f.config.vocab_size);
    if (r == QN_OK) r = qn_store_create(dev, "weights", &f.weights);
    if (r == QN_OK) r = qn_model_declare(&f.config, f.weights, weights);
    if (r == QN_OK) r = qn_store_allocate(f.weights);
    if (r == QN_OK) r = qn_model_load(&f.config, f.weights, dir);
    if (r == QN_OK)
        *out = f;
    else
        qn_folder_close(&f);
    return r;
}

void qn_folder_close(qn_folder *f)
{
    qn_tokenizer_close(&f->tokenizer);
    qn_store_destroy(&f->weights);
}

typedef struct writing {
    const qn_folder *f;
    const qn_generate_opts *o;
    qn_decoder *decoder;
    qn_sampler *sampler;
    qn_tokens prompt;
    qn_token_stream stream;
    qn_text text;
    float *logits;
    bool stopped;
} writing;

static void hand_over(writing *w)
{
    if (w->text.size && w->o->text && !w->o->text(w->o->user, w->text.data, w->text.size))
        w->stopped = true;
    w->text.size = 0;
}

static qn_result read_prompt(writing *w, qn_generate_stats *stats)
{
    QN_TRY(qn_tokenizer_encode(w->f->tokenizer, w->o->prompt, w->o->prompt_size, NULL, &w->prompt));
    if (!w->prompt.count) { // nothing to go on from: begin a text
        QN_TRY(qn_grow((void **)&w->prompt.id, &w->prompt.capacity, 1, sizeof *w->prompt.id));
        w->prompt.id[w->prompt.count++] = (int32_t)w->f->config.bos_token_id;
    }
    if ((int64_t)w->prompt.count >= qn_decoder_context(w->decoder))
        return qn_fail(QN_ERR_INVALID,
                       "the prompt has %zu tokens, the context holds %lld; use --context or a "
                       "shorter prompt",
                       w->prompt.count, (long long)qn_decoder_context(w->decoder));
    for (size_t i = 0; i < w->prompt.count; i++)
        QN_TRY(qn_sampler_accept(w->sampler, w->prompt.id[i]));
    double start = qn_clock();
    QN_TRY(qn_decoder_feed(w->decoder, w->prompt.id, NULL, (int64_t)w->prompt.count, w->logits));
    stats->prompt_seconds = qn_clock() - start;
    stats->prompt_tokens = (int64_t)w->prompt.count;
    return QN_OK;
}

// Tokens that the model has and the tokenizer has not can never be written.
static void mask_unused(const writing *w)
{
    size_t size;
    for (int64_t i = 0; i < w->f->config.vocab_size; i++)
        if (i >= qn_tokenizer_size(w->f->tokenizer) ||
            !qn_token_bytes(w->f->tokenizer, (int32_t)i, &size))
            w->logits[i] = -INFINITY;
}

static qn_result write_on(writing *w, qn_generate_stats *stats)
{
    double start = qn_clock();
    while (!w->stopped && (!w->o->max_tokens || stats->tokens < w->o->max_tokens)) {
        int32_t token;
        mask_unused(w);
        QN_TRY(qn_sampler_pick(w->sampler, w->logits, &token));
        QN_TRY(qn_sampler_accept(w->sampler, token));
        if (token == w->f->config.eos_token_id && !w->o->ignore_end) {
            stats->ended = true;
            break;
        }
        stats->tokens++;
        QN_TRY(qn_token_stream_push(&w->stream, token, &w->text));
        hand_over(w);
        if (qn_decoder_used(w->decoder) == qn_decoder_context(w->decoder)) break;
        QN_TRY(qn_decoder_feed(w->decoder, &token, NULL, 1, w->logits));
    }
    QN_TRY(qn_token_stream_finish(&w->stream, &w->text));
    hand_over(w);
    stats->seconds = qn_clock() - start;
    return QN_OK;
}

qn_result qn_generate(qn_device *dev, const qn_folder *f, const qn_generate_opts *opts,
                      qn_generate_stats *out)
{
    writing w = { .f = f, .o = opts,
                  .stream = { .tokenizer = f->tokenizer, .skip_special = true } };
    qn_generate_stats stats = { 0 };
    qn_decoder_opts d = { .context = opts->context };
    w.logits = qn_malloc((size_t)f->config.vocab_size * sizeof *w.logits);
    qn_result r = w.logits ? QN_OK : qn_no_memory((size_t)f->config.vocab_size * sizeof *w.logits);
    if (r == QN_OK) r = qn_decoder_create(dev, &f->config, f->weights, &d, &w.decoder);
    if (r == QN_OK) r = qn_sampler_create(&opts->sampling, f->config.vocab_size, &w.sampler);
    if (r == QN_OK) r = read_prompt(&w, &stats);
    if (r == QN_OK) r = write_on(&w, &stats);
    if (r == QN_OK) *out = stats;
    qn_decoder_destroy(&w.decoder);
    qn_sampler_destroy(&w.sampler);
    qn_tokens_free(&w.prompt);
    qn_text_free(&w.text);
    qn_free(w.logits);
    return r;
}
