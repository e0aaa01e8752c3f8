// help, man, completion and version: the commands about the program itself.
#include "cli/help.h"

static int misspelt_command(const qn_cli *cli)
{
    char words[512] = "", near[64], quoted[QN_QUOTED];
    size_t used = 0;
    for (const qn_command_row *row = qn_commands; row->name && used < sizeof words; row++) {
        int n = snprintf(words + used, sizeof words - used, "%s%s", used ? "|" : "", row->name);
        used += n > 0 ? (size_t)n : 0;
    }
    bool meant = qn_words_nearest(words, cli->args[0], near, sizeof near);
    return qn_cli_misuse(cli, "unknown command %s%s%s%s", qn_quote(cli->args[0], quoted),
                         meant ? "; did you mean '" : "", meant ? near : "", meant ? "'?" : "");
}

static int run_help(const qn_cli *cli, const void *opts)
{
    (void)opts;
    const qn_command_row *row = cli->arg_count ? qn_command_find(cli->args[0]) : NULL;
    if (cli->arg_count && !row) return misspelt_command(cli);
    return qn_help_print(stdout, row);
}

const qn_command qn_command_help = {
    .args = "[COMMAND]",
    .args_max = 1,
    .about = "Shows what a command does and its options, or the list of commands. The same as "
             "--help, and the same text as the manual page.",
    .run = run_help,
};

static int run_man(const qn_cli *cli, const void *opts)
{
    (void)opts;
    const qn_command_row *row = cli->arg_count ? qn_command_find(cli->args[0]) : NULL;
    if (cli->arg_count && !row) return misspelt_command(cli);
    qn_textbuf t = { 0 };
    qn_man_text(&t, row);
    return qn_print_text(stdout, &t);
}

const qn_command qn_command_man = {
    .args = "[COMMAND]",
    .args_max = 1,
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
