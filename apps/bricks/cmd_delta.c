// `quoin bricks delta`, `attach` and `detach`: what a model learnt, as a file of its own.
#include "bricks/adapter.h"
#include "bricks/delta.h"
#include "bricks/loss.h"
#include "cli/command.h"
#include "mem.h"
#include "platform.h"

#include <stdio.h>
#include <string.h>

// ------------------------------------------------------------------------------ delta

typedef struct delta_opts {
    double density;
    bool exact;
} delta_opts;

static const qn_opt take_options[] = {
    { "sparse", 0, QN_AT_FLOAT(delta_opts, density), .value = "DENSITY", .initial = "0", .min = 0,
      .max = 1, .help = "keep only this share of the differences, the largest; 0: all" },
    { "exact", 0, QN_AT_FLAG(delta_opts, exact),
      .help = "bit patterns: attaches and detaches bit for bit, cannot be scaled" },
    { 0 },
};

static qn_result take(const qn_cli *cli, const delta_opts *o)
{
    qn_brick_model x = { 0 }, base = { 0 };
    size_t changed = 0;
    qn_result r = qn_brick_open(cli->args[0], &x);
    if (r == QN_OK) r = qn_brick_open(cli->args[1], &base);
    if (r == QN_OK && qn_file_exists(cli->args[2]))
        r = qn_fail(QN_ERR_INVALID, "%s exists already", cli->args[2]);
    const qn_delta_opts d = { .density = o->density, .exact = o->exact };
    if (r == QN_OK) r = qn_delta_take(&x, &base, cli->args[2], &d, &changed);
    if (r == QN_OK && !cli->json)
        printf("%s: %zu of %zu tensors differ\n", cli->args[2], changed,
               qn_safetensors_count(x.weights));
    if (r == QN_OK && cli->json)
        printf("{\"tensors\":%zu,\"changed\":%zu}\n", qn_safetensors_count(x.weights), changed);
    qn_brick_close(&x);
    qn_brick_close(&base);
    return r;
}

static int run_delta(const qn_cli *cli, const void *opts)
{
    const delta_opts *o = opts;
    if (o->exact && o->density > 0)
        return qn_cli_misuse(cli, "--exact keeps everything, --sparse does not: use one of them");
    return qn_cli_result(take(cli, o));
}

const qn_command qn_command_bricks_delta = {
    .args = "MODEL BASE FILE",
    .args_min = 3,
    .args_max = 3,
    .about = "Writes what MODEL has learnt over BASE to one safetensors file: the differences of the "
             "tensors that differ, with the hash of the base's weights.",
    .examples = "quoin bricks delta run/tuned run/book tuned.safetensors\n"
                "quoin bricks delta run/tuned run/book tuned.safetensors --sparse 0.1",
    .options = take_options,
    .opts_size = sizeof(delta_opts),
    .run = run_delta,
};

// ------------------------------------------------------------------------------ attach, detach

typedef struct attach_opts {
    double scale;
    bool any_base;
    qn_opt_list data;
} attach_opts;

static const qn_opt attach_options[] = {
    { "scale", 0, QN_AT_FLOAT(attach_opts, scale), .initial = "1", .min = -1000, .max = 1000,
      .help = "factor on the difference" },
    { "any-base", 0, QN_AT_FLAG(attach_opts, any_base),
      .help = "also on a model that is not the one it was taken from" },
    { "data", 0, QN_AT_LIST(attach_opts, data), .value = "FILE,...",
      .help = "texts whose perplexity before and after is reported (ModuleFormer)" },
    { 0 },
};

typedef struct plug {
    qn_brick_model m;
    qn_edit *e;
    qn_delta *delta;
    qn_adapter *adapter;
} plug;

static qn_result make_adapted(void *user, const qn_edit_tensor *t, float *out)
{
    const uint64_t width = t->rank > 1 ? (uint64_t)t->dim[t->rank - 1] : t->source->count;
    return qn_adapter_rows(user, t->source, 0, t->source->count / width, out);
}

