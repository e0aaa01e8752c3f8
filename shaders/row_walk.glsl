// Kernels that work on rows [a.rows, a.width] whose width need not be a multiple of four: memory is
// still read in whole vec4s, of which elements of other rows are masked. Include after each.glsl,
// reduce.glsl and the arguments, which begin with
//     u32 rows;  // rows of this window of the tensors
//     u32 width; // elements of a row
// OWN: who works on a row: a whole group (0), or one invocation (1), the better way for short rows.
// ODD: the width is not a multiple of four.
layout(constant_id = 1) const uint OWN = 0;
layout(constant_id = 2) const uint ODD = 0;

uint row_first()
{
    return OWN == 1 ? group_index() * GROUP + gl_LocalInvocationID.x : group_index();
}
uint row_step()
{
    uint groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y;
    return OWN == 1 ? groups * GROUP : groups;
}

// Which of the invocations of a row this one is.
#define ROW_LANE (OWN == 1 ? 0 : gl_LocalInvocationID.x)
#define ROW_LANES (OWN == 1 ? 1 : GROUP)

// The rows of this invocation, and the vec4s of `row` that it handles: uint i.
#define EACH_ROW(row) for (uint row = row_first(); row < a.rows; row += row_step())
#define EACH_IN_ROW(i, row)                                                                        \
    for (uint i = (row) * a.width / 4 + ROW_LANE; 4 * i < ((row) + 1) * a.width; i += ROW_LANES)

// Which elements of vec4 i belong to the row.
bvec4 in_row(uint i, uint row)
{
    uvec4 e = 4 * i + uvec4(0, 1, 2, 3);
    return notEqual(uvec4(greaterThanEqual(e, uvec4(row * a.width))) *
                        uvec4(lessThan(e, uvec4((row + 1) * a.width))),
                    uvec4(0));
}

vec4 only_row(vec4 v, uint i, uint row, float other)
{
    return ODD == 1 ? mix(vec4(other), v, in_row(i, row)) : v;
}
// vec4 i of a tensor shaped like the rows; elements of other rows read as `other`.
#define LOAD_ROW(name, i, row, other) only_row(LOAD4(name, i), i, row, other)

// vec4 i of the row of a tensor [width], for vec4 i of the rows.
#define LOAD_COLUMN(name, i, row)                                                                  \
    (ODD == 1 ? vec4(COLUMN1(name, i, 0, row), COLUMN1(name, i, 1, row),                           \
                     COLUMN1(name, i, 2, row), COLUMN1(name, i, 3, row))                           \
              : LOAD4(name, (i) - (row) * (a.width / 4)))
#define COLUMN1(name, i, c, row) LOAD1(name, column_of(4 * (i) + c, row))
uint column_of(uint e, uint row)
{
    return uint(clamp(int(e) - int(row * a.width), 0, int(a.width) - 1));
}

// name[i] = value(i, row) for the vec4s of the row; of the first and the last one, where the row's
// ends cut them, only the row's elements. Those are kept out of the loop: see EACH_STORE.
#define ROW_STORE(name, row, value)                                                                \
    {                                                                                              \
        if (ODD == 0) {                                                                            \
            EACH_IN_ROW(i, row) name[i] = value(i, row);                                           \
        } else {                                                                                   \
            uint qn_from = (row) * a.width, qn_to = qn_from + a.width;                             \
            for (uint i = (qn_from + 3) / 4 + ROW_LANE; 4 * i + 4 <= qn_to; i += ROW_LANES)        \
                name[i] = value(i, row);                                                           \
            for (uint qn_k = ROW_LANE; qn_k < 2; qn_k += ROW_LANES) {                              \
                uint i = (qn_k == 0 ? qn_from : qn_to) / 4;                                        \
                bool qn_cut = qn_from % 4 != 0;                                                    \
                if (qn_k == 1) qn_cut = qn_to % 4 != 0 && !(qn_cut && qn_from / 4 == i);           \
                if (qn_cut) {                                                                      \
                    vec4 qn_v = value(i, row);                                                     \
                    bvec4 qn_in = in_row(i, row);                                                  \
                    [[unroll]] for (uint qn_c = 0; qn_c < 4; qn_c++)                               \
                        if (qn_in[qn_c]) name##_1[4 * i + qn_c] = qn_v[qn_c];                      \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

float row_sum(float x) { return OWN == 1 ? x : group_sum(x); }
vec2 row_sum(vec2 x) { return OWN == 1 ? x : group_sum(x); }
float row_max(float x) { return OWN == 1 ? x : group_max(x); }
uint row_min(uint x) { return OWN == 1 ? x : group_min(x); }
// One invocation writes a row's result.
bool row_leader() { return ROW_LANE == 0; }

float sum4(vec4 v) { return (v.x + v.y) + (v.z + v.w); }
float max4(vec4 v) { return max(max(v.x, v.y), max(v.z, v.w)); }
