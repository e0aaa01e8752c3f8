// `quoin convert`: models between folders and GGUF files, and between number formats.
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/term.h"
#include "llm/convert.h"
#include "llm/generate.h"

typedef struct convert_opts {
    int weights;
} convert_opts;

static const qn_opt options[] = {
    { "weights", 'w', QN_AT_CHOICE(convert_opts, weights),
      .words = QN_WEIGHT_WORDS, .initial = "same",
      .help = "how matrices are written; same: as they are" },
    { 0 },
};

static bool report(void *user, uint64_t done, uint64_t total)
{
    qn_progress *p = user;
    p->total = (double)total / 1e6;
    qn_progress_update(p, (double)done / 1e6, NULL);
    return !qn_interrupted();
}

static int run(const qn_cli *cli, const void *opts)
{
    const convert_opts *o = opts;
    qn_progress progress;
    qn_interrupt_watch();
    qn_progress_start(&progress, "convert", "MB", 0, 0, cli->quiet);
    qn_convert_opts c = { .weights = qn_weight_choice(o->weights),
                          .progress = { .report = report, .user = &progress } };
    qn_result r = qn_convert(cli->args[0], cli->args[1], &c);
    qn_progress_end(&progress, NULL);
    if (r == QN_ERR_CANCELLED && qn_interrupted()) return QN_EXIT_INTERRUPTED;
    if (r == QN_OK) qn_cli_note(cli, "wrote %s", cli->args[1]);
    return qn_cli_result(r);
}

const qn_command qn_command_convert = {
    .args = "FROM TO",
    .args_min = 2,
    .args_max = 2,
    .about = "Writes the model FROM as TO. Each is a folder (config.json, tokenizer.json, "
             "model.safetensors in one or several files) or one GGUF file whose name ends in "
             ".gguf, with description and tokenizer inside. Quantised matrices, q8_0 and q4_0, "
             "need a GGUF file; vectors stay f32, routers and embeddings as they are. No device is "
             "needed, and no more memory than a few tensors' pieces.",
    .examples = "quoin convert MoLM-350M-4B molm.gguf --weights q4_0\n"
                "quoin convert molm.gguf folder --weights bf16",
    .options = options,
    .opts_size = sizeof(convert_opts),
    .run = run,
};
