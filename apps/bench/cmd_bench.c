// bench: what a device can do, and how much of it the kernels and the models reach.
#include "cli/command.h"

#define QN_BENCH(id, summary) extern const qn_command qn_command_bench_##id;
#include "bench/bench.def"
#undef QN_BENCH

static const qn_command_row parts[] = {
#define QN_BENCH(id, text)                                                                         \
    { .name = "bench " #id, .summary = text, .command = &qn_command_bench_##id },
#include "bench/bench.def"
#undef QN_BENCH
    { 0 },
};

const qn_command qn_command_bench = {
    .parts = parts,
    .about =
        "Measures the device and what is run on it. Every figure is the median of several runs "
        "after a warm-up, with the bounds that a tenth of the runs are below and above; shares "
        "are of ceilings that the same invocation measured. What cannot be measured is said, never "
        "printed as zero; what is above the device's possibility is flagged.",
    .examples = "quoin bench peak\nquoin bench ops matmul --preset micro --save before.jsonl\n"
                "quoin bench compare before.jsonl after.jsonl",
};
