// Golden cases of the memory operator and of the memory layer. docs/memory.md
#include "fail.h"
#include "golden.h"
#include "io/json.h"
#include "mem.h"
#include "memory_layer.h"
#include "platform.h"

#include <stdio.h>
#include <string.h>

static const double forward_tolerance = 5e-6, gradient_tolerance = 5e-5;
enum { MOST = 32 };

typedef struct sizes {
    bool layer, full, activated;
    int64_t batch, tokens, width, heads, dk, dv, taps;
    double fade, tau;
} sizes;

// A graph under construction with everything it is fed.
typedef struct scene {
    qn_golden_case *c;
    sizes s;
    qn_graph *g;
    qn_feed feeds[MOST];
    size_t feed_count;
    const char *wrt_name[MOST];
    const qn_tensor *wrt[MOST], *out[2 * MOST];
    const char *out_name[2 * MOST];
    double tolerance[2 * MOST];
    size_t wrt_count, out_count;
} scene;

static qn_result read_sizes(const qn_golden_case *c, sizes *s)
{
    char *path = qn_path_join(c->dir, "case.json");
    if (!path) return qn_no_memory(strlen(c->dir));
    qn_json_doc *doc;
    qn_result r = qn_json_open(path, NULL, &doc);
    qn_free(path);
    QN_TRY(r);
    const qn_json root = qn_json_root(doc);
    const char *kind;
    r = qn_json_string(root, "kind", &kind);
    if (r == QN_OK && strcmp(kind, "sr_op") != 0 && strcmp(kind, "sr_layer") != 0)
        r = qn_fail(QN_ERR_UNSUPPORTED, "%s: a kind \"%s\" of case that is not known", c->dir, kind);
    s->layer = r == QN_OK && strcmp(kind, "sr_layer") == 0;
    const struct {
        const char *key;
        int64_t *to;
        bool layer_only;
    } whole[] = {
        { "B", &s->batch, false }, { "T", &s->tokens, false }, { "H", &s->heads, false },
        { "dk", &s->dk, false },   { "dv", &s->dv, false },    { "d", &s->width, true },
        { "conv", &s->taps, true },
    };
    for (size_t i = 0; r == QN_OK && i < sizeof whole / sizeof *whole; i++)
        if (s->layer || !whole[i].layer_only)
            r = qn_json_int(root, whole[i].key, 1, 1 << 20, whole[i].to);
    if (r == QN_OK) r = qn_json_bool(root, "consolidation", &s->full);
    if (r == QN_OK) r = qn_json_number(root, "tau", 0, 1e6, &s->tau);
    if (r == QN_OK && s->layer) r = qn_json_number(root, "lam_max", 0, 1e6, &s->fade);
    if (r == QN_OK && s->layer) r = qn_json_bool(root, "qk_act", &s->activated);
    qn_json_close(&doc);
    return r;
}

// An input with the data of a tensor of the file.
static const qn_tensor *feed(scene *x, const char *tensor, qn_shape shape, bool turned)
{
    if (qn_graph_status(x->g) != QN_OK || x->feed_count == MOST) return NULL;
    float *data;
    const uint64_t count = (uint64_t)qn_shape_count(shape);
    if (qn_golden_f32(x->c, tensor, count, &data, NULL) != QN_OK) return NULL;
    if (turned) { // stored [columns, rows]
        float *to = qn_malloc((size_t)count * sizeof *to);
        const int64_t rows = shape.dim[0], columns = shape.dim[1];
        for (int64_t i = 0; to && i < rows * columns; i++)
            to[i] = data[i % columns * rows + i / columns];
        qn_free(data);
        data = to;
    }
    const qn_tensor *t = data ? qn_input(x->g, tensor, QN_F32, shape) : NULL;
    x->feeds[x->feed_count++] = (qn_feed){ t, data };
    return t;
}

