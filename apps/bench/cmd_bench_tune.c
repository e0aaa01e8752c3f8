// bench tune: which of a driver's habits make training faster here, kept for later runs.
#include "bench/bench_command.h"
#include "bench/child.h"
#include "bench/model.h"
#include "io/tuning.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const qn_opt options[] = {
    QN_BENCH_MEASURING,
    { "budget", 0, QN_AT_FLOAT(qn_bench_opts, budget), .initial = "120", .min = 1, .max = 86400,
      .help = "seconds for all of it; what is found until then counts" },
    { "dry-run", 0, QN_AT_FLAG(qn_bench_opts, dry_run), .help = "measure, but keep nothing" },
    { "preset", 0, QN_AT_STRING(qn_bench_opts, preset), .value = "NAME", .section = "Workload",
      .help = "train this preset (default: micro)" },
    { "batch", 'b', QN_AT_INT(qn_bench_opts, batch), .initial = "8", .min = 1, .max = 65536,
      .help = "windows of a step" },
    { "length", 'l', QN_AT_INT(qn_bench_opts, length), .initial = "128", .min = 2, .max = 1 << 20,
      .help = "tokens of a window" },
    { 0 },
};

typedef struct tuning {
    qn_bench_run *run;
    qn_tuning best;
    const char *variable; // being tried; NULL: the drivers' own values
    char value[16];
    int out;
    double ends; // of the clock
} tuning;

// ------------------------------------------------------------------------------------ the child

static void send_record(void *user, const qn_bench_record *r)
{
    tuning *t = user;
    qn_bench_record named = *r;
    if (t->variable)
        snprintf(named.variant, sizeof named.variant, "%s=%s", t->variable, t->value);
    else
        snprintf(named.variant, sizeof named.variant, "as the driver has it");
    named.bench = "tune";
    char *line;
    if (qn_bench_json_line(&t->run->log, &named, &line) != QN_OK) return;
    dprintf(t->out, "%s\n", line);
    qn_free(line);
}

static qn_result train(tuning *t)
{
    qn_bench_run *run = t->run;
    const qn_bench_opts *o = run->o;
    const char *preset = o->preset ? o->preset : "micro";
    qn_model_config c;
    QN_TRY(qn_model_preset(preset, 512, &c));
    QN_TRY(qn_cli_open(run->cli, &run->ctx, &run->dev));
    qn_bench_log_start(&run->log, qn_device_describe(run->dev));
    // One device under every choice: its name may tell the vector width.
    snprintf(run->log.device, sizeof run->log.device, "%s", run->log.driver);
    run->log.form[0] = 0;
    const qn_bench_lm_opts opts = { .name = preset,
                                    .config = &c,
                                    .measure = { .seconds = o->seconds } };
    qn_result r = qn_bench_training(run->dev, &opts, o->batch, o->length, &run->log);
    qn_device_destroy(&run->dev);
    qn_context_destroy(&run->ctx);
    return r;
}

static int child(void *user, int out)
{
    tuning *t = user;
    t->out = out;
    t->run->log = (qn_bench_log){ .done = send_record, .user = t };
    setenv("QUOIN_TUNING", "0", 1);
    for (size_t i = 0; i < t->best.count; i++)
        setenv(t->best.choices[i].variable, t->best.choices[i].value, 1);
    if (t->variable) setenv(t->variable, t->value, 1);
    return qn_cli_result(train(t));
}

// ------------------------------------------------------------------------------------ the search

static void receive(void *user, const char *line)
{
    tuning *t = user;
    if (qn_bench_read_line(&t->run->log, "tune", line, strlen(line)) != QN_OK)
        qn_log(QN_LOG_WARN, "%s", qn_error_message());
}

// Measures the choices in force; *record is the last one of the log, NULL without a figure.
static qn_result measure(tuning *t, const qn_bench_record **record)
{
    qn_bench_log *log = &t->run->log;
    const size_t before = log->count;
    const double left = t->ends - qn_clock();
    qn_child_end end;
    int code;
    *record = NULL;
    const qn_child c = { .work = child,
                         .line = receive,
                         .go_on = qn_bench_go_on,
                         .user = t,
                         .limit = left > 1 ? left : 1 };
    QN_TRY(qn_child_run(&c, &end, &code));
    if (end == QN_CHILD_STOPPED) return qn_fail(QN_ERR_CANCELLED, "interrupted");
    if (log->count > before && log->records[log->count - 1].seconds_median > 0)
        *record = &log->records[log->count - 1];
    return QN_OK;
}

