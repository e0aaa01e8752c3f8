// Building graphs: leaves, nodes, names and the sticky first error.
#include "graph_impl.h"

#include <quoin/blocks.h>

#include <stdarg.h>
#include <string.h>

qn_result qn_graph_create(qn_device *dev, qn_graph **out)
{
    *out = NULL;
    qn_graph *g = qn_calloc(1, sizeof *g);
    if (!g) return qn_no_memory(sizeof *g);
    g->dev = dev;
    *out = g;
    return QN_OK;
}

void qn_graph_destroy(qn_graph **graph)
{
    qn_graph *g = *graph;
    *graph = NULL;
    if (!g) return;
    qn_free(g->tensors);
    qn_free(g->nodes);
    qn_free(g->message);
    qn_arena_free(&g->arena);
    qn_free(g);
}

qn_device *qn_graph_device(const qn_graph *g)
{
    return g->dev;
}

qn_result qn_graph_status(const qn_graph *g)
{
    if (g->status == QN_OK) return QN_OK;
    return qn_fail(g->status, "%s", g->message ? g->message : "out of host memory");
}

const qn_tensor *qn_graph_fail(qn_graph *g, qn_result r)
{
    if (g->status == QN_OK && r != QN_OK) {
        g->status = r;
        g->message = qn_strdup(qn_error_message());
    }
    return NULL;
}

void qn_graph_scope(qn_graph *g, const char *name)
{
    const int deepest = (int)(sizeof g->scope_end / sizeof *g->scope_end);
    if (!name) {
        if (g->scope_depth > 0) g->scope[g->scope_end[--g->scope_depth]] = 0;
        return;
    }
    size_t used = strlen(g->scope);
    if (g->scope_depth == deepest || used + strlen(name) + 2 > sizeof g->scope) {
        qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "scope %s%s: too deep or too long", g->scope, name));
        return;
    }
    g->scope_end[g->scope_depth++] = used;
    snprintf(g->scope + used, sizeof g->scope - used, "%s.", name);
}

static bool shape_is_sane(qn_shape s)
{
    if (s.rank < 0 || s.rank > QN_MAX_RANK) return false;
    uint64_t n = 1;
    for (int i = 0; i < s.rank; i++)
        if (s.dim[i] < 1 || !qn_mul_u64(n, (uint64_t)s.dim[i], &n) || n > (uint64_t)1 << 40)
            return false;
    return true;
}

static tensor_impl *new_tensor(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape)
{
    char text[QN_SHAPE_TEXT];
    if ((unsigned)dtype >= QN_DTYPE_COUNT || !shape_is_sane(shape)) {
        qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "tensor %s: %s %s is not possible", name,
                                 qn_dtype_name(dtype), qn_shape_format(shape, text)));
        return NULL;
    }
    qn_result r = qn_grow((void **)&g->tensors, &g->tensor_cap, g->tensor_count + 1,
                          sizeof *g->tensors);
    tensor_impl *t = r == QN_OK ? qn_arena_alloc(&g->arena, sizeof *t) : NULL;
    if (!t) {
        qn_graph_fail(g, r == QN_OK ? qn_no_memory(sizeof *t) : r);
        return NULL;
    }
    *t = (tensor_impl){
        .t = { .name = name, .dtype = dtype, .shape = shape },
        .id = (int)g->tensor_count,
    };
    g->tensors[g->tensor_count++] = t;
    return t;
}

static char *copy_name(qn_graph *g, const char *name)
{
    char *copy = qn_arena_printf(&g->arena, "%s", name);
    if (!copy) qn_graph_fail(g, qn_no_memory(strlen(name)));
    return copy;
}

static tensor_impl *new_leaf(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape,
                             leaf_kind leaf)
{
    if (g->status != QN_OK) return NULL;
    char *copy = copy_name(g, name);
    tensor_impl *t = copy ? new_tensor(g, copy, dtype, shape) : NULL;
    if (t) t->leaf = leaf;
    return t;
}

const qn_tensor *qn_input(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape)
{
    tensor_impl *t = new_leaf(g, name, dtype, shape, LEAF_INPUT);
    return t ? &t->t : NULL;
}

