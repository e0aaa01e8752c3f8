// Shared by the kernels of stick-breaking attention. They work on a block: `rows` query rows of
// each of some pairs (batch row, head), counted by the grid's z. Planes are [pair][row][stride].
#define STICK_USED 1u // the number of filled keys is read from `used`
#define STICK_KEEP 2u // keys are hidden by `keep`
#define STICK_SKIP 4u // a position does not attend to itself
#define STICK_ADD 8u  // add to the output instead of overwriting it
#define STICK_REM 16u // store the left-over of the stick
#define STICK_EACH 32u // `used` has a value for each batch row
#define STICK_BLOCK 64u // and behind it which block of keys the row reads
QN_ARGS_BEGIN(stickbreaking)
    u32 tokens;     // T, query positions of a batch row
    u32 slots;      // K, query rows of a position
    u32 keys;       // S
    u32 heads;      // H
    u32 width;      // D, columns of one head
    u32 stride;     // of a plane's rows, at least S, a multiple of four
    u32 first_pair; // pair p is head p % H of batch row p / H
    u32 first_row;  // of the T * K rows of each pair
    u32 rows;
    u32 flags;
    u32 blocks;     // of `keys` rows in k and v
    u32 window;     // newest keys that a row sees; 0: all
    f32 scale;      // factor on the sum
QN_ARGS_END(stickbreaking)