// The same, with its gradient compared.
static const qn_tensor *source(scene *x, const char *prefix, const char *name, qn_shape shape)
{
    char tensor[64];
    snprintf(tensor, sizeof tensor, "%s.%s", prefix, name);
    const qn_tensor *t = feed(x, tensor, shape, strcmp(name, "w_conv") == 0);
    if (!t) return NULL;
    qn_wants_grad(t);
    x->wrt_name[x->wrt_count] = name;
    x->wrt[x->wrt_count++] = t;
    return t;
}

static void compare_to(scene *x, const char *name, const qn_tensor *t, double tolerance)
{
    x->out_name[x->out_count] = name;
    x->tolerance[x->out_count] = tolerance;
    x->out[x->out_count++] = t;
}

// sum(y * weight of the file).
static const qn_tensor *weighed(scene *x, const qn_tensor *y, const char *weight)
{
    const qn_tensor *w = y ? feed(x, weight, y->shape, false) : NULL;
    return w ? qn_sum_all(x->g, qn_mul(x->g, y, w)) : NULL;
}

static qn_result build_operator(scene *x, const qn_tensor **loss)
{
    const sizes *s = &x->s;
    const int64_t N = s->batch * s->tokens, H = s->heads;
    const qn_shape keys = QN_SHAPE(N, H * s->dk), gates = QN_SHAPE(N, H);
    const qn_shape state = QN_SHAPE(s->batch, H, s->dk, s->dv);
    const qn_tensor *qkv[3] = { source(x, "in", "q", keys), source(x, "in", "k", keys),
                                source(x, "in", "v", QN_SHAPE(N, H * s->dv)) };
    const qn_tensor *la = source(x, "in", "la", gates), *beta = source(x, "in", "beta", gates);
    qn_memory_state start = { .plastic = source(x, "in", "F0", state) }, end = { 0 };
    qn_memory_keeping keep = { .threshold = (float)s->tau };
    if (s->full) {
        start.consolidated = source(x, "in", "C0", state);
        keep.relevance = source(x, "in", "rho", gates);
        keep.log_decay = source(x, "in", "lc", QN_SHAPE(H));
        keep.share = source(x, "in", "eta", QN_SHAPE(H));
    }
    const qn_synapse_opts opts = { .batch = (int)s->batch, .heads = (int)H };
    const qn_tensor *o = qn_memory_recall(x->g, qkv, la, beta, s->full ? &keep : NULL, &opts, &start,
                                          &end);
    if (!o) return qn_graph_status(x->g) == QN_OK ? QN_ERR_FORMAT : qn_graph_status(x->g);
    compare_to(x, "out.o", o, forward_tolerance);
    compare_to(x, "out.F", end.plastic, forward_tolerance);
    *loss = qn_add(x->g, weighed(x, o, "in.do"), weighed(x, end.plastic, "in.dF"));
    if (!s->full) return qn_graph_status(x->g);
    compare_to(x, "out.C", end.consolidated, forward_tolerance);
    *loss = qn_add(x->g, *loss, weighed(x, end.consolidated, "in.dC"));
    return qn_graph_status(x->g);
}

static const qn_tensor *layer(scene *x, const qn_tensor *in, const qn_memory_weights *w,
                              const qn_memory_state *start, qn_memory_state *end)
{
    const sizes *s = &x->s;
    const qn_memory_shape shape = { .heads = s->heads, .keys = s->dk, .values = s->dv,
                                    .taps = s->taps, .fade = (float)s->fade,
                                    .threshold = (float)s->tau, .full = s->full,
                                    .activated = s->activated };
    return qn_memory_layer(x->g, in, s->batch, &shape, w, start, end, false);
}

