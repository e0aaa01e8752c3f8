// From the command line to a command and back to an exit status.
#include "cli/command.h"
#include "cli/help.h"
#include "cli/progress.h"
#include "cli/term.h"
#include "io/tuning.h"
#include "nearest.h"
#include "platform.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define QN_COMMAND(name, summary) extern const qn_command qn_command_##name;
#include "cli/commands.def"
#undef QN_COMMAND

const qn_command_row qn_commands[] = {
#define QN_COMMAND(id, text) { .name = #id, .summary = text, .command = &qn_command_##id },
#include "cli/commands.def"
#undef QN_COMMAND
    { 0 },
};

typedef struct global_opts {
    const char *device, *log, *shader_dir;
    int64_t seed;
    uint64_t memory_limit;
    qn_opt_list hide;
    int verbose;
    bool json, quiet, no_color, validate, help, version;
} global_opts;

const qn_opt qn_global_options[] = {
    { "device", 'd', QN_AT_STRING(global_opts, device), .value = "NAME", .section = "Every command",
      .help = "the device: its index in 'quoin info', a part of its name or of its UUID" },
    { "memory-limit", 0, QN_AT_SIZE(global_opts, memory_limit),
      .help = "device memory to take at most (default: what is free)" },
    { "seed", 0, QN_AT_INT(global_opts, seed), .min = 0, .max = 2147483647, .initial = "1",
      .help = "equal seeds give equal bits on one device and driver" },
    { "json", 0, QN_AT_FLAG(global_opts, json), .help = "results as JSON" },
    { "verbose", 'v', QN_AT_COUNT(global_opts, verbose), .help = "say more; twice for debugging" },
    { "quiet", 'q', QN_AT_FLAG(global_opts, quiet), .help = "only results and errors" },
    { "log", 0, QN_AT_PATH(global_opts, log), .value = "FILE",
      .help = "append what is logged to a file as well" },
    { "no-color", 0, QN_AT_FLAG(global_opts, no_color),
      .help = "no colours; so does a non-empty NO_COLOR in the environment" },
    { "help", 'h', QN_AT_FLAG(global_opts, help), .help = "show this text" },
    { "version", 'V', QN_AT_FLAG(global_opts, version), .help = "show the version" },
    { "hide", 0, QN_AT_LIST(global_opts, hide), .value = "CAPS", .section = "Finding faults",
      .help = "act as if the device lacked these capabilities (names as in 'quoin info')" },
    { "validate", 0, QN_AT_FLAG(global_opts, validate),
      .help = "run under the Vulkan validation layer; so does QUOIN_VALIDATE=1" },
    { "shader-dir", 0, QN_AT_PATH(global_opts, shader_dir), .value = "DIR",
      .help = "compile shaders from this directory instead of using the built-in ones" },
    { 0 },
};

const char *qn_command_word(const qn_command_row *row)
{
    const char *space = strrchr(row->name, ' ');
    return space ? space + 1 : row->name;
}

const qn_command_row *qn_command_at(size_t i)
{
    for (const qn_command_row *row = qn_commands; row->name; row++) {
        if (!i--) return row;
        for (const qn_command_row *p = row->command->parts; p && p->name; p++)
            if (!i--) return p;
    }
    return NULL;
}

const qn_command_row *qn_command_find(const char *name)
{
    const qn_command_row *row;
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        if (!strcmp(row->name, name)) return row;
    }
    return NULL;
}

// ------------------------------------------------------------------------------------ log

// The process has one standard error and one log file.
static struct {
    FILE *file;
    qn_log_level shown; // on stderr
    bool color;
    double start;
} sink;

static void write_log(void *user, qn_log_level level, const char *line)
{
    (void)user;
    static const struct {
        const char *name, *color;
    } levels[] = {
        [QN_LOG_ERROR] = { "error: ", "\x1b[31m" },
        [QN_LOG_WARN] = { "warning: ", "\x1b[33m" },
        [QN_LOG_INFO] = { "", "" },
        [QN_LOG_DEBUG] = { "debug: ", "\x1b[2m" },
    };
    const char *name = levels[level].name;
    if (sink.file) {
        fprintf(sink.file, "%10.3f %s%s\n", qn_clock() - sink.start, name, line);
        fflush(sink.file);
    }
    if (level > sink.shown) return;
    qn_progress_hide();
    bool color = sink.color && *levels[level].color;
    fprintf(stderr, "quoin: %s%s%s%s\n", color ? levels[level].color : "", name,
            color ? "\x1b[0m" : "", line);
}

