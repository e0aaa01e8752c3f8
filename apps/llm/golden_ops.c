// Golden cases of single operations: stick-breaking attention and expert mixtures.
// [moduleformer] sections 4, 5, 7 and 13.
#include "fail.h"
#include "golden.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ------------------------------------------------------------------------------ attention

// Golden tensors are [B, (S,) H, T, D]; the operation wants rows (b, t, s) of columns (h, d).
typedef struct layout {
    int64_t B, S, H, T, D;
} layout;

static void permute(const layout *l, const float *from, float *to, bool to_rows)
{
    for (int64_t b = 0; b < l->B; b++)
        for (int64_t s = 0; s < l->S; s++)
            for (int64_t h = 0; h < l->H; h++)
                for (int64_t t = 0; t < l->T; t++) {
                    int64_t golden = ((((b * l->S + s) * l->H + h) * l->T) + t) * l->D;
                    int64_t row = ((((b * l->T + t) * l->S + s) * l->H) + h) * l->D;
                    memcpy(to + (to_rows ? row : golden), from + (to_rows ? golden : row),
                           (size_t)l->D * sizeof *to);
                }
}

static qn_result load_rows(const qn_golden_case *c, const char *tensor, const layout *l,
                           float **out)
{
    const uint64_t count = (uint64_t)(l->B * l->S * l->H * l->T * l->D);
    float *golden;
    QN_TRY(qn_golden_f32(c, tensor, count, &golden, NULL));
    float *rows = qn_malloc((size_t)count * sizeof *rows);
    if (rows) permute(l, golden, rows, true);
    qn_free(golden);
    *out = rows;
    return rows ? QN_OK : qn_no_memory((size_t)count * sizeof *rows);
}

static qn_result compare_rows(qn_golden_case *c, const char *tensor, const layout *l,
                              const float *rows, double tolerance)
{
    const uint64_t count = (uint64_t)(l->B * l->S * l->H * l->T * l->D);
    float *golden = qn_malloc((size_t)count * sizeof *golden);
    if (!golden) return qn_no_memory((size_t)count * sizeof *golden);
    permute(l, rows, golden, false);
    qn_result r = qn_golden_compare(c, tensor, golden, count, 1e-3, tolerance);
    qn_free(golden);
    return r;
}

qn_result qn_attention_weights(qn_device *dev, const float *q, const float *k,
                               const qn_stickbreaking_opts *opts, int64_t rows, int64_t keys,
                               int64_t width, const int32_t *keep, float *out)
{
    const int64_t H = opts->heads, D = width / H, B = opts->batch;
    float *v = qn_calloc((size_t)(B * keys * width), sizeof *v);
    qn_graph *g = NULL;
    qn_result r = v ? qn_graph_create(dev, &g) : qn_no_memory((size_t)(B * keys * width));
    for (int64_t first = 0; r == QN_OK && first < keys; first += D) {
        // Head h's column d of the values is 1 at key first + d.
        memset(v, 0, (size_t)(B * keys * width) * sizeof *v);
        for (int64_t b = 0; b < B; b++)
            for (int64_t h = 0; h < H; h++)
                for (int64_t d = 0; d < D && first + d < keys; d++)
                    v[(b * keys + first + d) * width + h * D + d] = 1;
        qn_graph_destroy(&g);
        r = qn_graph_create(dev, &g);
        if (r != QN_OK) break;
        qn_stickbreaking_opts o = *opts;
        o.rem = NULL;
        o.keep = keep ? qn_input(g, "keep", QN_I32, QN_SHAPE(B, keys)) : NULL;
        const qn_tensor *in[] = { qn_input(g, "q", QN_F32, QN_SHAPE(rows, width)),
                                  qn_input(g, "k", QN_F32, QN_SHAPE(B * keys, width)),
                                  qn_input(g, "v", QN_F32, QN_SHAPE(B * keys, width)) };
        const qn_tensor *w = qn_stickbreaking(g, in[0], in[1], in[2], &o);
        r = qn_graph_status(g);
        float *part = NULL;
        qn_feed feeds[] = { { in[0], q }, { in[1], k }, { in[2], v }, { o.keep, keep } };
        if (r == QN_OK) r = qn_run_once(g, feeds, keep ? 4 : 3, &w, 1, (void **)&part);
        for (int64_t i = 0; r == QN_OK && i < rows * H; i++)
            for (int64_t d = 0; d < D && first + d < keys; d++)
                out[i * keys + first + d] = part[i * D + d];
        qn_free(part);
    }
    qn_graph_destroy(&g);
    qn_free(v);
    return r;
}

