// bench model: a model folder, or a preset with random weights.
#include "bench/bench_command.h"
#include "bench/model.h"
#include "llm/generate.h"
#include "half.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

#define MOST_ITEMS 16

static const qn_opt options[] = {
    QN_BENCH_MEASURING,
    { "preset", 0, QN_AT_STRING(qn_bench_opts, preset), .value = "NAME", .section = "Model",
      .help = "instead of a folder: this preset with random weights (default: nano)" },
    { "config", 0, QN_AT_PATH(qn_bench_opts, config), .value = "FILE",
      .help = "instead of a folder: a config.json, with random weights" },
    { "vocab", 0, QN_AT_INT(qn_bench_opts, vocab), .initial = "512", .min = 2, .max = 1 << 20,
      .help = "size of the preset's vocabulary" },
    { "dtype", 0, QN_AT_CHOICE(qn_bench_opts, dtype), .words = "f32|f16|bf16", .initial = "f32",
      .help = "storage of weights in products" },
    { "what", 0, QN_AT_CHOICE(qn_bench_opts, what), .words = "all|training|decoding",
      .initial = "all", .help = "what to measure" },
    { "batch", 'b', QN_AT_INT(qn_bench_opts, batch), .initial = "8", .min = 1, .max = 65536,
      .section = "Training", .help = "windows of a step" },
    { "length", 'l', QN_AT_INT(qn_bench_opts, length), .initial = "128", .min = 2, .max = 1 << 20,
      .help = "tokens of a window" },
    { "prompts", 0, QN_AT_LIST(qn_bench_opts, prompts), .value = "N,...", .section = "Decoding",
      .help = "lengths of prompts (default: 32,256)" },
    { "texts", 0, QN_AT_LIST(qn_bench_opts, texts), .value = "N,...",
      .help = "texts written at once (default: 1,4)" },
    { "tokens", 'n', QN_AT_INT(qn_bench_opts, tokens), .initial = "64", .min = 2, .max = 1 << 20,
      .help = "tokens written per text at most" },
    { 0 },
};

static qn_result numbers(const char *option, const qn_opt_list *list, const int64_t *initial,
                         size_t initial_count, int64_t most, int64_t out[MOST_ITEMS], size_t *count)
{
    *count = list->count ? list->count : initial_count;
    if (*count > MOST_ITEMS)
        return qn_fail(QN_ERR_INVALID, "--%s: found %zu numbers, expected at most %d", option,
                       *count, MOST_ITEMS);
    for (size_t i = 0; i < *count; i++) {
        char *end, quoted[QN_QUOTED];
        out[i] = list->count ? strtoll(list->items[i], &end, 10) : initial[i];
        if (list->count && (*end || out[i] < 1 || out[i] > most))
            return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected numbers from 1 to %lld",
                           option, qn_quote(list->items[i], quoted), (long long)most);
    }
    return QN_OK;
}

typedef struct lists {
    int64_t prompts[MOST_ITEMS], texts[MOST_ITEMS];
    size_t prompt_count, text_count;
} lists;

static qn_result read_lists(const qn_bench_opts *o, lists *l)
{
    static const int64_t prompts[] = { 32, 256 }, texts[] = { 1, 4 };
    QN_TRY(numbers("prompts", &o->prompts, prompts, 2, 1 << 20, l->prompts, &l->prompt_count));
    return numbers("texts", &o->texts, texts, 2, 4096, l->texts, &l->text_count);
}

static qn_result check(qn_bench_run *run)
{
    lists l;
    qn_model_config c;
    if ((run->cli->arg_count != 0) + (run->o->preset != NULL) + (run->o->config != NULL) > 1)
        return qn_fail(QN_ERR_INVALID, "a folder, --preset or --config, not two of them");
    if (run->o->preset) QN_TRY(qn_model_preset(run->o->preset, run->o->vocab, &c));
    return read_lists(run->o, &l);
}