static qn_result open_log(const global_opts *g)
{
    sink.start = qn_clock();
    sink.shown = g->quiet          ? QN_LOG_ERROR
                 : g->verbose == 0 ? QN_LOG_WARN
                 : g->verbose == 1 ? QN_LOG_INFO
                                   : QN_LOG_DEBUG;
    const char *no_color = getenv("NO_COLOR");
    sink.color = !g->no_color && !(no_color && *no_color) && qn_is_terminal(stderr);
    qn_log_level level = sink.shown;
    if (g->log) {
        sink.file = fopen(g->log, "a");
        if (!sink.file) return qn_fail(QN_ERR_IO, "--log %s: %s", g->log, strerror(errno));
        if (level < QN_LOG_INFO) level = QN_LOG_INFO;
    }
    qn_log_set(write_log, NULL, level);
    return QN_OK;
}

static void close_log(void)
{
    if (sink.file) fclose(sink.file);
    memset(&sink, 0, sizeof sink);
    qn_log_set(NULL, NULL, QN_LOG_DEFAULT);
}

// ------------------------------------------------------------------------------------ results

int qn_cli_result(qn_result r)
{
    if (r == QN_OK) return QN_EXIT_DONE;
    qn_log(QN_LOG_ERROR, "%s", qn_error_message());
    switch (r) {
    case QN_ERR_NO_DEVICE:
        return QN_EXIT_NO_DEVICE;
    case QN_ERR_DEVICE_LOST:
        return QN_EXIT_DEVICE_LOST;
    case QN_ERR_CANCELLED:
        return QN_EXIT_INTERRUPTED;
    default:
        return QN_EXIT_FAILED;
    }
}

static int misuse(const char *command)
{
    qn_log(QN_LOG_ERROR, "%s%s%s", command ? command : "", command ? ": " : "", qn_error_message());
    if (command && !strcmp(command, "help")) command = NULL;
    if (sink.shown > QN_LOG_ERROR) {
        fprintf(stderr, "quoin: 'quoin help%s%s' shows what there is\n", command ? " " : "",
                command ? command : "");
    }
    return QN_EXIT_MISUSED;
}

int qn_cli_misuse(const qn_cli *cli, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    qn_fail(QN_ERR_INVALID, "%s", text);
    return misuse(cli->command);
}

int qn_cli_word(const qn_cli *cli)
{
    const char *words = qn_command_find(cli->command)->command->arg_words;
    const char *word = cli->args[0];
    int index = qn_words_find(words, word);
    if (index >= 0) return index;
    char near[64], quoted[QN_QUOTED], all[256];
    qn_words_join(words, all, sizeof all);
    bool meant = qn_words_nearest(words, word, near, sizeof near);
    qn_cli_misuse(cli, "found %s, expected %s%s%s%s", qn_quote(word, quoted), all,
                  meant ? "; did you mean '" : "", meant ? near : "", meant ? "'?" : "");
    return -1;
}

void qn_cli_note(const qn_cli *cli, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (cli->quiet) return;
    qn_progress_hide();
    fprintf(stderr, "%s\n", text);
    if (sink.file) fprintf(sink.file, "%10.3f %s\n", qn_clock() - sink.start, text);
}

// ------------------------------------------------------------------------------------ devices

qn_result qn_cli_open_context(const qn_cli *cli, qn_context **ctx)
{
    qn_tuning_apply();
    return qn_context_create(
        &(qn_context_opts){ .validate = cli->validate, .shader_dir = cli->shader_dir }, ctx);
}

qn_result qn_cli_open_device(const qn_cli *cli, qn_context *ctx, qn_device **dev)
{
    return qn_device_create(ctx,
                            &(qn_device_opts){ .select = cli->device,
                                               .hide = cli->hide,
                                               .memory_limit = cli->memory_limit },
                            dev);
}

qn_result qn_cli_open(const qn_cli *cli, qn_context **ctx, qn_device **dev)
{
    QN_TRY(qn_cli_open_context(cli, ctx));
    QN_TRY(qn_cli_open_device(cli, *ctx, dev));
    const qn_device_info *info = qn_device_describe(*dev);
    qn_tuning_check(info->driver);
    char budget[24];
    qn_cli_note(cli, "device: %s (%s), %s free%s", info->name, info->reason,
                qn_format_size(info->budget, budget, sizeof budget),
                info->software ? "; no GPU: expect it to be slow" : "");
    return QN_OK;
}

