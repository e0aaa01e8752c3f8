// `quoin train`: options, what is said before and during a run, and its end.
#include "bench/peak.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/term.h"
#include "io/json.h"
#include "io/textbuf.h"
#include "llm/lora.h"
#include "llm/train.h"
#include "llm/trainable.h"
#include "llm/train_log.h"
#include "llm/train_profile.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct train_opts {
    qn_opt_list text, only, lora_targets;
    int64_t lora;
    double lora_alpha, lora_dropout;
    bool rslora;
    const char *out, *preset, *config, *tokenizer, *init, *top, *scores, *capture;
    double percent;
    int aux;
    bool demo, fresh, profile, dry_run, forget;
    int64_t vocab, batch, length, accumulate, segments, steps, warmup, eval_every, save_every;
    int64_t eval_tokens;
    double minutes, lr, lr_final, decay, beta1, beta2, epsilon, clip, aux_weight, dropout, held_out;
    int dtype;
} train_opts;

static const qn_opt options[] = {
    { "text", 0, QN_AT_LIST(train_opts, text), .value = "FILE|DIR,...",
      .help = "text to train on; a folder gives every text file below it" },
    { "demo", 0, QN_AT_FLAG(train_opts, demo),
      .help = "use text that this machine has: fortunes, manual pages or licences" },
    { "out", 'o', QN_AT_PATH(train_opts, out), .value = "DIR",
      .help = "folder of the model; a run that finds its own state there goes on" },
    { "preset", 0, QN_AT_STRING(train_opts, preset), .value = "NAME", .section = "Model",
      .initial = "nano", .help = "size of the model: nano, micro, small, base, large" },
    { "config", 0, QN_AT_PATH(train_opts, config), .value = "FILE",
      .help = "a config.json instead of a preset" },
    { "init", 0, QN_AT_PATH(train_opts, init), .value = "MODEL",
      .help = "start from the weights, the description and the tokenizer of a model folder" },
    { "tokenizer", 0, QN_AT_PATH(train_opts, tokenizer), .value = "PATH",
      .help = "tokenizer.json or a folder with one; none: learned from the text" },
    { "vocab", 0, QN_AT_INT(train_opts, vocab), .initial = "512", .min = 257, .max = 1 << 20,
      .help = "tokens of a learned tokenizer" },
    { "aux", 0, QN_AT_CHOICE(train_opts, aux), .words = "model|mi|switch|concentration",
      .initial = "model",
      .help = "the routers' loss; concentration makes a task use few experts" },
    { "aux-weight", 0, QN_AT_FLOAT(train_opts, aux_weight), .initial = "-1", .min = -1, .max = 1e6,
      .help = "weight of the routers' loss; -1: as the model says" },
    { "dropout", 0, QN_AT_FLOAT(train_opts, dropout), .initial = "-1", .min = -1, .max = 0.99,
      .help = "dropout of embeddings and branches; -1: as the model says" },
    { "train-only", 0, QN_AT_LIST(train_opts, only), .value = "GLOB[#ROWS],...",
      .section = "Part of the model",
      .help = "train these parameters, freeze the rest: '*.mlpf.experts.weight#4,6-7'" },
    { "train-top", 0, QN_AT_STRING(train_opts, top), .value = "FUNCTION",
      .help = "train the neurons that serve a function best, freeze the rest" },
    { "from", 0, QN_AT_PATH(train_opts, scores), .value = "FILE",
      .help = "their scores: a file of `bricks analyse --save-scores`" },
    { "percent", 0, QN_AT_FLOAT(train_opts, percent), .initial = "5", .min = 0.01, .max = 100,
      .help = "how many of each layer's neurons" },
    { "lora", 0, QN_AT_INT(train_opts, lora), .value = "RANK", .initial = "0", .min = 0, .max = 1024,
      .help = "train low-rank adapters on --init and write them alone; 0: none" },
    { "lora-alpha", 0, QN_AT_FLOAT(train_opts, lora_alpha), .initial = "16", .min = 0.001,
      .max = 1e6, .help = "an adapter's product is multiplied by this over the rank" },
    { "lora-dropout", 0, QN_AT_FLOAT(train_opts, lora_dropout), .initial = "0", .min = 0,
      .max = 0.99, .help = "dropout on what adapters read" },
    { "lora-targets", 0, QN_AT_LIST(train_opts, lora_targets), .value = "GLOB,...",
      .help = "weights that get one (default: all stacks of experts)" },
    { "rslora", 0, QN_AT_FLAG(train_opts, rslora), .help = "over the rank's square root instead" },
    { "steps", 's', QN_AT_INT(train_opts, steps), .initial = "0", .min = 0, .max = 1e12,
      .section = "Training", .help = "optimiser steps; 0: as many as fit --minutes" },
    { "minutes", 'm', QN_AT_FLOAT(train_opts, minutes), .initial = "10", .min = 0.01, .max = 1e6,
      .help = "time to train for; the steps follow from the measured speed" },
    { "batch", 'b', QN_AT_INT(train_opts, batch), .initial = "16", .min = 1, .max = 65536,
      .help = "windows per run" },
    { "length", 'l', QN_AT_INT(train_opts, length), .initial = "128", .min = 2, .max = 1 << 20,
      .help = "tokens of a window" },
    { "segments", 0, QN_AT_INT(train_opts, segments), .initial = "1", .min = 1, .max = 65536,
      .help = "windows that follow each other in the text; memories are handed on between them" },
    { "forget", 0, QN_AT_FLAG(train_opts, forget),
      .help = "memories are emptied at the end of each document" },
    { "accumulate", 0, QN_AT_INT(train_opts, accumulate), .initial = "1", .min = 1, .max = 65536,
      .help = "runs whose gradients make one step" },
    { "lr", 0, QN_AT_FLOAT(train_opts, lr), .initial = "0.005", .min = 0, .max = 10,
      .help = "peak learning rate" },
    { "lr-final", 0, QN_AT_FLOAT(train_opts, lr_final), .initial = "0.05", .min = 0, .max = 1,
      .help = "share of it at the end of the cosine" },
    { "warmup", 0, QN_AT_INT(train_opts, warmup), .initial = "100", .min = 1, .max = 1e9,
      .help = "steps of linear warm-up, at most a quarter of all" },
    { "decay", 0, QN_AT_FLOAT(train_opts, decay), .initial = "0.1", .min = 0, .max = 100,
      .help = "weight decay of matrices" },
    { "beta1", 0, QN_AT_FLOAT(train_opts, beta1), .initial = "0.9", .min = 0, .max = 1,
      .open = true, .help = "memory of the mean gradient" },
    { "beta2", 0, QN_AT_FLOAT(train_opts, beta2), .initial = "0.95", .min = 0, .max = 1,
      .open = true, .help = "memory of the mean square" },
    { "epsilon", 0, QN_AT_FLOAT(train_opts, epsilon), .initial = "1e-8", .min = 1e-16, .max = 1,
      .help = "added to the root of the mean square" },
    { "clip", 0, QN_AT_FLOAT(train_opts, clip), .initial = "1", .min = 0, .max = 1e9,
      .help = "largest norm of a gradient; 0: any" },
    { "dtype", 0, QN_AT_CHOICE(train_opts, dtype), .words = "f32|f16|bf16", .initial = "f32",
      .help = "storage of weights in products; masters and moments stay f32" },
    { "held-out", 0, QN_AT_FLOAT(train_opts, held_out), .initial = "0.1", .min = 0, .max = 0.9,
      .section = "Evaluation and checkpoints", .help = "share of the text, at its end, for validation" },
    { "eval-every", 0, QN_AT_INT(train_opts, eval_every), .initial = "250", .min = 0, .max = 1e12,
      .help = "steps between evaluations; 0: only at the end" },
    { "eval-tokens", 0, QN_AT_INT(train_opts, eval_tokens), .initial = "0", .min = 0, .max = 1e12,
      .help = "tokens of an evaluation at most; 0: all held-out ones" },
    { "save-every", 0, QN_AT_INT(train_opts, save_every), .initial = "0", .min = 0, .max = 1e12,
      .help = "steps between checkpoints; 0: every two minutes" },
    { "fresh", 0, QN_AT_FLAG(train_opts, fresh), .help = "start anew where a run could be resumed" },
    { "dry-run", 0, QN_AT_FLAG(train_opts, dry_run),
      .help = "say what would be trained and the memory it takes, then stop" },
    { "profile", 0, QN_AT_FLAG(train_opts, profile),
      .help = "at the end, print the time per operation, submissions and host time" },
    { "capture", 0, QN_AT_STRING(train_opts, capture), .value = "step=N",
      .help = "make step N a frame of RenderDoc or of AMD's profiler, when started from there" },
    { 0 },
};

