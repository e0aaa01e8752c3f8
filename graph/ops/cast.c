// cast: f32 to f16 or bf16 and back. Gradients are f32 whatever the value's own dtype.
#include "passes.h"

#include "args.h"
#include "args/narrow.h"

static bool is_half(qn_dtype t)
{
    return t == QN_F16 || t == QN_BF16;
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    qn_dtype from = n->in[0]->dtype, to = *(const qn_dtype *)n->attrs;
    if ((unsigned)to >= QN_DTYPE_COUNT) return qn_refuse(n, "no dtype %d", (int)to);
    if (!(from == QN_F32 && is_half(to)) && !(is_half(from) && to == QN_F32))
        return qn_refuse(n,
                         "x (%s) is %s, which is not cast to %s; f32 is, to f16 and bf16 and back",
                         n->in[0]->name, qn_dtype_name(from), qn_dtype_name(to));
    shape[0] = n->in[0]->shape;
    dtype[0] = to;
    return QN_OK;
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    (void)n;
    if (want[0]) gin[0] = qn_cast(g, gout[0], QN_F32);
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *x = n->in[0], *y = n->out[0];
    qn_part parts[] = { { x, qn_dtype_size(x->dtype) }, { y, qn_dtype_size(y->dtype) } };
    qn_dispatch d = { .kernel = QN_K_narrow, .constants = { y->dtype == QN_BF16 } };
    if (y->dtype == QN_F32)
        d = (qn_dispatch){ .kernel = QN_K_widen,
                           .storage = x->dtype == QN_F16 ? QN_STORE_F16 : QN_STORE_BF16 };
    return qn_record_each(r, &d, parts, 2, (uint64_t)qn_shape_count(x->shape));
}

const qn_op_def qn_op_cast = {
    .name = "cast",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(qn_dtype),
    .infer = infer,
    .backward = backward,
    .record = record,
};

const qn_tensor *qn_cast(qn_graph *g, const qn_tensor *x, qn_dtype to)
{
    if (!x || x->dtype == to) return x;
    return QN_OP1(g, &qn_op_cast, &to, x);
}
