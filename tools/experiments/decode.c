// Decoding a long text: time per token and device memory at growing lengths. FOLDER is a model with
// a window and memories.
//
//   decode FOLDER [most=65536]
#include "llm/generate.h"
#include "llm/runner.h"
#include "mem.h"
#include "platform.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void stop(const char *what)
{
    fprintf(stderr, "decode: %s: %s\n", what, qn_error_message());
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    const int64_t most = argc > 2 ? atoll(argv[2]) : 65536;
    qn_context *ctx;
    qn_device *dev;
    qn_folder f;
    qn_runner *r;
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, NULL, &dev) != QN_OK ||
        qn_folder_open(dev, argv[1], QN_F32, &f) != QN_OK)
        stop("open");
    const qn_runner_opts o = { .context = most + 256, .chunk = 64 };
    if (qn_runner_create(dev, &f.config, f.weights, &o, &r) != QN_OK) stop("runner");
    int32_t *ids = qn_malloc((size_t)most * sizeof *ids);
    if (!ids) stop("memory");
    qn_random rng = qn_random_start(1, 0);
    for (int64_t i = 0; i < most; i++)
        ids[i] = (int32_t)(qn_random_unit(&rng) * (double)f.config.vocab_size);
    size_t n, have = 0;
    qn_runner_event e;
    for (int64_t length = 1024; length <= most; length *= 4) {
        size_t count, read;
        qn_runner_text(r, 0, &count, &read);
        if (qn_runner_feed(r, 0, ids + have, (size_t)length - count) != QN_OK) stop("feed");
        have = (size_t)length;
        do
            if (qn_runner_step(r, &e, &n) != QN_OK) stop("step");
        while (!n);
        double best = 1e9;
        for (int part = 0; part < 4; part++) {
            const double begun = qn_clock();
            for (int i = 0; i < 16; i++)
                if (qn_runner_step(r, &e, &n) != QN_OK) stop("step");
            const double took = (qn_clock() - begun) / 16;
            if (took < best) best = took;
        }
        qn_runner_hold(r, 0);
        printf("{\"length\":%lld,\"ms_per_token\":%.3f,\"device_bytes\":%llu}\n", (long long)length,
               best * 1e3, (unsigned long long)qn_device_usage_now(dev).allocated);
        fflush(stdout);
    }
    qn_free(ids);
    qn_runner_destroy(&r);
    qn_folder_close(&f);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return 0;
}
