// The analytic gradient against differences of the double reference.
//
// The objective is L = sum_o r_o out_o with random weights r. Along a direction d on one input the
// device says D = sum_i d_i g_i, the reference says D' = sum_o r_o J_o with J_o the derivative of
// output o along d: central differences at steps h and h/2, extrapolated (Richardson).
//
// D is judged like any sum (run_judge.c): (4 + sqrt(terms) + slack) u times the magnitude of its
// terms. It is made by the chain rule, so its terms can be grouped in three ways, none of which
// sees a cancellation inside its groups; the magnitude is the total of all three:
//
//   sum_o |r_o J_o|      by outputs: what each output passes back
//   sum_i |d_i g_i|      by inputs: what reaches each input
//   sum_o |r_o| mag_o    by terms of the forward sum: d is as long as the input itself, so a term of
//                        out_o, magnitudes summing to mag_o, changes along d by about its own size.
//                        Only outputs that d reaches at all.
//
// Each g_i sums at most one product per output that d reaches, and the forward terms behind it are
// made once more: terms = terms of the reference + number of outputs reached. The reference's own
// uncertainty is added: what the two steps disagree by, and double roundoff over the step. Where
// that uncertainty reaches 2^-12 of the magnitude the check proves nothing, and the case is at
// fault (a kink or a jump within reach of the step).
//
// grad_slack multiplies the device's share: gradients that use less exact functions than the
// forward values, or several rounded stages.
#include "run_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>

// One random direction sees any error that is not nearly orthogonal to it; three leave no room for
// luck. Shapes worth timing are large, and their like are checked in small: one.
enum { DIRECTIONS = 3, ELEMENTWISE = 64 };
static const double step = 0x1p-18; // h^2 f''' and 2^-53 f / h are both near 2^-36

typedef struct probe {
    run_job *j;
    const run_result *got;
    qn_ref in[QN_CASE_INPUTS];
    qn_ref out[4][QN_CASE_OUTPUTS]; // at +h, -h, +h/2, -h/2
    double *d, *g;                  // direction and the device's gradient of one input
    int input;
    size_t first[QN_CASE_INPUTS];   // each input's first slope
    size_t next;                    // the slope to be judged next
} probe;

static int directions(const qn_case *c)
{
    return c->bench ? 1 : DIRECTIONS;
}

// One answer of the reference; the same for every device.
typedef struct run_slope {
    bool known;
    double value;     // D'
    double magnitude; // the groups by outputs and by forward terms
    double noise;     // uncertainty of D'
    double terms, slack;
} slope;

static qn_result make_probe(probe *p, run_job *j, const run_result *got)
{
    *p = (probe){ .j = j, .got = got };
    int64_t most = 0;
    size_t slopes = 0;
    for (int i = 0; i < j->c->inputs; i++) {
        QN_TRY(run_make_ref(&j->arena, j->in[i].shape, &p->in[i]));
        if (!j->c->in[i].grad) continue;
        if (j->in[i].count > most) most = j->in[i].count;
        p->first[i] = slopes;
        slopes += (size_t)directions(j->c);
        if (j->in[i].count <= ELEMENTWISE) slopes += (size_t)j->in[i].count;
    }
    if (!j->slopes) j->slopes = qn_arena_alloc(&j->arena, slopes * sizeof *j->slopes);
    for (int at = 0; at < 4; at++)
        for (int o = 0; o < got->outputs; o++)
            QN_TRY(run_make_ref(&j->arena, got->out[o].shape, &p->out[at][o]));
    p->d = qn_arena_alloc(&j->arena, (size_t)most * sizeof *p->d);
    p->g = qn_arena_alloc(&j->arena, (size_t)most * sizeof *p->g);
    return j->slopes && p->d && p->g ? QN_OK : qn_no_memory((size_t)most * sizeof *p->d);
}

// The reference at x + h d.
static void evaluate(probe *p, double h, qn_ref *out)
{
    for (int i = 0; i < p->j->c->inputs; i++) {
        run_preset(&p->in[i]);
        memcpy(p->in[i].v, p->j->in[i].v, (size_t)p->in[i].count * sizeof(double));
    }
    qn_ref *x = &p->in[p->input];
    for (int64_t i = 0; i < x->count; i++) x->v[i] += h * p->d[i];
    for (int o = 0; o < p->got->outputs; o++) run_preset(&out[o]);
    p->j->c->ref(p->j->c, p->in, out);
}

// Does the direction reach output i? Its terms may move and cancel: then its magnitude tells.
static bool moves(const probe *p, int o, int64_t i)
{
    const qn_ref *first = &p->out[0][o];
    for (int at = 1; at < 4; at++) {
        const qn_ref *t = &p->out[at][o];
        if (t->v[i] != first->v[i] || t->mag[i] != first->mag[i]) return true;
    }
    return false;
}

