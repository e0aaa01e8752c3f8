// Opening model folders and writing text with them.
#include "generate.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"
#include "runner.h"
#include "text/bpe.h"
#include "weights.h"

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

qn_dtype qn_weight_choice(int i)
{
    static const qn_dtype dtypes[] = { QN_AS_STORED, QN_F32, QN_F16, QN_BF16, QN_Q8_0, QN_Q4_0 };
    return dtypes[i];
}

// The description and the tokenizer inside a GGUF file.
static qn_result open_inside(const char *path, const qn_weights *w, qn_folder *f)
{
    qn_gguf_text architecture = { "", 0 }, config, tokenizer;
    qn_gguf_text_of(w->gguf, "general.architecture", &architecture);
    if (architecture.size != 12 || memcmp(architecture.data, "moduleformer", 12) != 0)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "%s: general.architecture is \"%.*s\", only moduleformer can be run", path,
                       (int)(architecture.size < 40 ? architecture.size : 40), architecture.data);
    if (!qn_gguf_text_of(w->gguf, "quoin.config", &config))
        return qn_fail(QN_ERR_FORMAT, "%s: the key quoin.config is missing", path);
    if (!qn_gguf_text_of(w->gguf, "tokenizer.huggingface.json", &tokenizer))
        return qn_fail(QN_ERR_FORMAT, "%s: the key tokenizer.huggingface.json is missing", path);
    QN_TRY(qn_model_config_parse(path, config.data, config.size, &f->config));
    return qn_tokenizer_parse(path, tokenizer.data, tokenizer.size, &f->tokenizer);
}

typedef struct declaring {
    const qn_weights *w;
    qn_store *store;
    qn_dtype wanted;
} declaring;

static qn_result declare_one(void *user, const qn_param_info *p)
{
    declaring *d = user;
    qn_weight w;
    QN_TRY(qn_weights_find(d->w, p, &w));
    return qn_store_add(d->store, p->name, qn_weight_kept(p, &w, d->wanted), p->shape);
}

static qn_result load_weights(qn_device *dev, const qn_weights *w, const qn_folder_opts *o,
                              qn_folder *f)
{
    QN_TRY(qn_store_create(dev, "weights", &f->weights));
    QN_TRY(qn_parameters(&f->config, declare_one, &(declaring){ w, f->weights, o->weights }));
    QN_TRY(qn_store_allocate(f->weights));
    return qn_weights_load(w, &f->config, f->weights, &o->progress);
}

qn_result qn_folder_parts(const char *path, qn_weights *w, qn_folder *out)
{
    qn_folder f = { 0 };
    qn_result r = QN_OK;
    if (!qn_is_gguf(path) && !qn_is_dir(path))
        r = qn_fail(QN_ERR_IO, "%s: there is no such model folder", path);
    if (r == QN_OK && !qn_is_gguf(path)) r = open_config(path, &f.config);
    if (r == QN_OK && !qn_is_gguf(path)) r = qn_tokenizer_open(path, &f.tokenizer);
    if (r == QN_OK) r = qn_weights_open(path, w);
    if (r == QN_OK && w->gguf) r = open_inside(path, w, &f);
    if (r == QN_OK && qn_tokenizer_size(f.tokenizer) > f.config.vocab_size)
        r = qn_fail(QN_ERR_FORMAT, "%s: the tokenizer has %d tokens, config.json has vocab_size %lld",
                    path, qn_tokenizer_size(f.tokenizer), (long long)f.config.vocab_size);
    if (r == QN_OK) {
        *out = f;
        return QN_OK;
    }
    qn_folder_close(&f);
    qn_weights_close(w);
    return r;
}

qn_result qn_folder_open_with(qn_device *dev, const char *path, const qn_folder_opts *opts,
                              qn_folder *out)
{
    qn_folder f = { 0 };
    qn_weights w = { 0 };
    QN_TRY(qn_folder_parts(path, &w, &f));
    qn_result r = qn_context_add(load_weights(dev, &w, opts, &f), "%s", path);
    qn_weights_close(&w);
    if (r == QN_OK)
        *out = f;
    else
        qn_folder_close(&f);
    return r;
}

qn_result qn_folder_open(qn_device *dev, const char *path, qn_dtype weights, qn_folder *out)
{
    return qn_folder_open_with(dev, path, &(qn_folder_opts){ .weights = weights }, out);
}

void qn_folder_close(qn_folder *f)
{
    qn_tokenizer_close(&f->tokenizer);
    qn_store_destroy(&f->weights);
}