static qn_result resolve_hide(const qn_opt_list *list, uint32_t *hide)
{
    for (size_t i = 0; i < list->count; i++) {
        qn_nearest near = { .word = list->items[i] };
        uint32_t bit = 1;
        const char *name;
        for (; (name = qn_cap_name(bit)) && strcmp(name, near.word); bit <<= 1) {
            qn_nearest_offer(&near, name);
        }
        if (!name) {
            char quoted[QN_QUOTED];
            return qn_fail(QN_ERR_INVALID, "--hide: found %s, expected a capability%s%s%s",
                           qn_quote(near.word, quoted), near.best ? "; did you mean '" : "",
                           near.best ? near.best : "", near.best ? "'?" : "");
        }
        *hide |= bit;
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ dispatch

static qn_result find_command(const qn_command_row *table, const char *name,
                              const qn_command_row **out)
{
    qn_nearest near = { .word = name };
    for (const qn_command_row *row = table; row->name; row++) {
        if (!strcmp(qn_command_word(row), name)) {
            *out = row;
            return QN_OK;
        }
        qn_nearest_offer(&near, qn_command_word(row));
    }
    char quoted[QN_QUOTED];
    return qn_fail(QN_ERR_INVALID, "unknown command %s%s%s%s", qn_quote(name, quoted),
                   near.best ? "; did you mean '" : "", near.best ? near.best : "",
                   near.best ? "'?" : "");
}

static qn_result check_arg_count(const qn_command *c, size_t count)
{
    if (count < (size_t)c->args_min) {
        return qn_fail(QN_ERR_INVALID, "found %zu arguments, expected %s", count, c->args);
    }
    if (c->args_max >= 0 && count > (size_t)c->args_max) {
        return qn_fail(QN_ERR_INVALID, "found %zu arguments, expected %s", count,
                       c->args ? c->args : "none");
    }
    return QN_OK;
}

static int run(const qn_command_row *row, const qn_opts *parsed, const global_opts *g, void *opts)
{
    const size_t depth = strchr(row->name, ' ') ? 2 : 1;
    const char *validate = getenv("QUOIN_VALIDATE"), *no_color = getenv("NO_COLOR");
    qn_cli cli = {
        .command = row->name,
        .args = parsed->args + depth, // behind the command
        .arg_count = parsed->arg_count - depth,
        .device = g->device,
        .seed = g->seed,
        .memory_limit = g->memory_limit,
        .json = g->json,
        .quiet = g->quiet,
        .color = !g->no_color && !(no_color && *no_color),
        .validate = g->validate || (validate && *validate && strcmp(validate, "0")),
        .shader_dir = g->shader_dir,
        .parsed = parsed,
    };
    if (check_arg_count(row->command, cli.arg_count) != QN_OK ||
        resolve_hide(&g->hide, &cli.hide) != QN_OK) {
        return misuse(row->name);
    }
    return row->command->run(&cli, opts);
}

// Reads the arguments and runs what they ask for. `o` and `opts` are released by the caller.
static int dispatch(int argc, char **argv, qn_opts *o, void **opts)
{
    global_opts g = { 0 };
    const qn_command_row *row = NULL;
    int at = 1;
    sink.shown = QN_LOG_WARN;
    qn_log_set(write_log, NULL, QN_LOG_WARN);
    if (qn_opts_add(o, qn_global_options, &g) != QN_OK) return qn_cli_result(QN_ERR_NO_MEMORY);
    if (qn_opts_parse(o, argc, argv, &at, true) != QN_OK) return misuse(NULL);
    if (o->arg_count) {
        if (find_command(qn_commands, o->args[0], &row) != QN_OK) return misuse(NULL);
        if (row->command->parts) {
            const char *outer = row->name;
            if (qn_opts_parse(o, argc, argv, &at, true) != QN_OK) return misuse(outer);
            if (o->arg_count > 1 && find_command(row->command->parts, o->args[1], &row) != QN_OK)
                return misuse(outer);
        }
        if (row->command->options) {
            *opts = qn_calloc(1, row->command->opts_size);
            if (!*opts) return qn_cli_result(qn_no_memory(row->command->opts_size));
            if (qn_opts_add(o, row->command->options, *opts) != QN_OK) {
                return qn_cli_result(QN_ERR_INVALID);
            }
        }
        if (qn_opts_parse(o, argc, argv, &at, false) != QN_OK) return misuse(row->name);
    }
    qn_result r = open_log(&g);
    if (r != QN_OK) return qn_cli_result(r);
    if (g.help) return qn_help_print(stdout, row);
    if (g.version) return printf("quoin %s\n", qn_version()), QN_EXIT_DONE;
    if (!row || row->command->parts) {
        qn_help_print(stderr, row);
        return QN_EXIT_MISUSED;
    }
    return run(row, o, &g, *opts);
}

int qn_cli_main(int argc, char **argv)
{
    qn_opts o = { 0 };
    void *opts = NULL;
    qn_survive_closed_pipes();
    int status = dispatch(argc, argv, &o, &opts);
    qn_progress_hide();
    // Results that did not arrive are a failure, also when nobody reads them any more.
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && status == QN_EXIT_DONE) {
        const char *why = errno ? strerror(errno) : "not everything could be written";
        if (!qn_pipe_closed()) qn_log(QN_LOG_ERROR, "standard output: %s", why);
        status = QN_EXIT_FAILED;
    }
    close_log();
    qn_opts_free(&o);
    qn_free(opts);
    return status;
}
