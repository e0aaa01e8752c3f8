// help, man, completion and version: the commands about the program itself.
#include "cli/help.h"
#include "nearest.h"

#include <string.h>

// The command that the arguments name ("bricks list" are two); *row NULL: the program. false
// after having said what was misspelt.
static bool named_command(const qn_cli *cli, const qn_command_row **row)
{
    const qn_command_row *table = qn_commands;
    *row = NULL;
    for (size_t i = 0; i < cli->arg_count; i++) {
        qn_nearest near = { .word = cli->args[i] };
        const qn_command_row *at = table;
        for (; at && at->name && strcmp(qn_command_word(at), cli->args[i]); at++)
            qn_nearest_offer(&near, qn_command_word(at));
        if (!at || !at->name) {
            char quoted[QN_QUOTED];
            qn_cli_misuse(cli, "unknown command %s%s%s%s", qn_quote(cli->args[i], quoted),
                          near.best ? "; did you mean '" : "", near.best ? near.best : "",
                          near.best ? "'?" : "");
            return false;
        }
        *row = at;
        table = at->command->parts;
    }
    return true;
}

static int run_help(const qn_cli *cli, const void *opts)
{
    (void)opts;
    const qn_command_row *row;
    if (!named_command(cli, &row)) return QN_EXIT_MISUSED;
    return qn_help_print(stdout, row);
}

const qn_command qn_command_help = {
    .args = "[COMMAND...]",
    .args_max = 2,
    .about = "Shows what a command does and its options, or the list of commands. The same as "
             "--help, and the same text as the manual page.",
    .run = run_help,
};

static int run_man(const qn_cli *cli, const void *opts)
{
    (void)opts;
    const qn_command_row *row;
    if (!named_command(cli, &row)) return QN_EXIT_MISUSED;
    qn_textbuf t = { 0 };
    qn_man_text(&t, row);
    return qn_print_text(stdout, &t);
}

const qn_command qn_command_man = {
    .args = "[COMMAND...]",
    .args_max = 2,
    .about = "Writes the manual page of the program, or of one command, in mdoc form.",
    .examples = "quoin man | man -l -",
    .run = run_man,
};

static int run_completion(const qn_cli *cli, const void *opts)
{
    (void)opts;
    int shell = qn_cli_word(cli);
    if (shell < 0) return QN_EXIT_MISUSED;
    qn_textbuf t = { 0 };
    qn_completion_text(&t, (qn_shell)shell);
    return qn_print_text(stdout, &t);
}

const qn_command qn_command_completion = {
    .args = "bash|zsh|fish",
    .arg_words = QN_SHELL_WORDS,
    .args_min = 1,
    .args_max = 1,
    .about = "Writes a script that lets the shell complete commands, options and their values. "
             "'cmake --install' puts all three where the shells look for them.",
    .examples = "source <(quoin completion bash)\n"
                "quoin completion fish > ~/.config/fish/completions/quoin.fish",
    .run = run_completion,
};

static int run_version(const qn_cli *cli, const void *opts)
{
    (void)opts;
    if (!cli->json) {
        qn_textbuf t = { 0 };
        qn_build_text(&t);
        return qn_print_text(stdout, &t);
    }
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    qn_build_json(&w);
    qn_json_put_end(&w, '}');
    int status = qn_cli_result(w.status);
    if (status == QN_EXIT_DONE) printf("%.*s\n", (int)w.size, w.text);
    qn_json_writer_free(&w);
    return status;
}

const qn_command qn_command_version = {
    .about = "Shows the version, the compiler and which optional parts this build has.",
    .run = run_version,
};
