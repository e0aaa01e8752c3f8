// Replaying bricks.json.
#include "golden_analysis.h"
#include "align.h"
#include "factor.h"
#include "fail.h"
#include "groups.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"
#include "score.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// One part: its file opened, memory that goes with it.
typedef struct part {
    qn_golden_case c;
    qn_json json;
    qn_arena mem;
    qn_result status; // the first failure of the readers below
} part;

bool qn_golden_bricks_matches(const char *dir)
{
    char *path = qn_path_join(dir, "bricks.json");
    bool found = path && qn_file_exists(path);
    qn_free(path);
    return found;
}

static const qn_safetensor *find(part *p, const char *name, int rank)
{
    const qn_safetensor *t = qn_safetensors_find(p->c.io, name);
    if (p->status != QN_OK) return NULL;
    if (t && t->rank == rank && t->count) return t;
    p->status = qn_fail(QN_ERR_FORMAT, "tensor %s: expected %d dimensions", name, rank);
    return NULL;
}

static size_t dim(part *p, const char *name, int rank, int at)
{
    const qn_safetensor *t = find(p, name, rank);
    return t ? (size_t)t->dim[at] : 0;
}

// Values of a tensor with `count` elements, as long as the part; NULL after a failure.
static float *floats(part *p, const char *name, size_t count)
{
    float *x = NULL, *copy = NULL;
    if (p->status == QN_OK) p->status = qn_golden_f32(&p->c, name, count, &x, NULL);
    if (p->status == QN_OK && !(copy = qn_arena_alloc(&p->mem, count * sizeof *copy)))
        p->status = qn_no_memory(count * sizeof *copy);
    if (copy) memcpy(copy, x, count * sizeof *copy);
    qn_free(x);
    return copy;
}

static int32_t *integers(part *p, const char *name, size_t count)
{
    int32_t *x = NULL, *copy = NULL;
    if (p->status == QN_OK) p->status = qn_golden_i32(&p->c, name, count, &x, NULL);
    if (p->status == QN_OK && !(copy = qn_arena_alloc(&p->mem, count * sizeof *copy)))
        p->status = qn_no_memory(count * sizeof *copy);
    if (copy) memcpy(copy, x, count * sizeof *copy);
    qn_free(x);
    return copy;
}

static void *room(part *p, size_t count, size_t size)
{
    void *x = p->status == QN_OK ? qn_arena_alloc(&p->mem, (count + 1) * size) : NULL;
    if (!x && p->status == QN_OK) p->status = qn_no_memory(count * size);
    return x;
}

static double number(part *p, const char *key)
{
    double x = 0;
    if (p->status == QN_OK) p->status = qn_json_number(p->json, key, -1e300, 1e300, &x);
    return x;
}

static size_t whole(part *p, const char *key, size_t most)
{
    int64_t x = 1;
    if (p->status == QN_OK) p->status = qn_json_int(p->json, key, 1, (int64_t)most, &x);
    return (size_t)x;
}

static qn_result try(part *p, qn_result r)
{
    if (p->status == QN_OK) p->status = r;
    return p->status;
}

// ------------------------------------------------------------------------------ analysis

typedef struct acts {
    size_t tokens, neurons, instances, functions;
    const float *a;
    const int32_t *lengths;
    uint8_t *labels;
    float *mean, *score;
} acts;

static void check_scores(part *p, acts *x)
{
    size_t at = 0;
    for (size_t i = 0; i < x->instances; i++) {
        const size_t n = (size_t)x->lengths[i];
        if (x->lengths[i] < 1 || at + n > x->tokens) {
            try(p, qn_fail(QN_ERR_FORMAT, "lengths do not add up to %zu tokens", x->tokens));
            return;
        }
        qn_score_mean(x->a + at * x->neurons, n, x->neurons, x->mean + i * x->neurons);
        at += n;
    }
    for (size_t f = 0; f < x->functions; f++)
        for (size_t n = 0; n < x->neurons; n++) {
            double score = 0;
            try(p, qn_score_precision(x->mean + n, x->neurons, x->labels + f, x->functions,
                                      x->instances, &score));
            x->score[f * x->neurons + n] = (float)score;
        }
    const double floor = 1; // these are absolute differences of numbers near 1
    try(p, qn_golden_compare(&p->c, "out.instance_mean", x->mean, x->instances * x->neurons, floor,
                             1e-6));
    try(p, qn_golden_compare(&p->c, "out.score", x->score, x->functions * x->neurons, floor, 1e-6));
}

