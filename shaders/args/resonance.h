// Shared by resonance and resonance_grad.
QN_ARGS_BEGIN(resonance)
    u32 rows;   // of this window
    u32 width;  // D
    f32 square; // tau^2
QN_ARGS_END(resonance)
