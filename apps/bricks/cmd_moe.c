// `quoin merge moe`.
#include "bricks/moe.h"
#include "cli/command.h"

#include <stdio.h>

typedef struct moe_opts {
    const char *models;
    int layout;
    bool useless;
    int64_t seed;
} moe_opts;

static const qn_opt options[] = {
    { "models", 0, QN_AT_PATH(moe_opts, models), .value = "DIR",
      .help = "where models of recipes are looked for, as owner/name, owner--name or name" },
    { "layout", 0, QN_AT_CHOICE(moe_opts, layout), .words = "split|fused", .initial = "split",
      .help = "a tensor for each expert, or one for all of a layer" },
    { "random-seed", 0, QN_AT_INT(moe_opts, seed), .min = 0, .max = 9007199254740991,
      .initial = "0", .help = "of random routers and noise" },
    { "i-understand-this-is-not-useful-without-training", 0, QN_AT_FLAG(moe_opts, useless),
      .help = "allow experts that are all the same model" },
    { 0 },
};

static int run(const qn_cli *cli, const void *opts)
{
    const moe_opts *o = opts;
    qn_moe_stats s;
    qn_result r = qn_moe_run(cli->args[0],
                             &(qn_moe_opts){ .out = cli->args[1],
                                             .models = o->models,
                                             .fused = o->layout == 1,
                                             .useless = o->useless,
                                             .seed = (uint64_t)o->seed,
                                             .shard_size = (uint64_t)5000000000 },
                             &s);
    if (r == QN_OK && cli->json)
        printf("{\"layout\":\"%s\",\"experts\":%zu,\"chosen\":%zu,\"layers\":%zu}\n", s.layout,
               s.experts, s.chosen, s.layers);
    if (r == QN_OK && !cli->json)
        printf("%s: %s, %zu experts, %zu of them for each token, %zu layers\n", cli->args[1],
               s.layout, s.experts, s.chosen, s.layers);
    return qn_cli_result(r);
}

const qn_command qn_command_merge_moe = {
    .args = "RECIPE OUT",
    .args_min = 2,
    .args_max = 2,
    .about =
        "Makes a mixture of experts of dense Llama-like models, by the files of mergekit-moe: "
        "everything but the feed-forward blocks comes from base_model, each expert's block from "
        "its source_model. Layouts: mixtral and qwen3 (key architecture). Routers: gate_mode "
        "cheap_embed (from prompts), random, uniform_random; hidden modes need the states of the "
        "base model and are refused.",
    .examples = "quoin merge moe moe.yml mixture --models ~/models",
    .options = options,
    .opts_size = sizeof(moe_opts),
    .run = run,
};