// Small random values in the store's types.
static qn_result fill(qn_store *store)
{
    for (size_t i = 0; i < qn_store_count(store); i++) {
        const qn_store_entry *e = qn_store_at(store, i);
        const uint64_t count = (uint64_t)qn_shape_count(e->shape);
        char *data = qn_malloc(e->size);
        if (!data) return qn_no_memory(e->size);
        qn_random random = qn_random_start(1, i);
        for (uint64_t k = 0; k < count; k++) {
            const float v = (float)(0.1 * qn_random_unit(&random) - 0.05);
            const uint16_t half = qn_f16_from_f32(v), bf16 = qn_bf16_from_f32(v);
            if (e->dtype == QN_F32) memcpy(data + 4 * k, &v, 4);
            if (e->dtype == QN_F16) memcpy(data + 2 * k, &half, 2);
            if (e->dtype == QN_BF16) memcpy(data + 2 * k, &bf16, 2);
        }
        qn_result r = qn_store_write(store, e->name, data, e->size);
        qn_free(data);
        QN_TRY(r);
    }
    return QN_OK;
}

// A preset's weights: random, as training starts with them.
static qn_result make_weights(qn_bench_run *run, qn_dtype dtype, qn_folder *f)
{
    const qn_bench_opts *o = run->o;
    if (o->config)
        QN_TRY(qn_model_config_read(o->config, &f->config));
    else
        QN_TRY(qn_model_preset(o->preset ? o->preset : "nano", o->vocab, &f->config));
    QN_TRY(qn_store_create(run->dev, "weights", &f->weights));
    QN_TRY(qn_model_declare(&f->config, f->weights, dtype));
    QN_TRY(qn_store_allocate(f->weights));
    return dtype == QN_F32 ? qn_model_initialise(&f->config, f->weights, 1, false)
                           : fill(f->weights);
}

static qn_result measure_all(qn_bench_run *run, const qn_folder *f, qn_dtype dtype)
{
    lists l;
    QN_TRY(read_lists(run->o, &l));
    const qn_bench_opts *o = run->o;
    const char *folder = run->cli->arg_count ? run->cli->args[0] : NULL;
    const qn_bench_lm_opts opts = {
        .name = folder      ? folder
                : o->preset ? o->preset
                            : "nano",
        .config = &f->config,
        .weights = dtype,
        .prompts = l.prompts,
        .prompt_count = l.prompt_count,
        .batches = l.texts,
        .batch_count = l.text_count,
        .written = o->tokens,
        .measure = { .seconds = o->seconds },
        .peaks = &run->peaks,
        .go_on = qn_bench_go_on,
    };
    enum { ALL, TRAINING, DECODING };
    QN_TRY(qn_peaks_measure(run->dev, &(qn_measure_opts){ .seconds = 0.1 }, NULL, &run->peaks));
    if (o->what != TRAINING) QN_TRY(qn_bench_decoding(run->dev, f->weights, &opts, &run->log));
    if (o->what == DECODING) return QN_OK;
    return qn_bench_training(run->dev, &opts, o->batch, o->length, &run->log);
}

static qn_result measure_model(qn_bench_run *run)
{
    static const qn_dtype dtypes[] = { QN_F32, QN_F16, QN_BF16 };
    const qn_dtype dtype = dtypes[run->o->dtype];
    qn_folder f = { 0 };
    qn_result r = run->cli->arg_count ? qn_folder_open(run->dev, run->cli->args[0], dtype, &f)
                                      : make_weights(run, dtype, &f);
    if (r == QN_OK) r = measure_all(run, &f, dtype);
    qn_folder_close(&f);
    return r;
}

static int run_model(const qn_cli *cli, const void *opts)
{
    return qn_bench_do(cli, opts, &(qn_bench_part){ .check = check, .measure = measure_model });
}

const qn_command qn_command_bench_model = {
    .args = "[MODEL]",
    .args_max = 1,
    .about = "Measures a model folder, or a preset with random weights: reading prompts (the time "
             "is that to the first token), writing several texts at once, training steps; tokens "
             "per second, most device memory, and for one text the weights read per second as a "
             "share of the copy bandwidth. Reading and writing go through what `generate` uses.",
    .examples = "quoin bench model run/book --texts 1,8\nquoin bench model --preset small "
                "--what training --batch 8 --length 128",
    .options = options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run_model,
};