static qn_result apply_adapter(plug *p, const char *dir, double scale)
{
    QN_TRY(qn_adapter_open(dir, &p->adapter));
    QN_TRY(qn_adapter_bind(p->adapter, p->m.weights));
    for (size_t i = 0; i < p->adapter->count; i++) {
        qn_adapter_module *m = &p->adapter->modules[i];
        if ((m->whole || m->bias) && scale != 1)
            return qn_fail(QN_ERR_UNSUPPORTED, "%s: %s is replaced as a whole, which has no scale of "
                                               "%g", dir, m->name, scale);
        m->scale *= scale;
        qn_edit_tensor *t = qn_edit_find(p->e, m->name);
        t->make = make_adapted;
        t->user = m;
    }
    return QN_OK;
}

static bool is_adapter(const char *dir)
{
    char *path = qn_path_join(dir, "adapter_config.json");
    const bool is = path && qn_file_exists(path);
    qn_free(path);
    return is;
}

static qn_result check_base(const plug *p, const char *file)
{
    char hash[QN_HASH_TEXT];
    QN_TRY(qn_delta_hash(p->m.weights, hash));
    if (!strcmp(hash, qn_delta_base(p->delta))) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "%s was taken from a model with SHA-256 %.12s..., %s has %.12s...; "
                                   "--any-base attaches it all the same",
                   file, qn_delta_base(p->delta), p->m.dir, hash);
}

static qn_result change(plug *p, const qn_cli *cli, double scale, bool check)
{
    const char *file = cli->args[1];
    QN_TRY(qn_brick_open(cli->args[0], &p->m));
    QN_TRY(qn_edit_start(&p->m, cli->args[2], &p->e));
    if (is_adapter(file)) {
        QN_TRY(apply_adapter(p, file, scale));
    } else {
        QN_TRY(qn_delta_open(file, &p->delta));
        if (check) QN_TRY(check_base(p, file));
        QN_TRY(qn_delta_apply(p->delta, p->e, scale));
    }
    return qn_edit_write(p->e, 0);
}

static int attach(const qn_cli *cli, double scale, bool check, const qn_opt_list *texts)
{
    plug p = { 0 };
    qn_result r = change(&p, cli, scale, check);
    qn_edit_free(&p.e);
    qn_delta_close(&p.delta);
    qn_adapter_close(&p.adapter);
    qn_brick_close(&p.m);
    if (r == QN_OK) qn_cli_note(cli, "%s is written", cli->args[2]);
    if (r == QN_OK)
        r = qn_brick_compare_alone(cli, cli->args[0], cli->args[2],
                                   &(qn_brick_texts){ .paths = texts });
    return qn_cli_result(r);
}

static int run_attach(const qn_cli *cli, const void *opts)
{
    const attach_opts *o = opts;
    return attach(cli, o->scale, !o->any_base, &o->data);
}

static int run_detach(const qn_cli *cli, const void *opts)
{
    const attach_opts *o = opts;
    return attach(cli, -o->scale, false, &o->data);
}

const qn_command qn_command_bricks_attach = {
    .args = "MODEL DELTA OUT",
    .args_min = 3,
    .args_max = 3,
    .about = "Adds a difference (a file of `bricks delta`) or a low-rank adapter (a folder with "
             "adapter_config.json) to a model. A difference fits the model it was taken from, which "
             "its hash tells.",
    .examples = "quoin bricks attach run/book tuned.safetensors run/again\n"
                "quoin bricks attach run/book run/adapter run/merged --scale 0.5",
    .options = attach_options,
    .opts_size = sizeof(attach_opts),
    .run = run_attach,
};

const qn_command qn_command_bricks_detach = {
    .args = "MODEL DELTA OUT",
    .args_min = 3,
    .args_max = 3,
    .about = "Takes a difference or an adapter away again. Exact differences come off bit for bit, "
             "others of F32 models to within a unit in the last place.",
    .examples = "quoin bricks detach run/again tuned.safetensors run/book-again",
    .options = attach_options,
    .opts_size = sizeof(attach_opts),
    .run = run_detach,
};
