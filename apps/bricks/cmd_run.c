// `quoin merge run`: a recipe, or several in one file, to folders.
#include "bricks/merge.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/term.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct run_opts {
    const char *models, *intermediate, *out_shard_size;
    const char *lora_cache, *lora_dtype, *ignored_text;
    int64_t seed, threads;
    bool dry_run, force, allow_crimes, copy_tokenizer, no_copy_tokenizer, write_card, no_card, lazy;
    bool accepted, cuda;
} run_opts;

#define ACCEPTED(word)                                                                             \
    {                                                                                              \
        word, 0, QN_AT_FLAG(run_opts, accepted), .help = "accepted, no effect"                     \
    }

static const qn_opt options[] = {
    { "models", 0, QN_AT_PATH(run_opts, models), .value = "DIR",
      .help = "where models of recipes are looked for, as owner/name, owner--name or name" },
    { "dry-run", 'n', QN_AT_FLAG(run_opts, dry_run),
      .help = "list every tensor with its sources and parameters; write nothing" },
    { "force", 'f', QN_AT_FLAG(run_opts, force), .help = "replace a model that is in the folder" },
    { "out-shard-size", 0, QN_AT_STRING(run_opts, out_shard_size), .value = "N", .initial = "5B",
      .help = "bytes of a file, with k, m or b for 1e3, 1e6, 1e9; 0: one file" },
    { "random-seed", 0, QN_AT_INT(run_opts, seed), .min = 0, .max = 9007199254740991,
      .initial = "0", .help = "of the random methods" },
    { "allow-crimes", 0, QN_AT_FLAG(run_opts, allow_crimes),
      .help = "merge models of different architectures" },
    { "intermediate-dir", 0, QN_AT_PATH(run_opts, intermediate), .value = "DIR",
      .help = "where the named documents of a recipe go (default: beside the output)" },
    { "lazy", 0, QN_AT_FLAG(run_opts, lazy), .help = "keep named results that exist already" },
    { "copy-tokenizer", 0, QN_AT_FLAG(run_opts, copy_tokenizer), .help = "the default" },
    { "no-copy-tokenizer", 0, QN_AT_FLAG(run_opts, no_copy_tokenizer),
      .help = "leave out the tokenizer's files" },
    { "write-model-card", 0, QN_AT_FLAG(run_opts, write_card), .help = "the default" },
    { "no-write-model-card", 0, QN_AT_FLAG(run_opts, no_card), .help = "leave out README.md" },
    { "lora-merge-cache", 0, QN_AT_PATH(run_opts, lora_cache), .section = "As in mergekit",
      .value = "DIR", .help = "accepted; adapters are applied while reading" },
    { "lora-merge-dtype", 0, QN_AT_STRING(run_opts, lora_dtype), .value = "TYPE",
      .help = "accepted; adapters are applied in f32" },
    { "num-threads", 'j', QN_AT_INT(run_opts, threads), .max = 4096,
      .help = "accepted; no result depends on it" },
    { "write-threads", 0, QN_AT_INT(run_opts, threads), .max = 4096, .help = "accepted" },
    { "cuda", 0, QN_AT_FLAG(run_opts, cuda), .help = "accepted; --device chooses" },
    ACCEPTED("low-cpu-memory"),
    ACCEPTED("clone-tensors"),
    ACCEPTED("trust-remote-code"),
    ACCEPTED("lazy-unpickle"),
    ACCEPTED("safe-serialization"),
    ACCEPTED("read-to-gpu"),
    ACCEPTED("multi-gpu"),
    ACCEPTED("gpu-rich"),
    ACCEPTED("async-write"),
    { 0 },
};

// "5B", "200m", "1000", "-1".
static bool parse_shard_size(const char *s, uint64_t *out)
{
    char *end;
    double n = strtod(s, &end), unit = 1;
    if (end == s) return false;
    if (*end == 'k' || *end == 'K') unit = 1e3;
    if (*end == 'm' || *end == 'M') unit = 1e6;
    if (*end == 'b' || *end == 'B') unit = 1e9;
    if (unit > 1) end++;
    if (*end || !(n * unit < 9e15)) return false;
    *out = n <= 0 ? 0 : (uint64_t)(n * unit);
    return true;
}

// ---------------------------------------------------------------------------------- dry run

static const qn_column columns[] = {
    { .key = "tensor" },     { .key = "dtype" },   { .key = "shape" },
    { .key = "parameters" }, { .key = "sources" },
};

static size_t put_params(char *text, size_t size, const qn_method *m, const qn_merge_params *given,
                         bool of_model)
{
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; i < m->param_count && at < size; i++) {
        const qn_method_param *p = &m->params[i];
        if (p->of_model != of_model || (p->required && !(given->given >> p->param & 1))) continue;
        at +=
            (size_t)snprintf(text + at, size - at, "%s%s=%.6g", at ? " " : "",
                             qn_merge_param_name(p->param), qn_merge_param_of(m, given, p->param));
    }
    return at < size ? at : size;
}