const qn_tensor *qn_constant(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape,
                             const void *data)
{
    tensor_impl *t = new_leaf(g, name, dtype, shape, LEAF_CONSTANT);
    if (!t) return NULL;
    void *copy = qn_arena_alloc(&g->arena, tensor_bytes(&t->t));
    if (!copy) return qn_graph_fail(g, qn_no_memory(tensor_bytes(&t->t)));
    memcpy(copy, data, tensor_bytes(&t->t));
    t->data = copy;
    return &t->t;
}

void qn_wants_grad(const qn_tensor *input)
{
    if (input) ((tensor_impl *)impl(input))->t.needs_grad = true;
}

static const qn_tensor *stored(qn_graph *g, qn_store *store, const char *name, qn_dtype dtype,
                               qn_shape shape, uint64_t offset, bool needs_grad)
{
    for (size_t i = 0; i < g->tensor_count; i++) {
        const tensor_impl *t = g->tensors[i];
        if (t->leaf == LEAF_STORED && t->store == store && t->store_offset == offset &&
            t->t.needs_grad == needs_grad && qn_shape_equal(t->t.shape, shape))
            return &t->t;
    }
    tensor_impl *t = new_leaf(g, name, dtype, shape, LEAF_STORED);
    if (!t) return NULL;
    t->store = store;
    t->store_offset = offset;
    t->t.needs_grad = needs_grad;
    return &t->t;
}

static const qn_tensor *stored_entry(qn_graph *g, qn_store *store, const char *name, bool frozen)
{
    if (g->status != QN_OK) return NULL;
    const qn_store_entry *e = qn_store_find(store, name);
    if (!e) {
        const char *near = qn_nearest_entry(store, name);
        return qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "%s has no tensor %s%s%s",
                                        qn_store_name(store), name,
                                        near ? "; the nearest is " : "", near ? near : ""));
    }
    return stored(g, store, e->name, e->dtype, e->shape, e->offset,
                  !frozen && e->dtype == QN_F32);
}

const qn_tensor *qn_param(qn_graph *g, qn_store *store, const char *name)
{
    return stored_entry(g, store, name, false);
}

const qn_tensor *qn_frozen(qn_graph *g, qn_store *store, const char *name)
{
    return stored_entry(g, store, name, true);
}

const qn_tensor *qn_store_tensor(qn_graph *g, qn_store *store)
{
    return qn_store_prefix(g, store, qn_store_bytes(store));
}

const qn_tensor *qn_store_prefix(qn_graph *g, qn_store *store, uint64_t bytes)
{
    if (g->status != QN_OK) return NULL;
    if (qn_store_is_split(store))
        return qn_graph_fail(g, qn_fail(QN_ERR_UNSUPPORTED, "%s exceeds one allocation of this "
                                                            "device: it is no single vector",
                                        qn_store_name(store)));
    if (qn_store_bytes(store) == 0)
        return qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "%s is empty", qn_store_name(store)));
    if (!bytes || bytes > qn_store_bytes(store) || bytes % QN_RANGE_ALIGN)
        return qn_graph_fail(g, qn_fail(QN_ERR_INVALID, "%s: its first %llu bytes, expected a "
                                                        "multiple of %d up to %llu",
                                        qn_store_name(store), (unsigned long long)bytes,
                                        QN_RANGE_ALIGN, (unsigned long long)qn_store_bytes(store)));
    return stored(g, store, qn_store_name(store), QN_F32, QN_SHAPE((int64_t)(bytes / 4)), 0, false);
}

void qn_name(qn_graph *g, const qn_tensor *t, const char *name)
{
    if (!t) return;
    char *copy = qn_arena_printf(&g->arena, "%s%s", g->scope, name);
    if (!copy) return;
    ((tensor_impl *)impl(t))->t.name = copy;
    const node_impl *node = impl(t)->node;
    if (node && node->n.out[0] == t) ((node_impl *)node)->n.name = copy;
}

const qn_node *qn_tensor_node(const qn_tensor *t)
{
    const node_impl *node = impl(t)->node;
    return node ? &node->n : NULL;
}

static char *node_name(qn_graph *g, const qn_op_def *op)
{
    char *name = g->gradient_of
                     ? qn_arena_printf(&g->arena, "d(%s).%s", g->gradient_of, op->name)
                     : qn_arena_printf(&g->arena, "%s%s", g->scope, op->name);
    if (!name) qn_graph_fail(g, qn_no_memory(64));
    return name;
}

static bool is_float(qn_dtype t)
{
    return t != QN_I32;
}

