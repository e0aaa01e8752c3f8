// `quoin bricks`: the table of its commands.
#include "cli/command.h"

#define QN_BRICKS(id, word, summary) extern const qn_command qn_command_bricks_##id;
#include "bricks/bricks.def"
#undef QN_BRICKS

static const qn_command_row parts[] = {
#define QN_BRICKS(id, word, text)                                                                  \
    { .name = "bricks " word, .summary = text, .command = &qn_command_bricks_##id },
#include "bricks/bricks.def"
#undef QN_BRICKS
    { 0 },
};

const qn_command qn_command_bricks = {
    .parts = parts,
    .about = "Takes models apart and puts them together. A brick is a group of parameters with one "
             "function: a neuron, an expert, an adapter, a layer. Input folders are never "
             "changed; results go to a folder of their own, which appears only when it is "
             "complete.",
    .examples = "quoin bricks list run/book\nquoin help bricks show",
};
