// `quoin bricks add-memory`: layers of a trained model get a memory that changes nothing until it is
// trained. docs/memory.md
#include "bricks/edit.h"
#include "cli/command.h"
#include "llm/memory_layer.h"
#include "llm/parameters.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

typedef struct memory_opts {
    qn_opt_list layers;
    int kind; // 0: delta
    int64_t heads, keys, values, taps;
} memory_opts;

static const qn_opt options[] = {
    { "layers", 'l', QN_AT_LIST(memory_opts, layers), .value = "all|N[-M],...",
      .help = "which layers, counted from 0; without: every second one, the last included" },
    { "kind", 'k', QN_AT_CHOICE(memory_opts, kind), .words = "delta|full", .initial = "delta",
      .help = "delta: one matrix that fades; full: and one that keeps what is recalled" },
    { "heads", 0, QN_AT_INT(memory_opts, heads), .initial = "0", .min = 0, .max = 1024,
      .help = "heads; 0: one for 32 columns of the model, at most 8" },
    { "keys", 0, QN_AT_INT(memory_opts, keys), .initial = "0", .min = 0, .max = 128,
      .help = "key channels of a head; 0: half the model's width over all heads" },
    { "values", 0, QN_AT_INT(memory_opts, values), .initial = "0", .min = 0, .max = 128,
      .help = "value channels of a head; 0: the model's width over all heads" },
    { "taps", 0, QN_AT_INT(memory_opts, taps), .initial = "4", .min = 1, .max = 16,
      .help = "taps of the convolution before it; 1: none" },
    { 0 },
};

typedef struct addition {
    const memory_opts *o;
    qn_brick_model m;
    qn_model_config config; // with the memories
    qn_edit *e;
    uint64_t seed;
    uint32_t index;
} addition;

static qn_result mark_layers(addition *a, const char *item, uint8_t *marked)
{
    const int64_t layers = a->config.n_layer;
    char *end;
    if (!strcmp(item, "all")) {
        memset(marked, 1, (size_t)layers);
        return QN_OK;
    }
    const bool digit = item[0] >= '0' && item[0] <= '9';
    const int64_t first = digit ? strtoll(item, &end, 10) : -1;
    int64_t last = first;
    if (digit && *end == '-' && end[1] >= '0' && end[1] <= '9') last = strtoll(end + 1, &end, 10);
    if (!digit || *end || last < first)
        return qn_fail(QN_ERR_INVALID, "--layers: found '%.40s', expected all, N or N-M", item);
    if (last >= layers)
        return qn_fail(QN_ERR_INVALID, "--layers %.40s: there are layers 0 to %lld", item,
                       (long long)layers - 1);
    memset(marked + first, 1, (size_t)(last - first + 1));
    return QN_OK;
}

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

// The memories that the model has already keep their sizes, and give them to the new ones.
static qn_result choose_sizes(addition *a)
{
    const memory_opts *o = a->o;
    qn_model_config *c = &a->config;
    const bool has = qn_memory_any(c);
    const int64_t C = c->n_embd, heads = o->heads ? o->heads : clamp(C / 32, 1, 8);
    const struct {
        const char *name;
        int64_t *to, asked, otherwise;
    } all[] = {
        { "heads", &c->memory_heads, o->heads, heads },
        { "keys", &c->memory_keys, o->keys, clamp(C / 2 / heads, 1, 128) },
        { "values", &c->memory_values, o->values, clamp(C / heads, 1, 128) },
        { "taps", &c->memory_taps, has ? 0 : o->taps, o->taps },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (has && all[i].asked && all[i].asked != *all[i].to)
            return qn_fail(QN_ERR_INVALID, "--%s %lld: the model's memories have %lld",
                           all[i].name, (long long)all[i].asked, (long long)*all[i].to);
        if (!has) *all[i].to = all[i].asked ? all[i].asked : all[i].otherwise;
    }
    return QN_OK;
}