typedef struct attention_data {
    float *q, *k, *v, *dout;
} attention_data;

static qn_result compare_weights(qn_golden_case *c, const layout *l, const layout *kv,
                                 const attention_data *in, double tolerance)
{
    if (!qn_safetensors_find(c->io, "weights")) return QN_OK;
    layout w = *l; // [B, S, H, T, keys]
    w.D = kv->T;
    const int64_t rows = l->B * l->T * l->S;
    float *out = qn_malloc((size_t)(rows * l->H * kv->T) * sizeof *out);
    if (!out) return qn_no_memory((size_t)(rows * l->H * kv->T) * sizeof *out);
    qn_stickbreaking_opts o = { .batch = (int)l->B, .heads = (int)l->H, .slots = (int)l->S };
    qn_result r = qn_attention_weights(c->dev, in->q, in->k, &o, rows, kv->T, l->H * l->D, NULL, out);
    if (r == QN_OK) r = compare_rows(c, "weights", &w, out, tolerance);
    qn_free(out);
    return r;
}

static qn_result run_attention(qn_golden_case *c, const layout *l, const layout *kv,
                               const attention_data *data, double tolerance)
{
    const int64_t A = l->H * l->D, rows = l->B * l->T * l->S;
    qn_graph *g;
    QN_TRY(qn_graph_create(c->dev, &g));
    const qn_tensor *in[] = { qn_input(g, "q", QN_F32, QN_SHAPE(rows, A)),
                              qn_input(g, "k", QN_F32, QN_SHAPE(kv->B * kv->T, A)),
                              qn_input(g, "v", QN_F32, QN_SHAPE(kv->B * kv->T, A)),
                              qn_input(g, "dout", QN_F32, QN_SHAPE(rows, A)) };
    for (int i = 0; i < 3; i++) qn_wants_grad(in[i]);
    const qn_tensor *out[5] = { 0 }, *rem = NULL; // out, rem, dq, dk, dv
    qn_stickbreaking_opts o = { .batch = (int)l->B, .heads = (int)l->H, .slots = (int)l->S,
                                .rem = &rem };
    out[0] = qn_stickbreaking(g, in[0], in[1], in[2], &o);
    out[1] = rem;
    qn_result r = qn_graph_status(g);
    // The objective sum(out * dout).
    const qn_tensor *loss = qn_sum_all(g, qn_mul(g, out[0], in[3]));
    if (r == QN_OK) r = qn_graph_status(g);
    if (r == QN_OK) r = qn_backward(g, loss, NULL, in, 3, out + 2);
    void *got[5] = { 0 };
    qn_feed feeds[] = { { in[0], data->q }, { in[1], data->k }, { in[2], data->v },
                        { in[3], data->dout } };
    if (r == QN_OK) r = qn_run_once(g, feeds, 4, out, 5, got);
    layout lr = *l;
    lr.D = 1;
    if (r == QN_OK) r = compare_rows(c, "out", l, got[0], tolerance);
    if (r == QN_OK) r = compare_rows(c, "rem", &lr, got[1], tolerance);
    if (r == QN_OK) r = compare_rows(c, "dq", l, got[2], tolerance);
    if (r == QN_OK) r = compare_rows(c, "dk", kv, got[3], tolerance);
    if (r == QN_OK) r = compare_rows(c, "dv", kv, got[4], tolerance);
    qn_free_all(got, 5);
    qn_graph_destroy(&g);
    if (r == QN_OK) r = compare_weights(c, l, kv, data, tolerance);
    return r;
}