typedef struct writing {
    const qn_folder *f;
    const qn_generate_opts *o;
    qn_runner *runner;
    qn_tokens prompt;
    qn_token_stream stream;
    qn_text text;
    bool stopped;
} writing;

static void hand_over(writing *w)
{
    if (w->text.size && w->o->text && !w->o->text(w->o->user, w->text.data, w->text.size))
        w->stopped = true;
    w->text.size = 0;
}

uint8_t *qn_folder_usable(const qn_folder *f)
{
    uint8_t *usable = qn_malloc((size_t)f->config.vocab_size);
    size_t size;
    for (int64_t i = 0; usable && i < f->config.vocab_size; i++)
        usable[i] = i < qn_tokenizer_size(f->tokenizer) &&
                    qn_token_bytes(f->tokenizer, (int32_t)i, &size) != NULL;
    return usable;
}

static qn_result open_runner(qn_device *dev, writing *w)
{
    qn_runner_opts o = { .context = w->o->context ? w->o->context : 1024 };
    uint8_t *usable = qn_folder_usable(w->f);
    if (!usable) return qn_no_memory((size_t)w->f->config.vocab_size);
    o.usable = usable;
    qn_result r = qn_runner_create(dev, &w->f->config, w->f->weights, &o, &w->runner);
    qn_free(usable);
    if (r != QN_OK || !w->o->memory) return r;
    if (!qn_runner_remembers(w->runner))
        return qn_fail(QN_ERR_INVALID, "%s: the model has no memory; quoin bricks add-memory gives "
                                       "it one", w->o->memory);
    return qn_file_exists(w->o->memory) ? qn_runner_memory_load(w->runner, 0, w->o->memory) : QN_OK;
}

static qn_result read_prompt(writing *w, qn_generate_stats *stats)
{
    QN_TRY(qn_tokenizer_encode(w->f->tokenizer, w->o->prompt, w->o->prompt_size, NULL, &w->prompt));
    if (!w->prompt.count) { // nothing to go on from: begin a text
        QN_TRY(qn_grow((void **)&w->prompt.id, &w->prompt.capacity, 1, sizeof *w->prompt.id));
        w->prompt.id[w->prompt.count++] = (int32_t)w->f->config.bos_token_id;
    }
    if ((int64_t)w->prompt.count >= qn_runner_context(w->runner))
        return qn_fail(QN_ERR_INVALID,
                       "the prompt has %zu tokens, the context holds %lld; use --context or a "
                       "shorter prompt",
                       w->prompt.count, (long long)qn_runner_context(w->runner));
    QN_TRY(qn_runner_sample(w->runner, 0, &(qn_runner_sampling){ .how = w->o->sampling }));
    stats->prompt_tokens = (int64_t)w->prompt.count;
    return qn_runner_feed(w->runner, 0, w->prompt.id, w->prompt.count);
}

// Takes in one token; says whether the text goes on behind it.
static qn_result take_token(writing *w, const qn_runner_event *e, qn_generate_stats *stats,
                            bool *more)
{
    *more = false;
    if (e->token < 0)
        return qn_fail(QN_ERR_INVALID, "the model gave no usable logit: its weights hold NaN or "
                                       "infinite values");
    if (e->token == w->f->config.eos_token_id && !w->o->ignore_end) {
        stats->ended = true;
        return QN_OK;
    }
    stats->tokens++;
    QN_TRY(qn_token_stream_push(&w->stream, e->token, &w->text));
    hand_over(w);
    *more = !e->full && !w->stopped && (!w->o->max_tokens || stats->tokens < w->o->max_tokens);
    return QN_OK;
}

static qn_result write_on(writing *w, qn_generate_stats *stats)
{
    double start = qn_clock();
    for (bool more = true, first = true; more;) {
        qn_runner_event e;
        size_t n;
        QN_TRY(qn_runner_step(w->runner, &e, &n));
        if (n) QN_TRY(take_token(w, &e, stats, &more));
        if (!n && w->o->text && !w->o->text(w->o->user, "", 0)) break; // stopped while reading
        if (n && first) {
            stats->prompt_seconds = qn_clock() - start;
            start = qn_clock();
            first = false;
        }
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
    qn_result r = open_runner(dev, &w);
    if (r == QN_OK) r = read_prompt(&w, &stats);
    if (r == QN_OK) r = write_on(&w, &stats);
    if (r == QN_OK && opts->memory)
        r = qn_runner_memory_save(w.runner, 0, opts->memory, false);
    if (r == QN_OK) *out = stats;
    qn_runner_destroy(&w.runner);
    qn_tokens_free(&w.prompt);
    qn_text_free(&w.text);
    return r;
}
