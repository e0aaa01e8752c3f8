// `quoin eval`: perplexity of texts, accuracy on multiple-choice questions.
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/term.h"
#include "llm/eval.h"

#include <string.h>

typedef struct eval_opts {
    qn_opt_list text, choices;
    const char *delimiter;
    int64_t length, stride, tokens;
    int weights, format;
} eval_opts;

static const qn_opt options[] = {
    { "text", 0, QN_AT_LIST(eval_opts, text), .value = "FILE",
      .help = "text to predict; a folder stands for all files in it" },
    { "choices", 0, QN_AT_LIST(eval_opts, choices), .value = "FILE",
      .help = "multiple-choice questions, one JSON object a line" },
    { "length", 0, QN_AT_INT(eval_opts, length), .initial = "512", .min = 1, .max = 1 << 20,
      .help = "tokens that a prediction may look back on" },
    { "stride", 0, QN_AT_INT(eval_opts, stride), .min = 0, .max = 1 << 20, .initial = "0",
      .help = "new tokens in each window of a text; 0: as many as --length" },
    { "tokens", 0, QN_AT_INT(eval_opts, tokens), .min = 0, .max = INT32_MAX, .initial = "0",
      .help = "tokens of each text to look at, at most; 0: all" },
    { "delimiter", 0, QN_AT_STRING(eval_opts, delimiter), .value = "TEXT", .initial = " ",
      .help = "between a question and its choice" },
    { "weights", 0, QN_AT_CHOICE(eval_opts, weights), .words = QN_WEIGHT_WORDS, .initial = "same",
      .help = "how matrices are kept on the device; same: as in the files" },
    { "format", 0, QN_AT_CHOICE(eval_opts, format), .words = QN_REPORT_WORDS, .initial = "text",
      .help = "how results are printed" },
    { 0 },
};

typedef struct running {
    const qn_cli *cli;
    qn_device *dev;
    qn_folder folder;
    qn_eval_opts o;
    qn_progress progress;
    bool started;
} running;

static bool on_progress(void *user, int64_t tokens, int64_t total)
{
    running *r = user;
    if (!r->started)
        qn_progress_start(&r->progress, "eval", "tokens", 0, (double)total, r->cli->quiet);
    r->started = true;
    qn_progress_update(&r->progress, (double)tokens, NULL);
    return !qn_interrupted();
}

static void end_progress(running *r)
{
    if (r->started) qn_progress_end(&r->progress, NULL);
    r->started = false;
}

static qn_result eval_texts(running *r, const qn_opt_list *files, qn_report_format format)
{
    static const qn_column columns[] = {
        { "text", QN_COLUMN_TEXT },
        { "tokens", QN_COLUMN_INT },
        { "bytes", QN_COLUMN_INT },
        { "perplexity", QN_COLUMN_REAL, 6 },
        { "bits_per_byte", QN_COLUMN_REAL, 6 },
        { "nats_per_token", QN_COLUMN_REAL, 6 },
    };
    qn_report *report;
    QN_TRY(qn_report_open(stdout, format, columns, sizeof columns / sizeof *columns, &report));
    qn_result res = QN_OK;
    for (size_t i = 0; res == QN_OK && i < files->count; i++) {
        qn_eval_text e;
        res = qn_eval_text_file(r->dev, &r->folder, files->items[i], &r->o, &e);
        end_progress(r);
        if (res == QN_OK)
            res = qn_report_row(report, (qn_value[]){ QN_TEXT(files->items[i]), QN_INT(e.tokens),
                                                      QN_INT(e.bytes), QN_REAL(e.perplexity),
                                                      QN_REAL(e.bits_per_byte),
                                                      QN_REAL(e.nll / (double)e.tokens) });
    }
    qn_result closed = qn_report_close(&report);
    return res == QN_OK ? closed : res;
}

