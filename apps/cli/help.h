// Everything that describes the program is made from the command and option tables: help, the
// manual page, shell completion.
#ifndef QN_HELP_H
#define QN_HELP_H

#include "cli/command.h"
#include "io/json.h"
#include "io/textbuf.h"

#include <stdio.h>

// Writes help for a command, or for the program where row is NULL. Returns a qn_exit.
int qn_help_print(FILE *out, const qn_command_row *row);
// The same as a text wrapped to `width` columns.
void qn_help_text(qn_textbuf *t, const qn_command_row *row, int width);

// The manual page in mdoc(7): of one command, or of the program with all of them.
void qn_man_text(qn_textbuf *t, const qn_command_row *row);

typedef enum qn_shell { QN_SHELL_BASH = 0, QN_SHELL_ZSH, QN_SHELL_FISH } qn_shell;
#define QN_SHELL_WORDS "bash|zsh|fish" // in this order
void qn_completion_text(qn_textbuf *t, qn_shell shell);

// Version, compiler and optional parts: as one line, and as members of an open JSON object.
void qn_build_text(qn_textbuf *t);
void qn_build_json(qn_json_writer *w);

// Prints the text and frees it. Returns a qn_exit.
int qn_print_text(FILE *out, qn_textbuf *t);

#endif
