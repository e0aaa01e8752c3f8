// Stick-breaking attention: the equation in loops over all pairs, in the order of the definition.
//
// Magnitudes. With u the unit roundoff, a logit z = scale sum q k is off by a few u times
// Z = scale sum |q k|. A weight is exp(x), x = log sigmoid(z) + sum of c over newer keys, so its
// relative error is the absolute error of x and that of exp, (3 + 2|x|) ulp:
//   1 + |x| + (1 - b) Z of the key itself + sum over newer keys of b Z + |c| + t |z| / 4
// in units; b = sigmoid(z), t = log(1 + exp(-|z|)), whose own exp is off by (3 + 2|z|) ulp. Slack:
// two exp of 6 u each and the series of log(1 + x), 8 u.
#include "case.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_KEYS = 2050, SLACK = 20 };

typedef struct setup {
    int batch, tokens, slots, keys, heads, width;
    bool same, used, keep, skip, rem; // same: k is v
    float scale;
    int window;
    int each; // `used` has a value for each batch row, and, 2, names the row's block of keys
} setup;

// Index of each input of a case; -1: not given.
typedef struct where {
    int v, used, keep, dout;
} where;

static where find(const setup *s)
{
    where w = { .v = s->same ? 1 : 2, .used = -1, .keep = -1 };
    int next = w.v + 1;
    if (s->used) w.used = next++;
    if (s->keep) w.keep = next++;
    w.dout = next;
    return w;
}

// ---------------------------------------------------------------------------------- reference

// One query row of one head.
typedef struct row {
    int visible, first; // keys 0 .. visible-1; element of q and out
    int key, step;      // element of key 0 of k and v; from key to key
    double scale, rem, rem_error;
    double z[MOST_KEYS], w[MOST_KEYS];
    double reach[MOST_KEYS]; // Z
    double error[MOST_KEYS]; // relative magnitude of w's error, above
    bool see[MOST_KEYS];
} row;

static void weigh(row *r, const qn_ref *q, const qn_ref *k, int width)
{
    double left = 0, error = 0; // over newer keys: sum of c, and its magnitude
    for (int j = r->visible - 1; j >= 0; j--) {
        double z = 0, reach = 0;
        for (int d = 0; d < width; d++) {
            double x = q->v[r->first + d] * k->v[r->key + j * r->step + d] * r->scale;
            z += x;
            reach += fabs(x);
        }
        double e = exp(-fabs(z)), t = log1p(e), near = 1 / (1 + e);
        double b = z >= 0 ? near : e * near, other = z >= 0 ? e * near : near;
        double own = fmin(z, 0) - t, c = -fmax(z, 0) - t;
        r->z[j] = z;
        r->reach[j] = reach;
        r->w[j] = r->see[j] ? exp(own + left) : 0;
        r->error[j] = 1 + fabs(own) + t * fabs(z) / 4 + other * reach + error;
        if (!r->see[j]) continue;
        left += c;
        error += fabs(c) + t * fabs(z) / 4 + b * reach;
    }
    r->rem = exp(left);
    r->rem_error = 1 + error;
}

// Fills in row `i` of head `h`; rows count over batch, position and slot.
static void make_row(const setup *s, qn_ref *in, int i, int h, row *r)
{
    where at = find(s);
    int b = i / (s->tokens * s->slots), t = i / s->slots % s->tokens;
    int n = s->used ? (int)in[at.used].v[b * s->each] : s->keys;
    n = n < 0 ? 0 : n > s->keys ? s->keys : n;
    int block = s->each == 2 ? (int)in[at.used].v[2 * b + 1] : b;
    int position = n - s->tokens + t;
    r->visible = position + (s->skip ? 0 : 1);
    if (r->visible < 0) r->visible = 0;
    r->step = s->heads * s->width;
    r->first = i * r->step + h * s->width;
    r->key = block * s->keys * r->step + h * s->width;
    r->scale = s->scale != 0 ? (double)s->scale : 1 / sqrt(s->width);
    for (int j = 0; j < r->visible; j++)
        r->see[j] = (!s->keep || in[at.keep].v[b * s->keys + j] != 0) &&
                    (!s->window || j >= r->visible - s->window);
    weigh(r, &in[0], &in[1], s->width);
}