// The node without outputs, not yet in the graph.
static node_impl *new_node(qn_graph *g, const qn_op_def *op, const void *attrs,
                           const qn_tensor *const *in)
{
    node_impl *node = qn_arena_alloc(&g->arena, sizeof *node);
    void *copy = op->attrs_size ? qn_arena_alloc(&g->arena, op->attrs_size) : NULL;
    if (!node || (op->attrs_size && !copy)) {
        qn_graph_fail(g, qn_no_memory(sizeof *node + op->attrs_size));
        return NULL;
    }
    if (copy) memcpy(copy, attrs, op->attrs_size);
    *node = (node_impl){
        .n = { .op = op, .attrs = copy, .name = node_name(g, op), .inputs = op->inputs,
               .outputs = op->outputs },
        .index = (int)g->node_count,
    };
    memcpy(node->n.in, in, (size_t)op->inputs * sizeof *in);
    return node->n.name ? node : NULL;
}

const qn_tensor *qn_op(qn_graph *g, const qn_op_def *op, const void *attrs,
                       const qn_tensor *const *in, const qn_node **made)
{
    if (made) *made = NULL;
    if (g->status != QN_OK) return NULL;
    node_impl *node = new_node(g, op, attrs, in);
    if (!node) return NULL;
    qn_shape shape[QN_MAX_OUTPUTS] = { 0 };
    qn_dtype dtype[QN_MAX_OUTPUTS] = { QN_F32 };
    qn_result r = op->infer(&node->n, qn_device_describe(g->dev), shape, dtype);
    if (r == QN_OK) r = qn_grow((void **)&g->nodes, &g->node_cap, g->node_count + 1, sizeof *g->nodes);
    if (r != QN_OK) return qn_graph_fail(g, r);

    bool needs_grad = false;
    for (int i = 0; i < op->inputs; i++) needs_grad |= in[i] && in[i]->needs_grad;
    for (int i = 0; i < op->outputs; i++) {
        tensor_impl *t = new_tensor(g, node->n.name, dtype[i], shape[i]);
        if (!t) return NULL;
        t->node = node;
        t->t.needs_grad = needs_grad && is_float(dtype[i]);
        node->n.out[i] = &t->t;
    }
    g->nodes[g->node_count++] = node;
    if (made) *made = &node->n;
    return node->n.out[0];
}

qn_result qn_refuse(const qn_node *n, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return qn_fail(QN_ERR_INVALID, "%s: %s", n->name, text);
}

qn_result qn_expect_dtype(const qn_node *n, int input, const char *what, qn_dtype dtype)
{
    const qn_tensor *t = n->in[input];
    if (t->dtype == dtype) return QN_OK;
    return qn_refuse(n, "%s (%s) is %s, expected %s", what, t->name, qn_dtype_name(t->dtype),
                     qn_dtype_name(dtype));
}

qn_storage qn_storage_of(qn_dtype t)
{
    static const qn_storage storages[QN_DTYPE_COUNT] = {
        [QN_F16] = QN_STORE_F16, [QN_BF16] = QN_STORE_BF16, [QN_Q8_0] = QN_STORE_Q8_0,
        [QN_Q4_0] = QN_STORE_Q4_0,
    };
    return storages[t];
}

qn_result qn_expect_weights(const qn_node *n, int input, const char *what)
{
    const qn_tensor *t = n->in[input];
    if (qn_storage_of(t->dtype) == QN_STORE_F32) return qn_expect_dtype(n, input, what, QN_F32);
    if (qn_dtype_is_block(t->dtype) && qn_shape_last(t->shape) % QN_BLOCK)
        return qn_refuse(n, "%s (%s) has rows of %lld, %s needs a multiple of %d", what, t->name,
                         (long long)qn_shape_last(t->shape), qn_dtype_name(t->dtype), QN_BLOCK);
    return QN_OK;
}

qn_result qn_expect_shape(const qn_node *n, int input, const char *what, qn_shape shape)
{
    const qn_tensor *t = n->in[input];
    if (qn_shape_equal(t->shape, shape)) return QN_OK;
    char found[QN_SHAPE_TEXT], expected[QN_SHAPE_TEXT];
    return qn_refuse(n, "%s (%s) has shape %s, expected %s", what, t->name,
                     qn_shape_format(t->shape, found), qn_shape_format(shape, expected));
}
