// The manual page in mdoc(7), made from the tables.
#include "cli/help.h"

#include <string.h>

#define PAGE_DATE "November 23, 2026"

// Text for mdoc: no request at the start of a line, no escapes, hyphens that copy as such.
static void put(qn_textbuf *t, const char *s, size_t size)
{
    bool start = true;
    for (; size; s++, size--) {
        if (start && (*s == '.' || *s == '\'')) qn_textbuf_puts(t, "\\&");
        if (*s == '\\')
            qn_textbuf_puts(t, "\\e");
        else if (*s == '-')
            qn_textbuf_puts(t, "\\-");
        else
            qn_textbuf_add(t, s, 1);
        start = *s == '\n';
    }
}

#define LINE 76

// A paragraph as mdoc likes its source: a new line for each sentence, none too long.
static void put_paragraph(qn_textbuf *t, const char *s, size_t size)
{
    size_t column = 0;
    bool ended = false; // the last word closed a sentence
    for (const char *end = s + size; s < end;) {
        size_t n = strcspn(s, " \n");
        if (n > (size_t)(end - s)) n = (size_t)(end - s);
        if (column) qn_textbuf_puts(t, ended || column + n > LINE ? "\n" : " ");
        column = ended || column + n > LINE ? n : column + n + 1;
        put(t, s, n);
        ended = n && s[n - 1] == '.';
        s += n;
        while (s < end && (*s == ' ' || *s == '\n')) s++;
    }
    qn_textbuf_puts(t, "\n");
}

static void put_paragraphs(qn_textbuf *t, const char *s)
{
    for (bool first = true; s && *s; first = false) {
        const char *end = strstr(s, "\n\n");
        size_t n = end ? (size_t)(end - s) : strlen(s);
        if (!first) qn_textbuf_puts(t, ".Pp\n");
        put_paragraph(t, s, n);
        s += n + (end ? 2 : 0);
    }
}

static void put_options(qn_textbuf *t, const qn_opt *table)
{
    bool open = false;
    for (const qn_opt *opt = table; opt && opt->name; opt++) {
        char name[96], facts[320];
        if (opt->section || !open) {
            if (open) qn_textbuf_puts(t, ".El\n");
            qn_textbuf_puts(t, ".Pp\n");
            put(t, opt->section ? opt->section : "Options",
                strlen(opt->section ? opt->section : "Options"));
            qn_textbuf_puts(t, ":\n.Bl -tag -width Ds\n");
            open = true;
        }
        qn_opt_format(opt, name, sizeof name);
        qn_opt_describe(opt, facts, sizeof facts);
        qn_textbuf_puts(t, ".It ");
        if (opt->letter) qn_textbuf_printf(t, "Fl %c , ", opt->letter);
        const char *value = strchr(strstr(name, "--"), ' ');
        qn_textbuf_puts(t, "Fl \\-");
        put(t, opt->name, strlen(opt->name));
        if (value) qn_textbuf_printf(t, " Ar %s", value + 1);
        qn_textbuf_puts(t, "\n");
        put(t, opt->help, strlen(opt->help));
        if (*facts) {
            qn_textbuf_puts(t, "\n(");
            put(t, facts, strlen(facts));
            qn_textbuf_puts(t, ")");
        }
        qn_textbuf_puts(t, ".\n");
    }
    if (open) qn_textbuf_puts(t, ".El\n");
}

static void put_usage(qn_textbuf *t, const qn_command_row *row)
{
    qn_textbuf_printf(t, ".Cm %s\n%s.Op Ar options\n", row->name,
                      row->command->parts ? ".Ar command\n" : "");
    if (!row->command->args) return;
    qn_textbuf_puts(t, ".Ar ");
    put(t, row->command->args, strlen(row->command->args));
    qn_textbuf_puts(t, "\n");
}

static void put_parts(qn_textbuf *t, const qn_command_row *row)
{
    if (!row) return;
    qn_textbuf_puts(t, ".Bl -tag -width Ds\n");
    for (; row->name; row++) {
        qn_textbuf_printf(t, ".It Cm %s\n", qn_command_word(row));
        put(t, row->summary, strlen(row->summary));
        qn_textbuf_puts(t, ".\n");
    }
    qn_textbuf_puts(t, ".El\n");
}

