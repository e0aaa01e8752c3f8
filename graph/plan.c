// A graph made executable: memory taken, work recorded once, then fed, run and read.
#include "layout.h"
#include "platform.h"

#include <quoin/blocks.h>

#include <string.h>

enum { POISON = 0x7fc0dead }; // a NaN that shows up in a debugger

struct qn_plan {
    const qn_graph *g;
    qn_device *dev;
    qn_layout layout;
    uint64_t chunk;          // bytes of each arena buffer but the last
    qn_buffer **arena;
    size_t arena_count;
    qn_buffer *inputs, *upload; // upload: NULL where the inputs can be mapped
    qn_buffer *readback;        // NULL where everything can be mapped
    bool *input_set;            // by tensor id
    const qn_tensor **outputs;
    uint64_t *readback_at;
    size_t output_count;
    qn_stream *stream;
    qn_node_time *times;     // profile: one per timed span
    size_t time_count;
    double submit_seconds, slowness; // slowness: measured over estimated duration
    int recordings;
    bool profile, poison, running;
    qn_plan_stats stats;
};

struct qn_recorder {
    qn_plan *plan;
    qn_stream *stream;
    const qn_node *node;
};

const qn_device_info *qn_recorder_device(const qn_recorder *r)
{
    return qn_device_describe(r->plan->dev);
}

static qn_range range_of(const qn_plan *p, const qn_tensor *t)
{
    const qn_home *s = t ? qn_layout_find(&p->layout, t) : NULL;
    if (!s) return (qn_range){ 0 };
    qn_range r = { .offset = s->offset, .size = tensor_bytes(t) };
    switch (s->place) {
    case QN_PLACE_ARENA:
        r.buffer = p->arena[s->offset / p->chunk];
        r.offset = s->offset % p->chunk;
        break;
    case QN_PLACE_INPUT: r.buffer = p->inputs; break;
    case QN_PLACE_STORED: r.buffer = qn_store_buffer(s->store, &r.offset); break;
    case QN_PLACE_NONE: break;
    }
    return r;
}

qn_range qn_at(const qn_recorder *r, const qn_tensor *t)
{
    return range_of(r->plan, t);
}

qn_range qn_at_rows(const qn_recorder *r, const qn_tensor *t, uint64_t first, uint64_t count,
                    uint64_t row_bytes)
{
    qn_range range = range_of(r->plan, t);
    range.offset += first * row_bytes;
    range.size = count * row_bytes;
    return range;
}

qn_range qn_at_values(const qn_recorder *r, const qn_tensor *t)
{
    qn_range range = range_of(r->plan, t);
    if (t && qn_dtype_is_block(t->dtype))
        range.size = qn_blocks_scales_at(t->dtype, (uint64_t)qn_shape_count(t->shape));
    return range;
}

qn_range qn_at_scales(const qn_recorder *r, const qn_tensor *t)
{
    if (!t || !qn_dtype_is_block(t->dtype)) return (qn_range){ 0 };
    qn_range range = range_of(r->plan, t);
    uint64_t at = qn_blocks_scales_at(t->dtype, (uint64_t)qn_shape_count(t->shape));
    return (qn_range){ range.buffer, range.offset + at, range.size - at };
}

qn_result qn_record(qn_recorder *r, const qn_dispatch *d)
{
    return qn_context_add(qn_stream_dispatch(r->stream, d), "%s", r->node->name);
}

qn_result qn_record_fill(qn_recorder *r, qn_range dst, uint32_t word)
{
    return qn_context_add(qn_stream_fill(r->stream, dst, word), "%s", r->node->name);
}

static qn_cost cost_of(const qn_node *n)
{
    if (n->op->cost) return n->op->cost(n);
    qn_cost c = { 0 };
    if (n->op->alias) return c;
    for (int i = 0; i < n->inputs; i++)
        if (n->in[i]) c.bytes += tensor_bytes(n->in[i]);
    for (int i = 0; i < n->outputs; i++) c.bytes += tensor_bytes(n->out[i]);
    return c;
}