static qn_result build_layer(scene *x, const qn_tensor **loss)
{
    const sizes *s = &x->s;
    const int64_t N = s->batch * s->tokens, H = s->heads, C = s->width;
    const int64_t D = H * (2 * s->dk + s->dv);
    const qn_tensor *in = source(x, "in", "x", QN_SHAPE(N, C));
    const qn_memory_weights w = {
        .norm = source(x, "param", "norm", QN_SHAPE(C)),
        .w_qkv = source(x, "param", "w_qkv", QN_SHAPE(D, C)),
        .w_conv = s->taps > 1 ? source(x, "param", "w_conv", QN_SHAPE(s->taps, D)) : NULL,
        .w_gate = source(x, "param", "w_gate", QN_SHAPE(H * s->dv, C)),
        .w_abr = source(x, "param", "w_abr", QN_SHAPE(3 * H, C)),
        .b_abr = source(x, "param", "b_abr", QN_SHAPE(3 * H)),
        .c_log = s->full ? source(x, "param", "c_log", QN_SHAPE(H)) : NULL,
        .eta = s->full ? source(x, "param", "eta", QN_SHAPE(H)) : NULL,
        .w_o = source(x, "param", "w_o", QN_SHAPE(C, H * s->dv)),
        .z = source(x, "param", "z", QN_SHAPE(C)),
    };
    qn_memory_state end;
    const qn_tensor *y = layer(x, in, &w, NULL, &end);
    if (!y) return qn_graph_status(x->g) == QN_OK ? QN_ERR_FORMAT : qn_graph_status(x->g);
    compare_to(x, "out.y", y, forward_tolerance);
    compare_to(x, "out.F", end.plastic, forward_tolerance);
    if (s->full) compare_to(x, "out.C", end.consolidated, forward_tolerance);
    if (s->taps > 1) compare_to(x, "out.conv_state", end.before, forward_tolerance);
    *loss = weighed(x, y, "in.dy");
    return qn_graph_status(x->g);
}

static qn_result compare(scene *x, void **got)
{
    for (size_t i = 0; i < x->out_count; i++) {
        const qn_shape shape = x->out[i]->shape;
        float *data = got[i], *turned = NULL;
        const size_t count = (size_t)qn_shape_count(shape);
        if (strcmp(x->out_name[i], "grad.w_conv") == 0) {
            turned = qn_malloc(count * sizeof *turned);
            if (!turned) return qn_no_memory(count * sizeof *turned);
            const size_t rows = (size_t)shape.dim[0], columns = (size_t)shape.dim[1];
            for (size_t e = 0; e < count; e++) turned[e % columns * rows + e / columns] = data[e];
        }
        qn_result r = qn_golden_compare(x->c, x->out_name[i], turned ? turned : data, count, 1e-6,
                                        x->tolerance[i]);
        qn_free(turned);
        QN_TRY(r);
    }
    return QN_OK;
}

static qn_result run(scene *x)
{
    const qn_tensor *loss = NULL, *grads[MOST] = { 0 };
    char names[MOST][64];
    QN_TRY(qn_graph_create(x->c->dev, &x->g));
    QN_TRY(x->s.layer ? build_layer(x, &loss) : build_operator(x, &loss));
    QN_TRY(qn_backward(x->g, loss, NULL, x->wrt, x->wrt_count, grads));
    for (size_t i = 0; i < x->wrt_count; i++) {
        if (!grads[i])
            return qn_fail(QN_ERR_INVALID, "%s: no gradient reaches %s", x->c->dir, x->wrt_name[i]);
        snprintf(names[i], sizeof names[i], "grad.%s", x->wrt_name[i]);
        compare_to(x, names[i], grads[i], gradient_tolerance);
    }
    void *got[2 * MOST] = { 0 };
    QN_TRY(qn_run_once(x->g, x->feeds, x->feed_count, x->out, x->out_count, got));
    qn_result r = compare(x, got);
    qn_free_all(got, x->out_count);
    return r;
}

qn_result qn_golden_memory(qn_golden_case *c)
{
    scene *x = qn_calloc(1, sizeof *x);
    if (!x) return qn_no_memory(sizeof *x);
    x->c = c;
    qn_result r = read_sizes(c, &x->s);
    if (r == QN_OK) r = run(x);
    for (size_t i = 0; i < x->feed_count; i++) qn_free((void *)x->feeds[i].data);
    qn_graph_destroy(&x->g);
    qn_free(x);
    return r;
}