// 1e-5, and 5e-5 where logits above 100 make exp() lose digits: both from [moduleformer] 13.
static double attention_tolerance(const layout *l, const layout *kv, const attention_data *d)
{
    const int64_t A = l->H * l->D;
    double largest = 0;
    for (int64_t i = 0; i < l->B * l->T * l->S; i++)
        for (int64_t j = 0; j < kv->T; j++)
            for (int64_t h = 0; h < l->H; h++) {
                double z = 0;
                const float *q = d->q + i * A + h * l->D;
                const float *k = d->k + (i / (l->T * l->S) * kv->T + j) * A + h * l->D;
                for (int64_t x = 0; x < l->D; x++) z += (double)q[x] * (double)k[x];
                largest = fmax(largest, fabs(z) / sqrt((double)l->D));
            }
    return largest > 100 ? 5e-5 : 1e-5;
}

qn_result qn_golden_attention(qn_golden_case *c)
{
    const qn_safetensor *q = qn_safetensors_find(c->io, "q"), *k = qn_safetensors_find(c->io, "k");
    if (!q || !k || (q->rank != 4 && q->rank != 5) || k->rank != 4)
        return qn_fail(QN_ERR_FORMAT, "%s: q and k do not have the shape of an attention case",
                       c->dir);
    const int64_t *d = q->dim;
    layout l = q->rank == 5 ? (layout){ d[0], d[1], d[2], d[3], d[4] }
                            : (layout){ d[0], 1, d[1], d[2], d[3] };
    layout kv = { k->dim[0], 1, k->dim[1], k->dim[2], k->dim[3] };
    if (kv.B != l.B || kv.H != l.H || kv.D != l.D || kv.T < l.T)
        return qn_fail(QN_ERR_FORMAT, "%s: the shapes of q and k do not fit together", c->dir);
    attention_data data = { 0 };
    qn_result r = load_rows(c, "q", &l, &data.q);
    if (r == QN_OK) r = load_rows(c, "k", &kv, &data.k);
    if (r == QN_OK) r = load_rows(c, "v", &kv, &data.v);
    if (r == QN_OK) r = load_rows(c, "dout", &l, &data.dout);
    if (r == QN_OK) r = run_attention(c, &l, &kv, &data, attention_tolerance(&l, &kv, &data));
    qn_free(data.q);
    qn_free(data.k);
    qn_free(data.v);
    qn_free(data.dout);
    return r;
}

// ------------------------------------------------------------------------------ experts

// meta.json of an expert mixture.
typedef struct mixture {
    int64_t N, C, F, E, K, R;
    int gate; // 0 mlp, 1 linear, 2 gmm
    qn_router_loss aux;
    qn_activation activation;
    double aux_coef;
} mixture;

static int word_index(const char *word, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0) return i;
    return -1;
}

static qn_result read_mixture(const char *dir, mixture *m)
{
    static const char *const gates[] = { "mlp", "linear", "gmm", NULL };
    static const char *const activations[] = { "gelu_new", "gelu", "silu", "relu", "tanh", NULL };
    static const qn_activation kinds[] = { QN_GELU_TANH, QN_GELU_ERF, QN_SILU, QN_RELU, QN_TANH };
    char *path = qn_path_join(dir, "meta.json");
    if (!path) return qn_no_memory(strlen(dir));
    qn_json_doc *doc = NULL;
    qn_result r = qn_json_open(path, NULL, &doc);
    qn_free(path);
    QN_TRY(r);
    qn_json o = qn_json_root(doc);
    const char *gate = "", *aux = "", *activation = "";
    const int64_t most = 1 << 20;
    r = qn_json_int(o, "N", 1, most, &m->N);
    if (r == QN_OK) r = qn_json_int(o, "C", 1, most, &m->C);
    if (r == QN_OK) r = qn_json_int(o, "F", 1, most, &m->F);
    if (r == QN_OK) r = qn_json_int(o, "num_experts", 1, 256, &m->E);
    if (r == QN_OK) r = qn_json_int(o, "top_k", 1, 16, &m->K);
    if (r == QN_OK) r = qn_json_int_or(o, "gating_size", 1, most, 1, &m->R);
    if (r == QN_OK) r = qn_json_number(o, "aux_coef", -1e6, 1e6, &m->aux_coef);
    if (r == QN_OK) r = qn_json_string(o, "gate_type", &gate);
    if (r == QN_OK) r = qn_json_string(o, "aux_loss_type", &aux);
    if (r == QN_OK) r = qn_json_string(o, "activation_function", &activation);
    if (r == QN_OK) {
        m->gate = word_index(gate, gates);
        m->aux = strcmp(aux, "mi") == 0 ? QN_ROUTER_MI : QN_ROUTER_SWITCH;
        int a = word_index(activation, activations);
        if (m->gate < 0 || a < 0)
            r = qn_json_fail(o, "gate_type \"%s\" or activation_function \"%s\" is unknown", gate,
                             activation);
        else
            m->activation = kinds[a];
    }
    qn_json_close(&doc);
    return r;
}

