// Sums over the keys of one row that 64 invocations hold, four neighbouring keys each.
shared float stick_part[2][64];

// The sum of x over all lanes below this one; all receives the sum over all 64.
float stick_before(uint lane, float x, out float all)
{
    uint at = 0;
    stick_part[0][lane] = x;
    barrier();
    [[unroll]] for (uint reach = 1; reach < 64; reach *= 2) {
        stick_part[1u - at][lane] =
            stick_part[at][lane] + (lane >= reach ? stick_part[at][lane - reach] : 0.0);
        at = 1u - at;
        barrier();
    }
    all = stick_part[at][63];
    float before = lane > 0u ? stick_part[at][lane - 1u] : 0.0;
    barrier();
    return before;
}