static void check_masks(part *p, const acts *x)
{
    static const char *const kinds[] = { "activation", "magnitude" };
    const size_t d = dim(p, "w_out", 2, 0), n = x->neurons;
    const float *w = floats(p, "w_out", d * n);
    double *norm = room(p, n, sizeof *norm), *ind = room(p, n, sizeof *ind);
    uint8_t *mask = room(p, n, 1);
    int32_t *all = room(p, x->tokens * n, sizeof *all);
    const size_t masked = (size_t)(number(p, "mask_ratio") * (double)n);
    for (int kind = 0; p->status == QN_OK && kind < 2; kind++) {
        size_t below = 0;
        char name[64];
        qn_score_norms(w, d, n, norm);
        for (size_t t = 0; p->status == QN_OK && t < x->tokens; t++) {
            double most = 1e-30;
            qn_score_indicator(x->a + t * n, kind ? norm : NULL, n, ind);
            for (size_t i = 0; i < n; i++) most = ind[i] > most ? ind[i] : most;
            for (size_t i = 0; i < n; i++) below += ind[i] / most < 0.2;
            try(p, qn_score_lowest(ind, n, masked, mask));
            for (size_t i = 0; i < n; i++) all[t * n + i] = mask[i];
        }
        snprintf(name, sizeof name, "out.mask_%s", kinds[kind]);
        try(p, qn_golden_compare_int(&p->c, name, all, x->tokens * n));
        snprintf(name, sizeof name, "below_%s", kinds[kind]);
        qn_golden_bound(&p->c, name,
                        fabs((double)below / (double)(x->tokens * n) - number(p, name)), 1e-6);
    }
}

static void run_analysis(part *p)
{
    acts x = { .tokens = dim(p, "acts", 2, 0), .neurons = dim(p, "acts", 2, 1),
               .instances = dim(p, "labels", 2, 0), .functions = dim(p, "labels", 2, 1) };
    x.a = floats(p, "acts", x.tokens * x.neurons);
    x.lengths = integers(p, "lengths", x.instances);
    const int32_t *labels = integers(p, "labels", x.instances * x.functions);
    x.labels = room(p, x.instances * x.functions, 1);
    x.mean = room(p, x.instances * x.neurons, sizeof *x.mean);
    x.score = room(p, x.functions * x.neurons, sizeof *x.score);
    const double share = number(p, "top_fraction");
    const size_t count = qn_score_top_count(share, x.neurons), F = x.functions;
    int32_t *top = room(p, F * count, sizeof *top);
    float *overlap = room(p, F * F, sizeof *overlap);
    if (p->status != QN_OK) return;
    for (size_t i = 0; i < x.instances * F; i++) x.labels[i] = labels[i] != 0;
    check_scores(p, &x);
    if (p->status == QN_OK) check_masks(p, &x);
    for (size_t f = 0; p->status == QN_OK && f < F; f++)
        try(p, qn_score_top(x.score + f * x.neurons, x.neurons, count, top + f * count));
    for (size_t f = 0; p->status == QN_OK && f < F * F; f++)
        overlap[f] =
            (float)qn_score_overlap(top + f / F * count, top + f % F * count, count);
    if (p->status != QN_OK) return;
    try(p, qn_golden_compare_int(&p->c, "out.top", top, F * count));
    try(p, qn_golden_compare(&p->c, "out.overlap", overlap, F * F, 1, 1e-6));
}

// ------------------------------------------------------------------------------ partition

