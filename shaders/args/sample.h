// Shared by the kernels of qn_sample().
#define SAMPLE_HOW 8   // words of a row of `how`: see graph/include/quoin/ops.h
#define SAMPLE_TOP 20  // listed tokens at most
QN_ARGS_BEGIN(sample)
    u32 count;  // elements that an elementwise kernel of it handles; rows
    u32 first;  // vec4s before this window
    u32 vocab;  // V
    u32 stride; // of a row of the changed logits: V in whole vec4s
    u32 changes; // M
    u32 begin, end; // listed tokens of this pass
QN_ARGS_END(sample)
