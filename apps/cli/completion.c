// Completion scripts for three shells, made from the tables.
#include "cli/help.h"

#include <string.h>

// s within single quotes of sh and zsh: ' becomes '\''.
static void put_sh(qn_textbuf *t, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'')
            qn_textbuf_puts(t, "'\\''");
        else
            qn_textbuf_add(t, s, 1);
    }
}

// s within single quotes of fish, which knows \' and \\ there.
static void put_fish(qn_textbuf *t, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') qn_textbuf_puts(t, "\\");
        qn_textbuf_add(t, s, 1);
    }
}

// "a|b" -> "a b"
static void put_words(qn_textbuf *t, const char *words)
{
    for (; words && *words; words++) qn_textbuf_add(t, *words == '|' ? " " : words, 1);
}

static void names_of(qn_textbuf *t, const qn_command_row *table)
{
    for (const qn_command_row *row = table; row->name; row++)
        qn_textbuf_printf(t, "%s%s", row == table ? "" : " ", qn_command_word(row));
}

static void command_names(qn_textbuf *t)
{
    names_of(t, qn_commands);
}

// The first positional argument of `help` and `man` is a command.
static bool takes_command(const qn_command *c)
{
    return c->args && strstr(c->args, "COMMAND");
}

// Whether the first positional argument is one of a few words, and these.
static bool takes_word(const qn_command *c)
{
    return c->parts || c->arg_words || takes_command(c);
}

static void argument_words(qn_textbuf *t, const qn_command *c)
{
    if (c->parts)
        names_of(t, c->parts);
    else if (c->arg_words)
        put_words(t, c->arg_words);
    else
        command_names(t);
}

// "bricks-list"
static const char *dashed(const qn_command_row *row, char *name, size_t size)
{
    snprintf(name, size, "%s", row->name);
    char *space = strchr(name, ' ');
    if (space) *space = '-';
    return name;
}

// ------------------------------------------------------------------------------------ bash

static void bash_option_names(qn_textbuf *t, const qn_opt *table)
{
    for (const qn_opt *opt = table; opt && opt->name; opt++) {
        qn_textbuf_printf(t, " --%s", opt->name);
        if (opt->letter) qn_textbuf_printf(t, " -%c", opt->letter);
    }
}

// One case per option with a value: what may follow it.
static void bash_values(qn_textbuf *t, const qn_opt *table, const char *command)
{
    for (const qn_opt *opt = table; opt && opt->name; opt++) {
        if (!qn_opt_has_value(opt)) continue;
        qn_textbuf_printf(t, "    %s:--%s", command, opt->name);
        if (opt->letter) qn_textbuf_printf(t, "|%s:-%c", command, opt->letter);
        qn_textbuf_puts(t, ") ");
        if (opt->words) {
            qn_textbuf_puts(t, "COMPREPLY=($(compgen -W '");
            put_words(t, opt->words);
            qn_textbuf_puts(t, "' -- \"$cur\"))");
        } else if (opt->type == QN_OPT_PATH) {
            qn_textbuf_puts(t, "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))");
        } else {
            qn_textbuf_puts(t, "COMPREPLY=()");
        }
        qn_textbuf_puts(t, "; return ;;\n");
    }
}