static void put_examples(qn_textbuf *t, const char *s)
{
    qn_textbuf_puts(t, ".Bd -literal -offset indent\n");
    put(t, s, strlen(s));
    if (s[strlen(s) - 1] != '\n') qn_textbuf_puts(t, "\n");
    qn_textbuf_puts(t, ".Ed\n");
}

static void put_exit_status(qn_textbuf *t)
{
    qn_textbuf_puts(
        t, ".Sh EXIT STATUS\n.Bl -tag -width Ds -compact\n"
           ".It 0\ndone\n.It 1\nfailed\n.It 2\nmisused: a wrong command, option or argument\n"
           ".It 3\nno Vulkan driver, or no suitable device\n.It 4\nthe device was lost\n"
           ".It 130\ninterrupted\n.El\n");
}

static void program_page(qn_textbuf *t)
{
    qn_textbuf_printf(t, ".Dd %s\n.Dt QUOIN 1\n.Os\n.Sh NAME\n.Nm quoin\n", PAGE_DATE);
    qn_textbuf_puts(
        t, ".Nd modular language models on any Vulkan GPU\n.Sh SYNOPSIS\n.Nm\n"
           ".Op Ar options\n.Ar command\n.Op Ar options\n.Op Ar arguments\n"
           ".Sh DESCRIPTION\n"
           "Trains and runs sparse mixture\\-of\\-experts language models on whatever Vulkan\n"
           "device there is.\n"
           "Results go to standard output, everything else to standard error.\n");
    put_options(t, qn_global_options);
    qn_textbuf_puts(t, ".Sh COMMANDS\n");
    const qn_command_row *row;
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        qn_textbuf_printf(t, ".Ss %s\n.Nm\n", row->name);
        put_usage(t, row);
        qn_textbuf_puts(t, ".Pp\n");
        put_paragraphs(t, row->command->about);
        put_options(t, row->command->options);
        if (row->command->examples) put_examples(t, row->command->examples);
    }
    qn_textbuf_puts(
        t, ".Sh ENVIRONMENT\n.Bl -tag -width Ds\n"
           ".It Ev NO_COLOR\nNo colours when set and not empty.\n"
           ".It Ev QUOIN_VALIDATE\nRuns under the Vulkan validation layer when set to 1.\n"
           ".It Ev VK_DRIVER_FILES\nThe Vulkan drivers to look at, as for any Vulkan program.\n"
           ".It Ev XDG_CACHE_HOME\nWhere compiled pipelines and the result of\n.Ic bench tune\nare "
           "kept.\n"
           ".It Ev QUOIN_TUNING\nSet to 0, the latter is not used.\n.El\n");
    put_exit_status(t);
}

static void command_page(qn_textbuf *t, const qn_command_row *row)
{
    qn_textbuf_printf(t, ".Dd %s\n.Dt QUOIN-", PAGE_DATE);
    for (const char *s = row->name; *s; s++)
        qn_textbuf_printf(t, "%c", *s >= 'a' && *s <= 'z' ? *s - 32 : *s == ' ' ? '-' : *s);
    qn_textbuf_puts(t, " 1\n.Os\n.Sh NAME\n.Nm quoin-");
    for (const char *s = row->name; *s; s++) qn_textbuf_printf(t, "%c", *s == ' ' ? '-' : *s);
    qn_textbuf_puts(t, "\n.Nd ");
    put(t, row->summary, strlen(row->summary));
    qn_textbuf_puts(t, "\n.Sh SYNOPSIS\n.Nm quoin\n");
    put_usage(t, row);
    qn_textbuf_puts(t, ".Sh DESCRIPTION\n");
    put_paragraphs(t, row->command->about);
    put_parts(t, row->command->parts);
    put_options(t, row->command->options);
    put_options(t, qn_global_options);
    put_exit_status(t);
    if (row->command->examples) {
        qn_textbuf_puts(t, ".Sh EXAMPLES\n");
        put_examples(t, row->command->examples);
    }
    qn_textbuf_puts(t, ".Sh SEE ALSO\n.Xr quoin 1\n");
}

void qn_man_text(qn_textbuf *t, const qn_command_row *row)
{
    if (row)
        command_page(t, row);
    else
        program_page(t);
}