static void terms_of(const setup *s, qn_ref *out, int rows)
{
    out->terms = s->width + s->keys + rows;
    out->slack = SLACK;
}

static void attend(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    const qn_ref *v = &in[find(s).v];
    row *r = malloc(sizeof *r);
    if (!r) abort();
    terms_of(s, &out[0], 0);
    if (s->rem) terms_of(s, &out[1], 0);
    for (int i = 0; i < s->batch * s->tokens * s->slots; i++)
        for (int h = 0; h < s->heads; h++) {
            make_row(s, in, i, h, r);
            for (int j = 0; j < r->visible; j++)
                for (int d = 0; d < s->width; d++) {
                    double x = r->w[j] * v->v[r->key + j * r->step + d];
                    out[0].v[r->first + d] += x;
                    out[0].mag[r->first + d] += fabs(x) * r->error[j];
                }
            if (!s->rem) continue;
            out[1].v[i * s->heads + h] = r->rem;
            out[1].mag[i * s->heads + h] = r->rem * r->rem_error;
        }
    free(r);
}

static void add(qn_ref *t, int at, double x, double magnitude)
{
    t->v[at] += x;
    t->mag[at] += magnitude;
}

// The gradient of one row, by its definition: g = w <dO, v>, G the sum of g over older keys,
// dz = g (1 - b) - b G. Errors of g, of G and of b (b (1 - b) Z and its exp) add up.
static void push_back(const setup *s, const row *r, qn_ref *in, const qn_ref *dout, qn_ref *out)
{
    const qn_ref *q = &in[0], *k = &in[1], *v = &in[find(s).v];
    double older = 0, older_size = 0;
    for (int j = 0; j < r->visible; j++) {
        if (!r->see[j]) continue;
        int key = r->key + j * r->step;
        double p = 0, size = 0;
        for (int d = 0; d < s->width; d++) {
            double x = dout->v[r->first + d] * v->v[key + d];
            p += x;
            size += fabs(x);
        }
        double g = r->w[j] * p, g_size = r->w[j] * size * r->error[j];
        double e = exp(-fabs(r->z[j])), near = 1 / (1 + e), far = e * near;
        double b = r->z[j] >= 0 ? near : far, other = r->z[j] >= 0 ? far : near;
        double blur = b * other * (r->reach[j] + fabs(r->z[j]) / 4);
        double dz = g * other - b * older;
        double dz_size = g_size * other + b * older_size + blur * (g_size + older_size);
        older += g;
        older_size += g_size;
        for (int d = 0; d < s->width; d++) {
            double qd = q->v[r->first + d], kd = k->v[key + d], od = dout->v[r->first + d];
            add(&out[0], r->first + d, r->scale * dz * kd, r->scale * dz_size * fabs(kd));
            add(&out[1], key + d, r->scale * dz * qd, r->scale * dz_size * fabs(qd));
            add(&out[s->same ? 1 : 2], key + d, r->w[j] * od, r->w[j] * r->error[j] * fabs(od));
        }
    }
}

static void attend_back(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const setup *s = c->params;
    row *r = malloc(sizeof *r);
    if (!r) abort();
    int rows = s->batch * s->tokens * s->slots;
    for (int i = 0; i < (s->same ? 2 : 3); i++) terms_of(s, &out[i], i ? rows : 0);
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < s->heads; h++) {
            make_row(s, in, i, h, r);
            push_back(s, r, in, &in[find(s).dout], out);
        }
    free(r);
}

// ---------------------------------------------------------------------------------- builders