static void candidate(const char *word, char out[16])
{
    if (!strcmp(word, "cpus"))
        snprintf(out, 16, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    else
        snprintf(out, 16, "%.15s", word);
}

// Tries the values of one habit; a value counts when its slow tenth beats the best's fast tenth.
static qn_result try_habit(tuning *t, const qn_habit *h, qn_bench_record *best)
{
    char word[16], winner[16] = "";
    t->variable = h->variable;
    for (int i = 0; qn_words_at(h->values, i, word, sizeof word) && qn_clock() < t->ends; i++) {
        const qn_bench_record *r;
        candidate(word, t->value);
        QN_TRY(measure(t, &r));
        if (!r || r->seconds_p90 >= best->seconds_p10) continue;
        *best = *r;
        snprintf(winner, sizeof winner, "%s", t->value);
    }
    t->variable = NULL;
    if (!winner[0] || t->best.count == QN_TUNING_CHOICES) return QN_OK;
    t->best.choices[t->best.count].variable = h->variable;
    snprintf(t->best.choices[t->best.count++].value, 16, "%s", winner);
    return QN_OK;
}

static qn_result keep(tuning *t)
{
    const qn_cli *cli = t->run->cli;
    for (size_t i = 0; i < t->best.count; i++)
        qn_cli_note(cli, "%s=%s is faster here", t->best.choices[i].variable,
                    t->best.choices[i].value);
    if (!t->best.count)
        qn_cli_note(cli, "nothing beats the driver's own values by more than noise");
    if (t->run->o->dry_run) return QN_OK;
    char *path = qn_tuning_path();
    if (!path)
        return qn_fail(QN_ERR_UNSUPPORTED, "no folder to keep it in: set HOME or XDG_CACHE_HOME");
    qn_result r = qn_tuning_save(&t->best, path);
    if (r == QN_OK) qn_cli_note(cli, "kept in %s", path);
    qn_free(path);
    return r;
}

static qn_result tune(qn_bench_run *run)
{
    tuning t = { .run = run, .ends = qn_clock() + run->o->budget };
    const qn_bench_record *first;
    QN_TRY(measure(&t, &first));
    if (!first) return qn_fail(QN_ERR_UNSUPPORTED, "the workload could not be measured");
    qn_bench_record best = *first;
    snprintf(t.best.driver, sizeof t.best.driver, "%s", run->log.driver);
    qn_tuning_machine(t.best.machine);
    qn_tuning_kernels(t.best.kernels);
    bool any = false;
    for (const qn_habit *h = qn_habits; h->driver; h++) {
        if (!strstr(t.best.driver, h->driver)) continue;
        any = true;
        if (getenv(h->variable))
            qn_cli_note(run->cli, "%s is set: it stays as it is", h->variable);
        else
            QN_TRY(try_habit(&t, h, &best));
    }
    if (!any) {
        qn_cli_note(run->cli,
                    "there is nothing to tune for %s: kernels and tiles follow from shapes "
                    "and limits",
                    t.best.driver);
        return QN_OK;
    }
    return keep(&t);
}

static int run_tune(const qn_cli *cli, const void *opts)
{
    return qn_bench_do(cli, opts, &(qn_bench_part){ .no_device = true, .measure = tune });
}

const qn_command qn_command_bench_tune = {
    .about =
        "Tries what drivers let one choose by the environment (for Mesa's software driver: the "
        "width of vectors, the worker threads), each value in a process of its own, on steps "
        "of training. A value that is faster by more than the noise is kept in the cache "
        "folder and used by later runs on this machine, with this driver and these shaders, "
        "unless the variable is set; QUOIN_TUNING=0 leaves it out. Another vector width or "
        "another kernel class changes the last bits of results.",
    .examples = "quoin bench tune\nquoin bench tune --preset small --budget 300",
    .options = options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run_tune,
};
