// The operations of the test cases, and those of a training step, timed.
#include "bench/ops.h"

#include "bench/check.h"
#include "llm/trainer.h"

#include <string.h>

static bool wanted(const qn_bench_ops_opts *opts, const char *op)
{
    for (size_t i = 0; i < opts->op_count; i++)
        if (!strcmp(opts->ops[i], op)) return true;
    return !opts->op_count;
}

bool qn_bench_wants(const qn_bench_ops_opts *opts, const char *name)
{
    for (size_t i = 0; i < opts->filter_count; i++)
        if (strstr(name, opts->filters[i])) return true;
    return !opts->filter_count;
}

qn_result qn_bench_cases(qn_device *dev, const qn_bench_ops_opts *opts, qn_bench_log *log)
{
    QN_TRY(qn_check_known(opts->ops, opts->op_count));
    for (const qn_check_suite *s = qn_check_suites(); s->op; s++)
        if (s->time && wanted(opts, s->op))
            QN_TRY(qn_context_add(s->time(s, dev, opts, log), "timing %s", s->op));
    return QN_OK;
}

// ------------------------------------------------------------------------------ a training step

// Nodes of one operation, result shape and phase.
typedef struct group {
    const char *op, *phase;
    qn_shape shape;
    double flops, bytes;
    size_t nodes;
} group;

typedef struct step_job {
    qn_trainer *trainer;
    int32_t *ids, *labels;
    int64_t step;
    qn_node_time *nodes; // room for one plan
    size_t room;
    group *groups;
    size_t count, capacity;
} step_job;

static const char *phase_of(const qn_node_time *n, bool optimiser)
{
    return optimiser ? "optimiser" : strncmp(n->name, "d(", 2) == 0 ? "backward" : "forward";
}

static qn_result group_of(step_job *j, const qn_node_time *n, bool optimiser, size_t *out)
{
    const char *phase = phase_of(n, optimiser);
    for (size_t i = 0; i < j->count; i++) {
        const group *g = &j->groups[i];
        if (!strcmp(g->op, n->op) && g->phase == phase && qn_shape_equal(g->shape, n->shape)) {
            *out = i;
            return QN_OK;
        }
    }
    QN_TRY(qn_grow((void **)&j->groups, &j->capacity, j->count + 1, sizeof *j->groups));
    *out = j->count;
    j->groups[j->count++] = (group){ .op = n->op, .phase = phase, .shape = n->shape };
    return QN_OK;
}

static qn_result profile(step_job *j, bool optimiser, size_t *count)
{
    qn_plan *plan = qn_trainer_plan(j->trainer, optimiser);
    QN_TRY(qn_plan_profile(plan, NULL, 0, count));
    QN_TRY(qn_grow((void **)&j->nodes, &j->room, *count, sizeof *j->nodes));
    return qn_plan_profile(plan, j->nodes, *count, count);
}

static qn_result find_groups(step_job *j)
{
    for (int optimiser = 0; optimiser < 2; optimiser++) {
        size_t count, at;
        QN_TRY(profile(j, optimiser, &count));
        for (size_t i = 0; i < count; i++) {
            QN_TRY(group_of(j, &j->nodes[i], optimiser, &at));
            group *g = &j->groups[at];
            g->flops += (double)j->nodes[i].flops;
            g->bytes += (double)j->nodes[i].bytes;
            g->nodes++;
        }
    }
    return QN_OK;
}

// The groups' seconds, then the step's: of kernels and of the clock on the wall.
static qn_result run_step(void *user, double *seconds)
{
    step_job *j = user;
    qn_step_report report;
    QN_TRY(qn_trainer_step(j->trainer, ++j->step, 1e-4, j->ids, j->labels, &report));
    for (size_t i = 0; i < j->count + 2; i++) seconds[i] = 0;
    for (int optimiser = 0; optimiser < 2; optimiser++) {
        size_t count, at;
        QN_TRY(profile(j, optimiser, &count));
        for (size_t i = 0; i < count; i++) {
            QN_TRY(group_of(j, &j->nodes[i], optimiser, &at));
            seconds[at] += j->nodes[i].seconds;
            seconds[j->count] += j->nodes[i].seconds;
        }
    }
    seconds[j->count + 1] = report.seconds;
    return QN_OK;
}