static qn_stickbreaking_opts options(const setup *s, const qn_tensor *const *in)
{
    where at = find(s);
    return (qn_stickbreaking_opts){
        .batch = s->batch,
        .heads = s->heads,
        .slots = s->slots,
        .scale = s->scale,
        .keys = s->each == 2 ? s->keys : 0,
        .skip_current = s->skip,
        .window = s->window,
        .used = s->used ? in[at.used] : NULL,
        .keep = s->keep ? in[at.keep] : NULL,
    };
}

static int build(qn_graph *g, const qn_case *c, const qn_tensor *const *in, const qn_tensor **out)
{
    const setup *s = c->params;
    qn_stickbreaking_opts opts = options(s, in);
    if (s->rem) opts.rem = &out[1];
    out[0] = qn_stickbreaking(g, in[0], in[1], in[find(s).v], &opts);
    return s->rem ? 2 : 1;
}

static int build_back(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                      const qn_tensor **out)
{
    const setup *s = c->params;
    where at = find(s);
    qn_stickbreaking_opts opts = options(s, in);
    for (int i = 0; i <= at.v; i++) qn_wants_grad(in[i]);
    const qn_tensor *o = qn_stickbreaking(g, in[0], in[1], in[at.v], &opts);
    const qn_tensor *loss = qn_sum_all(g, qn_mul(g, o, in[at.dout]));
    if (!loss || qn_backward(g, loss, NULL, in, (size_t)at.v + 1, out) != QN_OK) return 0;
    return at.v + 1;
}

// ---------------------------------------------------------------------------------- cases

#define SETUP(b, t, k, s, h, d, ...)                                                               \
    .params = &(const setup){ b, t, k, s, h, d, __VA_ARGS__ }, .no_grad_out = 1 << 1 // rem
#define QUERY(name_, b, t, k, h, d, scale_)                                                        \
    {                                                                                              \
        .name = name_, .shape = { 2, { (b) * (t) * (k), (h) * (d) } }, .scale = scale_,            \
        .grad = true                                                                               \
    }
#define KEYS(name_, b, s, h, d)                                                                    \
    {                                                                                              \
        .name = name_, .shape = { 2, { (b) * (s), (h) * (d) } }, .grad = true                      \
    }
#define USED(n)                                                                                    \
    {                                                                                              \
        .name = "used", .dtype = QN_I32, .gen = QN_GEN_INT, .lo = n, .hi = n                       \
    }
#define MASK(b, s)                                                                                 \
    {                                                                                              \
        .name = "keep", .dtype = QN_I32, .shape = { 2, { b, s } }, .gen = QN_GEN_INT, .hi = 1      \
    }
#define DOUT(b, t, k, h, d)                                                                        \
    {                                                                                              \
        .name = "dout", .shape = { 2, { (b) * (t) * (k), (h) * (d) } }                             \
    }

// The plain form: T = S, q k v.
#define PLAIN(name_, b, t, k, h, d, size, ...)                                                     \
    {                                                                                              \
        .name = name_, .inputs = 3, .build = build, .ref = attend,                                 \
        .in = { QUERY("q", b, t, k, h, d, size), KEYS("k", b, t, h, d), KEYS("v", b, t, h, d) },   \
        SETUP(b, t, k, t, h, d, __VA_ARGS__)                                                       \
    }
#define PLAIN_BACK(name_, b, t, k, h, d, size, ...)                                                \
    {                                                                                              \
        .name = name_, .inputs = 4, .build = build_back, .ref = attend_back, .no_grad_ref = true,  \
        .in = { QUERY("q", b, t, k, h, d, size), KEYS("k", b, t, h, d), KEYS("v", b, t, h, d),     \
                DOUT(b, t, k, h, d) },                                                             \
        SETUP(b, t, k, t, h, d, __VA_ARGS__)                                                       \
    }

