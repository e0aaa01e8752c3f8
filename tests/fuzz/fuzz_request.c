// Bodies of HTTP requests: the first byte chooses the path, the rest is the body. What is accepted
// is within the limits.
#include "mem.h"
#include "../support/serve_fixture.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static qn_tokenizer *tokenizer;
static qn_chat chat;
static qn_request_limits limits;

static void check(bool good)
{
    if (!good) abort();
}

static void complete(qn_endpoint endpoint, const char *body, size_t size)
{
    qn_request r;
    const char *code;
    if (qn_request_read(endpoint, body, size, &limits, &r, &code) != QN_OK) return;
    check(r.prompt_count && r.n > 0 && (int64_t)r.prompt_count * r.n <= QN_MOST_CHOICES);
    check(r.stop_count <= QN_MOST_STOPS + 1 && r.bias_count <= QN_RUNNER_BIAS);
    check(r.top >= -1 && r.top <= QN_RUNNER_TOP && r.max_tokens >= 0);
    check(r.sampling.temperature >= 0 && r.sampling.top_p >= 0 && r.sampling.top_p <= 1);
    for (size_t i = 0; i < r.stop_count; i++) check(*r.stops[i]);
    for (size_t i = 0; i < r.prompt_count; i++) {
        const qn_prompt *p = &r.prompts[i];
        check(p->count && (int64_t)p->count < limits.context);
        for (size_t k = 0; k < p->count; k++) check(p->id[k] >= 0 && p->id[k] < limits.vocab_size);
    }
    qn_request_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tokenizer) check(serve_fixture("/", &tokenizer, &chat, &limits) == QN_OK);
    if (!size) return 0;
    const char *body = (const char *)data + 1;
    qn_tokens t = { 0 };
    qn_text text = { 0 };
    bool pieces;
    switch (data[0] % 4) {
    case 0:
        complete(QN_COMPLETION, body, size - 1);
        break;
    case 1:
        complete(QN_CHAT_COMPLETION, body, size - 1);
        break;
    case 2:
        qn_request_tokenize(body, size - 1, &limits, &t, &pieces);
        break;
    default:
        qn_request_detokenize(body, size - 1, &limits, &text);
    }
    qn_tokens_free(&t);
    qn_text_free(&text);
    return 0;
}
