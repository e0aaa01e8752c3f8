// `quoin generate`: text from a trained folder.
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/term.h"
#include "llm/generate.h"
#include "llm/sampling_opts.h"
#include "platform.h"

#include <stdio.h>
#include <string.h>

typedef struct generate_opts {
    const char *prompt, *file, *memory;
    int64_t tokens, context;
    qn_sampling sampling;
    int weights;
    bool ignore_end, no_echo;
} generate_opts;

static const qn_opt options[] = {
    { "prompt", 'p', QN_AT_STRING(generate_opts, prompt), .value = "TEXT",
      .help = "what the text begins with" },
    { "file", 'f', QN_AT_PATH(generate_opts, file), .value = "FILE",
      .help = "read the prompt from a file" },
    { "tokens", 'n', QN_AT_INT(generate_opts, tokens), .initial = "200", .min = 0, .max = 1 << 24,
      .help = "tokens to write at most; 0: until the text ends or the context is full" },
    { "context", 'c', QN_AT_INT(generate_opts, context), .initial = "1024", .min = 2,
      .max = 1 << 22, .help = "positions to keep, prompt included" },
    { "memory", 'm', QN_AT_PATH(generate_opts, memory), .value = "FILE",
      .help = "what the model remembers: read when the file is there, written at the end" },
    { "ignore-end", 0, QN_AT_FLAG(generate_opts, ignore_end),
      .help = "go on behind the end of the text" },
    { "no-echo", 0, QN_AT_FLAG(generate_opts, no_echo), .help = "do not print the prompt" },
    { "weights", 0, QN_AT_CHOICE(generate_opts, weights), .words = QN_WEIGHT_WORDS,
      .initial = "same", .help = "how matrices are kept on the device; same: as in the files" },
    QN_SAMPLING_OPTIONS(generate_opts, sampling),
    { 0 },
};

static bool print_text(void *user, const char *bytes, size_t size)
{
    (void)user;
    fwrite(bytes, 1, size, stdout);
    fflush(stdout);
    return !qn_interrupted() && !ferror(stdout);
}

static void print_rates(const qn_cli *cli, const qn_generate_stats *s)
{
    // The first token comes with the prompt.
    const double rate = s->tokens > 1 ? (double)(s->tokens - 1) / s->seconds : 0;
    qn_cli_note(cli, "prompt %lld tokens, %.1f tokens/s; wrote %lld tokens, %.1f tokens/s%s",
                (long long)s->prompt_tokens, (double)s->prompt_tokens / s->prompt_seconds,
                (long long)s->tokens, rate, s->ended ? "; the text ended" : "");
}

static bool report_load(void *user, uint64_t done, uint64_t total)
{
    qn_progress *p = user;
    p->total = (double)total / 1e6;
    qn_progress_update(p, (double)done / 1e6, NULL);
    return !qn_interrupted();
}

static qn_result generate(const qn_cli *cli, const generate_opts *o, qn_device *dev)
{
    char *text = NULL;
    size_t size = 0;
    const uint64_t most = 64 << 20;
    if (o->file) QN_TRY(qn_read_file(o->file, most, &text, &size));
    const char *prompt = o->file ? text : o->prompt ? o->prompt : "";
    if (!o->file) size = strlen(prompt);

    qn_folder f = { 0 };
    qn_generate_stats stats = { 0 };
    qn_progress progress;
    qn_progress_start(&progress, "load", "MB", 0, 0, cli->quiet);
    qn_folder_opts open = { qn_weight_choice(o->weights), { report_load, &progress } };
    qn_result r = qn_folder_open_with(dev, cli->args[0], &open, &f);
    qn_progress_end(&progress, NULL);
    if (r == QN_OK) {
        if (!o->no_echo) print_text(NULL, prompt, size);
        qn_generate_opts g = { .prompt = prompt, .prompt_size = size, .max_tokens = o->tokens,
                               .context = o->context, .ignore_end = o->ignore_end,
                               .memory = o->memory,
                               .sampling = o->sampling, .text = print_text };
        g.sampling.seed = (uint64_t)cli->seed;
        r = qn_generate(dev, &f, &g, &stats);
        printf("\n");
    }
    if (r == QN_OK) print_rates(cli, &stats);
    qn_folder_close(&f);
    qn_free(text);
    return r;
}

static int run(const qn_cli *cli, const void *opts)
{
    const generate_opts *o = opts;
    if (o->prompt && o->file)
        return qn_cli_misuse(cli, "--prompt and --file both give the prompt: use one of them");
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    qn_interrupt_watch();
    qn_result r = qn_cli_open(cli, &ctx, &dev);
    if (r == QN_OK) r = generate(cli, o, dev);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return r == QN_OK && qn_interrupted() ? QN_EXIT_INTERRUPTED : qn_cli_result(r);
}

const qn_command qn_command_generate = {
    .args = "MODEL",
    .args_min = 1,
    .args_max = 1,
    .about = "Writes text with MODEL, a folder (config.json, tokenizer.json, "
             "model.safetensors) or a GGUF file, going on from the prompt. The text goes to standard output as "
             "it comes, rates to standard error. The same seed writes the same text; Ctrl-C stops "
             "it.",
    .examples = "quoin generate run/demo --prompt \"The \"\n"
                "quoin generate run/demo -f start.txt -n 500 --temp 0.7 --seed 3",
    .options = options,
    .opts_size = sizeof(generate_opts),
    .run = run,
};