// Fills of a few batch rows, none and too many among them, and blocks in no order.
static void fill_used(qn_ref *t)
{
    static const double filled[] = { 12, 0, 31, 1000, 5 };
    static const double block[] = { 4, 1, 6, 0, 4 };
    for (int64_t i = 0; i < t->count; i++)
        t->v[i] = t->shape.rank == 1 ? filled[i] : i % 2 ? block[i / 2] : filled[i / 2];
}

#define EACH_USED(...)                                                                             \
    {                                                                                              \
        .name = "used", .dtype = QN_I32, .shape = __VA_ARGS__, .gen = QN_GEN_CUSTOM,               \
        .fill = fill_used                                                                          \
    }

static const qn_case cases[] = {
    PLAIN("t1_d16", 2, 1, 1, 1, 16, 1, .rem = true),
    PLAIN("t2_d1", 3, 2, 1, 2, 1, 1, .rem = true),
    PLAIN("t7_d40", 1, 7, 1, 2, 40, 1),
    PLAIN("t16_d5", 2, 16, 1, 3, 5, 1, .rem = true),
    PLAIN("t17_d32", 2, 17, 2, 1, 32, 1),
    PLAIN("t33_d24_slots3", 2, 33, 3, 2, 24, 1),
    PLAIN("t64_d64", 1, 64, 1, 2, 64, 3, .rem = true),
    PLAIN("t64_d128", 1, 64, 1, 1, 128, 1),
    PLAIN("t5_d1023", 1, 5, 2, 1, 1023, 1),
    PLAIN("t9_d1024", 1, 9, 2, 1, 1024, 1),
    PLAIN("t130_d16_spread", 1, 130, 2, 1, 16, 1, .scale = 0.02f, .rem = true),
    PLAIN("t130_d64_saturated", 1, 130, 1, 1, 64, 40, .rem = true),
    PLAIN("t513_d32_long", 1, 513, 1, 1, 32, 40),
    PLAIN("t64_d4_27_pairs", 9, 64, 2, 3, 4, 1, .rem = true), // two blocks of pairs
    PLAIN("t33_d24_skip", 2, 33, 2, 1, 24, 1, .skip = true, .rem = true),
    PLAIN("t33_d24_window7", 2, 33, 2, 2, 24, 1, .window = 7, .rem = true),
    PLAIN("t20_d8_window1", 1, 20, 1, 1, 8, 1, .window = 1, .rem = true),
    PLAIN("t130_d16_window64_skip", 1, 130, 1, 1, 16, 1, .window = 64, .skip = true),
    PLAIN("t9_d8_window9", 1, 9, 2, 1, 8, 1, .window = 9, .rem = true),
    PLAIN("t1_skip", 1, 1, 1, 1, 8, 1, .skip = true, .rem = true),
    { .name = "t128_d64_slots2",
      .inputs = 3,
      .build = build,
      .ref = attend,
      .bench = true,
      .in = { QUERY("q", 2, 128, 2, 2, 64, 1), KEYS("k", 2, 128, 2, 64), KEYS("v", 2, 128, 2, 64) },
      SETUP(2, 128, 2, 128, 2, 64) },
    { .name = "t1024_h8_d64",
      .inputs = 3,
      .build = build,
      .ref = attend,
      .bench = true,
      .large = true,
      .in = { QUERY("q", 1, 1024, 1, 8, 64, 1), KEYS("k", 1, 1024, 8, 64), KEYS("v", 1, 1024, 8, 64) },
      SETUP(1, 1024, 1, 1024, 8, 64) },
    { .name = "k_is_v_t33_d40",
      .inputs = 2,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 2, 33, 2, 1, 40, 1), KEYS("k", 2, 33, 1, 40) },
      SETUP(2, 33, 2, 33, 1, 40, .same = true) },
    { .name = "keep_t33_d16",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 4, 33, 2, 2, 16, 1), KEYS("k", 4, 33, 2, 16), KEYS("v", 4, 33, 2, 16),
              MASK(4, 33) },
      SETUP(4, 33, 2, 33, 2, 16, .keep = true, .rem = true) },
    { .name = "last3_of_130_d64",
      .inputs = 3,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 2, 3, 1, 1, 64, 1), KEYS("k", 2, 130, 1, 64), KEYS("v", 2, 130, 1, 64) },
      SETUP(2, 3, 1, 130, 1, 64, .rem = true) },
    { .name = "decode_used77_of_200",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 2, 1, 2, 2, 32, 1), KEYS("k", 2, 200, 2, 32), KEYS("v", 2, 200, 2, 32),
              USED(77) },
      SETUP(2, 1, 2, 200, 2, 32, .used = true, .rem = true) },
    { .name = "decode_used77_of_200_window20",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 2, 1, 2, 2, 32, 1), KEYS("k", 2, 200, 2, 32), KEYS("v", 2, 200, 2, 32),
              USED(77) },
      SETUP(2, 1, 2, 200, 2, 32, .used = true, .window = 20, .rem = true) },
    { .name = "prefill_used20_of_64_keep",
      .inputs = 5,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 3, 17, 1, 1, 24, 1), KEYS("k", 3, 64, 1, 24), KEYS("v", 3, 64, 1, 24),
              USED(20), MASK(3, 64) },
      SETUP(3, 17, 1, 64, 1, 24, .used = true, .keep = true, .rem = true) },
    { .name = "used_less_than_queries",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 1, 9, 2, 1, 8, 1), KEYS("k", 1, 12, 1, 8), KEYS("v", 1, 12, 1, 8),
              USED(4) },
      SETUP(1, 9, 2, 12, 1, 8, .used = true, .rem = true) },
    { .name = "used_beyond_the_end",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 1, 3, 1, 1, 8, 1), KEYS("k", 1, 7, 1, 8), KEYS("v", 1, 7, 1, 8),
              USED(1000) },
      SETUP(1, 3, 1, 7, 1, 8, .used = true, .rem = true) },
    { .name = "used_negative",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 1, 3, 1, 1, 8, 1), KEYS("k", 1, 7, 1, 8), KEYS("v", 1, 7, 1, 8),
              USED(-3) },
      SETUP(1, 3, 1, 7, 1, 8, .used = true, .rem = true) },
    { .name = "used_of_each_row",
      .inputs = 4,
      .build = build,
      .ref = attend,
      .in = { QUERY("q", 5, 2, 2, 2, 8, 1), KEYS("k", 5, 33, 2, 8), KEYS("v", 5, 33, 2, 8),
              EACH_USED({ 1, { 5 } }) },
      SETUP(5, 2, 2, 33, 2, 8, .used = true, .rem = true, .each = 1) },
    { .name = "blocks_of_keys",
      .inputs = 3,
      .build = build,
      .ref = attend,
      .no_grad_ref = true,
      .in = { QUERY("q", 5, 1, 2, 1, 40, 1), KEYS("k", 7, 33, 1, 40), EACH_USED({ 2, { 5, 2 } }) },
      SETUP(5, 1, 2, 33, 1, 40, .used = true, .rem = true, .same = true, .each = 2) },
    { .name = "blocks_of_keys_t9_keep",
      .inputs = 5,
      .build = build,
      .ref = attend,
      .no_grad_ref = true,
      .in = { QUERY("q", 3, 9, 1, 2, 12, 1), KEYS("k", 7, 64, 2, 12), KEYS("v", 7, 64, 2, 12),
              EACH_USED({ 2, { 3, 2 } }), MASK(3, 64) },
      SETUP(3, 9, 1, 64, 2, 12, .used = true, .keep = true, .rem = true, .each = 2) },
};