// What the hooks of a run share.
typedef struct session {
    const qn_cli *cli;
    const train_opts *o;
    qn_device *dev;
    qn_train_log *log;
    qn_progress progress;
    qn_train_profile profile;
    qn_part part;
    qn_lora lora;
    char *lora_text;
    double peak; // operations per second; 0: not measured
    bool started;
    qn_result status;
} session;

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void say_data(session *s, const qn_train_event *e)
{
    qn_cli_note(s->cli, "text: %llu tokens (%.1f bytes each) to train on, %llu held out",
                (unsigned long long)e->train_tokens,
                (double)e->train_bytes / (double)e->train_tokens,
                (unsigned long long)e->held_tokens);
}

static void say_memory(session *s, const qn_train_event *e)
{
    const qn_trainer_memory *m = &e->memory;
    const uint64_t all = m->weights + m->gradients + m->moments + m->activations;
    const uint64_t budget = qn_device_describe(s->dev)->budget;
    qn_cli_note(s->cli, "model: %.3g million parameters, %.3g million used per token",
                (double)e->size.parameters / 1e6, (double)e->size.active / 1e6);
    qn_cli_note(s->cli,
                "memory: %.1f MiB of %.0f free: weights %.1f, gradients %.1f, moments %.1f, "
                "activations %.1f (%.1f without reuse)",
                mib(all), mib(budget), mib(m->weights), mib(m->gradients), mib(m->moments),
                mib(m->activations), mib(m->unshared));
    if (all > budget)
        qn_cli_note(s->cli, "this does not fit: a smaller --batch or --length shrinks activations, "
                            "a smaller --preset the rest");
}

