// Commands of the program. A command is a row in commands.def and the object `qn_command_<name>`
// that the row names, defined in apps/<area>/cmd_<name>.c:
//
//     static int run(const qn_cli *cli, const void *opts) { const my_opts *o = opts; ... }
//     const qn_command qn_command_train = {
//         .options = options, .opts_size = sizeof(my_opts), .run = run,
//         .about = "Paragraphs for help and the man page.", ...
//     };
//
// These files and apps/cli/*.c make the static library qn_cli, which with main.c is the program;
// everything else below apps/ is part of libquoin and prints nothing. Results go to stdout,
// everything else through qn_log() and qn_cli_note() to stderr.
#ifndef QN_COMMAND_H
#define QN_COMMAND_H

#include "cli/opts.h"

#include <quoin/engine.h>

// What the shell gets to see.
typedef enum qn_exit {
    QN_EXIT_DONE = 0,
    QN_EXIT_FAILED = 1,
    QN_EXIT_MISUSED = 2,   // a wrong command, option or argument
    QN_EXIT_NO_DEVICE = 3, // no Vulkan driver, or none that suits
    QN_EXIT_DEVICE_LOST = 4,
    QN_EXIT_INTERRUPTED = 130,
} qn_exit;

// A command line, read: the global options and the command's positional arguments.
typedef struct qn_cli {
    const char *command;
    const char *const *args;
    size_t arg_count;
    const char *device;    // --device, NULL: the best
    int64_t seed;          // 0 <= seed < 2^31
    uint64_t memory_limit; // bytes of device memory; 0: what is free
    uint32_t hide;         // qn_cap bits
    bool json;             // results as JSON
    bool quiet, color; // color: stdout and stderr may carry it (each still has to be a terminal)
    bool validate;
    const char *shader_dir;
    const qn_opts *parsed; // for qn_opts_given()
} qn_cli;

struct qn_command_row;
typedef struct qn_command {
    // Commands of its own ("bricks list"), ended by a NULL name: each has its options, and the
    // command itself has only a summary and `about`. Their names begin with its name and a space.
    const struct qn_command_row *parts;
    const char *args;       // positional arguments as usage shows them, "[FILE...]"; NULL: none
    const char *arg_words;  // what the first of them may be, "list|show": completion, qn_cli_word()
    int args_min, args_max; // how many there may be; args_max -1: any number
    const char *about;      // paragraphs, separated by empty lines
    const char *examples;   // command lines, one a line; NULL: none
    const qn_opt *options;  // NULL: none
    size_t opts_size;       // of the struct that the rows fill
    int (*run)(const qn_cli *cli, const void *opts); // returns a qn_exit
} qn_command;

typedef struct qn_command_row {
    const char *name, *summary;
    const qn_command *command;
} qn_command_row;

extern const qn_command_row qn_commands[]; // in the order of commands.def; a NULL name ends it
extern const qn_opt qn_global_options[];
// A command or, as "bricks list", a command of a command; NULL: none.
const qn_command_row *qn_command_find(const char *name);
// The i-th of all rows, those of `parts` behind their command; NULL: beyond the last.
const qn_command_row *qn_command_at(size_t i);
// What a row is called within its table: "list".
const char *qn_command_word(const qn_command_row *row);

// The whole program: parses, runs, reports. Returns the exit status.
int qn_cli_main(int argc, char **argv);

// Prints the failure and its hints to stderr and returns the exit status it deserves.
// QN_OK gives QN_EXIT_DONE, so a command may end in `return qn_cli_result(r)`.
int qn_cli_result(qn_result r);
// The same for a wrong argument that only the command can see: exit status 2.
int qn_cli_misuse(const qn_cli *cli, const char *fmt, ...) QN_PRINTF(2, 3);
// The index in the command's arg_words of positional argument 0; -1 after having said what was
// expected and which word was probably meant: return QN_EXIT_MISUSED then.
int qn_cli_word(const qn_cli *cli);
// A line on stderr, unless --quiet.
void qn_cli_note(const qn_cli *cli, const char *fmt, ...) QN_PRINTF(2, 3);

// Opens the device that the global options ask for and says on stderr which one it is. The
// caller destroys both, also after a failure.
qn_result qn_cli_open(const qn_cli *cli, qn_context **ctx, qn_device **dev);
// The same in two steps and without a word, for commands that look at several devices.
qn_result qn_cli_open_context(const qn_cli *cli, qn_context **ctx);
qn_result qn_cli_open_device(const qn_cli *cli, qn_context *ctx, qn_device **dev);

#endif
