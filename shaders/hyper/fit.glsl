// Training of many hypernetworks at once, several Adam steps of each in one dispatch; group f does
// fit f. A step, for the K views and B rows that are its turn [hypertab]:
//   H1 = relu(M U0' + c0), H2 = relu(H1 U1' + c1), H3 = H2 U2' + c2, G = H3 U3' + c3   (widths 128,
//   64, 64, P); every view's target network on the rows, forward and backward (target.glsl);
//   dG back through the four layers; Adam.
//
// state [F, 3, N]: parameters and both moments, each U0' [d, 128], c0,
//   U1' [128, 64], c1, U2' [64, 64], c2, U3' [64, P], c3
// fits u32 [F, 8]: rows per epoch, rows per batch, K, steps in all, bits of lr, three unused
// orders i32 [F, ..]: for every epoch the rows in their order, for every batch of every epoch the
//   views in theirs: all the former, then all the latter, which begin at fits[f][5]
// start i32: steps already done. rates [steps, 2]: 1 / (1 - b1^t), 1 / sqrt(1 - b2^t)
// x [rows, d], y [rows] class or value, masks [V, d] and view_columns [V, m] of all fits one after the
// other; losses [F, steps, tasks]: contributions to the loss before each step
//
// Every parameter has one invocation that owns it, so weights cross between invocations never,
// activations and their gradients through `scratch`. Without STREAMED an invocation keeps its
// parameters in private arrays, which only constant indices touch, for all the steps of the
// dispatch: CPU drivers move these between registers and stack, eight at a time.
// CPU drivers pay for both sides of a branch and for one more round of a loop that tests first:
// hence loops that test last, and work that is the same for all invocations.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/hyper_fit.h"
#include "octet.glsl"
#include "math.glsl"

layout(constant_id = 6) const uint N0 = 32; // columns per invocation, first layer
layout(constant_id = 7) const uint NR = 3;  // rows per invocation, last layer
layout(constant_id = 8) const uint NB = 3; // of these, how many are taken together
layout(constant_id = 9) const uint SQUARE = 0; // squared error instead of cross-entropy

const uint W1 = 128, W2 = 64; // widths of the first layer, and of the second and third
const uint SLICES = GROUP / W2; // parts that the inputs of layers 1 and 2 are cut into
const uint N1 = W1 / SLICES, N2 = W2 / SLICES;
const uint LAST = NR * W2;      // slots of the last layer's matrix
const uint OCTETS = GROUP / 8u;

BIND_RW(0, state, float)
BIND_R(1, fits, uint)
BIND_R(2, orders, int)
BIND_R(3, start, uint)
BIND_R(4, rates, float)
BIND_R(5, x, float)
BIND_R(6, y, float)
BIND_R(7, masks, float)
BIND_R(8, view_columns, int)
layout(set = 0, binding = 9, std430) coherent buffer scratch_block { float scratch[]; };
BIND_W(10, losses, float)

#define FIT gl_WorkGroupID.x

// ------------------------------------------------------------------------------ scratch

uint at_h1() { return FIT * a.scratch; }                              // [K, 128]
uint at_h2() { return at_h1() + a.most_views * W1; }                  // [K, 64]
uint at_h3() { return at_h2() + a.most_views * W2; }                  // [K, 64]
uint at_d1() { return at_h3() + a.most_views * W2; }                  // [K, 128]
uint at_d2() { return at_d1() + a.most_views * W1; }                  // [K, 64]
uint at_d3() { return at_d2() + a.most_views * W2; }                  // [K, 64]
uint at_gen() { return at_d3() + a.most_views * W2; }                 // [K, P]
uint at_part() { return at_gen() + a.most_views * a.count; }          // [tasks, P]
uint at_sums() { return at_part() + a.most_tasks * a.count; }         // [K, sums to add]

// ------------------------------------------------------------------------------ target network

uint task_view = 0, task_gen = 0, task_part = 0; // of the invocation's octet
bool task_mine = false;
uint row_of(uint r);
#define GEN(i) scratch[task_gen + (i)]
#define COLUMN(i) uint(view_columns[task_view * a.chosen + (i)])
#define X_AT(c, r) x[row_of(r) * a.columns + (c)]
#define PART(i, sum)                                                                               \
    if (task_mine) scratch[task_part + (i)] = sum
