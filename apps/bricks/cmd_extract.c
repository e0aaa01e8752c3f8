// `quoin merge extract-lora`.
#include "bricks/extract.h"
#include "cli/command.h"

#include <stdio.h>

typedef struct extract_opts {
    const char *model, *base, *out, *models, *include, *exclude;
    int64_t rank;
    double epsilon;
    bool distribute, undistributed, embed, skip;
    qn_opt_list save;
} extract_opts;

static const qn_opt options[] = {
    { "model", 0, QN_AT_PATH(extract_opts, model), .value = "DIR",
      .help = "the model that has learnt" },
    { "base-model", 0, QN_AT_PATH(extract_opts, base), .value = "DIR",
      .help = "the model that it was made from" },
    { "out-path", 0, QN_AT_PATH(extract_opts, out), .value = "DIR",
      .help = "where the adapter goes; must not exist" },
    { "models", 0, QN_AT_PATH(extract_opts, models), .value = "DIR",
      .help = "where both are looked for, as owner/name, owner--name or name" },
    { "max-rank", 0, QN_AT_INT(extract_opts, rank), .min = 1, .max = 1024, .initial = "128",
      .help = "of a module" },
    { "sv-epsilon", 0, QN_AT_FLOAT(extract_opts, epsilon), .min = 0, .max = 1e9, .initial = "0",
      .help = "leave out singular values up to this" },
    { "distribute-scale", 0, QN_AT_FLAG(extract_opts, distribute),
      .help = "the default: singular values on both sides, as square roots" },
    { "no-distribute-scale", 0, QN_AT_FLAG(extract_opts, undistributed),
      .help = "singular values in A alone" },
    { "embed-lora", 0, QN_AT_FLAG(extract_opts, embed), .help = "embeddings as factors too" },
    { "skip-undecomposable", 0, QN_AT_FLAG(extract_opts, skip),
      .help = "leave out norms and other vectors" },
    { "include-regex", 0, QN_AT_STRING(extract_opts, include), .value = "RE",
      .help = "only modules whose names match" },
    { "exclude-regex", 0, QN_AT_STRING(extract_opts, exclude), .value = "RE",
      .help = "no modules whose names match" },
    { "save-module", 0, QN_AT_LIST(extract_opts, save), .value = "NAME",
      .help = "modules with this end of the name are saved whole" },
    { 0 },
};

static int run(const qn_cli *cli, const void *opts)
{
    const extract_opts *o = opts;
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    qn_extract_stats stats;
    if (!o->model || !o->base || !o->out)
        return qn_cli_misuse(cli, "--model, --base-model and --out-path are needed");
    qn_result r = qn_cli_open(cli, &ctx, &dev);
    if (r == QN_OK)
        r = qn_extract_lora(dev,
                            &(qn_extract_opts){ .model = o->model,
                                                .base = o->base,
                                                .out = o->out,
                                                .models = o->models,
                                                .max_rank = o->rank,
                                                .sv_epsilon = o->epsilon,
                                                .undistributed = o->undistributed,
                                                .embed_lora = o->embed,
                                                .skip_undecomposable = o->skip,
                                                .include = o->include,
                                                .exclude = o->exclude,
                                                .save = o->save.items,
                                                .save_count = o->save.count },
                            &stats);
    if (r == QN_OK && cli->json)
        printf("{\"factored\":%zu,\"whole\":%zu,\"rank\":%lld,\"bytes\":%llu}\n", stats.factored,
               stats.whole, (long long)stats.rank, (unsigned long long)stats.bytes);
    if (r == QN_OK && !cli->json)
        printf("%s: %zu modules of rank %lld at most, %zu saved whole, %.2f MB\n", o->out,
               stats.factored, (long long)stats.rank, stats.whole, (double)stats.bytes / 1e6);
    int status = qn_cli_result(r);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return status;
}

const qn_command qn_command_merge_extract = {
    .about =
        "Writes what a model has learnt over its base as a LoRA adapter in PEFT's files: the "
        "differences of linear layers as products of two thin matrices, the best of their rank; "
        "embeddings, norms and what --save-module names whole. Large matrices are factored in a "
        "random subspace with two power steps.",
    .examples = "quoin merge extract-lora --model tuned --base-model base --out-path adapter "
                "--max-rank 32",
    .options = options,
    .opts_size = sizeof(extract_opts),
    .run = run,
};
