// `quoin chat`: a conversation in the terminal.
#include "cli/command.h"
#include "cli/line.h"
#include "cli/term.h"
#include "fail.h"
#include "llm/generate.h"
#include "llm/sampling_opts.h"
#include "llm/talk.h"
#include "nearest.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat_opts {
    const char *prompt, *system, *template, *load, *history, *memory;
    int64_t tokens, context;
    qn_sampling sampling;
    int weights;
} chat_opts;

static const qn_opt options[] = {
    { "prompt", 'p', QN_AT_STRING(chat_opts, prompt), .value = "TEXT",
      .help = "ask this, print the answer and end" },
    { "system", 0, QN_AT_STRING(chat_opts, system), .value = "TEXT",
      .help = "what the model is told before everything" },
    { "load", 0, QN_AT_PATH(chat_opts, load), .value = "FILE",
      .help = "go on with a conversation that /save wrote" },
    { "history", 0, QN_AT_PATH(chat_opts, history), .value = "FILE",
      .help = "keep what is typed for the next time (default: until the end)" },
    { "memory", 'm', QN_AT_PATH(chat_opts, memory), .value = "FILE",
      .help = "start from what was remembered there, if it is there, and keep what is remembered" },
    { "template", 0, QN_AT_STRING(chat_opts, template), .value = "NAME",
      .help = "how conversations are written: plain, chatml, llama3, phi3, zephyr or alpaca "
              "(default: as the folder says, else plain)" },
    { "tokens", 'n', QN_AT_INT(chat_opts, tokens), .initial = "0", .min = 0, .max = 1 << 24,
      .help = "of an answer at most; 0: what the context holds" },
    { "context", 'c', QN_AT_INT(chat_opts, context), .initial = "2048", .min = 16, .max = 1 << 22,
      .help = "tokens of the conversation and its answer" },
    { "weights", 0, QN_AT_CHOICE(chat_opts, weights), .words = "f32|f16|bf16", .initial = "f32",
      .help = "how matrices are kept on the device" },
    QN_SAMPLING_OPTIONS(chat_opts, sampling),
    { 0 },
};

typedef struct chatting {
    const qn_cli *cli;
    const chat_opts *o;
    qn_context *ctx;
    qn_device *dev;
    qn_folder folder;
    qn_chat chat;
    qn_runner *runner;
    qn_talk *talk;
    qn_line *line;
    bool done;
    qn_talk_stats last;
} chatting;

// ------------------------------------------------------------------------------ answers

static bool print_text(void *user, const char *bytes, size_t size)
{
    (void)user;
    fwrite(bytes, 1, size, stdout);
    fflush(stdout);
    return !qn_interrupted() && !ferror(stdout);
}

// Ctrl-C ends the answer alone. A conversation that cannot go on is one sentence, and goes on.
static qn_result answer(chatting *c)
{
    qn_result r = qn_talk_answer(c->talk, print_text, NULL, &c->last);
    if (r == QN_ERR_INVALID && !c->o->prompt) {
        qn_log(QN_LOG_ERROR, "%s", qn_error_message());
        qn_talk_forget(c->talk, 1);
        return QN_OK;
    }
    if (r == QN_OK) printf("\n");
    fflush(stdout);
    if (ferror(stdout)) c->done = true;
    if (!c->o->prompt && qn_interrupt_take()) qn_cli_note(c->cli, "(stopped)");
    if (r == QN_OK && c->last.left_out)
        qn_cli_note(c->cli, "(the context is full: the oldest %lld messages were left out)",
                    (long long)c->last.left_out);
    return r;
}

static qn_result ask(chatting *c, const char *text)
{
    QN_TRY(qn_talk_add(c->talk, QN_ROLE_USER, text));
    return answer(c);
}

// ------------------------------------------------------------------------------ commands

static qn_result do_help(chatting *c, const char *rest);

static qn_result do_exit(chatting *c, const char *rest)
{
    (void)rest;
    c->done = true;
    return QN_OK;
}

