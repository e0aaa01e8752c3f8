// Builds a case as a graph in one of several ways, plans it and runs it twice.
#include "run_impl.h"

#include <string.h>

enum { STORE_GUARD = 64 };                    // words on either side of a stored input
static const uint32_t guard_word = 0x7fc0beefu; // a NaN of our own

// One execution in progress.
struct run_session {
    run_job *j;
    const run_variant *v;
    qn_device *dev;
    qn_graph *g;
    qn_plan *plan;
    qn_store *store[QN_CASE_INPUTS];        // NULL: the input is not stored
    const qn_tensor *leaf[QN_CASE_INPUTS];
    const qn_tensor *out[QN_CASE_OUTPUTS];
    const qn_tensor *weight[QN_CASE_OUTPUTS]; // leaves; NULL: not in the objective
    const qn_tensor *grad[QN_CASE_INPUTS];    // NULL: none
    run_result *res;
};
typedef struct run_session session;

// ----------------------------------------------------------------------------------- leaves

static const char *guard_names[] = { "guard before", "guard behind" };

static qn_result write_stores(session *s)
{
    uint32_t words[STORE_GUARD];
    for (int i = 0; i < STORE_GUARD; i++) words[i] = guard_word;
    for (int i = 0; i < s->j->c->inputs; i++) {
        if (!s->store[i]) continue;
        QN_TRY(qn_store_write(s->store[i], s->j->c->in[i].name, s->j->bytes[i], s->j->size[i]));
        for (int k = 0; k < 2; k++)
            QN_TRY(qn_store_write(s->store[i], guard_names[k], words, sizeof words));
    }
    return QN_OK;
}

static qn_result check_store_guards(session *s, int i)
{
    uint32_t words[STORE_GUARD];
    for (int k = 0; k < 2; k++) {
        QN_TRY(qn_store_read(s->store[i], guard_names[k], words, sizeof words));
        for (int w = 0; w < STORE_GUARD; w++) {
            if (words[w] == guard_word) continue;
            run_fault(s->j, "%s: stored input %s: the %s it holds %08x at word %d", s->v->what,
                      s->j->c->in[i].name, guard_names[k], words[w], w);
            return QN_OK;
        }
    }
    return QN_OK;
}

static qn_result make_stores(session *s)
{
    for (int i = 0; i < s->j->c->inputs; i++) {
        const qn_case_input *in = &s->j->c->in[i];
        if (!in->stored) continue;
        QN_TRY(qn_store_create(s->dev, in->name, &s->store[i]));
        QN_TRY(qn_store_add(s->store[i], guard_names[0], QN_I32, QN_SHAPE(STORE_GUARD)));
        QN_TRY(qn_store_add(s->store[i], in->name, in->dtype, in->shape));
        QN_TRY(qn_store_add(s->store[i], guard_names[1], QN_I32, QN_SHAPE(STORE_GUARD)));
        QN_TRY(qn_store_allocate(s->store[i]));
    }
    return QN_OK;
}

// What build() gets. Indirect inputs are the leaf times one: the same values (a negative zero
// becomes a positive one), in memory that dies with its last use.
static void make_leaves(session *s, const qn_tensor *given[QN_CASE_INPUTS])
{
    for (int i = 0; i < s->j->c->inputs; i++) {
        const qn_case_input *in = &s->j->c->in[i];
        bool grad = s->v->backward && in->grad;
        if (in->stored) {
            s->leaf[i] = grad ? qn_param(s->g, s->store[i], in->name)
                              : qn_frozen(s->g, s->store[i], in->name);
        } else {
            s->leaf[i] = qn_input(s->g, in->name, in->dtype, in->shape);
            if (grad) qn_wants_grad(s->leaf[i]);
        }
        bool wrap = s->v->indirect && !in->stored && in->dtype == QN_F32;
        given[i] = wrap ? qn_scale(s->g, s->leaf[i], 1, 0) : s->leaf[i];
    }
}

// -------------------------------------------------------------------------------- objective