static const qn_case cases_back[] = {
    PLAIN_BACK("t1_d16", 2, 1, 1, 1, 16, 1, 0),
    PLAIN_BACK("t2_d1", 3, 2, 1, 2, 1, 1, 0),
    PLAIN_BACK("t17_d5", 2, 17, 2, 3, 5, 1, 0),
    PLAIN_BACK("t33_d24_slots3", 2, 33, 3, 2, 24, 1, 0),
    PLAIN_BACK("t64_d128", 1, 64, 1, 1, 128, 1, 0),
    PLAIN_BACK("t9_d1024", 1, 9, 2, 1, 1024, 1, 0),
    PLAIN_BACK("t130_d64_saturated", 1, 130, 1, 1, 64, 40, 0),
    PLAIN_BACK("t513_d32_long", 1, 513, 1, 1, 32, 40, 0),
    PLAIN_BACK("t64_d4_27_pairs", 9, 64, 2, 3, 4, 1, 0),
    PLAIN_BACK("t2050_d1", 1, 2050, 1, 1, 1, 1, .scale = 0.01f), // two blocks of rows in any form
    PLAIN_BACK("t33_d24_skip", 2, 33, 2, 1, 24, 1, .skip = true),
    PLAIN_BACK("t33_d24_window7", 2, 33, 2, 1, 24, 1, .window = 7),
    PLAIN_BACK("t130_d16_window64", 1, 130, 1, 1, 16, 1, .window = 64),
    { .name = "t128_d64_slots2",
      .inputs = 4,
      .build = build_back,
      .ref = attend_back,
      .no_grad_ref = true,
      .bench = true,
      .in = { QUERY("q", 2, 128, 2, 2, 64, 1), KEYS("k", 2, 128, 2, 64), KEYS("v", 2, 128, 2, 64),
              DOUT(2, 128, 2, 2, 64) },
      SETUP(2, 128, 2, 128, 2, 64) },
    { .name = "k_is_v_t130_d64",
      .inputs = 3,
      .build = build_back,
      .ref = attend_back,
      .no_grad_ref = true,
      .in = { QUERY("q", 1, 130, 2, 1, 64, 1), KEYS("k", 1, 130, 1, 64), DOUT(1, 130, 2, 1, 64) },
      SETUP(1, 130, 2, 130, 1, 64, .same = true) },
    { .name = "used20_of_64_keep",
      .inputs = 6,
      .build = build_back,
      .ref = attend_back,
      .no_grad_ref = true,
      .in = { QUERY("q", 3, 17, 1, 1, 24, 1), KEYS("k", 3, 64, 1, 24), KEYS("v", 3, 64, 1, 24),
              USED(20), MASK(3, 64), DOUT(3, 17, 1, 1, 24) },
      SETUP(3, 17, 1, 64, 1, 24, .used = true, .keep = true) },
};