static qn_result do_new(chatting *c, const char *rest)
{
    (void)rest;
    size_t n = qn_talk_count(c->talk);
    if (n && qn_talk_at(c->talk, 0).role == QN_ROLE_SYSTEM) n--;
    qn_talk_forget(c->talk, n);
    return QN_OK;
}

static qn_result do_system(chatting *c, const char *rest)
{
    return qn_talk_set_system(c->talk, rest);
}

// Takes messages away up to and with the last one of the user.
static bool take_back(chatting *c, bool question)
{
    size_t n = qn_talk_count(c->talk), k = 0;
    while (k < n && qn_talk_at(c->talk, n - 1 - k).role != QN_ROLE_USER) k++;
    if (k == n) {
        qn_cli_note(c->cli, "(there is no question yet)");
        return false;
    }
    qn_talk_forget(c->talk, k + question);
    return true;
}

static qn_result do_undo(chatting *c, const char *rest)
{
    (void)rest;
    take_back(c, true);
    return QN_OK;
}

static qn_result do_again(chatting *c, const char *rest)
{
    (void)rest;
    return take_back(c, false) ? answer(c) : QN_OK;
}

static qn_result do_save(chatting *c, const char *rest)
{
    return *rest ? qn_talk_save(c->talk, rest) : qn_fail(QN_ERR_INVALID, "/save FILE");
}

static qn_result do_load(chatting *c, const char *rest)
{
    return *rest ? qn_talk_load(c->talk, rest) : qn_fail(QN_ERR_INVALID, "/load FILE");
}

static qn_result do_show(chatting *c, const char *rest)
{
    (void)rest;
    for (size_t i = 0; i < qn_talk_count(c->talk); i++) {
        qn_message m = qn_talk_at(c->talk, i);
        printf("%s: %s\n", qn_role_name(m.role), m.content);
    }
    return QN_OK;
}

static qn_result do_stats(chatting *c, const char *rest)
{
    (void)rest;
    const qn_talk_stats *s = &c->last;
    qn_cli_note(c->cli,
                "prompt %lld tokens, %lld of them new, in %.2f s; wrote %lld tokens, %.1f "
                "tokens/s",
                (long long)s->prompt_tokens, (long long)s->read_tokens, s->prompt_seconds,
                (long long)s->tokens, s->seconds > 0 ? (double)s->tokens / s->seconds : 0);
    return QN_OK;
}

static const qn_opt sampling[] = { QN_SAMPLING_OPTIONS(chat_opts, sampling), { 0 } };

// Every option of sampling is 8 bytes of qn_sampling.
static void copy_option(const qn_opt *row, const chat_opts *from, qn_sampling *to)
{
    memcpy((char *)to + (row->at - offsetof(chat_opts, sampling)), (const char *)from + row->at, 8);
}

// "/set temp 0.5": the options of sampling and the seed, under their names and within their limits.
static qn_result do_set(chatting *c, const char *rest)
{
    char name[64], value[64], text[160];
    if (sscanf(rest, "%63s %63s", name, value) != 2)
        return qn_fail(QN_ERR_INVALID, "/set NAME VALUE, as in /set temp 0.5");
    if (!strcmp(name, "seed")) {
        char *end;
        qn_talk_sampling(c->talk)->seed = strtoull(value, &end, 10);
        return *end ? qn_fail(QN_ERR_INVALID, "seed: found '%s', expected a number", value) : QN_OK;
    }
    chat_opts o = { 0 };
    qn_opts parsed = { 0 };
    int at = 1;
    snprintf(text, sizeof text, "--%s=%s", name, value);
    char *argv[] = { text, text, NULL };
    qn_result r = qn_opts_add(&parsed, sampling, &o);
    if (r == QN_OK) r = qn_opts_parse(&parsed, 2, argv, &at, false);
    for (const qn_opt *row = sampling; r == QN_OK && row->name; row++)
        if (!strcmp(row->name, name)) copy_option(row, &o, qn_talk_sampling(c->talk));
    qn_opts_free(&parsed);
    return r;
}

