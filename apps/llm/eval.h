// What a language model is worth: perplexity of a text, accuracy on multiple-choice questions.
#ifndef QN_EVAL_H
#define QN_EVAL_H

#include "generate.h"
#include "score.h"

typedef struct qn_eval_opts {
    int64_t length;        // tokens that a prediction may look back on; 0: 512
    int64_t stride;        // tokens that are new in each window, at most length; 0: length
    int64_t tokens;        // of a text to look at, at most; 0: all
    const char *delimiter; // between a question and its choice; NULL: a space
    bool (*progress)(void *user, int64_t tokens, int64_t total); // false: QN_ERR_CANCELLED
    void *user;
} qn_eval_opts;

// Every token but the first is predicted once, from at least length - stride (where the text is
// that long) and less than length + 1 tokens before it.
typedef struct qn_eval_text {
    int64_t tokens, bytes; // predicted
    double nll;            // sum of -ln p
    double perplexity;     // exp(nll / tokens)
    double bits_per_byte;  // nll / ln 2 / bytes
} qn_eval_text;

// The text of a file, or of all files in a folder one after the other.
qn_result qn_eval_text_file(qn_device *dev, const qn_folder *f, const char *path,
                            const qn_eval_opts *opts, qn_eval_text *out);

// A question is answered by the choice with the largest log-likelihood behind it, either as it is
// (`accuracy`) or divided by the choice's bytes (`normalised`); on ties by the first.
typedef struct qn_eval_choices {
    int64_t questions, choices, cut; // cut: questions whose beginning did not fit the length
    double accuracy, normalised;     // shares of the questions
    double error;                    // standard error of the accuracy
    double chance;                   // the mean of 1 / choices
} qn_eval_choices;

// One JSON object a line, empty lines skipped:
//   {"question": "...", "choices": ["...", ...], "answer": 0}
// The question may be called context, query, prompt or ctx; the choices options or endings, or be
// {"text": [...], "label": [...]}; the answer label, gold or answerKey: an index from 0, a letter,
// a label, a string of digits or a choice's text.
qn_result qn_eval_choices_file(qn_device *dev, const qn_folder *f, const char *path,
                               const qn_eval_opts *opts, qn_eval_choices *out);

#endif