#include "target.glsl"
uint task_row[R];
uint row_of(uint r) { return task_row[r]; }

// Replaces the outputs of row r by the gradient of weight * loss; returns weight * loss.
float loss_of(uint r, float target, float weight)
{
    float others = 0.0, most, picked = 0.0, own = 1.0;
    if (SQUARE != 0u) {
        float e = unit[r] - target;
        unit[r] = 2.0 * weight * e;
        return weight * e * e;
    }
    most = unit[r];
    [[unroll]] for (uint o = 1; o < C; o++) most = max(most, unit[o * R + r]);
    [[unroll]] for (uint o = 0; o < C; o++) {
        float z = unit[o * R + r] - most, e = exp_exact(z);
        bool right = uint(target) == o;
        picked = right ? z : picked;
        own = right ? e : own;
        others += right ? 0.0 : e;
        unit[o * R + r] = e;
    }
    // p - 1 of the right class as minus the others' share: exact also where p is nearly 1.
    float sum = others + own, share = weight / sum;
    [[unroll]] for (uint o = 0; o < C; o++)
        unit[o * R + r] = share * (uint(target) == o ? -others : unit[o * R + r]);
    return weight * (log_exact(sum) - picked);
}

// ------------------------------------------------------------------------------ parameters

uint at_u1() { return (a.columns + 1u) * W1; }
uint at_u2() { return at_u1() + (W1 + 1u) * W2; }
uint at_u3() { return at_u2() + (W2 + 1u) * W2; }

// Slots of an invocation: N0 of U0, N1, N2, LAST of the others, then biases 1, 1, 1, NR.
const uint SLOT1 = N0, SLOT2 = SLOT1 + N1, SLOT3 = SLOT2 + N2, SLOT_C0 = SLOT3 + LAST,
           SLOT_C1 = SLOT_C0 + 1, SLOT_C2 = SLOT_C1 + 1, SLOT_C3 = SLOT_C2 + 1, SLOTS = SLOT_C3 + NR;

uint t_() { return gl_LocalInvocationID.x; }
uint column_of(uint i) { return (t_() / W1) * N0 + i; }
uint row3(uint r) { return r * GROUP + t_(); }
bool holds0(uint i) { return column_of(i) < a.columns; }
bool holds3(uint r) { return row3(r) < a.count; }
bool holds_c0() { return t_() < W1; }
bool holds_c() { return t_() < W2; }
uint index0(uint i) { return column_of(i) * W1 + t_() % W1; }
uint index1(uint i) { return at_u1() + ((t_() / W2) * N1 + i) * W2 + t_() % W2; }
uint index2(uint i) { return at_u2() + ((t_() / W2) * N2 + i) * W2 + t_() % W2; }
uint index3(uint j, uint r) { return at_u3() + j * a.count + row3(r); }
uint index_c0() { return a.columns * W1 + t_() % W1; }
uint index_c1() { return at_u1() + W1 * W2 + t_() % W2; }
uint index_c2() { return at_u2() + W2 * W2 + t_() % W2; }
uint index_c3(uint r) { return at_u3() + W2 * a.count + row3(r); }

#ifdef STREAMED
#define MANY
uint at_state() { return FIT * a.states; }
#define VALUE(slot, index) state[at_state() + (index)]
#define MOMENT1(slot, index) state[at_state() + a.parameters + (index)]
#define MOMENT2(slot, index) state[at_state() + 2u * a.parameters + (index)]
#define IF_HELD(held) if (held)
#else
#define MANY [[unroll]]
float value[SLOTS], moment1[SLOTS], moment2[SLOTS];
#define VALUE(slot, index) value[slot]
#define MOMENT1(slot, index) moment1[slot]
#define MOMENT2(slot, index) moment2[slot]
#define IF_HELD(held)
#endif

float rate = 0.0, root = 0.0; // of this step