// ---------------------------------------------------------------------------------- refusals

typedef struct malformed {
    qn_shape q, k, v;
    qn_stickbreaking_opts opts;
    qn_shape keep, used;
    qn_dtype keep_dtype;
} malformed;

static void try(qn_graph *g, malformed m)
{
    const qn_tensor *q = qn_input(g, "q", QN_F32, m.q), *k = qn_input(g, "k", QN_F32, m.k);
    const qn_tensor *v = qn_input(g, "v", QN_F32, m.v.rank ? m.v : m.k);
    if (m.keep.rank) m.opts.keep = qn_input(g, "keep", m.keep_dtype, m.keep);
    if (m.used.rank) m.opts.used = qn_input(g, "used", QN_I32, m.used);
    qn_stickbreaking(g, q, k, v, &m.opts);
}

#define REFUSED(name, ...)                                                                         \
    static void name(qn_graph *g)                                                                  \
    {                                                                                              \
        try(g, (malformed){ __VA_ARGS__ });                                                        \
    }
REFUSED(no_batch, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } }, .opts = { .heads = 1 })
REFUSED(odd_heads, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } }, .opts = { .batch = 1, .heads = 3 })
REFUSED(too_wide, .q = { 2, { 6, 1028 } }, .k = { 2, { 6, 1028 } },
        .opts = { .batch = 1, .heads = 1 })