// The mixture's parameters: inputs of the graph, filled from "param.<name>".
enum { MAX_PARAMS = 5 };
typedef struct params {
    const char *name[MAX_PARAMS];
    const qn_tensor *tensor[MAX_PARAMS];
    float *data[MAX_PARAMS];
    size_t count;
} params;

static const qn_tensor *add_param(qn_graph *g, params *p, const char *name, qn_shape shape)
{
    const qn_tensor *t = qn_input(g, name, QN_F32, shape);
    qn_wants_grad(t);
    p->name[p->count] = name;
    p->tensor[p->count++] = t;
    return t;
}

static const qn_tensor *gate_logits(qn_graph *g, const mixture *m, const qn_tensor *x, params *p)
{
    const qn_matmul_opts bt = { .transpose_b = true };
    if (m->gate == 1)
        return qn_matmul(g, x, add_param(g, p, "gate.w_gate.0.weight", QN_SHAPE(m->E, m->C)), &bt);
    if (m->gate == 0) {
        const qn_tensor *w = add_param(g, p, "gate.w_gate.0.weight", QN_SHAPE(m->R, m->C));
        qn_matmul_opts biased = { .transpose_b = true };
        biased.bias = add_param(g, p, "gate.w_gate.0.bias", QN_SHAPE(m->R));
        const qn_tensor *h = qn_activate(g, qn_matmul(g, x, w, &biased), QN_GELU_ERF);
        return qn_matmul(g, h, add_param(g, p, "gate.w_gate.3.weight", QN_SHAPE(m->E, m->R)), &bt);
    }
    const qn_tensor *w = add_param(g, p, "gate.w_gate.weight", QN_SHAPE(m->R, m->C));
    const qn_tensor *c = add_param(g, p, "gate.expert_centroids", QN_SHAPE(m->E, m->R));
    const qn_tensor *t = add_param(g, p, "gate.temperature", QN_SHAPE(1));
    const qn_tensor *u = qn_unit_norm(g, qn_matmul(g, x, w, &bt), 1e-12f);
    const qn_tensor *z = qn_matmul(g, u, qn_unit_norm(g, c, 1e-12f), &bt);
    const qn_tensor *sharp = qn_activate(g, t, QN_EXP);
    return qn_mul(g, z, sharp ? qn_reshape(g, sharp, QN_SCALAR) : NULL);
}

enum { OUT, AUX, PROBS, GATES, INDICES, OFFSETS, FIXED_OUTPUTS };

static qn_result compare_experts(qn_golden_case *c, const mixture *m, const params *p, void **got)
{
    const double forward = 1e-5, gradient = 1e-5;
    const uint64_t N = (uint64_t)m->N, C = (uint64_t)m->C, E = (uint64_t)m->E, K = (uint64_t)m->K;
    int32_t counts[256];
    const int32_t *offsets = got[OFFSETS];
    for (uint64_t e = 0; e < E; e++) counts[e] = offsets[e + 1] - offsets[e];
    QN_TRY(qn_golden_compare(c, "out", got[OUT], N * C, 1e-3, forward));
    QN_TRY(qn_golden_compare(c, "aux_loss", got[AUX], 1, 1, forward));
    QN_TRY(qn_golden_compare(c, "probs", got[PROBS], N * E, 1e-3, forward));
    QN_TRY(qn_golden_compare(c, "gates", got[GATES], N * K, 1e-3, forward));
    QN_TRY(qn_golden_compare_int(c, "indices", got[INDICES], N * K));
    QN_TRY(qn_golden_compare_int(c, "expert_count", counts, E));
    QN_TRY(qn_golden_compare(c, "dx", got[FIXED_OUTPUTS], N * C, 1e-3, gradient));
    for (size_t i = 0; i < p->count; i++) {
        char name[96];
        snprintf(name, sizeof name, "grad.%s", p->name[i]);
        QN_TRY(qn_golden_compare(c, name, got[FIXED_OUTPUTS + 1 + i],
                                 (uint64_t)qn_shape_count(p->tensor[i]->shape), 1e-3, gradient));
    }
    return QN_OK;
}