// Adam on one parameter. Moments that fade out stop before they become denormal, which CPUs are slow
// with.
#define ADAM(slot, index, gradient)                                                                \
    {                                                                                              \
        float g = gradient;                                                                        \
        float m_ = a.b1 * MOMENT1(slot, index) + a.rest1 * g;                                      \
        float v_ = a.b2 * MOMENT2(slot, index) + a.rest2 * (g * g);                                \
        m_ = abs(m_) > 1e-30 ? m_ : 0.0;                                                           \
        v_ = v_ > 1e-30 ? v_ : 0.0;                                                                \
        VALUE(slot, index) -= rate * (m_ / (sqrt(v_) * root + a.eps));                             \
        MOMENT1(slot, index) = m_;                                                                 \
        MOMENT2(slot, index) = v_;                                                                 \
    }

#ifndef STREAMED
// The index of a slot's parameter, and whether there is one.
uint index_of(uint slot, out bool held)
{
    held = true;
    if (slot < SLOT1) {
        held = holds0(slot);
        return index0(slot);
    }
    if (slot < SLOT2) return index1(slot - SLOT1);
    if (slot < SLOT3) return index2(slot - SLOT2);
    if (slot < SLOT_C0) {
        uint r = (slot - SLOT3) / W2;
        held = holds3(r);
        return index3((slot - SLOT3) % W2, r);
    }
    if (slot < SLOT_C3) {
        held = slot == SLOT_C0 ? holds_c0() : holds_c();
        return slot == SLOT_C0 ? index_c0() : slot == SLOT_C1 ? index_c1() : index_c2();
    }
    held = holds3(slot - SLOT_C3);
    return index_c3(slot - SLOT_C3);
}

// These loops must stay loops, or the kernel takes minutes to compile: their bound is an argument.
void fetch_parameters()
{
    uint slot = 0;
    do {
        bool held;
        uint q = FIT * a.states + index_of(slot, held);
        value[slot] = held ? state[q] : 0.0;
        moment1[slot] = held ? state[q + a.parameters] : 0.0;
        moment2[slot] = held ? state[q + 2u * a.parameters] : 0.0;
        slot++;
    } while (slot < a.slots);
}

void keep_parameters()
{
    uint slot = 0;
    do {
        bool held;
        uint q = FIT * a.states + index_of(slot, held);
        if (held) {
            state[q] = value[slot];
            state[q + a.parameters] = moment1[slot];
            state[q + 2u * a.parameters] = moment2[slot];
        }
        slot++;
    } while (slot < a.slots);
}
#endif

// ------------------------------------------------------------------------------ phases

void meet()
{
    memoryBarrierBuffer();
    barrier();
}

// target[k, i] = sum over `terms` of part[k, s, i], then relu and its mask as asked; K * width items.
void add_up(uint to, uint from, uint terms, uint width, uint views, bool relu, uint mask)
{
    uint item = t_();
    do {
        bool there = item < views * width;
        uint k = item / width, i = item % width, s = 0;
        float sum = 0.0;
        do {
            sum += scratch[from + (there ? (k * terms + s) * width + i : 0u)];
            s++;
        } while (s < terms);
        if (relu) sum = max(sum, 0.0);
        if (mask != 0u) sum = scratch[there ? mask - 1u + item : from] > 0.0 ? sum : 0.0;
        if (there) scratch[to + item] = sum;
        item += GROUP;
    } while (item - t_() < views * width);
}