static qn_result choose_layers(addition *a)
{
    qn_model_config *c = &a->config;
    uint8_t marked[QN_LM_MAX_LAYERS] = { 0 };
    for (size_t i = 0; i < a->o->layers.count; i++)
        QN_TRY(mark_layers(a, a->o->layers.items[i], marked));
    for (int64_t i = 0; i < c->n_layer; i++) {
        if (!a->o->layers.count) marked[i] = (c->n_layer - 1 - i) % 2 == 0;
        if (!marked[i]) continue;
        if (c->memory[i])
            return qn_fail(QN_ERR_INVALID, "layer %lld has a memory already", (long long)i);
        c->memory[i] = a->o->kind ? QN_MEMORY_FULL : QN_MEMORY_DELTA;
    }
    return QN_OK;
}

typedef struct making {
    const addition *a;
    uint32_t stream;
} making;

static qn_result make(void *user, const qn_edit_tensor *t, float *out)
{
    const making *k = user;
    qn_random rng = qn_random_start(k->a->seed, k->stream);
    qn_shape shape = { .rank = t->rank };
    memcpy(shape.dim, t->dim, (size_t)t->rank * sizeof *shape.dim);
    qn_memory_initialise(&k->a->config, strrchr(t->name, '.') + 1, shape, out, &rng);
    return QN_OK;
}

static qn_result add_one(void *user, const qn_param_info *p)
{
    addition *a = user;
    if (p->kind != QN_PARAM_MEMORY && p->kind != QN_PARAM_MEMORY_PLAIN) return QN_OK;
    a->index++;
    if (qn_edit_find(a->e, p->name)) return QN_OK;
    qn_edit_tensor *t;
    making *k = qn_edit_keep(a->e, sizeof *k);
    if (!k) return qn_no_memory(sizeof *k);
    *k = (making){ a, a->index };
    QN_TRY(qn_edit_add(a->e, p->name, QN_ST_F32, p->shape.rank, p->shape.dim, &t));
    t->make = make;
    t->user = k;
    return QN_OK;
}

static qn_result describe(addition *a)
{
    static const char *const words[] = { "off", "delta", "full" };
    const qn_model_config *c = &a->config;
    const char **layers = qn_edit_keep(a->e, (size_t)c->n_layer * sizeof *layers);
    if (!layers) return qn_no_memory((size_t)c->n_layer * sizeof *layers);
    for (int64_t i = 0; i < c->n_layer; i++) layers[i] = words[c->memory[i]];
    QN_TRY(qn_edit_set_words(a->e, "memory_layers", layers, c->n_layer));
    QN_TRY(qn_edit_set(a->e, "memory_heads", c->memory_heads));
    QN_TRY(qn_edit_set(a->e, "memory_keys", c->memory_keys));
    QN_TRY(qn_edit_set(a->e, "memory_values", c->memory_values));
    return qn_edit_set(a->e, "memory_taps", c->memory_taps);
}

static qn_result add(addition *a, const qn_cli *cli)
{
    QN_TRY(qn_brick_open(cli->args[0], &a->m));
    if (!a->m.moduleformer)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s is a %s model; this needs a ModuleFormer", a->m.dir,
                       a->m.type);
    a->config = a->m.config;
    QN_TRY(choose_sizes(a));
    QN_TRY(choose_layers(a));
    QN_TRY(qn_edit_start(&a->m, cli->args[1], &a->e));
    QN_TRY(qn_parameters(&a->config, add_one, a));
    QN_TRY(describe(a));
    return qn_edit_write(a->e, 0);
}

static int run(const qn_cli *cli, const void *opts)
{
    addition a = { .o = opts, .seed = (uint64_t)cli->seed };
    qn_result r = add(&a, cli);
    qn_edit_free(&a.e);
    qn_brick_close(&a.m);
    if (r == QN_OK) qn_cli_note(cli, "%s is written", cli->args[1]);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_add_memory = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Gives layers of a ModuleFormer a memory of fixed size that is carried across texts. Its "
             "output starts with a factor of zero, so the model computes what it did, bit for bit, "
             "until it is trained; alone: `quoin train --init OUT --train-only '*.memory.*'`.",
    .examples = "quoin bricks add-memory run/book run/memory\n"
                "quoin bricks add-memory run/book run/memory --layers 1,3 --kind full",
    .options = options,
    .opts_size = sizeof(memory_opts),
    .run = run,
};
