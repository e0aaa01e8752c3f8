// Perplexity of a long text by the position in its pieces of 512 tokens, with what is remembered
// carried from piece to piece and with every piece starting anew. FOLDER is a model, FILE a text of
// which the last tenth is read.
//
//   positions FOLDER FILE [pieces=12]
#include "llm/generate.h"
#include "llm/runner.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIECE = 512, BUCKETS = 4 };
static const int ends[BUCKETS] = { 64, 128, 256, PIECE };

static void stop(const char *what)
{
    fprintf(stderr, "positions: %s: %s\n", what, qn_error_message());
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    const int64_t pieces = argc > 3 ? atoll(argv[3]) : 12;
    qn_context *ctx;
    qn_device *dev;
    qn_folder f;
    qn_runner *r;
    char *text;
    size_t size;
    qn_tokens tokens = { 0 };
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, NULL, &dev) != QN_OK ||
        qn_folder_open(dev, argv[1], QN_F32, &f) != QN_OK ||
        qn_read_file(argv[2], 1 << 30, &text, &size) != QN_OK)
        stop("open");
    const size_t tail = size / 10;
    if (qn_tokenizer_encode(f.tokenizer, text + size - tail, tail, NULL, &tokens) != QN_OK)
        stop("tokens");
    if ((int64_t)tokens.count < pieces * PIECE) {
        fprintf(stderr, "positions: the text has %zu tokens\n", tokens.count);
        return 1;
    }
    const qn_runner_opts o = { .context = pieces * PIECE + 1, .chunk = 128 };
    if (qn_runner_create(dev, &f.config, f.weights, &o, &r) != QN_OK) stop("runner");
    for (int carried = 0; carried < 2; carried++) {
        double nll[BUCKETS] = { 0 }, all = 0;
        int64_t count[BUCKETS] = { 0 }, total = 0;
        qn_token_score *score = qn_malloc(PIECE * sizeof *score);
        if (!score || qn_runner_reset(r, 0) != QN_OK) stop("reset");
        for (int64_t p = 0; p < pieces; p++) {
            if (!carried && qn_runner_reset(r, 0) != QN_OK) stop("reset");
            if (qn_runner_score(r, 0, tokens.id + p * PIECE, PIECE, score) != QN_OK) stop("score");
            for (int i = 0, b = 0; i < PIECE; i++) {
                if (i == ends[b]) b++;
                if (isnan(score[i].logprob)) continue;
                nll[b] -= (double)score[i].logprob;
                count[b]++;
            }
        }
        printf("{\"memory\":\"%s\"", carried ? "carried" : "reset");
        for (int b = 0; b < BUCKETS; b++) {
            all += nll[b];
            total += count[b];
            printf(",\"to_%d\":%.3f", ends[b], exp(nll[b] / (double)count[b]));
        }
        printf(",\"all\":%.3f}\n", exp(all / (double)total));
        qn_free(score);
    }
    qn_tokens_free(&tokens);
    qn_free(text);
    qn_runner_destroy(&r);
    qn_folder_close(&f);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return 0;
}