void forward_hypernetwork(uint views, uint order)
{
    uint k = 0, o = t_() % W1, slice = t_() / W1;
    do { // first layer
        uint from = uint(orders[order + k]) * a.columns;
        float sum = holds_c0() ? VALUE(SLOT_C0, index_c0()) : 0.0;
        MANY for (uint q = 0; q < (N0 + 7u) / 8u; q++) {
            uint own = slice * N0 + 8u * q + lane8();
            float mask = own < a.columns ? masks[from + own] : 0.0;
            [[unroll]] for (uint u = 0; u < 8; u++)
                if (8u * q + u < N0)
                    IF_HELD(holds0(8u * q + u))
                        sum += PICK(mask, u, masks[from + column_of(8u * q + u)]) *
                               VALUE(8u * q + u, index0(8u * q + u));
        }
        scratch[at_sums() + (k * (GROUP / W1) + slice) * W1 + o] = sum;
        k++;
    } while (k < views);
    meet();
    add_up(at_h1(), at_sums(), GROUP / W1, W1, views, true, 0u);
    meet();
    k = 0;
    o = t_() % W2;
    slice = t_() / W2;
    do {
        uint from = at_h1() + k * W1 + slice * N1;
        float sum = holds_c() ? VALUE(SLOT_C1, index_c1()) : 0.0;
        MANY for (uint q = 0; q < N1 / 8u; q++) {
            float h = scratch[from + 8u * q + lane8()];
            [[unroll]] for (uint u = 0; u < 8; u++)
                sum += PICK(h, u, scratch[from + 8u * q + u]) * VALUE(SLOT1 + 8u * q + u, index1(8u * q + u));
        }
        scratch[at_sums() + (k * SLICES + slice) * W2 + o] = sum;
        k++;
    } while (k < views);
    meet();
    add_up(at_h2(), at_sums(), SLICES, W2, views, true, 0u);
    meet();
    k = 0;
    do {
        uint from = at_h2() + k * W2 + slice * N2;
        float sum = holds_c() ? VALUE(SLOT_C2, index_c2()) : 0.0;
        MANY for (uint q = 0; q < N2 / 8u; q++) {
            float h = scratch[from + 8u * q + lane8()];
            [[unroll]] for (uint u = 0; u < 8; u++)
                sum += PICK(h, u, scratch[from + 8u * q + u]) * VALUE(SLOT2 + 8u * q + u, index2(8u * q + u));
        }
        scratch[at_sums() + (k * SLICES + slice) * W2 + o] = sum;
        k++;
    } while (k < views);
    meet();
    add_up(at_h3(), at_sums(), SLICES, W2, views, false, 0u);
    meet();
    k = 0;
    do { // the generated weights
        uint from = at_h3() + k * W2;
        float sum[NR];
        MANY for (uint r = 0; r < NR; r++) {
            sum[r] = 0.0;
            IF_HELD(holds3(r)) sum[r] = VALUE(SLOT_C3 + r, index_c3(r));
        }
        MANY for (uint q = 0; q < W2 / 8u; q++) {
            float h = scratch[from + 8u * q + lane8()];
            [[unroll]] for (uint u = 0; u < 8; u++) {
                float hu = PICK(h, u, scratch[from + 8u * q + u]);
                MANY for (uint r = 0; r < NR; r++)
                    IF_HELD(holds3(r))
                        sum[r] += hu * VALUE(SLOT3 + r * W2 + 8u * q + u, index3(8u * q + u, r));
            }
        }
        MANY for (uint r = 0; r < NR; r++)
            if (holds3(r)) scratch[at_gen() + k * a.count + row3(r)] = sum[r];
        k++;
    } while (k < views);
    meet();
}

// Tasks: blocks of 8 R rows of every view; an octet does one after the other.
void target_networks(uint views, uint order, uint first_row, uint rows, uint losses_at)
{
    uint blocks = (rows + 8u * R - 1u) / (8u * R), tasks = views * blocks;
    float weight = 1.0 / (float(rows) * float(views));
    uint octet = t_() / 8u, done = 0;
    do {
        uint task = min(done + octet, tasks - 1u), k = task / blocks;
        task_mine = done + octet < tasks;
        task_view = uint(orders[order + k]);
        task_gen = at_gen() + k * a.count;
        task_part = at_part() + task * a.count;
        float v[8], own[R], target[R];
        [[unroll]] for (uint r = 0; r < R; r++) {
            uint at = ((task - k * blocks) * R + r) * 8u + lane8();
            own[r] = at < rows ? weight : 0.0;
            task_row[r] = uint(orders[first_row + min(at, rows - 1u)]);
            target[r] = y[task_row[r]];
        }
        target_forward(a.chosen);
        [[unroll]] for (uint u = 0; u < 8; u++) v[u] = 0.0;
        [[unroll]] for (uint r = 0; r < R; r++) v[0] += loss_of(r, target[r], own[r]);
        float loss = octet_sum(v);
        if (task_mine && lane8() == 0u) losses[losses_at + task] = loss;
        target_backward(a.chosen);
        done += OCTETS;
    } while (done < tasks);
    meet();
}