static qn_result add_groups(const step_job *j, const qn_times *times,
                            const qn_bench_model_opts *model, const qn_bench_ops_opts *opts,
                            qn_bench_log *log)
{
    for (size_t i = 0; i < j->count; i++) {
        const group *g = &j->groups[i];
        if (!wanted(opts, g->op) || (!(g->flops > 0) && !(g->bytes > 0))) continue; // views
        char variant[96], shape[96];
        snprintf(variant, sizeof variant, "%s of %s", g->phase, model->preset);
        qn_shape_format(g->shape, shape);
        qn_bench_record r = qn_bench_record_start("ops", g->op, variant, shape);
        snprintf(r.note, sizeof r.note, "%zu a step", g->nodes);
        qn_bench_judge(&r, &times[i], g->flops, g->bytes, model->peaks);
        QN_TRY(qn_bench_log_add(log, &r));
    }
    return QN_OK;
}

static qn_result add_step(const step_job *j, const qn_times *times,
                          const qn_bench_model_opts *model, qn_bench_log *log)
{
    char shape[96], variant[96];
    snprintf(shape, sizeof shape, "%lldx%lld", (long long)model->batch,
             (long long)model->positions);
    snprintf(variant, sizeof variant, "training step of %s", model->preset);
    qn_bench_record r = qn_bench_record_start("ops", "step", variant, shape);
    double flops = 0, bytes = 0;
    for (size_t i = 0; i < j->count; i++) flops += j->groups[i].flops, bytes += j->groups[i].bytes;
    const double kernels = times[j->count].median, wall = times[j->count + 1].median;
    snprintf(r.note, sizeof r.note, "kernels %.3f ms, beside them %.1f %%", 1e3 * kernels,
             100 * (wall - kernels) / wall);
    qn_bench_judge(&r, &times[j->count + 1], flops, bytes, model->peaks);
    r.tokens_per_s = (double)(model->batch * model->positions) / wall;
    QN_TRY(qn_bench_log_add(log, &r));
    r = qn_bench_record_start("ops", "kernels", variant, shape);
    snprintf(r.note, sizeof r.note, "all nodes of the step");
    qn_bench_judge(&r, &times[j->count], flops, bytes, model->peaks);
    return qn_bench_log_add(log, &r);
}

static qn_result measure_step(step_job *j, const qn_bench_model_opts *model,
                              const qn_bench_ops_opts *opts, qn_bench_log *log)
{
    qn_step_report report;
    QN_TRY(qn_trainer_step(j->trainer, ++j->step, 1e-4, j->ids, j->labels, &report)); // compiles
    QN_TRY(find_groups(j));
    qn_times *times = qn_calloc(j->count + 2, sizeof *times);
    if (!times) return qn_no_memory(j->count * sizeof *times);
    qn_result r = qn_measure_parts(&model->measure, run_step, j, j->count + 2, times);
    if (r == QN_OK) r = add_groups(j, times, model, opts, log);
    if (r == QN_OK) r = add_step(j, times, model, log);
    qn_free(times);
    return r;
}

static qn_result make_ids(step_job *j, const qn_bench_model_opts *model)
{
    const size_t count = (size_t)(model->batch * model->positions);
    j->ids = qn_calloc(count, sizeof *j->ids);
    j->labels = qn_calloc(count, sizeof *j->labels);
    if (!j->ids || !j->labels) return qn_no_memory(count * sizeof *j->ids);
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        j->ids[i] = (int32_t)((state >> 8) % (uint32_t)model->vocab);
        j->labels[i] = (int32_t)((state >> 12) % (uint32_t)model->vocab);
    }
    return QN_OK;
}

qn_result qn_bench_step_ops(qn_device *dev, const qn_bench_model_opts *model,
                            const qn_bench_ops_opts *opts, qn_bench_log *log)
{
    qn_model_config c;
    step_job j = { 0 };
    QN_TRY(qn_model_preset(model->preset, model->vocab, &c));
    const qn_trainer_opts trainer = {
        .batch = model->batch,
        .positions = model->positions,
        .weights = model->weights,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .clip = 1,
        .profile = true,
        .seed = 1,
    };
    qn_result r = qn_trainer_create(dev, &c, &trainer, &j.trainer);
    if (r == QN_OK) r = qn_model_initialise(&c, qn_trainer_weights(j.trainer), 1, false);
    if (r == QN_OK) r = make_ids(&j, model);
    if (r == QN_OK) r = measure_step(&j, model, opts, log);
    qn_trainer_destroy(&j.trainer);
    qn_free(j.ids);
    qn_free(j.labels);
    qn_free(j.nodes);
    qn_free(j.groups);
    return qn_context_add(r, "a training step of %s", model->preset);
}