static void check_choices(part *p, const int32_t *labels, size_t n, size_t K)
{
    const size_t tokens = dim(p, "acts", 2, 0), m = whole(p, "select", K);
    const float *a = floats(p, "acts", tokens * n);
    double *score = room(p, K, sizeof *score), *pairs = room(p, n * n, sizeof *pairs), sum = 0;
    float *all = room(p, tokens * K, sizeof *all), *counts = room(p, n * n, sizeof *counts);
    uint8_t *on = room(p, tokens * n, 1);
    int32_t *chosen = room(p, K, sizeof *chosen);
    size_t live = 0;
    for (size_t t = 0; p->status == QN_OK && t < tokens; t++) {
        qn_groups_score(a + t * n, n, labels, K, score);
        try(p, qn_groups_choose(score, K, m, chosen));
        double total = 0, best = 0;
        for (size_t k = 0; k < K; k++) {
            total += score[k];
            all[t * K + k] = (float)score[k];
        }
        for (size_t k = 0; k < m; k++) best += score[chosen[k]];
        for (size_t i = 0; i < n; i++) on[t * n + i] = a[t * n + i] > 0;
        if (!(total > 0)) continue;
        sum += best / total;
        live++;
    }
    if (p->status != QN_OK) return;
    qn_groups_coactivation(on, tokens, n, pairs);
    for (size_t i = 0; i < n * n; i++) counts[i] = (float)pairs[i];
    try(p, qn_golden_compare(&p->c, "out.expert_score", all, tokens * K, 1e-30, 1e-6));
    try(p, qn_golden_compare(&p->c, "out.coactivation", counts, n * n, 1e-30, 1e-9));
    qn_golden_bound(&p->c, "captured_best",
                    fabs((live ? sum / (double)live : 0) - number(p, "captured_best")), 1e-6);
}

static void run_partition(part *p)
{
    const size_t n = dim(p, "w_in", 2, 0), d = dim(p, "w_in", 2, 1), K = whole(p, "experts", 4096);
    const float *w = floats(p, "w_in", n * d);
    const int32_t *given = integers(p, "labels", n);
    int32_t *labels = room(p, n, sizeof *labels), *size = room(p, K, sizeof *size);
    double *x = NULL, J = 0;
    if (p->status == QN_OK) try(p, qn_groups_features(w, n, d, &x));
    if (p->status == QN_OK)
        try(p, qn_groups_kmeans(x, n, d, &(qn_groups_opts){ .groups = K }, labels, &J));
    for (size_t i = 0; p->status == QN_OK && i < n; i++) {
        if (given[i] < 0 || (size_t)given[i] >= K) {
            try(p, qn_fail(QN_ERR_FORMAT, "labels: found %d of %zu groups", given[i], K));
            break;
        }
        size[labels[i]]++;
    }
    if (p->status == QN_OK) {
        const double best = number(p, "objective_labels");
        qn_golden_bound(&p->c, "objective_labels",
                        fabs(qn_groups_objective(x, n, d, given, K) - best) / best, 1e-6);
        double off = 0;
        for (size_t k = 0; k < K; k++) off += (size_t)size[k] != n / K;
        qn_golden_bound(&p->c, "group sizes", off, 0.5);
        const double ratio = J / number(p, "objective_best") - 1;
        qn_golden_bound(&p->c, "objective", ratio > 0 ? ratio : 0, number(p, "tol"));
        bool planted = false;
        try(p, qn_json_bool_or(p->json, "planted", false, &planted));
        double wrong = 0;
        for (size_t i = 0; planted && i < n; i++)
            for (size_t k = 0; k < n; k++)
                wrong += (labels[i] == labels[k]) != (given[i] == given[k]);
        qn_golden_bound(&p->c, "planted groups", wrong, 0.5);
    }
    qn_free(x);
    if (p->status == QN_OK && qn_safetensors_find(p->c.io, "acts")) check_choices(p, given, n, K);
}

// ------------------------------------------------------------------------------ experts

static void run_experts(part *p)
{
    const size_t E = dim(p, "w_in", 3, 0), d = dim(p, "w_in", 3, 1), h = dim(p, "w_in", 3, 2);
    const float *in = floats(p, "w_in", E * d * h), *out = floats(p, "w_out", E * d * h);
    const float *usage = floats(p, "usage", E), *dist = floats(p, "dist", E * E);
    const size_t groups = whole(p, "groups", E);
    int32_t *perm = room(p, h, sizeof *perm), *labels = room(p, E, sizeof *labels);
    double *wide = room(p, E * E, sizeof *wide), *weight = room(p, E, sizeof *weight);
    qn_expert *members = room(p, E, sizeof *members);
    float *got_in = room(p, d * h, sizeof *got_in), *got_out = room(p, d * h, sizeof *got_out);
    size_t count = 0;
    qn_json list = { 0 };
    if (p->status == QN_OK) try(p, qn_json_array(p->json, "members", &list));
    if (p->status != QN_OK) return;
    for (qn_json v = qn_json_first(list); v.node && count < E; v = qn_json_next(v)) {
        int64_t e = 0;
        if (try(p, qn_json_int(v, NULL, 0, (int64_t)E - 1, &e)) != QN_OK) return;
        members[count] = (qn_expert){ in + (size_t)e * d * h, out + (size_t)e * d * h };
        weight[count++] = (double)usage[e];
    }
    try(p, qn_align_units((qn_expert){ in, out }, (qn_expert){ in + d * h, out + d * h }, d, h,
                          perm));
    if (p->status == QN_OK) try(p, qn_golden_compare_int(&p->c, "out.perm_1_to_0", perm, h));
    for (int align = 0; p->status == QN_OK && align < 2; align++) {
        char name[64];
        try(p, qn_align_merge(members, weight, weight, count, d, h, align, got_in, got_out));
        snprintf(name, sizeof name, "out.w_in_align%d", align);
        try(p, qn_golden_compare(&p->c, name, got_in, d * h, 1, 1e-6));
        snprintf(name, sizeof name, "out.w_out_align%d", align);
        try(p, qn_golden_compare(&p->c, name, got_out, d * h, 1, 1e-6));
    }
    for (size_t i = 0; i < E * E; i++) wide[i] = (double)dist[i];
    if (p->status == QN_OK) try(p, qn_align_cluster(wide, E, groups, labels));
    if (p->status == QN_OK) try(p, qn_golden_compare_int(&p->c, "out.cluster", labels, E));
}

