// Tokens to text, and when to stop.
#include "answer.h"
#include "fail.h"
#include "mem.h"

#include <string.h>

qn_result qn_answer_start(qn_answer *a)
{
    a->stream = (qn_token_stream){ .tokenizer = a->chat->tokenizer, .skip_special = true };
    if (a->max_tokens < 1) a->finish = QN_FINISH_LENGTH;
    return QN_OK;
}

// Hands the pieces of characters that are complete to the search for stop strings.
static qn_result hand_on(qn_answer *a)
{
    size_t skip = 0;
    if (a->trim && !a->raw) skip = a->piece.size ? strspn(a->piece.data, " \t\r\n") : 0;
    size_t size = a->piece.size - skip;
    a->piece.size = 0;
    if (!size) return QN_OK;
    a->raw += size;
    return qn_stops_push(&a->stops, a->piece.data + skip, size, &a->text);
}

static qn_result keep(qn_answer *a, const qn_runner_event *e)
{
    if (!a->keep) return QN_OK;
    QN_TRY(qn_grow((void **)&a->token, &a->token_cap, a->token_count + 1, sizeof *a->token));
    qn_answer_token *t = &a->token[a->token_count++];
    *t = (qn_answer_token){ .offset = a->raw,
                            .chance = { e->token, e->logprob },
                            .top_count = e->top_count };
    memcpy(t->top, e->top, sizeof t->top);
    return QN_OK;
}

qn_result qn_answer_end(qn_answer *a, qn_finish why)
{
    if (a->finish != QN_FINISH_NOT) return QN_OK;
    QN_TRY(qn_token_stream_finish(&a->stream, &a->piece));
    QN_TRY(hand_on(a));
    QN_TRY(qn_stops_finish(&a->stops, &a->text));
    // Tokens of the stop string itself do not stand in the text.
    while (a->token_count && a->stops.hit && a->token[a->token_count - 1].offset >= a->text.size)
        a->token_count--;
    a->finish = a->stops.hit ? QN_FINISH_STOP : why;
    return QN_OK;
}

qn_result qn_answer_push(qn_answer *a, const qn_runner_event *e)
{
    if (a->finish != QN_FINISH_NOT) return QN_OK;
    if (e->token < 0) return qn_answer_end(a, QN_FINISH_BROKEN);
    if (!a->ignore_end && qn_chat_ends(a->chat, e->token)) return qn_answer_end(a, QN_FINISH_STOP);
    QN_TRY(keep(a, e));
    a->tokens++;
    QN_TRY(qn_token_stream_push(&a->stream, e->token, &a->piece));
    QN_TRY(hand_on(a));
    if (a->stops.hit) return qn_answer_end(a, QN_FINISH_STOP);
    if (e->full || a->tokens >= a->max_tokens) return qn_answer_end(a, QN_FINISH_LENGTH);
    return QN_OK;
}

void qn_answer_free(qn_answer *a)
{
    qn_stops_free(&a->stops);
    qn_text_free(&a->text);
    qn_text_free(&a->piece);
    qn_free(a->token);
    a->token = NULL;
    a->token_count = a->token_cap = 0;
}
