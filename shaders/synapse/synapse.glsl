// Where the kernels of the gated delta rule find their rows. Include after args/synapse.h.
//
// Per head, with P_t = a_t M_{t-1}, a_t = exp(la_t):
//   u_t = v_t - P_t' k_t,  w_t = beta_t u_t,  M_t = P_t + k_t w_t',  o_t = M_t' q_t
// q, k [B*T, H*dk]; v, u, o [B*T, H*dv]; la, beta [B*T, H]; M [dk, dv]. [gated-delta]
layout(constant_id = 1) const bool QUADS_K = true; // dk is a multiple of four
layout(constant_id = 2) const bool QUADS_V = true; // dv is a multiple of four

const uint CHUNK = SYNAPSE_CHUNK;

// Token t of a pair: row (b T + t) H + h of [B*T*H, ..].
uint synapse_row(uint pair, uint t)
{
    return ((pair / a.heads) * a.tokens + t) * a.heads + pair % a.heads;
}

// Elements d .. d+3 behind `base`, of a row of `width`; those beyond its end are 0, or, where the
// width is a multiple of four, those of the last quad: they reach no result.
#define SYNAPSE_LOAD4(quads, name, base, d, width)                                                 \
    (quads ? LOAD4(name, ((base) + min(d, (width) - 4u)) >> 2)                                     \
           : vec4(SYNAPSE_LOAD1(name, base, d, width), SYNAPSE_LOAD1(name, base, (d) + 1u, width), \
                  SYNAPSE_LOAD1(name, base, (d) + 2u, width),                                      \
                  SYNAPSE_LOAD1(name, base, (d) + 3u, width)))
#define SYNAPSE_LOAD1(name, base, d, width) ((d) < (width) ? LOAD1(name, (base) + (d)) : 0.0)
#define KEY4(name, base, d) SYNAPSE_LOAD4(QUADS_K, name, base, d, a.dk)
#define VALUE4(name, base, d) SYNAPSE_LOAD4(QUADS_V, name, base, d, a.dv)

// Stores elements d .. d+3 to a BIND_OUT binding, as far as the row is wide.
#define SYNAPSE_STORE4(quads, name, base, d, width, x)                                             \
    {                                                                                              \
        uint qn_b = base, qn_d = d;                                                                \
        vec4 qn_x = x;                                                                             \
        if (quads) {                                                                               \
            if (qn_d < (width)) name[(qn_b + qn_d) >> 2] = qn_x;                                   \
        } else {                                                                                   \
            [[unroll]] for (uint qn_p = 0; qn_p < 4u; qn_p++)                                      \
                if (qn_d + qn_p < (width)) name##_1[qn_b + qn_d + qn_p] = qn_x[qn_p];              \
        }                                                                                          \
    }
#define KEY_STORE4(name, base, d, x) SYNAPSE_STORE4(QUADS_K, name, base, d, a.dk, x)
#define VALUE_STORE4(name, base, d, x) SYNAPSE_STORE4(QUADS_V, name, base, d, a.dv, x)

// Of local pair p: the start of g, of rows of scratch; a plane [CHUNK, CHUNK]; a state.
#define ROWS_AT(p, c) (((p) * a.chunks + (c)) * CHUNK)
// g of a chunk is a sum of two numbers, 32 high parts and then 32 low ones: what tokens far into a
// chunk have lost is large, the difference between neighbours small.
#define CHUNK_AT(p, c) (ROWS_AT(p, c) * 2u)
#define PLANE_AT(p, c) (((p) * a.chunks + (c)) * CHUNK * CHUNK)
#define STATE_AT(p, c) (((p) * a.chunks + (c)) * a.state)
// Gradients of states have one more per pair: that of the end.
#define STATE_GRAD_AT(p, c) (((p) * (a.chunks + 1u) + (c)) * a.state)

// Where the first state of a dispatch comes from.
const uint FROM_ZERO = 0;
const uint FROM_GIVEN = 1;
const uint FROM_LAST = 2; // where the dispatch before this one left it

// An output that the next dispatch reads, like BIND_OUT.
#define BIND_IO(b, name) BIND_RW(b, name, vec4) BIND_RW(b, name##_1, float)

// exp(g_to - g_from) for two sums (high, low), the first the later one.
#define fade_from(from, to)                                                                        \
    exp_exact(min(((to).x - (from).x) + ((to).y - (from).y), 0.0))

// Tokens of chunk c.
uint chunk_tokens(uint c) { return min(CHUNK, a.tokens - c * CHUNK); }
