// Cases of counting_sort.
#include "case.h"

typedef struct setup {
    int buckets;
} setup;

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    qn_sorted s = qn_counting_sort(g, in[0], ((const setup *)c->params)->buckets);
    out[0] = s.order;
    out[1] = s.offsets;
    return 2;
}

static void ref(const qn_case *c, qn_ref *in, qn_ref *out)
{
    int buckets = ((const setup *)c->params)->buckets;
    const qn_ref *keys = &in[0];
    double *order = out[0].v, *offsets = out[1].v;
    for (int e = 0; e <= buckets; e++) offsets[e] = 0;
    for (int64_t i = 0; i < keys->count; i++)
        if (keys->v[i] >= 0 && keys->v[i] < buckets) offsets[(int64_t)keys->v[i] + 1]++;
    for (int e = 0; e < buckets; e++) offsets[e + 1] += offsets[e];
    for (int64_t i = 0; i < keys->count; i++) order[i] = -1;
    // offsets[e] runs ahead while e's positions are placed, then is put back.
    for (int64_t i = 0; i < keys->count; i++)
        if (keys->v[i] >= 0 && keys->v[i] < buckets)
            order[(int64_t)offsets[(int64_t)keys->v[i]]++] = (double)i;
    for (int e = buckets; e > 0; e--) offsets[e] = offsets[e - 1];
    offsets[0] = 0;
}

static void fill_sevens(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = 7;
}

static void fill_extremes(qn_ref *t)
{
    static const double keys[] = { INT32_MIN, 0, INT32_MAX, 15, -1, 16, 15, 1 << 24, 0 };
    for (int64_t i = 0; i < t->count; i++) t->v[i] = keys[i % 9];
}

#define KEYS(n, ...)                                                                               \
    {                                                                                              \
        {                                                                                          \
            .name = "keys", .dtype = QN_I32, .shape = { 1, { n } }, __VA_ARGS__                    \
        }                                                                                          \
    }
#define BETWEEN(low, high) .gen = QN_GEN_INT, .lo = low, .hi = high
#define CASE(label, many, ...)                                                                     \
    {                                                                                              \
        .name = label, .inputs = 1, .in = __VA_ARGS__, .params = &(const setup){ many },           \
        .build = build, .ref = ref                                                                 \
    }

static const qn_case cases[] = {
    CASE("one_key", 1, KEYS(1, BETWEEN(0, 0))),
    CASE("one_bucket_33", 1, KEYS(33, BETWEEN(0, 0))),
    CASE("one_bucket_some_out", 1, KEYS(33, BETWEEN(-1, 1))),
    CASE("two_buckets_64", 2, KEYS(64, BETWEEN(0, 1))),
    CASE("three_buckets_31", 3, KEYS(31, BETWEEN(0, 2))),
    CASE("5_of_66", 5, KEYS(66, BETWEEN(0, 4))),
    CASE("16_of_127", 16, KEYS(127, BETWEEN(0, 15))),
    CASE("17_of_37", 17, KEYS(37, BETWEEN(0, 16))),
    CASE("64_of_1001", 64, KEYS(1001, BETWEEN(0, 63))),
    CASE("256_of_515", 256, KEYS(515, BETWEEN(0, 255))),
    CASE("257_of_4099", 257, KEYS(4099, BETWEEN(-2, 258))),
    CASE("sparse_1000_of_10", 1000, KEYS(10, BETWEEN(0, 999))),
    CASE("all_out", 16, KEYS(50, BETWEEN(16, 40))),
    CASE("some_out", 16, KEYS(130, BETWEEN(-3, 20))),
    CASE("all_in_one", 16, KEYS(97, .gen = QN_GEN_CUSTOM, .fill = fill_sevens)),
    CASE("extremes", 16, KEYS(45, .gen = QN_GEN_CUSTOM, .fill = fill_extremes)),
    CASE("extremes_two_passes", 100, KEYS(45, .gen = QN_GEN_CUSTOM, .fill = fill_extremes)),
    { .name = "slots_16_of_2048x2",
      .inputs = 1,
      .in = { { .name = "keys", .dtype = QN_I32, .shape = { 2, { 2048, 2 } }, BETWEEN(0, 15) } },
      .params = &(const setup){ 16 },
      .build = build,
      .ref = ref,
      .bench = true },
    { .name = "vocabulary_2048",
      .inputs = 1,
      .in = KEYS(2048, BETWEEN(0, 50294)),
      .params = &(const setup){ 50295 },
      .build = build,
      .ref = ref,
      .bench = true },
    CASE("vocabulary_65537", 50295, KEYS(65537, BETWEEN(0, 50295))),
};

static void refuse_float(qn_graph *g)
{
    qn_counting_sort(g, qn_input(g, "k", QN_F32, QN_SHAPE(4)), 4);
}

static void refuse_no_buckets(qn_graph *g)
{
    qn_counting_sort(g, qn_input(g, "k", QN_I32, QN_SHAPE(4)), 0);
}

static void refuse_many_buckets(qn_graph *g)
{
    qn_counting_sort(g, qn_input(g, "k", QN_I32, QN_SHAPE(4)), INT32_MAX);
}

static void refuse_many_keys(qn_graph *g)
{
    qn_counting_sort(g, qn_input(g, "k", QN_I32, QN_SHAPE(1 << 16, 1 << 15)), 4);
}

static const qn_refusal refusals[] = {
    { "float_keys", QN_ERR_INVALID, "keys (k) is f32, expected i32", refuse_float },
    { "no_buckets", QN_ERR_INVALID, "0 buckets, expected 1 to 2^30", refuse_no_buckets },
    { "many_buckets", QN_ERR_INVALID, "2147483647 buckets, expected", refuse_many_buckets },
    { "many_keys", QN_ERR_INVALID, "has 2147483648 elements, expected fewer", refuse_many_keys },
};

QN_OP_TEST(counting_sort, cases, refusals);