static const struct {
    const char *name, *help;
    qn_result (*run)(chatting *c, const char *rest);
} commands[] = {
    { "help", "these lines", do_help },
    { "new", "begin a new conversation", do_new },
    { "system", "TEXT: what the model is told before everything; nothing: no such text",
      do_system },
    { "undo", "take the last question and its answer back", do_undo },
    { "again", "answer the last question anew", do_again },
    { "set", "NAME VALUE: change an option of sampling, temp, top-k, ..., or the seed", do_set },
    { "show", "the conversation so far", do_show },
    { "save", "FILE: write the conversation as JSON", do_save },
    { "load", "FILE: go on with such a file", do_load },
    { "stats", "tokens and rates of the last answer", do_stats },
    { "exit", "end; so does the end of the input", do_exit },
};

static qn_result do_help(chatting *c, const char *rest)
{
    (void)rest;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        qn_cli_note(c->cli, "/%-7s %s", commands[i].name, commands[i].help);
    qn_cli_note(c->cli, "A line that ends with \\ goes on in the next. Ctrl-C stops an answer.");
    return QN_OK;
}

// What a command refuses is said, and the conversation goes on.
static qn_result obey(chatting *c, const char *line)
{
    const size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");
    char word[32] = "";
    if (n < sizeof word) memcpy(word, line, n);
    qn_nearest near = { .word = word };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        qn_nearest_offer(&near, commands[i].name);
        if (strcmp(word, commands[i].name)) continue;
        qn_result r = commands[i].run(c, rest);
        if (r == QN_OK || r == QN_ERR_DEVICE_LOST || r == QN_ERR_NO_MEMORY) return r;
        qn_log(QN_LOG_ERROR, "%s", qn_error_message());
        return QN_OK;
    }
    qn_log(QN_LOG_ERROR, "there is no command /%s%s%s%s; /help lists them", word,
           near.best ? "; did you mean /" : "", near.best ? near.best : "", near.best ? "?" : "");
    return QN_OK;
}

// ------------------------------------------------------------------------------ the conversation

// A message of one or several lines; NULL: nothing more will come.
static const char *read_message(chatting *c, qn_text *text)
{
    text->size = 0;
    for (;;) {
        const char *line = qn_line_read(c->line, text->size ? ". " : "> ");
        if (!line) return NULL;
        size_t n = strlen(line);
        const bool more = n && line[n - 1] == '\\';
        const char *end = more ? "\n" : "";
        if (qn_grow((void **)&text->data, &text->capacity, text->size + n + 2, 1) != QN_OK)
            return NULL;
        text->size +=
            (size_t)sprintf(text->data + text->size, "%.*s%s", (int)(n - more), line, end);
        if (!more) return text->data;
    }
}

// Ctrl-C at the prompt drops the line; a second one in a row ends the conversation.
static qn_result converse(chatting *c)
{
    qn_text text = { 0 };
    qn_result r = QN_OK;
    for (bool warned = false; r == QN_OK && !c->done && !qn_interrupted();) {
        const char *message = read_message(c, &text);
        if (!message) {
            if (!qn_interrupt_take() || warned) break;
            warned = true;
            qn_cli_note(c->cli, "\n(Ctrl-C again, Ctrl-D or /exit ends)");
            continue;
        }
        warned = false;
        if (*message == '/')
            r = obey(c, message + 1);
        else if (message[strspn(message, " \t\n")])
            r = ask(c, message);
    }
    qn_text_free(&text);
    return r;
}