REFUSED(odd_slots, .q = { 2, { 7, 8 } }, .k = { 2, { 6, 8 } },
        .opts = { .batch = 1, .heads = 1, .slots = 2 })
REFUSED(other_columns, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 4 } },
        .opts = { .batch = 1, .heads = 1 })
REFUSED(few_keys, .q = { 2, { 6, 8 } }, .k = { 2, { 4, 8 } }, .opts = { .batch = 2, .heads = 1 })
REFUSED(other_v, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } }, .v = { 2, { 7, 8 } },
        .opts = { .batch = 1, .heads = 1 })
REFUSED(endless, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } },
        .opts = { .batch = 1, .heads = 1, .scale = INFINITY })
REFUSED(negative, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } },
        .opts = { .batch = 1, .heads = 1, .window = -1 })
REFUSED(keep_shape, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } }, .keep = { 2, { 6, 1 } },
        .keep_dtype = QN_I32, .opts = { .batch = 1, .heads = 1 })
REFUSED(keep_dtype, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } }, .keep = { 2, { 1, 6 } },
        .opts = { .batch = 1, .heads = 1 })
REFUSED(used_shape, .q = { 2, { 6, 8 } }, .k = { 2, { 6, 8 } }, .used = { 1, { 2 } },
        .opts = { .batch = 1, .heads = 1 })

REFUSED(used_blocks, .q = { 2, { 6, 8 } }, .k = { 2, { 9, 8 } }, .used = { 2, { 3, 2 } },
        .opts = { .batch = 3, .heads = 1 })
REFUSED(odd_blocks, .q = { 2, { 6, 8 } }, .k = { 2, { 9, 8 } }, .used = { 2, { 3, 2 } },
        .opts = { .batch = 3, .heads = 1, .keys = 4 })

static const qn_refusal refusals[] = {
    { "used [B, 2] without keys", QN_ERR_INVALID, "keys 0, expected a positive", used_blocks },
    { "rows that are no blocks", QN_ERR_INVALID, "expected blocks of 4 rows", odd_blocks },
    { "no batch", QN_ERR_INVALID, "batch 0", no_batch },
    { "heads that do not divide", QN_ERR_INVALID, "expected 3 heads", odd_heads },
    { "a head of 1028", QN_ERR_INVALID, "1 heads of 1 to 1024 columns", too_wide },
    { "slots that do not divide", QN_ERR_INVALID, "2 slots", odd_slots },
    { "columns of k", QN_ERR_INVALID, "expected 8 columns", other_columns },
    { "fewer keys than queries", QN_ERR_INVALID, "k (k) has 2 positions", few_keys },
    { "shape of v", QN_ERR_INVALID, "v (v) has shape [7,8], expected [6,8]", other_v },
    { "infinite scale", QN_ERR_INVALID, "finite", endless },
    { "a window below 0", QN_ERR_INVALID, "a window of -1 keys", negative },
    { "shape of keep", QN_ERR_INVALID, "keep (keep) has shape [6,1], expected [1,6]", keep_shape },
    { "dtype of keep", QN_ERR_INVALID, "keep (keep) is f32, expected i32", keep_dtype },
    { "shape of used", QN_ERR_INVALID, "used (used) has shape [2], expected [1]", used_shape },
};

QN_OP_TEST(stickbreaking, cases, refusals);

// The gradient has no builder of its own: what it refuses, the operation refuses before.
static const qn_refusal refusals_back[] = {
    { "shape of v", QN_ERR_INVALID, "v (v) has shape [7,8], expected [6,8]", other_v },
};

QN_OP_TEST(stickbreaking_grad, cases_back, refusals_back);