// One character an expert, averaged over the layers: its share of the load.
static void load_bars(const session *s, const qn_train_event *e, char *text, size_t size)
{
    static const char *const bars[] = { "_", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    enum { LEVELS = sizeof bars / sizeof *bars, MOST = 32 };
    size_t count;
    const double *loads = qn_train_log_loads(s->log, &count);
    text[0] = 0;
    if (!loads) return;
    const int64_t layers = qn_trainer_routers(e->trainer) / 2;
    const int64_t sizes[2] = { qn_trainer_experts(e->trainer, 0), qn_trainer_experts(e->trainer, 1) };
    size_t at = 0;
    for (int kind = 0; kind < 2; kind++) {
        at += (size_t)snprintf(text + at, size - at, "%s", kind ? " mlp " : "att ");
        const int64_t shown = sizes[kind] < MOST ? sizes[kind] : MOST;
        for (int64_t i = 0; i < shown && at + 8 < size; i++) {
            double sum = 0;
            for (int64_t l = 0; l < layers; l++)
                sum += loads[l * (sizes[0] + sizes[1]) + kind * sizes[0] + i];
            // Twice the even share fills the bar.
            int level = (int)ceil(sum / (double)layers / 2 * (LEVELS - 1));
            at += (size_t)snprintf(text + at, size - at, "%s",
                                   bars[level < 0 ? 0 : level >= LEVELS ? LEVELS - 1 : level]);
        }
    }
}

static void show_step(session *s, const qn_train_event *e)
{
    char note[512], loads[256], share[48] = "";
    if (!s->started) {
        qn_progress_start(&s->progress, "step", "steps", (double)e->step - 1, (double)e->steps,
                          s->cli->quiet);
        s->started = true;
    }
    s->progress.total = (double)e->steps;
    load_bars(s, e, loads, sizeof loads);
    if (s->peak > 0)
        snprintf(share, sizeof share, "  %.0f%% of peak",
                 100 * qn_trainer_flops(e->trainer) / e->report.seconds / s->peak);
    snprintf(note, sizeof note, "loss %.3f  %.0f tokens/s%s  load %s", e->report.ce,
             e->tokens_per_second, share, loads);
    qn_progress_update(&s->progress, (double)e->step, note);
    char dead[1024];
    if (e->step % 10 == 0 && qn_train_log_dead(s->log, dead, sizeof dead)) {
        qn_progress_hide();
        qn_cli_note(s->cli, "step %lld: no token in 100 steps went to %s; a larger --aux-weight "
                            "spreads the load", (long long)e->step, dead);
    }
}

static void show_eval(session *s, const qn_train_event *e)
{
    qn_progress_hide();
    qn_cli_note(s->cli, "step %lld: held out %.4f nats per token, %.4f bits per byte",
                (long long)e->step, e->held_loss, e->bits_per_byte);
}

static void show(session *s, const qn_train_event *e)
{
    switch (e->kind) {
    case QN_TRAIN_TOKENIZER:
        qn_cli_note(s->cli, "tokenizer: %lld tokens", (long long)e->vocab);
        break;
    case QN_TRAIN_DATA: say_data(s, e); break;
    case QN_TRAIN_MEMORY: say_memory(s, e); break;
    case QN_TRAIN_RESUMED:
        qn_cli_note(s->cli, "going on from step %lld in %s", (long long)e->step, s->o->out);
        break;
    case QN_TRAIN_STEP: show_step(s, e); break;
    case QN_TRAIN_EVAL: show_eval(s, e); break;
    case QN_TRAIN_STEPS:
        qn_cli_note(s->cli, "%g minutes are %lld steps here", s->o->minutes, (long long)e->steps);
        break;
    case QN_TRAIN_SAVED: break;
    }
}

static bool on_event(void *user, const qn_train_event *e)
{
    session *s = user;
    if (e->kind == QN_TRAIN_MEMORY && s->o->dry_run) {
        show(s, e);
        return false;
    }
    if (!s->log && (e->kind == QN_TRAIN_RESUMED || e->kind == QN_TRAIN_STEP))
        s->status = qn_train_log_open(s->o->out, e->kind == QN_TRAIN_RESUMED ? e->step : 0, &s->log);
    if (s->status == QN_OK && s->log) s->status = qn_train_log_event(s->log, e);
    if (s->status == QN_OK && s->o->profile && e->kind == QN_TRAIN_STEP)
        s->status = qn_train_profile_add(&s->profile, e);
    if (s->status == QN_OK) show(s, e);
    return s->status == QN_OK && !qn_interrupted();
}

// N of "step=N", at least 1; 0: none, -1: something else.
static int64_t captured_step(const char *text)
{
    long long n = 0;
    int end = 0;
    if (!text) return 0;
    if (sscanf(text, "step=%lld%n", &n, &end) != 1 || text[end] || n < 1) return -1;
    return n;
}

static qn_train_opts options_of(const qn_cli *cli, const train_opts *o)
{
    static const qn_dtype dtypes[] = { QN_F32, QN_F16, QN_BF16 };
    return (qn_train_opts){
        .out = o->out, .preset = o->preset, .config = o->config, .tokenizer = o->tokenizer,
        .vocab = o->vocab, .batch = o->batch, .positions = o->length, .accumulate = o->accumulate,
        .segments = o->segments, .forget = o->forget,
        .steps = o->steps, .minutes = o->steps ? 0 : o->minutes, .learning_rate = o->lr,
        .final_rate = o->lr_final, .warmup = o->warmup, .weight_decay = o->decay,
        .beta1 = o->beta1, .beta2 = o->beta2, .epsilon = o->epsilon, .clip = o->clip,
        .aux = o->aux, .init = o->init, .aux_weight = o->aux_weight, .dropout = o->dropout, .held_out = o->held_out,
        .eval_every = o->eval_every, .save_every = o->save_every, .eval_tokens = o->eval_tokens,
        .weights = dtypes[o->dtype], .seed = (uint64_t)cli->seed, .fresh = o->fresh,
        .profile = o->profile, .capture = captured_step(o->capture),
    };
}

static void print_json(const session *s, const qn_train_result *r)
{
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "out", s->o->out);
    qn_json_put_int(&w, "step", r->step);
    qn_json_put_int(&w, "steps", r->steps);
    qn_json_put_bool(&w, "finished", r->finished);
    qn_json_put_number(&w, "train_loss", r->train_loss);
    if (isfinite(r->bits_per_byte)) {
        qn_json_put_number(&w, "held_loss", r->held_loss);
        qn_json_put_number(&w, "bits_per_byte", r->bits_per_byte);
        qn_json_put_number(&w, "unigram_bits_per_byte", r->unigram_bits);
    }
    qn_json_put_number(&w, "seconds", r->seconds);
    qn_json_put_string(&w, "device", qn_device_describe(s->dev)->name);
    qn_json_put_end(&w, '}');
    if (w.status == QN_OK) printf("%.*s\n", (int)w.size, w.text);
    qn_json_writer_free(&w);
}