// Layers 3, 2, 1 and 0, each with its Adam step. The gradient that goes on down is made with the
// weights before the step. Parameters are taken a few at a time through all views and their step, so
// that their gradients need no memory.

// The sum over its blocks of rows of what this invocation's rows of the last layer get.
void gather_generated(uint views, uint blocks)
{
    uint k = 0;
    do {
        MANY for (uint r = 0; r < NR; r++) {
            uint b = 0, at = at_part() + k * blocks * a.count + (holds3(r) ? row3(r) : 0u);
            float sum = 0.0;
            do {
                sum += scratch[at + b * a.count];
                b++;
            } while (b < blocks);
            if (holds3(r)) scratch[at_gen() + k * a.count + row3(r)] = sum;
        }
        k++;
    } while (k < views);
}

void backward_generated(uint views)
{
    uint octet = t_() / 8u;
    float v[8];
    MANY for (uint chunk = 0; chunk < NR; chunk += NB) {
        float bias[NB];
        MANY for (uint r = 0; r < NB; r++) bias[r] = 0.0;
        MANY for (uint q = 0; q < W2 / 8u; q++) {
            float g[8 * NB];
            [[unroll]] for (uint i = 0; i < 8u * NB; i++) g[i] = 0.0;
            uint k = 0;
            do {
                float dg[NB], h = scratch[at_h3() + k * W2 + 8u * q + lane8()];
                [[unroll]] for (uint r = 0; r < NB; r++) {
                    bool held = chunk + r < NR && holds3(chunk + r);
                    float d = scratch[at_gen() + k * a.count + (held ? row3(chunk + r) : 0u)];
                    dg[r] = held ? d : 0.0;
                    if (q == 0u) bias[r] += dg[r];
                }
                [[unroll]] for (uint u = 0; u < 8; u++) {
                    float hu = PICK(h, u, scratch[at_h3() + k * W2 + 8u * q + u]);
                    v[u] = 0.0;
                    [[unroll]] for (uint r = 0; r < NB; r++) {
                        if (chunk + r < NR)
                            IF_HELD(holds3(chunk + r))
                                v[u] += dg[r] * VALUE(SLOT3 + (chunk + r) * W2 + 8u * q + u,
                                                      index3(8u * q + u, chunk + r));
                        g[u * NB + r] += dg[r] * hu;
                    }
                }
                uint at = at_sums() + (k * OCTETS + octet) * W2 + 8u * q + lane8();
                float sum = octet_sum(v);
                if (chunk > 0u) sum += scratch[at];
                scratch[at] = sum;
                k++;
            } while (k < views);
            [[unroll]] for (uint u = 0; u < 8; u++)
                [[unroll]] for (uint r = 0; r < NB; r++)
                    if (chunk + r < NR)
                        IF_HELD(holds3(chunk + r))
                            ADAM(SLOT3 + (chunk + r) * W2 + 8u * q + u,
                                 index3(8u * q + u, chunk + r), g[u * NB + r])
        }
        [[unroll]] for (uint r = 0; r < NB; r++)
            if (chunk + r < NR)
                IF_HELD(holds3(chunk + r)) ADAM(SLOT_C3 + chunk + r, index_c3(chunk + r), bias[r])
    }
    meet();
    add_up(at_d3(), at_sums(), OCTETS, W2, views, false, 0u);
    meet();
}

