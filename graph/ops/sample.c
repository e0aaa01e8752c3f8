// Choosing tokens from logits.
#include "passes.h"

#include "args.h"
#include "args/sample.h"

enum { LOGITS, HOW, CHANGES };                            // inputs
enum { TOKEN, LOGPROB, TOP, CHANCE, TOTAL, CHANGED };     // outputs; the last two are scratch
enum { UNROLL = 4, WALKS = 29, MOST_ROUNDS = 50000 };     // see shaders/sample/
enum { MOST_VOCABULARY = MOST_ROUNDS / WALKS * 4 * 4 * 4 }; // with subgroups of 4

_Static_assert(QN_SAMPLE_TOP == SAMPLE_TOP, "the list's length");
_Static_assert(sizeof(qn_sample_how) == SAMPLE_HOW * 4, "a row of how");

static int64_t rows_of(const qn_node *n)
{
    return n->in[LOGITS]->shape.dim[0];
}

static int64_t vocabulary_of(const qn_node *n)
{
    return n->in[LOGITS]->shape.dim[1];
}

static int64_t stride_of(const qn_node *n)
{
    return (vocabulary_of(n) + 3) / 4 * 4;
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    char text[QN_SHAPE_TEXT];
    const qn_tensor *x = n->in[LOGITS], *c = n->in[CHANGES];
    QN_TRY(qn_expect_f32(n, LOGITS, "logits"));
    if (x->shape.rank != 2)
        return qn_refuse(n, "logits (%s) has shape %s, expected [N, V]", x->name,
                         qn_shape_format(x->shape, text));
    if (vocabulary_of(n) > MOST_VOCABULARY)
        return qn_refuse(n, "logits (%s) has rows of %lld, expected at most %d", x->name,
                         (long long)vocabulary_of(n), MOST_VOCABULARY);
    if ((uint64_t)rows_of(n) > dev->max_binding / 4 / (uint64_t)stride_of(n) || rows_of(n) > 65535)
        return qn_refuse(n, "logits (%s) has shape %s: so many rows exceed a binding", x->name,
                         qn_shape_format(x->shape, text));
    QN_TRY(qn_expect_dtype(n, HOW, "how", QN_I32));
    QN_TRY(qn_expect_shape(n, HOW, "how", QN_SHAPE(rows_of(n), SAMPLE_HOW)));
    if (c) {
        QN_TRY(qn_expect_dtype(n, CHANGES, "changes", QN_I32));
        if (c->shape.rank != 3 || c->shape.dim[0] != rows_of(n) || c->shape.dim[2] != 4)
            return qn_refuse(n, "changes (%s) has shape %s, expected [%lld, M, 4]", c->name,
                             qn_shape_format(c->shape, text), (long long)rows_of(n));
        if ((uint64_t)qn_shape_count(c->shape) * 4 > dev->max_binding)
            return qn_refuse(n, "changes (%s) has shape %s: it exceeds a binding", c->name,
                             qn_shape_format(c->shape, text));
    }
    shape[TOKEN] = shape[LOGPROB] = shape[TOTAL] = QN_SHAPE(rows_of(n));
    shape[TOP] = shape[CHANCE] = QN_SHAPE(rows_of(n), SAMPLE_TOP);
    shape[CHANGED] = QN_SHAPE(rows_of(n), stride_of(n));
    dtype[TOKEN] = dtype[TOP] = QN_I32;
    dtype[LOGPROB] = dtype[CHANCE] = dtype[TOTAL] = dtype[CHANGED] = QN_F32;
    return QN_OK;
}

// A group for each row; every invocation walks `walks` times through its part of it.
static qn_result record_rows(qn_recorder *r, const qn_node *n, qn_dispatch d, sample_args args,
                             uint64_t walks)
{
    const qn_device_info *dev = qn_recorder_device(r);
    uint64_t lanes = dev->kernel_class == QN_CLASS_FLAT ? dev->subgroup_size : 128;
    args.count = (uint32_t)rows_of(n);
    d.args = &args;
    d.args_size = sizeof args;
    d.group_size = 128;
    d.groups[0] = (uint32_t)rows_of(n);
    d.groups[1] = d.groups[2] = 1;
    d.rounds = walks * (qn_div_up((uint64_t)stride_of(n), 4 * UNROLL * lanes) + 1);
    return qn_record(r, &d);
}

static qn_result record_top(qn_recorder *r, const qn_node *n, sample_args args)
{
    const qn_device_info *dev = qn_recorder_device(r);
    uint64_t walk = (uint64_t)stride_of(n) / (4 * UNROLL * (uint64_t)dev->subgroup_size) + 2;
    uint32_t most = (uint32_t)(MOST_ROUNDS / walk);
    for (uint32_t k = 0; k < SAMPLE_TOP; k += most) {
        args.begin = k;
        args.end = k + most < SAMPLE_TOP ? k + most : SAMPLE_TOP;
        qn_dispatch d = { .kernel = QN_K_sample_top,
                          .buffers = { qn_at(r, n->in[LOGITS]), qn_at(r, n->in[HOW]),
                                       qn_at(r, n->out[TOTAL]), qn_at(r, n->out[TOP]),
                                       qn_at(r, n->out[CHANCE]) } };
        QN_TRY(record_rows(r, n, d, args, args.end - args.begin));
    }
    return QN_OK;
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    const qn_tensor *changes = n->in[CHANGES];
    sample_args args = { .vocab = (uint32_t)vocabulary_of(n), .stride = (uint32_t)stride_of(n) };
    qn_dispatch d = { .kernel = QN_K_sample_start, .args = &args, .args_size = sizeof args };
    QN_TRY(qn_record_each(r, &d, (qn_part[]){ qn_whole(n->in[LOGITS]), qn_f32(n->out[CHANGED]) }, 2,
                          (uint64_t)qn_shape_count(n->out[CHANGED]->shape)));
    if (changes) {
        args.changes = (uint32_t)changes->shape.dim[1];
        d.kernel = QN_K_sample_change;
        QN_TRY(qn_record_each(r, &d, (qn_part[]){ qn_whole(changes), qn_whole(n->out[CHANGED]) }, 2,
                              (uint64_t)qn_shape_count(changes->shape)));
    }
    qn_dispatch choose = { .kernel = QN_K_sample,
                           .buffers = { qn_at(r, n->in[LOGITS]), qn_at(r, n->out[CHANGED]),
                                        qn_at(r, n->in[HOW]), qn_at(r, n->out[TOKEN]),
                                        qn_at(r, n->out[LOGPROB]), qn_at(r, n->out[TOTAL]) } };
    QN_TRY(record_rows(r, n, choose, args, WALKS));
    return record_top(r, n, args);
}

const qn_op_def qn_op_sample = {
    .name = "sample",
    .reference = "gumbel",
    .inputs = 3,
    .outputs = 6,
    .infer = infer,
    .record = record,
};

qn_sampled qn_sample(qn_graph *g, const qn_tensor *logits, const qn_tensor *how,
                     const qn_tensor *changes)
{
    qn_sampled none = { 0 };
    if (!logits || !how) return none;
    const qn_tensor *in[QN_MAX_INPUTS] = { logits, how, changes };
    const qn_node *n;
    if (!qn_op(g, &qn_op_sample, NULL, in, &n)) return none;
    return (qn_sampled){ n->out[TOKEN], n->out[LOGPROB], n->out[TOP], n->out[CHANCE] };
}
