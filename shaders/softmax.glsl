// The denominators of softmax. Include after row_walk.glsl and the binding of `x`.
const float LOWEST = -3.0e38; // stands in for elements that are not there
const uint WAYS = 4;          // vec4s per round: one rescaling for sixteen elements

// The largest element m of a row, and the sum of exp(x - m) over it: one read, rescaling the sum
// whenever the largest grows.
vec2 row_softmax(uint row)
{
    float top = LOWEST, sum = 0.0;
    uint end = ((row + 1) * a.width + 3) / 4;
    for (uint i = row * a.width / 4 + ROW_LANE; i < end;
         i += WAYS * ROW_LANES) {
        vec4 v[WAYS];
        float m = top;
        [[unroll]] for (uint k = 0; k < WAYS; k++) {
            uint j = i + k * ROW_LANES;
            v[k] = LOAD_ROW(x, min(j, end - 1), row, LOWEST);
            v[k] = j < end ? v[k] : vec4(LOWEST);
            m = max(m, max4(v[k]));
        }
        vec4 s = vec4(0.0);
        [[unroll]] for (uint k = 0; k < WAYS; k++) s += exp_exact(v[k] - m);
        sum = sum * exp_exact(top - m) + sum4(s);
        top = m;
    }
    float m = row_max(top);
    return vec2(m, row_sum(sum * exp_exact(top - m)));
}