static void print_result(const session *s, const qn_train_result *r)
{
    if (s->cli->json) {
        print_json(s, r);
        return;
    }
    printf("%s: step %lld of %lld, training loss %.4f\n", s->o->out, (long long)r->step,
           (long long)r->steps, r->train_loss);
    if (isfinite(r->bits_per_byte))
        printf("held out: %.4f bits per byte (%.4f nats per token); token frequencies alone: %.4f "
               "bits per byte\n",
               r->bits_per_byte, r->held_loss, r->unigram_bits);
}

static qn_result read_text(const qn_cli *cli, const train_opts *o, qn_corpus *c)
{
    for (size_t i = 0; i < o->text.count; i++) QN_TRY(qn_corpus_add(c, o->text.items[i]));
    if (!o->demo) return QN_OK;
    const char *source;
    QN_TRY(qn_corpus_add_demo(c, &source));
    qn_cli_note(cli, "reading %s: %.2f million bytes", source, (double)c->size / 1e6);
    return QN_OK;
}

static qn_result train(session *s, qn_train_result *result)
{
    qn_corpus corpus = { 0 };
    qn_result r = read_text(s->cli, s->o, &corpus);
    if (r == QN_OK && !s->o->dry_run) r = qn_peak_matmul(s->dev, &s->peak);
    if (r == QN_OK) {
        qn_train_opts o = options_of(s->cli, s->o);
        o.trainable = s->part.text ? &s->part.trainable : NULL;
        o.trainable_text = s->lora_text ? s->lora_text : s->part.text;
        o.lora = s->lora_text ? &s->lora : NULL;
        qn_train_hooks hooks = { on_event, s };
        r = qn_train(s->dev, &corpus, &o, &hooks, result);
    }
    if (s->started) qn_progress_end(&s->progress, NULL);
    qn_result closed = qn_train_log_close(&s->log);
    if (r == QN_OK) r = s->status != QN_OK ? s->status : closed;
    qn_corpus_free(&corpus);
    return r;
}

