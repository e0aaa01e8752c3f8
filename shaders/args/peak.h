QN_ARGS_BEGIN(peak)
    u32 rounds; // of the loop
    f32 factor; // multiplies every accumulator, near 1
    f32 term;   // added to every accumulator
QN_ARGS_END(peak)