static void bash(qn_textbuf *t)
{
    qn_textbuf_puts(
        t, "# bash completion for quoin; source it or put it in bash-completion's directory\n"
           "_quoin() {\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= i w\n"
           "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
           "        w=${COMP_WORDS[i]}\n"
           "        case \"$cmd: ");
    command_names(t);
    qn_textbuf_puts(t, " \" in :*\" $w \"*) cmd=$w; continue ;; esac\n");
    for (const qn_command_row *row = qn_commands; row->name; row++) {
        if (!row->command->parts) continue;
        qn_textbuf_puts(t, "        case \"$cmd: ");
        names_of(t, row->command->parts);
        qn_textbuf_printf(t, " \" in %s:*\" $w \"*) cmd=$cmd-$w; break ;; esac\n", row->name);
    }
    qn_textbuf_puts(t, "    done\n    case \"$cmd:$prev\" in\n");
    const qn_command_row *row;
    char name[64];
    for (size_t i = 0; (row = qn_command_at(i)); i++)
        bash_values(t, row->command->options, dashed(row, name, sizeof name));
    bash_values(t, qn_global_options, "*");
    qn_textbuf_puts(t, "    esac\n    case \"$cur\" in\n    -*)\n        case \"$cmd\" in\n");
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        if (!row->command->options) continue;
        qn_textbuf_printf(t, "        %s) w='", dashed(row, name, sizeof name));
        bash_option_names(t, row->command->options);
        qn_textbuf_puts(t, "' ;;\n");
    }
    qn_textbuf_puts(t, "        *) w= ;;\n        esac\n        COMPREPLY=($(compgen -W \"$w");
    bash_option_names(t, qn_global_options);
    qn_textbuf_puts(t, "\" -- \"$cur\"))\n        return ;;\n    esac\n    case \"$cmd\" in\n"
                       "    '') COMPREPLY=($(compgen -W '");
    command_names(t);
    qn_textbuf_puts(t, "' -- \"$cur\")) ;;\n");
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        const qn_command *c = row->command;
        if (!takes_word(c)) continue;
        qn_textbuf_printf(t, "    %s) COMPREPLY=($(compgen -W '", dashed(row, name, sizeof name));
        argument_words(t, c);
        qn_textbuf_puts(t, "' -- \"$cur\")) ;;\n");
    }
    qn_textbuf_puts(
        t, "    *) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n    esac\n}\n"
           "complete -F _quoin quoin\n");
}

// ------------------------------------------------------------------------------------ zsh

// A description within [...] of an _arguments specification.
static void zsh_description(qn_textbuf *t, const char *s)
{
    for (; *s; s++) {
        if (strchr("[]:\\", *s)) qn_textbuf_puts(t, "\\");
        if (*s == '\'')
            qn_textbuf_puts(t, "'\\''");
        else
            qn_textbuf_add(t, s, 1);
    }
}

static void zsh_option(qn_textbuf *t, const qn_opt *opt, const char *prefix, const char *name)
{
    bool again = opt->type == QN_OPT_LIST || opt->type == QN_OPT_COUNT;
    qn_textbuf_printf(t, " \\\n        '%s%s%s%s[", again ? "*" : "", prefix, name,
                      qn_opt_has_value(opt) ? (prefix[1] ? "=" : "+") : "");
    zsh_description(t, opt->help);
    qn_textbuf_puts(t, "]");
    if (qn_opt_has_value(opt)) {
        qn_textbuf_puts(t, ":value:");
        if (opt->words) {
            qn_textbuf_puts(t, "(");
            put_words(t, opt->words);
            qn_textbuf_puts(t, ")");
        } else if (opt->type == QN_OPT_PATH) {
            qn_textbuf_puts(t, "_files");
        }
    }
    qn_textbuf_puts(t, "'");
}

static void zsh_options(qn_textbuf *t, const qn_opt *table)
{
    for (const qn_opt *opt = table; opt && opt->name; opt++) {
        zsh_option(t, opt, "--", opt->name);
        if (opt->letter) zsh_option(t, opt, "-", (char[2]){ opt->letter, 0 });
    }
}

static void zsh_arguments(qn_textbuf *t, const qn_command *c)
{
    qn_textbuf_puts(t, "        _arguments");
    zsh_options(t, c->options);
    zsh_options(t, qn_global_options);
    if (takes_word(c)) {
        qn_textbuf_puts(t, " \\\n        '1:argument:(");
        argument_words(t, c);
        qn_textbuf_puts(t, ")'");
    }
    if (c->args_max != 0) qn_textbuf_puts(t, " \\\n        '*:file:_files'");
}

static void zsh_parts(qn_textbuf *t, const qn_command_row *outer)
{
    qn_textbuf_puts(t, "        if (( CURRENT == 2 )); then _values command");
    for (const qn_command_row *row = outer->command->parts; row->name; row++) {
        qn_textbuf_printf(t, " '%s[", qn_command_word(row));
        zsh_description(t, row->summary);
        qn_textbuf_puts(t, "]'");
    }
    qn_textbuf_puts(t, "; return; fi\n        shift words; (( CURRENT-- ))\n"
                       "        case $words[1] in\n");
    for (const qn_command_row *row = outer->command->parts; row->name; row++) {
        qn_textbuf_printf(t, "        %s)\n", qn_command_word(row));
        zsh_arguments(t, row->command);
        qn_textbuf_puts(t, " ;;\n");
    }
    qn_textbuf_puts(t, "        esac");
}