// ------------------------------------------------------------------------------ adapters, gates

static void run_lora(part *p)
{
    const size_t m = dim(p, "w", 2, 0), n = dim(p, "w", 2, 1), r = dim(p, "lora_A", 2, 0);
    const float *w = floats(p, "w", m * n), *a = floats(p, "lora_A", r * n);
    const float *b = floats(p, "lora_B", m * r), *delta = floats(p, "delta", m * n);
    const double alpha = number(p, "alpha");
    const size_t rank = whole(p, "extract_rank", m < n ? m : n);
    float *got = room(p, m * n, sizeof *got), *fa = room(p, rank * n, sizeof *fa);
    float *fb = room(p, m * rank, sizeof *fb);
    if (whole(p, "r", 4096) != r) try(p, qn_fail(QN_ERR_FORMAT, "lora_A has rank %zu", r));
    for (int rs = 0; p->status == QN_OK && rs < 2; rs++) {
        memcpy(got, w, m * n * sizeof *got);
        qn_factor_apply(got, a, b, m, n, r, qn_factor_scale(alpha, r, rs));
        try(p, qn_golden_compare(&p->c, rs ? "out.applied_rs" : "out.applied", got, m * n, 1e-30,
                                 3e-6));
    }
    if (p->status == QN_OK) try(p, qn_factor_extract(delta, m, n, rank, fa, fb));
    if (p->status != QN_OK) return;
    memset(got, 0, m * n * sizeof *got);
    qn_factor_apply(got, fa, fb, m, n, rank, 1);
    try(p, qn_golden_compare(&p->c, "out.extract_product", got, m * n, 1e-30, 1e-5));
}

// The token ids of a list of prompts, one behind the other.
static int32_t *prompt_ids(part *p, qn_json expert, const char *key, size_t vocab, size_t *count)
{
    enum { MOST = 4096 };
    int32_t *ids = room(p, MOST, sizeof *ids);
    qn_json prompts = { 0 };
    *count = 0;
    try(p, qn_json_array_or(expert, key, &prompts));
    for (qn_json v = qn_json_first(prompts); p->status == QN_OK && v.node; v = qn_json_next(v))
        for (qn_json t = qn_json_first(v); t.node && *count < MOST; t = qn_json_next(t)) {
            int64_t id;
            if (try(p, qn_json_int(t, NULL, 0, (int64_t)vocab - 1, &id)) != QN_OK) break;
            ids[(*count)++] = (int32_t)id;
        }
    return ids;
}

static void run_gate(part *p)
{
    const size_t V = dim(p, "embed", 2, 0), d = dim(p, "embed", 2, 1);
    const size_t E = dim(p, "out.gate", 2, 0);
    const float *embed = floats(p, "embed", V * d);
    double *row = room(p, d, sizeof *row);
    float *all = room(p, E * d, sizeof *all);
    qn_json experts = { 0 };
    if (p->status == QN_OK) try(p, qn_json_array(p->json, "experts", &experts));
    size_t e = 0;
    for (qn_json v = qn_json_first(experts); p->status == QN_OK && v.node && e < E;
         v = qn_json_next(v), e++) {
        size_t positives, negatives;
        const int32_t *yes = prompt_ids(p, v, "positive", V, &positives);
        const int32_t *no = prompt_ids(p, v, "negative", V, &negatives);
        if (p->status != QN_OK) return;
        qn_factor_gate(embed, d, yes, positives, no, negatives, row);
        for (size_t i = 0; i < d; i++) all[e * d + i] = (float)row[i];
    }
    if (p->status == QN_OK) try(p, qn_golden_compare(&p->c, "out.gate", all, E * d, 1, 1e-6));
}