// Rates of a slow device of its kind: an estimate too long only makes submissions shorter.
static double estimated_seconds(const qn_device_info *dev, qn_cost c)
{
    double flops = dev->software ? 5e9 : 100e9, bytes = dev->software ? 4e9 : 20e9;
    double a = (double)c.flops / flops, b = (double)c.bytes / bytes;
    return (a > b ? a : b) + 5e-6;
}

static qn_result record_inputs(qn_plan *p)
{
    if (p->upload && p->layout.inputs) {
        qn_range dst = { p->inputs, 0, p->layout.inputs }, src = { p->upload, 0, p->layout.inputs };
        QN_TRY(qn_stream_mark(p->stream, "inputs"));
        QN_TRY(qn_stream_copy(p->stream, dst, src));
    }
    for (size_t i = 0; p->poison && i < p->arena_count; i++)
        QN_TRY(qn_stream_fill(p->stream, (qn_range){ .buffer = p->arena[i] }, POISON));
    return QN_OK;
}

static qn_result record_outputs(qn_plan *p)
{
    if (!p->readback) return QN_OK;
    QN_TRY(qn_stream_mark(p->stream, "outputs"));
    for (size_t i = 0; i < p->output_count; i++) {
        qn_range src = range_of(p, p->outputs[i]);
        qn_range dst = { p->readback, p->readback_at[i], src.size };
        QN_TRY(qn_stream_copy(p->stream, dst, src));
    }
    return QN_OK;
}

static qn_result record(qn_plan *p)
{
    const qn_device_info *dev = qn_device_describe(p->dev);
    qn_stream_destroy(&p->stream);
    QN_TRY(qn_stream_create(p->dev, &(qn_stream_opts){ .profile = p->profile }, &p->stream));
    QN_TRY(record_inputs(p));
    double pending = 0;
    p->time_count = 0;
    p->stats.flops = p->stats.traffic = 0;
    for (int i = 0; i < p->layout.step_count; i++) {
        const qn_node *n = &p->layout.steps[i]->n;
        qn_cost c = cost_of(n);
        double seconds = estimated_seconds(dev, c) * p->slowness;
        if (pending > 0 && pending + seconds > p->submit_seconds) {
            QN_TRY(qn_stream_cut(p->stream));
            pending = 0;
        }
        pending += seconds;
        qn_recorder rec = { p, p->stream, n };
        QN_TRY(qn_stream_mark(p->stream, n->name));
        QN_TRY(n->op->record(&rec, n));
        p->times[p->time_count++] = (qn_node_time){
            .op = n->op->name, .name = n->name, .shape = n->out[0]->shape, .flops = c.flops, .bytes = c.bytes,
        };
        p->stats.flops += c.flops;
        p->stats.traffic += c.bytes;
    }
    QN_TRY(record_outputs(p));
    qn_stream_stats s = qn_stream_describe(p->stream);
    p->stats.dispatches = s.dispatches;
    p->stats.barriers = s.barriers;
    p->stats.submissions = s.submissions;
    p->recordings++;
    return QN_OK;
}

static qn_result take_arena(qn_plan *p)
{
    if (!p->layout.arena) return QN_OK;
    const size_t count = (size_t)((p->layout.arena + p->chunk - 1) / p->chunk);
    p->arena = qn_calloc(count, sizeof *p->arena);
    if (!p->arena) return qn_no_memory(count * sizeof *p->arena);
    while (p->arena_count < count) {
        uint64_t left = p->layout.arena - p->arena_count * p->chunk;
        qn_buffer_opts opts = { .size = left < p->chunk ? left : p->chunk, .name = "plan arena" };
        QN_TRY(qn_buffer_create(p->dev, &opts, &p->arena[p->arena_count]));
        p->arena_count++;
    }
    return QN_OK;
}

static char *input_memory(const qn_plan *p)
{
    return qn_buffer_map(p->upload ? p->upload : p->inputs);
}

