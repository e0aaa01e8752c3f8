// cast: f32 to f16 or bf16 and back; quantised weights to f32. Gradients are f32 whatever the value's own dtype.
#include "passes.h"

#include "args.h"
#include "args/narrow.h"
#include "args/widen.h"

#include <quoin/blocks.h>

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
    bool widens = qn_storage_of(from) != QN_STORE_F32 && to == QN_F32;
    if (!(from == QN_F32 && is_half(to)) && !widens)
        return qn_refuse(n,
                         "x (%s) is %s, which is not cast to %s; f32 is, to f16 and bf16, and these and "
                         "quantised values to f32",
                         n->in[0]->name, qn_dtype_name(from), qn_dtype_name(to));
    if (widens) QN_TRY(qn_expect_weights(n, 0, "x"));
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

// In windows of whole blocks, integers and scales each beginning where a binding may.
static qn_result record_blocks(qn_recorder *r, const qn_tensor *x, const qn_tensor *y,
                               uint64_t count)
{
    const uint64_t window = (uint64_t)1 << 24; // values
    const uint32_t per_byte = x->dtype == QN_Q4_0 ? 2 : 1;
    qn_range values = qn_at_values(r, x), scales = qn_at_scales(r, x), out = qn_at(r, y);
    const qn_device_info *dev = qn_recorder_device(r);
    uint64_t lanes = dev->kernel_class == QN_CLASS_FLAT ? 16 * dev->subgroup_size : 64;
    for (uint64_t first = 0; first < count; first += window) {
        const uint64_t n = count - first < window ? count - first : window;
        widen_args args = { .count = (uint32_t)n };
        uint64_t groups = qn_div_up(n / 4, lanes), rows = qn_div_up(groups, dev->max_groups);
        qn_dispatch d = {
            .kernel = QN_K_widen, .storage = qn_storage_of(x->dtype), .args = &args,
            .args_size = sizeof args,
            .buffers = { { values.buffer, values.offset + first / per_byte, n / per_byte },
                         { out.buffer, out.offset + first * 4, n * 4 },
                         { scales.buffer, scales.offset + first / QN_BLOCK * 2, n / QN_BLOCK * 2 } },
            .groups = { qn_div_up(groups, rows), (uint32_t)rows, 1 },
        };
        QN_TRY(qn_record(r, &d));
    }
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *x = n->in[0], *y = n->out[0];
    const uint64_t count = (uint64_t)qn_shape_count(x->shape);
    if (qn_dtype_is_block(x->dtype)) return record_blocks(r, x, y, count);
    qn_part parts[] = { { x, qn_dtype_size(x->dtype) }, { y, qn_dtype_size(y->dtype) } };
    qn_dispatch d = { .kernel = QN_K_narrow, .constants = { y->dtype == QN_BF16 } };
    if (y->dtype == QN_F32)
        d = (qn_dispatch){ .kernel = QN_K_widen,
                           .storage = qn_storage_of(x->dtype) };
    return qn_record_each(r, &d, parts, 2, count);
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
