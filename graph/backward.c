// Reverse-mode differentiation: gradients are further nodes of the same graph.
#include "graph_impl.h"

#include <string.h>

enum { MAX_SUM = 8 }; // qn_sum_of() takes this many

// The gradients that have reached one tensor so far, in the order in which they came.
typedef struct contributions {
    const qn_tensor *x[MAX_SUM];
    int count;
} contributions;

static const qn_tensor *total(qn_graph *g, contributions *c)
{
    if (c->count == 0) return NULL;
    if (c->count > 1) c->x[0] = qn_sum_of(g, c->x, c->count);
    c->count = c->x[0] ? 1 : 0;
    return c->x[0];
}

static qn_result contribute(qn_graph *g, contributions *c, const qn_node *n, const qn_tensor *to,
                            const qn_tensor *x)
{
    if (!qn_shape_equal(to->shape, x->shape)) {
        char a[QN_SHAPE_TEXT], b[QN_SHAPE_TEXT];
        return qn_refuse(n, "gradient of %s has shape %s, expected %s", to->name,
                         qn_shape_format(x->shape, a), qn_shape_format(to->shape, b));
    }
    if (c->count == MAX_SUM) total(g, c);
    c->x[c->count++] = x;
    return QN_OK;
}

static qn_result one_node(qn_graph *g, const qn_node *n, contributions *grads)
{
    const qn_tensor *gout[QN_MAX_OUTPUTS] = { 0 }, *gin[QN_MAX_INPUTS] = { 0 };
    bool want[QN_MAX_INPUTS] = { 0 }, any_out = false, any_want = false;
    for (int i = 0; i < n->inputs; i++)
        any_want |= want[i] = n->in[i] && n->in[i]->needs_grad;
    for (int i = 0; any_want && i < n->outputs; i++)
        any_out |= grads[impl(n->out[i])->id].count > 0;
    if (!any_out) return QN_OK;
    if (!n->op->backward)
        return qn_refuse(n, "%s has no gradient, but one is wanted through it", n->op->name);

    g->gradient_of = n->name;
    for (int i = 0; i < n->outputs; i++) gout[i] = total(g, &grads[impl(n->out[i])->id]);
    qn_result r = qn_graph_status(g);
    if (r == QN_OK) r = n->op->backward(g, n, gout, want, gin);
    if (r == QN_OK) r = qn_graph_status(g);
    for (int i = 0; r == QN_OK && i < n->inputs; i++)
        if (want[i] && gin[i]) r = contribute(g, &grads[impl(n->in[i])->id], n, n->in[i], gin[i]);
    g->gradient_of = NULL;
    return r;
}

static const qn_tensor *seed_of(qn_graph *g, const qn_tensor *loss, const qn_tensor *seed)
{
    if (seed) return seed;
    static const float one = 1;
    return qn_constant(g, "d(loss)", QN_F32, loss->shape, &one);
}

static qn_result check_request(const qn_tensor *loss, const qn_tensor *seed,
                               const qn_tensor *const *wrt, size_t count)
{
    if (!loss) return qn_fail(QN_ERR_INVALID, "there is no loss to take gradients of");
    const qn_tensor *const scalars[] = { loss, seed };
    for (int i = 0; i < 2; i++) {
        const qn_tensor *t = scalars[i];
        char text[QN_SHAPE_TEXT];
        if (t && (qn_shape_count(t->shape) != 1 || t->dtype != QN_F32))
            return qn_fail(QN_ERR_INVALID, "%s (%s) is %s %s, expected an f32 scalar",
                           i ? "seed" : "loss", t->name, qn_dtype_name(t->dtype),
                           qn_shape_format(t->shape, text));
    }
    for (size_t i = 0; i < count; i++)
        if (!wrt[i])
            return qn_fail(QN_ERR_INVALID, "gradient %zu: there is no tensor to take it for", i);
    return QN_OK;
}

static qn_result differentiate(qn_graph *g, const qn_tensor *loss, const qn_tensor *seed,
                               const qn_tensor *const *wrt, size_t count, contributions *c,
                               const qn_tensor **grads)
{
    const size_t nodes = g->node_count;
    const qn_tensor *start = seed_of(g, loss, seed);
    QN_TRY(qn_graph_status(g));
    c[impl(loss)->id] = (contributions){ .x = { start }, .count = 1 };
    for (size_t i = nodes; i-- > 0;) QN_TRY(one_node(g, &g->nodes[i]->n, c));
    for (size_t i = 0; i < count; i++) {
        g->gradient_of = wrt[i]->name;
        grads[i] = total(g, &c[impl(wrt[i])->id]);
    }
    g->gradient_of = NULL;
    return qn_graph_status(g);
}

qn_result qn_backward(qn_graph *g, const qn_tensor *loss, const qn_tensor *seed,
                      const qn_tensor *const *wrt, size_t count, const qn_tensor **grads)
{
    contributions *c = NULL;
    qn_result r = qn_graph_status(g);
    if (r == QN_OK) r = check_request(loss, seed, wrt, count);
    if (r == QN_OK && !(c = qn_calloc(g->tensor_count, sizeof *c)))
        r = qn_no_memory(g->tensor_count * sizeof *c);
    if (r == QN_OK) r = differentiate(g, loss, seed, wrt, count, c, grads);
    qn_free(c);
    if (r == QN_OK) return r;
    qn_graph_fail(g, r);
    for (size_t i = 0; i < count; i++) grads[i] = NULL; // builders pass these on
    return r;
}