static slope slope_along(probe *p)
{
    static const double at[4] = { step, -step, step / 2, -step / 2 };
    for (int i = 0; i < 4; i++) evaluate(p, at[i], p->out[i]);
    slope s = { .known = true };
    int64_t reached = 0;
    for (int o = 0; o < p->got->outputs; o++) {
        const double *r = p->got->weight[o];
        if (!r) continue;
        const qn_ref *far = p->out[0];
        double terms = far[o].terms;
        for (int64_t i = 0; i < far[o].count; i++) {
            double wide = (p->out[0][o].v[i] - p->out[1][o].v[i]) / (2 * step);
            double near = (p->out[2][o].v[i] - p->out[3][o].v[i]) / step;
            double j = near + (near - wide) / 3, weight = fabs(r[i]);
            if (!moves(p, o, i)) continue;
            double mag = fmax(far[o].mag[i], fabs(far[o].v[i]));
            s.value += r[i] * j;
            s.magnitude += weight * (fabs(j) + mag);
            s.noise += weight * (fabs(near - wide) / 3 + (4 + sqrt(terms)) * 0x1p-53 * mag / step);
            reached++;
        }
        s.terms = fmax(s.terms, terms);
        s.slack = fmax(s.slack, far[o].slack);
    }
    s.terms += (double)reached;
    return s;
}

static void judge_slope(probe *p, const char *tensor, int64_t index)
{
    run_job *j = p->j;
    const run_value *grad = &p->got->grad[p->input];
    slope *known = &j->slopes[p->next++];
    if (!known->known) *known = slope_along(p);
    slope s = *known;
    double value = 0, magnitude = s.magnitude, own = 0;
    for (int64_t i = 0; i < p->in[p->input].count; i++) {
        value += p->d[i] * p->g[i];
        own += fabs(p->d[i] * p->g[i]);
    }
    magnitude += own;
    if (s.noise > 0x1p-12 * magnitude) {
        run_fault(j, "%s: the reference is not smooth here: its slope %.9g is uncertain by %.3g",
                  tensor, s.value, s.noise);
        return;
    }
    double slack = j->c->grad_slack > 0 ? j->c->grad_slack : 1;
    double units = slack * (4 + sqrt(s.terms) + s.slack);
    double tolerance = units * 0x1p-24 * magnitude + s.noise + (1 + s.terms) * FLT_MIN;
    if (grad->bytes && grad->dtype != QN_F32)
        tolerance += ldexp(own, -run_format_of(grad->dtype).bits);
    run_judge(j, tensor, index, value, s.value, tolerance, magnitude);
}

static void check_input(probe *p, int input)
{
    const qn_case_input *in = &p->j->c->in[input];
    const qn_ref *x = &p->j->in[input];
    const run_value *grad = &p->got->grad[input];
    char tensor[64], what[64];
    snprintf(tensor, sizeof tensor, "grad %s", in->name);
    snprintf(what, sizeof what, "grad %s along", in->name);
    p->input = input;
    p->next = p->first[input];
    memset(p->g, 0, (size_t)x->count * sizeof *p->g); // none: the objective does not depend on it
    if (grad->bytes) run_decode(grad->dtype, grad->bytes, p->g, x->count);
    for (int64_t i = 0; i < x->count; i++) {
        if (isfinite(p->g[i])) continue;
        run_fault(p->j, "%s[%lld] is %g", tensor, (long long)i, p->g[i]);
        return;
    }

    double square = 0;
    for (int64_t i = 0; i < x->count; i++) square += x->v[i] * x->v[i];
    double length = square > 0 ? sqrt(square / (double)x->count) : 1;
    if (x->count <= ELEMENTWISE) {
        memset(p->d, 0, (size_t)x->count * sizeof *p->d);
        for (int64_t i = 0; i < x->count; i++) {
            p->d[i] = length;
            judge_slope(p, tensor, i);
            p->d[i] = 0;
        }
    }
    for (int k = 0; k < directions(p->j->c); k++) {
        uint64_t key = run_key(p->j->op, p->j->c->name, what);
        for (int64_t i = 0; i < x->count; i++)
            p->d[i] = length * run_normal(key + (uint64_t)k, (uint64_t)i);
        judge_slope(p, what, k);
    }
}

qn_result run_check_gradient(run_job *j, const run_result *got)
{
    probe p;
    QN_TRY(make_probe(&p, j, got));
    for (int i = 0; i < j->c->inputs; i++)
        if (j->c->in[i].grad) check_input(&p, i);
    return QN_OK;
}