static void zsh(qn_textbuf *t)
{
    qn_textbuf_puts(t, "#compdef quoin\n"
                       "_quoin() {\n"
                       "    local context state state_descr line\n    typeset -A opt_args\n"
                       "    local -a commands=(\n");
    for (const qn_command_row *row = qn_commands; row->name; row++) {
        qn_textbuf_printf(t, "        '%s:", row->name);
        put_sh(t, row->summary);
        qn_textbuf_puts(t, "'\n");
    }
    qn_textbuf_puts(t, "    )\n    _arguments -C");
    zsh_options(t, qn_global_options);
    qn_textbuf_puts(t, " \\\n        '1:command:->command' '*::argument:->argument'\n"
                       "    case $state in\n    command) _describe command commands ;;\n"
                       "    argument)\n        case $line[1] in\n");
    for (const qn_command_row *row = qn_commands; row->name; row++) {
        qn_textbuf_printf(t, "        %s)\n", row->name);
        if (row->command->parts)
            zsh_parts(t, row);
        else
            zsh_arguments(t, row->command);
        qn_textbuf_puts(t, " ;;\n");
    }
    qn_textbuf_puts(
        t,
        "        esac ;;\n    esac\n}\n"
        "if [ \"$funcstack[1]\" = _quoin ]; then _quoin \"$@\"; else compdef _quoin quoin; fi\n");
}

// ------------------------------------------------------------------------------------ fish

static void fish_options(qn_textbuf *t, const qn_opt *table, const char *condition)
{
    for (const qn_opt *opt = table; opt && opt->name; opt++) {
        qn_textbuf_printf(t, "complete -c quoin%s -l %s", condition, opt->name);
        if (opt->letter) qn_textbuf_printf(t, " -s %c", opt->letter);
        if (qn_opt_has_value(opt)) qn_textbuf_puts(t, opt->type == QN_OPT_PATH ? " -r -F" : " -x");
        if (opt->words) {
            qn_textbuf_puts(t, " -a '");
            put_words(t, opt->words);
            qn_textbuf_puts(t, "'");
        }
        qn_textbuf_puts(t, " -d '");
        put_fish(t, opt->help);
        qn_textbuf_puts(t, "'\n");
    }
}

static void fish(qn_textbuf *t)
{
    qn_textbuf_puts(t, "# fish completion for quoin\n");
    for (const qn_command_row *row = qn_commands; row->name; row++) {
        qn_textbuf_printf(t, "complete -c quoin -n __fish_use_subcommand -f -a %s -d '", row->name);
        put_fish(t, row->summary);
        qn_textbuf_puts(t, "'\n");
    }
    fish_options(t, qn_global_options, "");
    const qn_command_row *row;
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        const qn_command *c = row->command;
        char condition[160];
        const char *space = strchr(row->name, ' ');
        if (space)
            snprintf(condition, sizeof condition,
                     " -n '__fish_seen_subcommand_from %.*s; and __fish_seen_subcommand_from %s'",
                     (int)(space - row->name), row->name, space + 1);
        else
            snprintf(condition, sizeof condition, " -n '__fish_seen_subcommand_from %s'",
                     row->name);
        fish_options(t, c->options, condition);
        if (!takes_word(c)) continue;
        qn_textbuf_printf(t, "complete -c quoin%s -f -a '", condition);
        argument_words(t, c);
        qn_textbuf_puts(t, "'\n");
    }
}

void qn_completion_text(qn_textbuf *t, qn_shell shell)
{
    static void (*const scripts[])(qn_textbuf *) = {
        [QN_SHELL_BASH] = bash,
        [QN_SHELL_ZSH] = zsh,
        [QN_SHELL_FISH] = fish,
    };
    scripts[shell](t);
}
