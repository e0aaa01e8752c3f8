// What the peak kernels share: independent sums in registers, far more than the latency of one
// operation needs and fewer than spill. Define VALUE, SUMS, STEP(v) and FLOATS(v) before.
//   y[i] = the sum of all, so that nothing can be left out
const int STEPS = 8; // unrolled, so that the loop itself costs nothing

BIND_W(0, y, float)

void main()
{
    VALUE sums[SUMS];
    [[unroll]] for (int i = 0; i < SUMS; i++) sums[i] = VALUE(gl_LocalInvocationID.x + i);
    for (uint r = 0; r < a.rounds; r++) {
        [[unroll]] for (int s = 0; s < STEPS; s++) {
            [[unroll]] for (int i = 0; i < SUMS; i++) sums[i] = STEP(sums[i]);
        }
    }
    float total = 0;
    [[unroll]] for (int i = 0; i < SUMS; i++) total += FLOATS(sums[i]);
    y[gl_GlobalInvocationID.x] = total;
}