static qn_result eval_choices(running *r, const qn_opt_list *files, qn_report_format format)
{
    static const qn_column columns[] = {
        { "choices", QN_COLUMN_TEXT },  { "questions", QN_COLUMN_INT },
        { "accuracy", QN_COLUMN_REAL }, { "normalised", QN_COLUMN_REAL },
        { "error", QN_COLUMN_REAL, 2 }, { "chance", QN_COLUMN_REAL },
        { "cut", QN_COLUMN_INT },
    };
    qn_report *report;
    QN_TRY(qn_report_open(stdout, format, columns, sizeof columns / sizeof *columns, &report));
    qn_result res = QN_OK;
    for (size_t i = 0; res == QN_OK && i < files->count; i++) {
        qn_eval_choices e;
        res = qn_eval_choices_file(r->dev, &r->folder, files->items[i], &r->o, &e);
        end_progress(r);
        if (res == QN_OK)
            res = qn_report_row(report,
                                (qn_value[]){ QN_TEXT(files->items[i]), QN_INT(e.questions),
                                              QN_REAL(e.accuracy), QN_REAL(e.normalised),
                                              QN_REAL(e.error), QN_REAL(e.chance), QN_INT(e.cut) });
    }
    qn_result closed = qn_report_close(&report);
    return res == QN_OK ? closed : res;
}

static int run(const qn_cli *cli, const void *opts)
{
    const eval_opts *o = opts;
    if (!o->text.count && !o->choices.count)
        return qn_cli_misuse(cli, "give --text FILE, --choices FILE or both");
    if (o->stride > o->length)
        return qn_cli_misuse(cli,
                             "--stride %lld would leave tokens out: expected at most the "
                             "--length, %lld",
                             (long long)o->stride, (long long)o->length);
    qn_context *ctx = NULL;
    running r = { .cli = cli,
                  .o = { .length = o->length,
                         .stride = o->stride,
                         .tokens = o->tokens,
                         .delimiter = o->delimiter,
                         .progress = on_progress } };
    r.o.user = &r;
    const qn_report_format format = cli->json ? QN_REPORT_JSON : (qn_report_format)o->format;
    qn_interrupt_watch();
    qn_result res = qn_cli_open(cli, &ctx, &r.dev);
    if (res == QN_OK) res = qn_folder_open(r.dev, cli->args[0], qn_weight_choice(o->weights), &r.folder);
    if (res == QN_OK && o->text.count) res = eval_texts(&r, &o->text, format);
    if (res == QN_OK && o->choices.count) res = eval_choices(&r, &o->choices, format);
    int status = qn_cli_result(res);
    qn_folder_close(&r.folder);
    qn_device_destroy(&r.dev);
    qn_context_destroy(&ctx);
    return status;
}

const qn_command qn_command_eval = {
    .args = "FOLDER",
    .args_min = 1,
    .args_max = 1,
    .about = "Measures the model in FOLDER. Of a text: the perplexity exp(nll / tokens) and the "
             "bits per byte nll / ln 2 / bytes, nll being the sum of -ln p over every token but "
             "the first, each predicted from the tokens before it in its window of --length "
             "tokens. A smaller --stride gives predictions more to look back on and takes longer."
             "\n\nOf questions: the share that the model answers rightly, the answer being the "
             "choice with the largest log-likelihood behind the question ('accuracy') or with the "
             "largest one per byte ('normalised'), the accuracy's standard error, and what "
             "guessing would give ('chance'). A line is an object like {\"question\": \"...\", "
             "\"choices\": [\"...\", \"...\"], \"answer\": 0}; docs/eval.md lists other names. "
             "'cut' counts questions that were too long and lost their beginning.",
    .examples = "quoin eval run/demo --text held-out.txt\n"
                "quoin eval run/demo --text held-out.txt --stride 256 --json\n"
                "quoin eval run/demo --choices questions.jsonl",
    .options = options,
    .opts_size = sizeof(eval_opts),
    .run = run,
};