static qn_result take_inputs(qn_plan *p)
{
    if (!p->layout.inputs) return QN_OK;
    qn_buffer_opts opts = { .size = p->layout.inputs, .name = "plan inputs" };
    QN_TRY(qn_buffer_create(p->dev, &opts, &p->inputs));
    if (!qn_buffer_map(p->inputs)) {
        opts.memory = QN_MEMORY_UPLOAD;
        QN_TRY(qn_buffer_create(p->dev, &opts, &p->upload));
    }
    for (size_t i = 0; i < p->g->tensor_count; i++) {
        const tensor_impl *t = p->g->tensors[i];
        const qn_home *s = qn_layout_find(&p->layout, &t->t);
        if (s && t->leaf == LEAF_CONSTANT)
            memcpy(input_memory(p) + s->offset, t->data, tensor_bytes(&t->t));
    }
    return QN_OK;
}

// Output memory that the host cannot see is copied where it can.
static qn_result take_readback(qn_plan *p)
{
    uint64_t size = 0;
    bool needed = false;
    for (size_t i = 0; i < p->output_count; i++) {
        qn_range r = range_of(p, p->outputs[i]);
        p->readback_at[i] = size;
        size += (r.size + QN_RANGE_ALIGN - 1) / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
        needed |= !qn_buffer_map(r.buffer);
    }
    if (!needed) return QN_OK;
    qn_buffer_opts opts = { .size = size, .memory = QN_MEMORY_READBACK, .name = "plan outputs" };
    return qn_buffer_create(p->dev, &opts, &p->readback);
}

static qn_result check_outputs(qn_graph *g, const qn_plan_opts *opts)
{
    QN_TRY(qn_graph_status(g));
    for (size_t i = 0; i < opts->output_count; i++)
        if (!opts->outputs[i])
            return qn_fail(QN_ERR_INVALID, "output %zu of the plan is NULL", i);
    return QN_OK;
}

static uint64_t chunk_size(const qn_graph *g)
{
    uint64_t chunk = qn_device_describe(g->dev)->max_allocation;
    const uint64_t most = (uint64_t)4 << 30; // offsets within a binding stay in 32 bits
    return (chunk < most ? chunk : most) / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
}

static void fill_stats(qn_plan_stats *stats, const qn_layout *l)
{
    stats->arena = l->arena;
    stats->unshared = l->unshared;
    stats->nodes = (uint32_t)l->step_count;
}

qn_result qn_plan_estimate(qn_graph *g, const qn_plan_opts *opts, qn_plan_stats *out)
{
    static const qn_plan_opts none;
    if (!opts) opts = &none;
    QN_TRY(check_outputs(g, opts));
    qn_layout l;
    QN_TRY(qn_layout_make(g, opts, chunk_size(g), &l));
    qn_plan_stats s = { 0 };
    fill_stats(&s, &l);
    for (int i = 0; i < l.step_count; i++) {
        qn_cost c = cost_of(&l.steps[i]->n);
        s.flops += c.flops;
        s.traffic += c.bytes;
    }
    qn_layout_free(&l);
    *out = s;
    return QN_OK;
}

static qn_result fill_plan(qn_plan *p, qn_graph *g, const qn_plan_opts *opts)
{
    QN_TRY(qn_layout_make(g, opts, p->chunk, &p->layout));
    fill_stats(&p->stats, &p->layout);
    p->output_count = opts->output_count;
    p->outputs = qn_calloc(opts->output_count, sizeof *p->outputs);
    p->readback_at = qn_calloc(opts->output_count, sizeof *p->readback_at);
    p->input_set = qn_calloc(g->tensor_count, sizeof *p->input_set);
    p->times = qn_calloc((size_t)p->layout.step_count, sizeof *p->times);
    if (!p->outputs || !p->readback_at || !p->input_set || !p->times)
        return qn_no_memory(g->tensor_count);
    if (opts->output_count)
        memcpy(p->outputs, opts->outputs, opts->output_count * sizeof *p->outputs);
    QN_TRY(take_arena(p));
    QN_TRY(take_inputs(p));
    QN_TRY(take_readback(p));
    return record(p);
}

