// Option tables. A row says everything about one option: parsing, help, completion and the man
// page are made from it. A command declares a plain struct for its options and binds each row to
// a member with a QN_AT_ macro, which does not compile when the member has another type:
//
//     typedef struct { int64_t steps; const char *out; int format; } my_opts;
//     static const qn_opt options[] = {
//         { "steps", 's', QN_AT_INT(my_opts, steps), .initial = "100", .min = 1, .max = 1e9,
//           .section = "Training", .help = "optimiser steps" },
//         { "out", 'o', QN_AT_PATH(my_opts, out), .value = "DIR", .help = "where to write" },
//         { "format", 0, QN_AT_CHOICE(my_opts, format), .words = "text|csv|json",
//           .initial = "text", .help = "how results are printed" },
//         { 0 },
//     };
#ifndef QN_OPTS_H
#define QN_OPTS_H

#include "fail.h"
#include "mem.h"

typedef enum qn_opt_type {
    QN_OPT_FLAG,   // bool: given or not, takes no value
    QN_OPT_COUNT,  // int: how often it was given (-vv), takes no value
    QN_OPT_INT,    // int64_t
    QN_OPT_FLOAT,  // double; never NaN
    QN_OPT_STRING, // const char *, NULL when not given
    QN_OPT_PATH,   // the same; shells complete file names
    QN_OPT_CHOICE, // int: the index of the given word in .words
    QN_OPT_SIZE,   // uint64_t bytes: "512M", "1.5G", "4096"; K, M, G and T are powers of 1024
    QN_OPT_LIST,   // qn_opt_list: comma-separated, and may be given several times
} qn_opt_type;

// The items live as long as the qn_opts that parsed them.
typedef struct qn_opt_list {
    const char **items;
    size_t count;
} qn_opt_list;

typedef struct qn_opt {
    const char *name; // long name without dashes; NULL ends a table
    char letter;      // short name; 0: none
    qn_opt_type type; // type and at: by a QN_AT_ macro
    size_t at;
    const char *value;   // what help calls the value, "FILE"; NULL: by type
    const char *initial; // default, parsed like a given value; NULL: zero
    const char *words;   // CHOICE, or the allowed items of a LIST: "text|csv|json"
    double min, max;     // INT, FLOAT, SIZE: the range; both 0: the type's own. INFINITY: no limit
    bool open;           // the range excludes max
    const char *section; // a heading from this row on; NULL: as the row before
    const char *help;    // one line, lower case, no period
} qn_opt;

#define QN_AT_(kind, ctype, strct, member)                                                         \
    .type = kind,                                                                                  \
    .at = offsetof(strct, member) + 0 * sizeof(_Generic(&((strct *)0)->member, ctype * : 0))
#define QN_AT_FLAG(strct, member) QN_AT_(QN_OPT_FLAG, bool, strct, member)
#define QN_AT_COUNT(strct, member) QN_AT_(QN_OPT_COUNT, int, strct, member)
#define QN_AT_INT(strct, member) QN_AT_(QN_OPT_INT, int64_t, strct, member)
#define QN_AT_FLOAT(strct, member) QN_AT_(QN_OPT_FLOAT, double, strct, member)
#define QN_AT_STRING(strct, member) QN_AT_(QN_OPT_STRING, const char *, strct, member)
#define QN_AT_PATH(strct, member) QN_AT_(QN_OPT_PATH, const char *, strct, member)
#define QN_AT_CHOICE(strct, member) QN_AT_(QN_OPT_CHOICE, int, strct, member)
#define QN_AT_SIZE(strct, member) QN_AT_(QN_OPT_SIZE, uint64_t, strct, member)
#define QN_AT_LIST(strct, member) QN_AT_(QN_OPT_LIST, qn_opt_list, strct, member)

#define QN_OPT_TABLES 2

// A parse: the tables in force, the structs they fill, what else stood on the command line.
// Zero-initialise, add tables, parse, free when the values are no longer needed.
typedef struct qn_opts {
    struct {
        const qn_opt *table;
        void *values;
        bool *given; // per row
    } tables[QN_OPT_TABLES];
    size_t table_count;
    const char **args; // positional arguments
    size_t arg_count;
    bool ended; // "--" was seen: everything after it is positional
    qn_arena arena;
} qn_opts;

// Adds a table, at most QN_OPT_TABLES, and sets its defaults.
qn_result qn_opts_add(qn_opts *o, const qn_opt *table, void *values);
// Reads argv[*at] onwards and leaves in *at where it stopped: at the end or, with
// `stop_at_first`, behind the first positional argument. QN_ERR_INVALID with a sentence that
// names the option, what was found and what was expected.
qn_result qn_opts_parse(qn_opts *o, int argc, char **argv, int *at, bool stop_at_first);
// Whether the option was on the command line (rather than left at its default).
bool qn_opts_given(const qn_opts *o, const char *name);
void qn_opts_free(qn_opts *o);

// Whether the option takes a value.
bool qn_opt_has_value(const qn_opt *opt);
// "--steps N", "-o, --out DIR": how help and man name an option.
void qn_opt_format(const qn_opt *opt, char *text, size_t size);
// "1 to 100, default 5": the range, the words and the default in words; "" when there are none.
void qn_opt_describe(const qn_opt *opt, char *text, size_t size);

// The index of `word` in "a|b|c"; -1: not among them.
int qn_words_find(const char *words, const char *word);
// "a, b or c".
void qn_words_join(const char *words, char *text, size_t size);
// The word at an index, copied into text; false beyond the last.
bool qn_words_at(const char *words, int index, char *text, size_t size);
// The word that was probably meant, into text; false when none is near.
bool qn_words_nearest(const char *words, const char *word, char *text, size_t size);

// "1.5G" -> bytes; false when it is not a size below 2^64.
bool qn_parse_size(const char *s, uint64_t *out);
// Bytes in the unit that suits: "1.5 GiB", "512 B". At least 24 bytes of text.
char *qn_format_size(uint64_t bytes, char *text, size_t size);
// s in single quotes for a message: at most about 60 characters, control characters replaced.
#define QN_QUOTED 80
char *qn_quote(const char *s, char text[QN_QUOTED]);

#endif
