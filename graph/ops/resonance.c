// How strongly a memory recalled something, and its gradient.
#include "passes.h"

#include "args.h"
#include "args/resonance.h"

#include <math.h>

enum { R, RHO, DW };  // inputs; DW of the gradient only
enum { DR, DRHO };    // outputs of the gradient

static qn_result check_inputs(const qn_node *n)
{
    float tau = *(const float *)n->attrs;
    QN_TRY(qn_expect_rows(n, R, "r"));
    qn_shape r = n->in[R]->shape;
    QN_TRY(qn_expect_f32(n, RHO, "rho"));
    if (qn_shape_count(n->in[RHO]->shape) != qn_shape_rows(r)) {
        char at[QN_SHAPE_TEXT], bt[QN_SHAPE_TEXT];
        return qn_refuse(n, "rho (%s) has shape %s, expected one value for each row of r (%s), %s",
                         n->in[RHO]->name, qn_shape_format(n->in[RHO]->shape, at), n->in[R]->name,
                         qn_shape_format(r, bt));
    }
    if (!(tau > 0) || !isfinite(tau) || !isnormal(tau * tau))
        return qn_refuse(n, "tau is %g, expected a number above 0", (double)tau);
    return QN_OK;
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(check_inputs(n));
    shape[0] = n->in[RHO]->shape;
    dtype[0] = QN_F32;
    return QN_OK;
}

static qn_result record_rows(qn_recorder *r, const qn_node *n, qn_kernel kernel,
                             const qn_part *parts, int count)
{
    float tau = *(const float *)n->attrs;
    resonance_args args = { .square = tau * tau };
    qn_dispatch d = { .kernel = kernel, .args = &args, .args_size = sizeof args };
    qn_shape x = n->in[R]->shape;
    return qn_record_rows(r, &d, parts, count, (uint64_t)qn_shape_rows(x),
                          (uint64_t)qn_shape_last(x), 2);
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    qn_part parts[] = { qn_rows_of(n->in[R]), { n->in[RHO], 4 }, { n->out[0], 4 } };
    return record_rows(r, n, QN_K_resonance, parts, 3);
}

static qn_result backward(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin)
{
    (void)want;
    const qn_tensor *in[QN_MAX_INPUTS] = { n->in[R], n->in[RHO], gout[0] };
    const qn_node *made;
    if (!qn_op(g, &qn_op_resonance_grad, n->attrs, in, &made)) return qn_graph_status(g);
    gin[R] = made->out[DR];
    gin[RHO] = made->out[DRHO];
    return QN_OK;
}

const qn_op_def qn_op_resonance = {
    .name = "resonance",
    .reference = "synaptic-resonance",
    .inputs = 2,
    .outputs = 1,
    .attrs_size = sizeof(float),
    .infer = infer,
    .backward = backward,
    .record = record,
};

static qn_result infer_grad(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                            qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(check_inputs(n));
    QN_TRY(qn_expect_f32(n, DW, "gradient"));
    QN_TRY(qn_expect_shape(n, DW, "gradient", n->in[RHO]->shape));
    shape[DR] = n->in[R]->shape;
    shape[DRHO] = n->in[RHO]->shape;
    dtype[DR] = dtype[DRHO] = QN_F32;
    return QN_OK;
}

static qn_result record_grad(qn_recorder *r, const qn_node *n)
{
    qn_part parts[] = { qn_rows_of(n->in[R]), { n->in[RHO], 4 }, { n->in[DW], 4 },
                        qn_rows_of(n->out[DR]), { n->out[DRHO], 4 } };
    return record_rows(r, n, QN_K_resonance_grad, parts, 5);
}

const qn_op_def qn_op_resonance_grad = {
    .name = "resonance_grad",
    .reference = "synaptic-resonance",
    .inputs = 3,
    .outputs = 2,
    .attrs_size = sizeof(float),
    .infer = infer_grad,
    .record = record_grad,
};

const qn_tensor *qn_resonance(qn_graph *g, const qn_tensor *r, const qn_tensor *rho, float tau)
{
    if (!r || !rho) return NULL;
    return QN_OP1(g, &qn_op_resonance, &tau, r, rho);
}
