// The command line: arguments separated by NUL, the first the name of a command.
#include "cli/command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct every_type {
    bool flag;
    int count, choice;
    int64_t integer;
    double real;
    const char *text, *path;
    uint64_t bytes;
    qn_opt_list list, words;
} every_type;

static const qn_opt options[] = {
    { "flag", 'f', QN_AT_FLAG(every_type, flag), .help = "" },
    { "count", 'c', QN_AT_COUNT(every_type, count), .help = "" },
    { "integer", 'i', QN_AT_INT(every_type, integer), .min = -5, .max = 1e9, .help = "" },
    { "real", 'r', QN_AT_FLOAT(every_type, real), .min = 0, .max = 1, .open = true, .help = "" },
    { "text", 't', QN_AT_STRING(every_type, text), .help = "" },
    { "path", 'p', QN_AT_PATH(every_type, path), .help = "" },
    { "choice", 0, QN_AT_CHOICE(every_type, choice), .words = "one|two|three", .help = "" },
    { "bytes", 'b', QN_AT_SIZE(every_type, bytes), .max = 0x1p40, .help = "" },
    { "list", 'l', QN_AT_LIST(every_type, list), .initial = "a,b", .help = "" },
    { "words", 'w', QN_AT_LIST(every_type, words), .words = "x|y", .help = "" },
    { 0 },
};

#define MOST 64

static void check(bool good)
{
    if (!good) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *argv[MOST];
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    int argc = 0;
    for (size_t at = 0; at <= size && argc < MOST; at += strlen(text + at) + 1)
        argv[argc++] = text + at;

    qn_opts o = { 0 };
    every_type v = { 0 };
    int at = 0;
    check(qn_opts_add(&o, options, &v) == QN_OK);
    if (qn_opts_parse(&o, argc, argv, &at, false) == QN_OK) {
        check(at == argc && o.arg_count <= (size_t)argc);
        if (qn_opts_given(&o, "integer")) check(v.integer >= -5 && v.integer <= 1000000000);
        check(v.real >= 0 && v.real < 1);
        check(v.choice >= 0 && v.choice < 3 && v.bytes <= UINT64_C(1) << 40);
        check(v.list.count >= 1);
        for (size_t i = 0; i < v.words.count; i++)
            check(qn_words_find("x|y", v.words.items[i]) >= 0);
    } else {
        check(*qn_error_message() != 0);
    }
    qn_opts_free(&o);
    free(text);
    return 0;
}