// sum over the outputs of sum(weight * output), with random weights.
static qn_result add_objective(session *s)
{
    const qn_tensor *loss = NULL;
    qn_graph_scope(s->g, RUN_OBJECTIVE);
    for (int o = 0; o < s->res->outputs; o++) {
        const qn_tensor *out = s->out[o];
        bool counts = out->dtype == QN_F32 && out->needs_grad && !(s->j->c->no_grad_out >> o & 1);
        if (!counts) continue;
        char name[16];
        snprintf(name, sizeof name, "weight%d", o);
        s->weight[o] = qn_input(s->g, name, QN_F32, out->shape);
        const qn_tensor *part = qn_sum_all(s->g, qn_mul(s->g, out, s->weight[o]));
        loss = loss ? qn_add(s->g, loss, part) : part;
    }
    qn_graph_scope(s->g, NULL);
    QN_TRY(qn_graph_status(s->g));
    if (!loss)
        return qn_fail(QN_ERR_INVALID, "no f32 output depends on an input marked for a gradient");

    const qn_tensor *wrt[QN_CASE_INPUTS], *grads[QN_CASE_INPUTS] = { 0 };
    int which[QN_CASE_INPUTS], count = 0;
    for (int i = 0; i < s->j->c->inputs; i++) {
        if (!s->j->c->in[i].grad) continue;
        which[count] = i;
        wrt[count++] = s->leaf[i];
    }
    QN_TRY(qn_backward(s->g, loss, NULL, wrt, (size_t)count, grads));
    for (int k = 0; k < count; k++) s->grad[which[k]] = grads[k];
    return QN_OK;
}

static qn_result make_graph(session *s)
{
    QN_TRY(qn_graph_create(s->dev, &s->g));
    const qn_tensor *given[QN_CASE_INPUTS] = { 0 };
    make_leaves(s, given);
    QN_TRY(qn_graph_status(s->g));
    s->res->outputs = s->j->c->build(s->g, s->j->c, given, s->out);
    QN_TRY(qn_graph_status(s->g));
    if (s->res->outputs < 1 || s->res->outputs > QN_CASE_OUTPUTS)
        return qn_fail(QN_ERR_INVALID, "the case has %d outputs", s->res->outputs);
    return s->v->backward ? add_objective(s) : QN_OK;
}

static qn_result make_plan(session *s)
{
    const qn_tensor *kept[2 * QN_CASE_INPUTS + QN_CASE_OUTPUTS];
    size_t count = 0;
    for (int o = 0; o < s->res->outputs; o++) kept[count++] = s->out[o];
    for (int i = 0; i < s->j->c->inputs; i++) {
        if (s->grad[i]) kept[count++] = s->grad[i];
        if (!s->store[i]) kept[count++] = s->leaf[i]; // to see whether it changed
    }
    qn_plan_opts opts = {
        .outputs = kept,
        .output_count = count,
        .poison = s->v->poison,
        .no_inplace = s->v->no_inplace,
        .profile = s->v->profile,
    };
    return qn_plan_create(s->g, &opts, &s->plan);
}

// -------------------------------------------------------------------------------- execution

static qn_result set_inputs(session *s)
{
    for (int i = 0; i < s->j->c->inputs; i++)
        if (!s->store[i])
            QN_TRY(qn_plan_set(s->plan, s->leaf[i], s->j->bytes[i], s->j->size[i]));
    for (int o = 0; o < s->res->outputs; o++) {
        if (!s->weight[o]) continue;
        uint64_t count = (uint64_t)qn_shape_count(s->weight[o]->shape);
        double *r = qn_arena_alloc(&s->j->arena, count * sizeof *r);
        float *f = qn_arena_alloc(&s->j->arena, count * sizeof *f);
        if (!r || !f) return qn_no_memory(count * sizeof *r);
        uint64_t key = run_key(s->j->op, s->j->c->name, s->weight[o]->name);
        for (uint64_t i = 0; i < count; i++) r[i] = run_normal(key, i);
        run_encode(QN_F32, r, f, (int64_t)count);
        s->res->weight[o] = r;
        QN_TRY(qn_plan_set(s->plan, s->weight[o], f, count * sizeof *f));
    }
    return QN_OK;
}

static qn_result fetch(session *s, const qn_tensor *t, run_value *out)
{
    uint64_t size = qn_dtype_bytes(t->dtype, (uint64_t)qn_shape_count(t->shape));
    *out = (run_value){ .dtype = t->dtype, .shape = t->shape, .size = size };
    out->bytes = qn_arena_alloc(&s->j->arena, size);
    if (!out->bytes) return qn_no_memory(size);
    return qn_plan_get(s->plan, t, out->bytes, size);
}

static qn_result check_input(session *s, int i)
{
    run_value now;
    QN_TRY(fetch(s, s->leaf[i], &now));
    if (memcmp(now.bytes, s->j->bytes[i], now.size) != 0)
        run_fault(s->j, "%s: input %s was changed by the run", s->v->what, s->j->c->in[i].name);
    return QN_OK;
}

