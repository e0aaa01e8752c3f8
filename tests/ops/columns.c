// Cases of split and join.
#include "case.h"
#include "shapes.h"

typedef struct setup {
    int64_t width[4];
    int count;
} setup;

static int build_split(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                       const qn_tensor **out)
{
    const setup *s = c->params;
    return qn_split(g, in[0], s->width, s->count, out) == QN_OK ? s->count : 0;
}

// Copies between the whole and its parts, either way.
static void copy(const setup *s, qn_ref *whole, qn_ref *part, bool join)
{
    int64_t total = qn_shape_last(whole->shape), from = 0;
    for (int i = 0; i < s->count; from += s->width[i++])
        for (int64_t e = 0; e < part[i].count; e++) {
            double *w = &whole->v[e / s->width[i] * total + from + e % s->width[i]];
            if (join)
                *w = part[i].v[e];
            else
                part[i].v[e] = *w;
        }
}

static void ref_split(const qn_case *c, qn_ref *in, qn_ref *out)
{
    copy(c->params, in, out, false);
}

static int build_join(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    out[0] = qn_join(g, in, ((const setup *)c->params)->count);
    return 1;
}

static void ref_join(const qn_case *c, qn_ref *in, qn_ref *out)
{
    copy(c->params, out, in, true);
}

// The gradient of a split of which only the second part is used.
static int build_unused(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    const setup *s = c->params;
    const qn_tensor *part[4];
    qn_wants_grad(in[0]);
    if (qn_split(g, in[0], s->width, s->count, part) != QN_OK) return 0;
    const qn_tensor *loss = qn_sum_all(g, qn_mul(g, part[1], in[1]));
    return loss && qn_backward(g, loss, NULL, in, 1, out) == QN_OK ? 1 : 0;
}

static void ref_unused(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    int64_t total = qn_shape_last(out[0].shape);
    for (int64_t e = 0; e < out[0].count; e++) out[0].v[e] = 0;
    for (int64_t e = 0; e < in[1].count; e++)
        out[0].v[e / s->width[1] * total + s->width[0] + e % s->width[1]] = in[1].v[e];
}

#define IN(name_, n, w)                                                                            \
    {                                                                                              \
        .name = name_, .shape = S2(n, w), .grad = true                                             \
    }
#define SPLIT(label, n, total, ...)                                                                \
    {                                                                                              \
        .name = label, .inputs = 1, .in = { IN("x", n, total) }, .build = build_split,             \
        .ref = ref_split, .params = &(const setup){ __VA_ARGS__ }                                  \
    }
#define JOIN3(label, n, a, b, c)                                                                   \
    {                                                                                              \
        .name = label, .inputs = 3, .in = { IN("a", n, a), IN("b", n, b), IN("c", n, c) },         \
        .build = build_join, .ref = ref_join, .params = &(const setup){ { a, b, c }, 3 }           \
    }

static const qn_case split_cases[] = {
    SPLIT("1x1", 1, 1, { 1 }, 1),
    SPLIT("7x9_odd", 7, 9, { 2, 3, 4 }, 3),
    SPLIT("70x64", 70, 64, { 16, 16, 32 }, 3),
    SPLIT("130x6", 130, 6, { 2, 2, 2 }, 3),
    SPLIT("5x204_four", 5, 204, { 4, 136, 60, 4 }, 4),
};
static const qn_case join_cases[] = {
    JOIN3("1x1", 1, 1, 1, 1),
    JOIN3("7x9_odd", 7, 2, 3, 4),
    JOIN3("70x64", 70, 16, 16, 32),
    { .name = "unused_parts_6x12",
      .inputs = 2,
      .in = { { .name = "x", .shape = S2(6, 12) }, { .name = "d", .shape = S2(6, 4) } },
      .no_grad_ref = true,
      .build = build_unused,
      .ref = ref_unused,
      .params = &(const setup){ { 4, 4, 4 }, 3 } },
};

static void split_of(qn_graph *g, qn_shape x, int64_t a, int64_t b, int count)
{
    const qn_tensor *out[8];
    int64_t widths[8] = { a, b, 1, 1, 1 };
    qn_split(g, qn_input(g, "x", QN_F32, x), widths, count, out);
}
static void too_few(qn_graph *g) { split_of(g, QN_SHAPE(6, 8), 3, 4, 2); }
static void empty(qn_graph *g) { split_of(g, QN_SHAPE(6, 8), 8, 0, 2); }
static void five(qn_graph *g) { split_of(g, QN_SHAPE(6, 5), 1, 1, 5); }
static void rank3(qn_graph *g) { split_of(g, QN_SHAPE(6, 2, 4), 2, 2, 2); }
static void other_rows(qn_graph *g)
{
    const qn_tensor *parts[2] = { qn_input(g, "a", QN_F32, QN_SHAPE(6, 2)),
                                  qn_input(g, "b", QN_F32, QN_SHAPE(5, 2)) };
    qn_join(g, parts, 2);
}

static const qn_refusal split_refusals[] = {
    { "columns left over", QN_ERR_INVALID, "x (x) has 8 columns, expected the parts' 7", too_few },
    { "an empty part", QN_ERR_INVALID, "part 1 has 0 columns", empty },
    { "five parts", QN_ERR_INVALID, "5 parts, expected 1 to 4", five },
    { "rank 3", QN_ERR_INVALID, "x (x) has shape [6,2,4]", rank3 },
};
static const qn_refusal join_refusals[] = {
    { "other rows", QN_ERR_INVALID, "part 1 (b) has shape [5,2], expected [6,2]", other_rows },
};

QN_OP_TEST(split, split_cases, split_refusals);
QN_OP_TEST(join, join_cases, join_refusals);