static qn_result show_output(qn_report *report, const qn_merge_output *o)
{
    const qn_merge_tensor *t = &o->tensor;
    char shape[128] = "", params[256], sources[4096] = "", own[256];
    size_t at = 0;
    for (int i = 0; i < t->rank && at < sizeof shape; i++)
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%lld", i ? "x" : "",
                               (long long)t->dim[i]);
    put_params(params, sizeof params, t->method, &t->params, false);
    at = 0;
    for (size_t i = 0; i < t->count && at < sizeof sources; i++) {
        put_params(own, sizeof own, t->method, &t->models[i].params, true);
        at += (size_t)snprintf(sources + at, sizeof sources - at, "%s%s:%s%s%s%s%s", i ? ", " : "",
                               t->models[i].model, t->sources[i].tensor->name,
                               (int)i == t->base ? " (base)" : "", *own ? " [" : "", own,
                               *own ? "]" : "");
    }
    return qn_report_row(report,
                         (qn_value[]){ QN_TEXT(t->name), QN_TEXT(qn_st_dtype_name(t->stored)),
                                       QN_TEXT(shape), QN_TEXT(params), QN_TEXT(sources) });
}

static qn_result show_plan(const qn_cli *cli, const qn_recipe *recipe, const qn_merge_opts *o)
{
    qn_merge_plan plan;
    qn_report *report = NULL;
    QN_TRY(qn_merge_plan_make(recipe, &o->plan, &plan));
    qn_result r = qn_report_open(stdout, cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns,
                                 sizeof columns / sizeof *columns, &report);
    for (size_t i = 0; r == QN_OK && i < plan.count; i++) r = show_output(report, &plan.outputs[i]);
    qn_result closed = report ? qn_report_close(&report) : QN_OK;
    if (r == QN_OK)
        qn_cli_note(cli, "%zu tensors, %.2f GB to read, %.2f GB to write", plan.count,
                    (double)plan.read / 1e9, (double)plan.written / 1e9);
    qn_merge_plan_free(&plan);
    return r == QN_OK ? closed : r;
}

// ---------------------------------------------------------------------------------- documents

typedef struct job {
    const qn_cli *cli;
    const run_opts *o;
    qn_merge_opts merge;
    qn_recipes recipes;
    qn_device *dev;
    qn_progress progress;
    bool started;
    char *intermediate;
} job;

static void show_progress(void *user, const qn_merge_progress *p)
{
    job *j = user;
    if (!j->started)
        qn_progress_start(&j->progress, "merge", "MB", 0, (double)p->total / 1e6, j->cli->quiet);
    j->started = true;
    qn_progress_update(&j->progress, (double)p->done / 1e6, p->tensor);
}

static qn_result run_one(job *j, const qn_recipe *recipe, const char *out)
{
    qn_merge_stats stats;
    char device[24], peak[24], bound[24];
    j->merge.out = out;
    j->started = false;
    qn_result r = qn_merge_run(j->dev, recipe, j->recipes.text, &j->merge, &stats);
    if (j->started) qn_progress_end(&j->progress, r == QN_OK ? "done" : NULL);
    QN_TRY(r);
    double moved = (double)(stats.read + stats.written);
    if (j->cli->json)
        printf(
            "{\"out\": \"%s\", \"tensors\": %zu, \"kept\": %zu, \"read\": %llu, \"written\": %llu, "
            "\"seconds\": %.3f, \"memory_peak\": %llu, \"device_peak\": %llu, \"bound\": %llu}\n",
            out, stats.tensors, stats.kept, (unsigned long long)stats.read,
            (unsigned long long)stats.written, stats.seconds, (unsigned long long)qn_memory_peak(),
            (unsigned long long)stats.device_peak, (unsigned long long)stats.bound);
    else
        printf("%s: %zu tensors%s, %.2f GB in %.1f s (%.0f MB/s); peak memory %s, of it %s for the "
               "device; bound %s\n",
               out, stats.tensors, stats.kept ? " and those of finished shards" : "", moved / 1e9,
               stats.seconds, moved / 1e6 / stats.seconds,
               qn_format_size(qn_memory_peak(), peak, sizeof peak),
               qn_format_size(stats.device_peak, device, sizeof device),
               qn_format_size(stats.bound, bound, sizeof bound));
    return QN_OK;
}

static bool uses(const qn_recipe *r, const char *name)
{
    for (size_t s = 0; s < r->slice_count; s++)
        for (size_t i = 0; i < r->slices[s].count; i++)
            if (strcmp(r->slices[s].sources[i].model.path, name) == 0) return true;
    return r->has_base && strcmp(r->base.path, name) == 0;
}