static qn_result open_model(chatting *c)
{
    static const qn_dtype dtypes[] = { QN_F32, QN_F16, QN_BF16 };
    const char *dir = c->cli->args[0];
    QN_TRY(qn_cli_open(c->cli, &c->ctx, &c->dev));
    QN_TRY(qn_folder_open(c->dev, dir, dtypes[c->o->weights], &c->folder));
    QN_TRY(qn_chat_open(dir, c->o->template, c->folder.tokenizer, c->folder.config.eos_token_id,
                        &c->chat));
    uint8_t *usable = qn_folder_usable(&c->folder);
    if (!usable) return qn_no_memory((size_t)c->folder.config.vocab_size);
    const qn_runner_opts r = { .context = c->o->context, .usable = usable };
    qn_result result =
        qn_runner_create(c->dev, &c->folder.config, c->folder.weights, &r, &c->runner);
    qn_free(usable);
    return result;
}

static qn_result open_memory(chatting *c)
{
    const char *path = c->o->memory;
    if (!path) return QN_OK;
    if (!qn_runner_remembers(c->runner))
        return qn_fail(QN_ERR_INVALID,
                       "%s: the model has no memory; quoin bricks add-memory gives "
                       "it one",
                       path);
    return qn_file_exists(path) ? qn_runner_memory_load(c->runner, 0, path) : QN_OK;
}

// The folder's way of sampling, and over it what the command line says.
static qn_result open_talk(chatting *c)
{
    qn_talk_opts t = { .chat = &c->chat,
                       .runner = c->runner,
                       .sampling = c->chat.sampling,
                       .max_tokens = c->o->tokens };
    t.sampling.seed = (uint64_t)c->cli->seed;
    for (const qn_opt *row = sampling; row->name; row++)
        if (qn_opts_given(c->cli->parsed, row->name)) copy_option(row, c->o, &t.sampling);
    QN_TRY(qn_talk_create(&t, &c->talk));
    if (c->o->load) QN_TRY(qn_talk_load(c->talk, c->o->load));
    return c->o->system ? qn_talk_set_system(c->talk, c->o->system) : QN_OK;
}

static int run(const qn_cli *cli, const void *opts)
{
    chatting c = { .cli = cli, .o = opts };
    qn_interrupt_watch();
    qn_result r = open_model(&c);
    if (r == QN_OK) r = open_memory(&c);
    if (r == QN_OK) r = open_talk(&c);
    if (r == QN_OK && c.o->prompt) {
        r = ask(&c, c.o->prompt);
    } else if (r == QN_OK) {
        qn_cli_note(cli, "template %s%s; /help lists what there is, Ctrl-C stops an answer",
                    qn_chat_format_name(c.chat.format),
                    c.chat.named ? "" : " (the folder names none)");
        r = qn_line_open(c.o->history, &c.line);
        if (r == QN_OK) r = converse(&c);
    }
    if (r == QN_OK && c.o->memory && qn_talk_count(c.talk))
        r = qn_runner_memory_save(c.runner, 0, c.o->memory, false);
    int status = r == QN_OK && qn_interrupted() ? QN_EXIT_INTERRUPTED : qn_cli_result(r);
    qn_line_close(&c.line);
    qn_talk_destroy(&c.talk);
    qn_runner_destroy(&c.runner);
    qn_folder_close(&c.folder);
    qn_device_destroy(&c.dev);
    qn_context_destroy(&c.ctx);
    return status;
}

const qn_command qn_command_chat = {
    .args = "FOLDER",
    .args_min = 1,
    .args_max = 1,
    .about =
        "A conversation with the model in FOLDER. Answers appear as they are written; Ctrl-C "
        "stops one and leaves the conversation. Lines can be edited and recalled, and may also "
        "come from a pipe: answers go to standard output, everything else to standard "
        "error.\n\nLines that begin with / are commands: /help, /new, /system, /undo, /again, "
        "/set, /show, /save, /load, /stats, /exit. When the context is full, the oldest "
        "messages are left out. What options of sampling do not say comes from the folder's "
        "generation_config.json, if it has one. The same seed and the same lines give the same "
        "answers.",
    .examples = "quoin chat run/demo\n"
                "quoin chat run/demo --system \"Answer in one sentence.\" --temp 0.3\n"
                "quoin chat run/demo -p \"What is a quoin?\"",
    .options = options,
    .opts_size = sizeof(chat_opts),
    .run = run,
};
