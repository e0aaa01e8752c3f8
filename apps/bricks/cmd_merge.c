// `quoin merge`: the table of its commands.
#include "cli/command.h"

#define QN_MERGE(id, word, summary) extern const qn_command qn_command_merge_##id;
#include "bricks/merge.def"
#undef QN_MERGE

static const qn_command_row parts[] = {
#define QN_MERGE(id, word, text)                                                                   \
    { .name = "merge " word, .summary = text, .command = &qn_command_merge_##id },
#include "bricks/merge.def"
#undef QN_MERGE
    { 0 },
};

const qn_command qn_command_merge = {
    .parts = parts,
    .about = "Makes one model of several, tensor by tensor, in bounded memory. Inputs are only "
             "read. The same inputs, recipe and seed give the same bytes.",
    .examples = "quoin merge run recipe.yml merged",
};