// A layer of 64 outputs and `inputs` of which the invocation has N, from slot `first`: gradients of
// its outputs at `above`, inputs at `given`.
#define BACKWARD_LAYER(N, inputs, first, index, slot_c, index_c, above, given)                     \
    {                                                                                              \
        uint o = t_() % W2, slice = t_() / W2, octet = t_() / 8u;                                  \
        float bias = 0.0, v[8];                                                                    \
        MANY for (uint q = 0; q < N / 8u; q++) {                                                   \
            float g[8];                                                                            \
            uint k = 0;                                                                            \
            [[unroll]] for (uint u = 0; u < 8; u++) g[u] = 0.0;                                    \
            do {                                                                                   \
                float d = scratch[above + k * W2 + o];                                             \
                uint from = given + k * inputs + slice * N + 8u * q;                               \
                float h = scratch[from + lane8()];                                                 \
                if (q == 0u) bias += d;                                                            \
                [[unroll]] for (uint u = 0; u < 8; u++) {                                          \
                    v[u] = d * VALUE(first + 8u * q + u, index(8u * q + u));                       \
                    g[u] += d * PICK(h, u, scratch[from + u]);                                     \
                }                                                                                  \
                scratch[at_sums() + (k * 8u + octet % 8u) * inputs + slice * N + 8u * q + lane8()] = \
                    octet_sum(v);                                                                  \
                k++;                                                                               \
            } while (k < views);                                                                   \
            [[unroll]] for (uint u = 0; u < 8; u++)                                                \
                ADAM(first + 8u * q + u, index(8u * q + u), g[u])                                  \
        }                                                                                          \
        IF_HELD(holds_c()) ADAM(slot_c, index_c(), bias)                                           \
        meet();                                                                                    \
    }

void backward_hypernetwork(uint views, uint order, uint rows)
{
    gather_generated(views, (rows + 8u * R - 1u) / (8u * R));
    backward_generated(views);
    BACKWARD_LAYER(N2, W2, SLOT2, index2, SLOT_C2, index_c2, at_d3(), at_h2())
    add_up(at_d2(), at_sums(), 8u, W2, views, false, at_h2() + 1u);
    meet();
    BACKWARD_LAYER(N1, W1, SLOT1, index1, SLOT_C1, index_c1, at_d2(), at_h1())
    add_up(at_d1(), at_sums(), 8u, W1, views, false, at_h1() + 1u);
    meet();

    float bias = 0.0;
    MANY for (uint q = 0; q < (N0 + 7u) / 8u; q++) {
        float g[8];
        uint k = 0;
        [[unroll]] for (uint u = 0; u < 8; u++) g[u] = 0.0;
        do {
            float d = scratch[at_d1() + k * W1 + t_() % W1];
            uint from = uint(orders[order + k]) * a.columns, own = (t_() / W1) * N0 + 8u * q + lane8();
            float mask = own < a.columns ? masks[from + own] : 0.0;
            if (q == 0u) bias += d;
            [[unroll]] for (uint u = 0; u < 8; u++)
                if (8u * q + u < N0)
                    IF_HELD(holds0(8u * q + u))
                        g[u] += d * PICK(mask, u, masks[from + column_of(8u * q + u)]);
            k++;
        } while (k < views);
        [[unroll]] for (uint u = 0; u < 8; u++)
            if (8u * q + u < N0)
                IF_HELD(holds0(8u * q + u)) ADAM(8u * q + u, index0(8u * q + u), g[u])
    }
    IF_HELD(holds_c0()) ADAM(SLOT_C0, index_c0(), bias)
}

void main()
{
    uint rows = fits[FIT * 8u], batch = fits[FIT * 8u + 1u], per_step = fits[FIT * 8u + 2u];
    uint total = fits[FIT * 8u + 3u], views_at = fits[FIT * 8u + 5u];
    float lr = uintBitsToFloat(fits[FIT * 8u + 4u]);
    uint groups = (a.views + per_step - 1u) / per_step, batches = (rows + batch - 1u) / batch;
    uint step = start[0] + a.first, end = min(step + a.steps, total), local = a.first;
    if (step >= end) return;
#ifndef STREAMED
    fetch_parameters();
#endif
    do {
        uint turn = step / groups, group = step % groups; // batches so far; views of the batch
        uint batch_now = turn % batches;
        uint first_row = FIT * a.orders + turn / batches * rows + batch_now * batch;
        uint rows_now = min(batch, rows - batch_now * batch);
        uint order = FIT * a.orders + views_at + turn * a.views + group * per_step;
        uint views_now = min(per_step, a.views - group * per_step);
        rate = lr * rates[2u * step];
        root = rates[2u * step + 1u];
        forward_hypernetwork(views_now, order);
        target_networks(views_now, order, first_row, rows_now, (FIT * a.all_steps + local) * a.most_tasks);
        backward_hypernetwork(views_now, order, rows_now);
        step++;
        local++;
    } while (step < end);
#ifndef STREAMED
    keep_parameters();
#endif
}