// Named documents that others use come first: repeatedly the first one whose needs are met.
static qn_result run_documents(job *j, const char *out)
{
    size_t n = j->recipes.count, left = n;
    bool *done = qn_calloc(n, sizeof *done);
    if (!done) return qn_no_memory(n);
    qn_result r = QN_OK;
    while (r == QN_OK && left) {
        size_t next = n;
        for (size_t i = 0; i < n && next == n; i++) {
            bool ready = !done[i];
            for (size_t k = 0; k < n && ready; k++)
                ready = done[k] || !j->recipes.items[k].name ||
                        !uses(&j->recipes.items[i], j->recipes.items[k].name);
            if (ready) next = i;
        }
        if (next == n) {
            r = qn_fail(QN_ERR_FORMAT, "%s: documents that need each other", j->cli->args[0]);
            break;
        }
        const qn_recipe *recipe = &j->recipes.items[next];
        char *path = recipe->name ? qn_path_join(j->intermediate, recipe->name) : qn_strdup(out);
        char *config = path ? qn_path_join(path, "quoin_merge.json") : NULL;
        if (!path || !config) r = qn_no_memory(strlen(out));
        bool there = config && qn_file_exists(config);
        if (r == QN_OK && j->o->dry_run) r = show_plan(j->cli, recipe, &j->merge);
        if (r == QN_OK && !j->o->dry_run && !(recipe->name && j->o->lazy && there))
            r = run_one(j, recipe, path);
        qn_free(config);
        qn_free(path);
        done[next] = true;
        left--;
    }
    qn_free(done);
    return r;
}

static bool plain_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/');
}

// Named results are found under their names, other models where --models says.
static qn_result settle_names(job *j, const char *out)
{
    bool named = false;
    for (size_t i = 0; i < j->recipes.count; i++) {
        const qn_recipe *r = &j->recipes.items[i];
        named |= r->name != NULL;
        if (r->name && !plain_name(r->name))
            return qn_yaml_fail(r->root, "the name %.60s cannot be that of a folder", r->name);
    }
    if (!named) return QN_OK;
    size_t n = strlen(out) + 16;
    j->intermediate = j->o->intermediate ? qn_strdup(j->o->intermediate) : qn_malloc(n);
    if (!j->intermediate) return qn_no_memory(n);
    if (!j->o->intermediate) snprintf(j->intermediate, n, "%s.parts", out);
    j->merge.plan.parts = j->intermediate;
    if (j->o->dry_run && j->recipes.count > 1)
        qn_cli_note(j->cli, "documents that use others can be listed once those exist");
    return QN_OK;
}

// "vk:1" is device 1; "cpu" the software driver; "cuda" and the like the best one.
static const char *device_of(const char *name)
{
    if (!name || strncmp(name, "cuda", 4) == 0 || strcmp(name, "auto") == 0) return NULL;
    if (strncmp(name, "vk:", 3) == 0) return name + 3;
    return strcmp(name, "cpu") == 0 ? "llvmpipe" : name;
}

static int run(const qn_cli *cli, const void *opts)
{
    const run_opts *o = opts;
    qn_context *ctx = NULL;
    job j = { .cli = cli, .o = o };
    const char *out = cli->arg_count > 1 ? cli->args[1] : NULL;
    if (!out && !o->dry_run) return qn_cli_misuse(cli, "the output folder is missing");
    if (!out) out = "merged";
    if (!parse_shard_size(o->out_shard_size, &j.merge.shard_size))
        return qn_cli_misuse(cli, "--out-shard-size: a size like 5B, 200m or 1000 was expected");
    j.merge.plan = (qn_merge_plan_opts){ .models = o->models,
                                         .allow_crimes = o->allow_crimes,
                                         .seed = (uint64_t)o->seed };
    j.merge.no_tokenizer = o->no_copy_tokenizer;
    j.merge.no_card = o->no_card;
    j.merge.force = o->force;
    j.merge.progress = show_progress;
    j.merge.stop = qn_interrupted;
    j.merge.user = &j;
    qn_result r = qn_recipes_open(cli->args[0], &j.recipes);
    if (r == QN_OK) r = settle_names(&j, out);
    if (r == QN_OK && !o->dry_run) {
        qn_cli chosen = *cli;
        chosen.device = device_of(cli->device);
        qn_interrupt_watch();
        r = qn_cli_open(&chosen, &ctx, &j.dev);
    }
    if (r == QN_OK) r = run_documents(&j, out);
    int status = qn_cli_result(r);
    qn_device_destroy(&j.dev);
    qn_context_destroy(&ctx);
    qn_recipes_close(&j.recipes);
    qn_free(j.intermediate);
    return r == QN_ERR_CANCELLED ? QN_EXIT_INTERRUPTED : status;
}

const qn_command qn_command_merge_run = {
    .args = "RECIPE [OUT]",
    .args_min = 1,
    .args_max = 2,
    .about =
        "Runs a merge recipe: the YAML files of mergekit, with all methods, gradients, filters, "
        "slices, tokenizer options, adapters (MODEL+LORA) and several documents in one file. "
        "Models are folders on this machine; nothing is downloaded.\n\n"
        "Arithmetic is f32 on the Vulkan device, rounded once. Reading, arithmetic and writing "
        "overlap. Each shard appears when it is complete; after an interruption the same "
        "command goes on behind the last one. Beside the model stand its card, the recipe, and "
        "quoin_merge.json, which says for every tensor where it came from and with which "
        "parameters.",
    .examples = "quoin merge run recipe.yml merged --models ~/models\n"
                "quoin merge run recipe.yml --dry-run\n"
                "quoin merge run recipe.yml merged --out-shard-size 2B --random-seed 7",
    .options = options,
    .opts_size = sizeof(run_opts),
    .run = run,
};