qn_result qn_plan_create(qn_graph *g, const qn_plan_opts *opts, qn_plan **out)
{
    static const qn_plan_opts none;
    *out = NULL;
    if (!opts) opts = &none;
    QN_TRY(check_outputs(g, opts));
    qn_plan *p = qn_calloc(1, sizeof *p);
    if (!p) return qn_no_memory(sizeof *p);
    p->g = g;
    p->dev = g->dev;
    p->chunk = chunk_size(g);
    p->submit_seconds = opts->submit_seconds > 0 ? opts->submit_seconds : 0.05;
    p->slowness = 1;
    p->profile = opts->profile;
    p->poison = opts->poison;
    qn_result r = fill_plan(p, g, opts);
    if (r == QN_OK)
        *out = p;
    else
        qn_plan_destroy(&p);
    return r;
}

void qn_plan_destroy(qn_plan **plan)
{
    qn_plan *p = *plan;
    *plan = NULL;
    if (!p) return;
    qn_stream_destroy(&p->stream);
    for (size_t i = 0; i < p->arena_count; i++) qn_buffer_destroy(&p->arena[i]);
    qn_buffer_destroy(&p->inputs);
    qn_buffer_destroy(&p->upload);
    qn_buffer_destroy(&p->readback);
    qn_layout_free(&p->layout);
    qn_free(p->arena);
    qn_free(p->outputs);
    qn_free(p->readback_at);
    qn_free(p->input_set);
    qn_free(p->times);
    qn_free(p);
}

// Submissions that took much longer than estimated are recorded anew in smaller pieces. The first
// run does not count: drivers compile during it.
static qn_result resplit(qn_plan *p)
{
    enum { MOST_RECORDINGS = 4 };
    double longest = qn_stream_describe(p->stream).longest;
    if (p->recordings >= MOST_RECORDINGS || longest < 10 * p->submit_seconds ||
        p->stats.submissions >= p->stats.dispatches)
        return QN_OK;
    p->slowness *= longest / p->submit_seconds;
    return record(p);
}

qn_result qn_plan_wait(qn_plan *p)
{
    if (!p->running) return qn_device_status(p->dev);
    p->running = false;
    return qn_stream_wait(p->stream, UINT64_MAX);
}

qn_result qn_plan_set(qn_plan *p, const qn_tensor *input, const void *data, uint64_t size)
{
    const qn_home *s = qn_layout_find(&p->layout, input);
    if (impl(input)->leaf != LEAF_INPUT)
        return qn_fail(QN_ERR_INVALID, "%s is not an input", input->name);
    if (size != tensor_bytes(input))
        return qn_fail(QN_ERR_INVALID, "input %s has %llu bytes, %llu were given", input->name,
                       (unsigned long long)tensor_bytes(input), (unsigned long long)size);
    p->input_set[impl(input)->id] = true;
    if (!s) return QN_OK; // nothing that runs reads it
    QN_TRY(qn_plan_wait(p));
    double start = qn_clock();
    memcpy(input_memory(p) + s->offset, data, size);
    p->stats.host_seconds += qn_clock() - start;
    return QN_OK;
}

static qn_result check_inputs(const qn_plan *p)
{
    for (size_t i = 0; i < p->g->tensor_count; i++) {
        const tensor_impl *t = p->g->tensors[i];
        if (t->leaf == LEAF_INPUT && !p->input_set[i] && qn_layout_find(&p->layout, &t->t))
            return qn_fail(QN_ERR_INVALID, "input %s was never set", t->t.name);
    }
    return QN_OK;
}

qn_result qn_plan_run(qn_plan *p)
{
    QN_TRY(check_inputs(p));
    QN_TRY(qn_plan_wait(p));
    QN_TRY(resplit(p));
    double start = qn_clock();
    QN_TRY(qn_stream_submit(p->stream));
    p->running = true;
    p->stats.host_seconds = qn_clock() - start;
    return QN_OK;
}

