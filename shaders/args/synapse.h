// Shared by the kernels of qn_synapse(). They work on a block of pairs (batch row, head), counted by
// the grid's last used dimension; time is cut into chunks of SYNAPSE_CHUNK tokens. What is kept per
// pair and chunk (g, planes, states) starts with the block's first pair.
#define SYNAPSE_CHUNK 32u
QN_ARGS_BEGIN(synapse)
    u32 tokens;     // T of a batch row
    u32 heads;      // H
    u32 dk, dv;     // key and value channels of a head
    u32 chunks;     // of a batch row; the last may be shorter
    u32 first_pair; // pair p is head p % H of batch row p / H
    u32 pairs;      // of the block
    u32 state;      // elements from one saved state to the next, a multiple of 64
    u32 first;      // first chunk of this dispatch, where chunks follow each other
    u32 count;      // and how many chunks
    u32 row;        // elements of a row of the scratch dR, a multiple of four
QN_ARGS_END(synapse)