static qn_result read_lora(const train_opts *o, session *s)
{
    static const char *const stacks[] = { "*experts.weight" };
    const char *const *items = o->lora_targets.count ? o->lora_targets.items : stacks;
    const size_t count = o->lora_targets.count ? o->lora_targets.count : 1;
    s->lora = (qn_lora){ .rank = o->lora, .alpha = o->lora_alpha, .dropout = o->lora_dropout,
                         .stabilised = o->rslora };
    QN_TRY(qn_selection_parse(items, count, &s->lora.targets));
    qn_textbuf t = { 0 };
    qn_textbuf_printf(&t, "adapters of rank %lld, alpha %g, dropout %g%s on ", (long long)o->lora,
                      o->lora_alpha, o->lora_dropout, o->rslora ? ", rank-stabilised," : "");
    for (size_t i = 0; i < count; i++) qn_textbuf_printf(&t, "%s%s", i ? "," : "", items[i]);
    qn_result r = qn_textbuf_status(&t);
    if (r == QN_OK && !(s->lora_text = qn_strdup(qn_textbuf_get(&t)))) r = qn_no_memory(t.size);
    qn_textbuf_free(&t);
    return r;
}

static int run(const qn_cli *cli, const void *opts)
{
    const train_opts *o = opts;
    if (!o->text.count && !o->demo)
        return qn_cli_misuse(cli, "what to train on is missing: give --text FILE, or --demo");
    if (!o->out) return qn_cli_misuse(cli, "--out DIR is missing: where the model goes");
    if (captured_step(o->capture) < 0)
        return qn_cli_misuse(cli, "--capture: found \"%.40s\", expected step=N", o->capture);
    session s = { .cli = cli, .o = o };
    if (o->only.count && qn_part_open(o->only.items, o->only.count, &s.part) != QN_OK)
        return qn_cli_misuse(cli, "--train-only: %s", qn_error_message());
    if (o->lora && (o->only.count || o->top || !o->init))
        return qn_cli_misuse(cli, o->init ? "--lora trains adapters alone: leave --train-only and "
                                            "--train-top out"
                                          : "--lora needs --init MODEL: what the adapters are for");
    if (o->lora && read_lora(o, &s) != QN_OK)
        return qn_cli_misuse(cli, "--lora-targets: %s", qn_error_message());
    if (o->top && (o->only.count || !o->scores))
        return qn_cli_misuse(cli, o->scores ? "--train-only and --train-top both say what is trained: "
                                              "use one of them"
                                            : "--train-top needs --from FILE: the scores of neurons");
    if (o->top && qn_part_open_top(o->scores, o->top, o->percent, &s.part) != QN_OK)
        return qn_cli_result(QN_ERR_INVALID);
    qn_context *ctx = NULL;
    qn_train_result result = { 0 };
    qn_interrupt_watch();
    qn_result r = qn_cli_open(cli, &ctx, &s.dev);
    if (r == QN_OK) r = train(&s, &result);
    if (r == QN_OK && !o->dry_run) print_result(&s, &result);
    if (r == QN_OK && o->profile && !o->dry_run) qn_train_profile_print(&s.profile, stdout, cli->json);
    if (r == QN_ERR_DEVICE_LOST)
        qn_cli_note(cli, "the last checkpoint in %s is intact; the same command goes on from it",
                    o->out);
    qn_train_profile_free(&s.profile);
    qn_part_close(&s.part);
    qn_selection_free(&s.lora.targets);
    qn_free(s.lora_text);
    qn_device_destroy(&s.dev);
    qn_context_destroy(&ctx);
    if (r == QN_OK && qn_interrupted()) {
        qn_cli_note(cli, "stopped and saved; the same command goes on from here");
        return QN_EXIT_INTERRUPTED;
    }
    return qn_cli_result(r);
}

const qn_command qn_command_train = {
    .about =
        "Trains a ModuleFormer language model: a sparse mixture of attention and feed-forward "
        "experts. Learns a tokenizer from the text unless one is given, holds out the end of the "
        "text for validation, and writes config.json, tokenizer.json, model.safetensors, "
        "metrics.jsonl, TensorBoard events, loss.svg and experts.svg into the output folder.\n\n"
        "The state of the run is saved now and then, on Ctrl-C and at the end; the same command "
        "goes on from there, bit for bit. A power cut at any moment leaves the last state whole.",
    .examples = "quoin train --text book.txt --out run/book\n"
                "quoin train --demo --out run/demo --minutes 3\n"
                "quoin train --text corpus/ --out run/c --preset small --batch 8 --steps 5000",
    .options = options,
    .opts_size = sizeof(train_opts),
    .run = run,
};