static void run_random(part *p)
{
    qn_json streams = { 0 };
    try(p, qn_json_array(p->json, "streams", &streams));
    int at = 0;
    for (qn_json v = qn_json_first(streams); p->status == QN_OK && v.node; v = qn_json_next(v), at++) {
        const char *tensor = "";
        char name[32];
        int64_t seed = 0, m = 0, n = 0;
        try(p, qn_json_string(v, "tensor", &tensor));
        try(p, qn_json_int(v, "seed", 0, QN_JSON_INT_MAX, &seed));
        try(p, qn_json_int(v, "model_index", 0, INT32_MAX, &m));
        try(p, qn_json_int(v, "n", 1, 1 << 20, &n));
        float *u = room(p, (size_t)n, sizeof *u);
        for (int64_t i = 0; p->status == QN_OK && i < n; i++)
            u[i] = (float)qn_factor_uniform((uint64_t)seed, tensor, (uint32_t)m, (uint64_t)i);
        snprintf(name, sizeof name, "out.u%d", at);
        if (p->status == QN_OK) // the numbers have 24 bits: equal means equal
            try(p, qn_golden_compare(&p->c, name, u, (uint64_t)n, 1, 1e-12));
    }
}

// ------------------------------------------------------------------------------ parts

static const struct {
    const char *key;
    void (*run)(part *p);
} parts[] = {
    { "analysis", run_analysis }, { "partition", run_partition }, { "experts", run_experts },
    { "lora", run_lora },         { "gate", run_gate },           { "random", run_random },
};

static void run_part(const char *dir, const char *key, qn_json json, void (*run)(part *),
                     qn_golden_report *report)
{
    char name[512];
    const char *file = "", *id = key;
    part p = { .c = { .dir = dir }, .json = json };
    try(&p, qn_json_string(json, "file", &file));
    try(&p, qn_json_string_or(json, "id", key, &id));
    snprintf(name, sizeof name, "%s:%s%s%s", dir, key, id == key ? "" : " ", id == key ? "" : id);
    p.c.line.name = name;
    char *path = qn_path_join(dir, file);
    if (p.status == QN_OK && strchr(file, '/'))
        try(&p, qn_json_fail(json, "file is %s, expected a name without a slash", file));
    if (p.status == QN_OK) try(&p, path ? qn_safetensors_open(path, &p.c.io) : qn_no_memory(1));
    if (p.status == QN_OK) run(&p);
    p.c.line.passed = p.status == QN_OK && p.c.line.tensor[0] && p.c.line.error <= 1;
    if (p.status != QN_OK)
        snprintf(p.c.line.detail, sizeof p.c.line.detail, "%s", qn_error_message());
    *(p.c.line.passed ? &report->passed : &report->failed) += 1;
    report->line(report->user, &p.c.line);
    qn_safetensors_close(&p.c.io);
    qn_arena_free(&p.mem);
    qn_free(path);
}

void qn_golden_bricks(const char *dir, qn_golden_report *report)
{
    qn_json_doc *doc = NULL;
    char *path = qn_path_join(dir, "bricks.json");
    qn_result r = path ? qn_json_open(path, NULL, &doc) : qn_no_memory(strlen(dir));
    qn_free(path);
    if (r != QN_OK) {
        qn_golden_line line = { .name = dir };
        snprintf(line.detail, sizeof line.detail, "%s", qn_error_message());
        report->failed++;
        report->line(report->user, &line);
        return;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        qn_json v = qn_json_find(qn_json_root(doc), parts[i].key);
        if (qn_json_kind_of(v) == QN_JSON_OBJECT) run_part(dir, parts[i].key, v, parts[i].run, report);
        if (qn_json_kind_of(v) != QN_JSON_ARRAY) continue;
        for (qn_json one = qn_json_first(v); one.node; one = qn_json_next(one))
            run_part(dir, parts[i].key, one, parts[i].run, report);
    }
    qn_json_close(&doc);
}
