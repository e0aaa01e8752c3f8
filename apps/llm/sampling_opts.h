// The options of sampling, rows of an option table: QN_SAMPLING_OPTIONS(my_opts, sampling) for a
// struct with a member `qn_sampling sampling`. The seed is a global option.
#ifndef QN_SAMPLING_OPTS_H
#define QN_SAMPLING_OPTS_H

#include "cli/opts.h"
#include "llm/sampler.h"

// clang-format off
#define QN_SAMPLING_OPTIONS(T, m)                                                                  \
    { "temp", 't', QN_AT_FLOAT(T, m.temperature), .initial = "0.8", .min = 0, .max = 100,          \
      .section = "Sampling", .help = "temperature; 0: always the most likely token" },             \
    { "top-k", 0, QN_AT_INT(T, m.top_k), .initial = "40", .min = 0, .max = 1 << 24,                \
      .help = "draw from the k most likely tokens; 0: all" },                                      \
    { "top-p", 0, QN_AT_FLOAT(T, m.top_p), .initial = "0.95", .min = 0, .max = 1,                  \
      .help = "draw from the smallest set with this probability; 1: all" },                        \
    { "min-p", 0, QN_AT_FLOAT(T, m.min_p), .initial = "0.05", .min = 0, .max = 1,                  \
      .help = "leave out tokens below this share of the likeliest one; 0: none" },                 \
    { "repeat-penalty", 0, QN_AT_FLOAT(T, m.repeat_penalty), .initial = "1", .min = 0.01,          \
      .max = 100, .help = "divides the logits of recent tokens; 1: off" },                         \
    { "frequency-penalty", 0, QN_AT_FLOAT(T, m.frequency_penalty), .initial = "0", .min = -100,    \
      .max = 100, .help = "subtracted for each recent occurrence" },                               \
    { "presence-penalty", 0, QN_AT_FLOAT(T, m.presence_penalty), .initial = "0", .min = -100,      \
      .max = 100, .help = "subtracted for having occurred" },                                      \
    { "repeat-last-n", 0, QN_AT_INT(T, m.repeat_last_n), .initial = "64", .min = -1,               \
      .max = 1 << 24, .help = "how many tokens count as recent; -1: all" }
// clang-format on

#endif