static qn_result run_experts(qn_golden_case *c, const mixture *m, qn_graph *g, params *p)
{
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(m->N, m->C));
    const qn_tensor *dout = qn_input(g, "dout", QN_F32, QN_SHAPE(m->N, m->C));
    qn_wants_grad(x);
    const qn_tensor *w1 = add_param(g, p, "experts.weight", QN_SHAPE(m->E, m->C, m->F));
    const qn_tensor *w2 = add_param(g, p, "output_experts.weight", QN_SHAPE(m->E, m->F, m->C));
    qn_route_opts o = { .choices = (int)m->K };
    qn_routing r = qn_route(g, gate_logits(g, m, x, p), &o);
    const qn_tensor *h = qn_activate(g, qn_expert_matmul(g, x, w1, &r, NULL), m->activation);
    const qn_tensor *y = qn_combine(g, qn_expert_matmul(g, h, w2, &r, NULL), r.gates, NULL, (int)m->K);
    const qn_tensor *aux = qn_router_loss_of(g, &r, m->aux);
    const qn_tensor *loss = qn_add(g, qn_sum_all(g, qn_mul(g, y, dout)),
                                   qn_scale(g, aux, (float)m->aux_coef, 0));
    QN_TRY(qn_graph_status(g));
    const qn_tensor *wrt[1 + MAX_PARAMS] = { x }, *out[FIXED_OUTPUTS + 1 + MAX_PARAMS] = {
        [OUT] = y, [AUX] = aux, [PROBS] = r.probs, [GATES] = r.gates, [INDICES] = r.experts,
        [OFFSETS] = r.offsets,
    };
    memcpy(wrt + 1, p->tensor, p->count * sizeof *wrt);
    QN_TRY(qn_backward(g, loss, NULL, wrt, 1 + p->count, out + FIXED_OUTPUTS));

    float *xs = NULL, *douts = NULL;
    void *got[FIXED_OUTPUTS + 1 + MAX_PARAMS] = { 0 };
    qn_feed feeds[2 + MAX_PARAMS];
    qn_result res = qn_golden_f32(c, "x", (uint64_t)(m->N * m->C), &xs, NULL);
    if (res == QN_OK) res = qn_golden_f32(c, "dout", (uint64_t)(m->N * m->C), &douts, NULL);
    for (size_t i = 0; res == QN_OK && i < p->count; i++) {
        char name[96];
        snprintf(name, sizeof name, "param.%s", p->name[i]);
        res = qn_golden_f32(c, name, (uint64_t)qn_shape_count(p->tensor[i]->shape), &p->data[i],
                            NULL);
        feeds[2 + i] = (qn_feed){ p->tensor[i], p->data[i] };
    }
    feeds[0] = (qn_feed){ x, xs };
    feeds[1] = (qn_feed){ dout, douts };
    const size_t outputs = FIXED_OUTPUTS + 1 + p->count;
    if (res == QN_OK) res = qn_run_once(g, feeds, 2 + p->count, out, outputs, got);
    if (res == QN_OK) res = compare_experts(c, m, p, got);
    qn_free_all(got, outputs);
    qn_free(xs);
    qn_free(douts);
    return res;
}

qn_result qn_golden_experts(qn_golden_case *c)
{
    mixture m = { 0 };
    params p = { .count = 0 };
    qn_graph *g;
    QN_TRY(read_mixture(c->dir, &m));
    QN_TRY(qn_graph_create(c->dev, &g));
    qn_result r = run_experts(c, &m, g, &p);
    for (size_t i = 0; i < p.count; i++) qn_free(p.data[i]);
    qn_graph_destroy(&g);
    return r;
}
