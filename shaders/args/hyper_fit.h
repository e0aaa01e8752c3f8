QN_ARGS_BEGIN(hyper_fit)
    u32 columns;      // d
    u32 chosen;       // m
    u32 count;        // P
    u32 parameters;   // N, of one hypernetwork
    u32 states;       // floats of a fit's part of `state`
    u32 first, steps; // of all_steps, those of this dispatch: at most so many
    u32 all_steps;
    u32 orders;       // ints of a fit's part of `orders`
    u32 views;        // V
    u32 scratch;      // floats of a fit's part of `scratch`
    u32 most_views;   // largest number of views in a step
    u32 most_tasks;   // largest number of tasks in a step
    u32 slots;        // parameters of an invocation
    f32 b1, b2, eps;  // Adam
    f32 rest1, rest2; // 1 - b1, 1 - b2, not from the rounded ones
QN_ARGS_END(hyper_fit)
