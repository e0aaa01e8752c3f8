// Help, made from the tables.
#include "cli/help.h"
#include "cli/term.h"

#include <string.h>

#define OPTION_COLUMN 26 // where descriptions start
#define WIDEST 100

int qn_print_text(FILE *out, qn_textbuf *t)
{
    int status = qn_cli_result(qn_textbuf_status(t));
    if (status == QN_EXIT_DONE) fputs(qn_textbuf_get(t), out);
    qn_textbuf_free(t);
    return status;
}

// Adds one paragraph, wrapped; the cursor stands in column `column`, further lines are indented
// by `indent`.
static void wrap(qn_textbuf *t, const char *s, size_t size, int column, int indent, int width)
{
    const char *end = s + size;
    bool first = true;
    while (s < end) {
        size_t n = strcspn(s, " \n");
        if (n > (size_t)(end - s)) n = (size_t)(end - s);
        if (!first && column + 1 + (int)n > width) {
            qn_textbuf_printf(t, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            qn_textbuf_puts(t, " ");
            column++;
        }
        qn_textbuf_add(t, s, n);
        column += (int)n;
        first = false;
        s += n;
        while (s < end && (*s == ' ' || *s == '\n')) s++;
    }
    qn_textbuf_puts(t, "\n");
}

static void wrap_paragraphs(qn_textbuf *t, const char *s, int width)
{
    while (s && *s) {
        const char *end = strstr(s, "\n\n");
        size_t n = end ? (size_t)(end - s) : strlen(s);
        wrap(t, s, n, 0, 0, width);
        qn_textbuf_puts(t, "\n");
        s += n + (end ? 2 : 0);
    }
}

static void option_rows(qn_textbuf *t, const qn_opt *table, int width)
{
    for (const qn_opt *opt = table; opt && opt->name; opt++) {
        char name[96], facts[320], line[640];
        if (opt->section)
            qn_textbuf_printf(t, "%s%s:\n", opt == table ? "" : "\n", opt->section);
        else if (opt == table)
            qn_textbuf_puts(t, "Options:\n");
        qn_opt_format(opt, name, sizeof name);
        qn_opt_describe(opt, facts, sizeof facts);
        bool any = *facts;
        snprintf(line, sizeof line, "%s%s%s%s", opt->help, any ? " (" : "", facts, any ? ")" : "");
        qn_textbuf_printf(t, "  %s", name);
        int column = 2 + (int)strlen(name);
        if (column > OPTION_COLUMN - 2) {
            qn_textbuf_puts(t, "\n");
            column = 0;
        }
        qn_textbuf_printf(t, "%*s", OPTION_COLUMN - column, "");
        wrap(t, line, strlen(line), OPTION_COLUMN, OPTION_COLUMN, width);
    }
}

static void command_rows(qn_textbuf *t, const qn_command_row *table, int width)
{
    qn_textbuf_puts(t, "Commands:\n");
    int column = 14;
    for (const qn_command_row *row = table; row->name; row++) {
        int n = (int)strlen(qn_command_word(row)) + 4;
        if (n > column) column = n;
    }
    for (const qn_command_row *row = table; row->name; row++) {
        qn_textbuf_printf(t, "  %-*s", column - 2, qn_command_word(row));
        wrap(t, row->summary, strlen(row->summary), column, column, width);
    }
}

static void command_help(qn_textbuf *t, const qn_command_row *row, int width)
{
    const qn_command *c = row->command;
    qn_textbuf_printf(t, "quoin %s: %s\n\n", row->name, row->summary);
    qn_textbuf_printf(t, "Usage: quoin %s%s [options]%s%s\n\n", row->name,
                      c->parts ? " COMMAND" : "", c->args ? " " : "", c->args ? c->args : "");
    wrap_paragraphs(t, c->about, width);
    if (c->parts) {
        command_rows(t, c->parts, width);
        qn_textbuf_printf(t, "\n'quoin help %s COMMAND' shows a command's options.\n\n", row->name);
    }
    if (c->options) {
        option_rows(t, c->options, width);
        qn_textbuf_puts(t, "\n");
    }
    option_rows(t, qn_global_options, width);
    if (!c->examples) return;
    qn_textbuf_puts(t, "\nExamples:\n");
    for (const char *s = c->examples; *s;) {
        size_t n = strcspn(s, "\n");
        qn_textbuf_printf(t, "  %.*s\n", (int)n, s);
        s += n + (s[n] == '\n');
    }
}

static void program_help(qn_textbuf *t, int width)
{
    qn_textbuf_printf(t, "quoin %s: trains and runs modular language models on any Vulkan GPU\n\n",
                      qn_version());
    qn_textbuf_puts(t, "Usage: quoin [options] COMMAND [options] [arguments]\n\n");
    command_rows(t, qn_commands, width);
    qn_textbuf_puts(t, "\n");
    option_rows(t, qn_global_options, width);
    qn_textbuf_puts(
        t, "\n'quoin help COMMAND' shows a command's options.\n"
           "Exit status: 0 done, 1 failed, 2 misused, 3 no suitable device, 4 device lost,\n"
           "130 interrupted.\n");
}

void qn_help_text(qn_textbuf *t, const qn_command_row *row, int width)
{
    if (width > WIDEST) width = WIDEST;
    if (width < 2 * OPTION_COLUMN) width = 2 * OPTION_COLUMN;
    if (row)
        command_help(t, row, width);
    else
        program_help(t, width);
}

int qn_help_print(FILE *out, const qn_command_row *row)
{
    qn_textbuf t = { 0 };
    qn_help_text(&t, row, qn_terminal_width(out));
    return qn_print_text(out, &t);
}