qn_result qn_plan_get(qn_plan *p, const qn_tensor *output, void *data, uint64_t size)
{
    size_t i = 0;
    while (i < p->output_count && p->outputs[i] != output) i++;
    if (i == p->output_count)
        return qn_fail(QN_ERR_INVALID, "%s is not an output of the plan", output->name);
    if (size != tensor_bytes(output))
        return qn_fail(QN_ERR_INVALID, "output %s has %llu bytes, %llu were wanted", output->name,
                       (unsigned long long)tensor_bytes(output), (unsigned long long)size);
    QN_TRY(qn_plan_wait(p));
    qn_range r = range_of(p, output);
    const char *from = p->readback ? (char *)qn_buffer_map(p->readback) + p->readback_at[i]
                                   : (char *)qn_buffer_map(r.buffer) + r.offset;
    memcpy(data, from, size);
    return QN_OK;
}

qn_plan_stats qn_plan_describe(const qn_plan *p)
{
    return p->stats;
}

qn_result qn_plan_profile(qn_plan *p, qn_node_time *out, size_t capacity, size_t *count)
{
    if (!p->profile) return qn_fail(QN_ERR_INVALID, "the plan was not made for profiling");
    QN_TRY(qn_plan_wait(p));
    size_t spans = 0;
    QN_TRY(qn_stream_timings(p->stream, NULL, 0, &spans));
    qn_span *span = qn_calloc(spans, sizeof *span);
    if (!span) return qn_no_memory(spans * sizeof *span);
    qn_result r = qn_stream_timings(p->stream, span, spans, &spans);
    // Spans follow the nodes in order; a node that recorded nothing may have none.
    for (size_t i = 0, s = 0; r == QN_OK && i < p->time_count; i++) {
        p->times[i].seconds = 0;
        size_t at = s;
        while (at < spans && span[at].label != p->times[i].name) at++;
        if (at == spans) continue;
        for (s = at; s < spans && span[s].label == p->times[i].name; s++)
            p->times[i].seconds += span[s].seconds;
    }
    qn_free(span);
    *count = p->time_count;
    size_t n = capacity < p->time_count ? capacity : p->time_count;
    if (r == QN_OK && n) memcpy(out, p->times, n * sizeof *out);
    return r;
}

static qn_result check_guard(const qn_plan *p, const qn_node *n, const qn_home *s)
{
    const uint64_t guard = p->layout.guard;
    qn_buffer *buffer = p->arena[s->offset / p->chunk];
    uint64_t at = s->offset % p->chunk, end = (at + s->size + 3) / 4 * 4;
    uint32_t words[2 * QN_RANGE_ALIGN / 4];
    QN_TRY(qn_buffer_read(buffer, at - guard, words, guard));
    QN_TRY(qn_buffer_read(buffer, end, words + guard / 4, guard - (end - at - s->size)));
    uint64_t count = guard / 4 + (guard - (end - at - s->size)) / 4;
    for (uint64_t i = 0; i < count; i++)
        if (words[i] != POISON)
            return qn_fail(QN_ERR_INVALID, "%s wrote %s its tensor (word %lld is %08x)", n->name,
                           i < guard / 4 ? "before" : "behind",
                           (long long)i - (long long)(guard / 4), words[i]);
    return QN_OK;
}

qn_result qn_plan_guards(qn_plan *p)
{
    if (!p->poison) return qn_fail(QN_ERR_INVALID, "the plan was not made with guards");
    QN_TRY(qn_plan_wait(p));
    for (int i = 0; i < p->layout.step_count; i++) {
        const qn_node *n = &p->layout.steps[i]->n;
        for (int o = 0; o < n->outputs; o++) {
            const qn_home *s = qn_layout_find(&p->layout, n->out[o]);
            if (s && s->place == QN_PLACE_ARENA) QN_TRY(check_guard(p, n, s));
        }
    }
    return QN_OK;
}