static qn_result fetch_stored(session *s, int i, run_value *out)
{
    const qn_case_input *in = &s->j->c->in[i];
    *out = (run_value){ .dtype = in->dtype, .shape = in->shape, .size = s->j->size[i] };
    out->bytes = qn_arena_alloc(&s->j->arena, out->size);
    if (!out->bytes) return qn_no_memory(out->size);
    QN_TRY(qn_store_read(s->store[i], in->name, out->bytes, out->size));
    return check_store_guards(s, i);
}

static qn_result run_once(session *s, run_result *res)
{
    QN_TRY(write_stores(s));
    QN_TRY(qn_plan_run(s->plan));
    QN_TRY(qn_plan_wait(s->plan));
    for (int o = 0; o < res->outputs; o++) QN_TRY(fetch(s, s->out[o], &res->out[o]));
    for (int i = 0; i < s->j->c->inputs; i++) {
        if (s->grad[i]) QN_TRY(fetch(s, s->grad[i], &res->grad[i]));
        if (s->store[i])
            QN_TRY(fetch_stored(s, i, &res->stored[i]));
        else
            QN_TRY(check_input(s, i));
    }
    return s->v->poison ? qn_plan_guards(s->plan) : QN_OK;
}

static void close_session(session *s)
{
    qn_plan_destroy(&s->plan);
    qn_graph_destroy(&s->g);
    for (int i = 0; i < QN_CASE_INPUTS; i++) qn_store_destroy(&s->store[i]);
}

qn_result run_open(run_job *j, qn_device *dev, const run_variant *v, run_result *res,
                   run_session **out)
{
    *res = (run_result){ 0 };
    session *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    *s = (session){ .j = j, .v = v, .dev = dev, .res = res };
    qn_result r = make_stores(s);
    if (r == QN_OK) r = make_graph(s);
    if (r == QN_OK) r = make_plan(s);
    if (r == QN_OK) r = set_inputs(s);
    if (r == QN_OK) r = write_stores(s);
    *out = s;
    if (r != QN_OK) run_close(out);
    return r;
}

qn_plan *run_plan(run_session *s)
{
    return s->plan;
}

void run_close(run_session **s)
{
    if (*s) close_session(*s);
    qn_free(*s);
    *s = NULL;
}

bool run_execute(run_job *j, qn_device *dev, const run_variant *v, run_result *out)
{
    *out = (run_result){ 0 };
    session s = { .j = j, .v = v, .dev = dev, .res = out };
    run_result again;
    qn_result r = make_stores(&s);
    if (r == QN_OK) r = make_graph(&s);
    if (r == QN_OK) r = make_plan(&s);
    if (r == QN_OK) r = set_inputs(&s);
    if (r == QN_OK) r = run_once(&s, out);
    if (r == QN_OK) {
        // Inputs are not set again: they must have survived.
        again = *out;
        r = run_once(&s, &again);
    }
    if (r == QN_OK) {
        char what[96];
        snprintf(what, sizeof what, "%s: second run", v->what);
        run_same_bits(j, what, out, &again);
    } else {
        run_fault_call(j, r, v->what);
    }
    close_session(&s);
    return r == QN_OK;
}

// ------------------------------------------------------------------------------- comparison

static void same_value(run_job *j, const char *what, const char *kind, const char *name,
                       const run_value *a, const run_value *b)
{
    if (!a->bytes || !b->bytes) {
        if (a->bytes != b->bytes) run_fault(j, "%s: %s%s exists only once", what, kind, name);
        return;
    }
    if (a->dtype != b->dtype || a->size != b->size) {
        run_fault(j, "%s: %s%s has another type", what, kind, name);
        return;
    }
    uint32_t width = qn_dtype_size(a->dtype);
    for (uint64_t at = 0; at < a->size; at += width) {
        const char *x = (const char *)a->bytes + at, *y = (const char *)b->bytes + at;
        if (memcmp(x, y, width) == 0) continue;
        double u, w;
        run_decode(a->dtype, x, &u, 1);
        run_decode(b->dtype, y, &w, 1);
        run_fault(j, "%s: %s%s[%llu] is %.9g, not %.9g", what, kind, name,
                  (unsigned long long)(at / width), w, u);
        return;
    }
}

void run_same_bits(run_job *j, const char *what, const run_result *a, const run_result *b)
{
    for (int o = 0; o < a->outputs; o++) {
        char name[8];
        snprintf(name, sizeof name, "%d", o);
        same_value(j, what, "out", name, &a->out[o], &b->out[o]);
    }
    for (int i = 0; i < j->c->inputs; i++) {
        same_value(j, what, "grad ", j->c->in[i].name, &a->grad[i], &b->grad[i]);
        same_value(j, what, "stored ", j->c->in[i].name, &a->stored[i], &b->stored[i]);
    }
}
