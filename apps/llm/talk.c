// Conversations: what is kept, what is read again, what is left out.
#include "talk.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"
#include "text/bpe.h"

#include <string.h>

struct qn_talk {
    qn_talk_opts o;
    qn_message *messages; // contents are owned
    size_t count, capacity;
    qn_runner_event *events;
};

qn_result qn_talk_create(const qn_talk_opts *opts, qn_talk **out)
{
    *out = NULL;
    qn_talk *t = qn_calloc(1, sizeof *t);
    if (!t) return qn_no_memory(sizeof *t);
    t->o = *opts;
    const size_t slots = (size_t)qn_runner_slots(opts->runner);
    t->events = qn_calloc(slots, sizeof *t->events);
    if (!t->events) {
        qn_free(t);
        return qn_no_memory(slots * sizeof *t->events);
    }
    *out = t;
    return QN_OK;
}

void qn_talk_destroy(qn_talk **talk)
{
    qn_talk *t = *talk;
    *talk = NULL;
    if (!t) return;
    qn_talk_forget(t, t->count);
    qn_free(t->messages);
    qn_free(t->events);
    qn_free(t);
}

qn_sampling *qn_talk_sampling(qn_talk *t)
{
    return &t->o.sampling;
}

size_t qn_talk_count(const qn_talk *t)
{
    return t->count;
}

qn_message qn_talk_at(const qn_talk *t, size_t i)
{
    return t->messages[i];
}

static qn_result insert(qn_talk *t, size_t at, qn_role role, const char *content)
{
    QN_TRY(qn_grow((void **)&t->messages, &t->capacity, t->count + 1, sizeof *t->messages));
    char *copy = qn_strdup(content);
    if (!copy) return qn_no_memory(strlen(content));
    memmove(t->messages + at + 1, t->messages + at, (t->count - at) * sizeof *t->messages);
    t->messages[at] = (qn_message){ role, copy };
    t->count++;
    return QN_OK;
}

qn_result qn_talk_add(qn_talk *t, qn_role role, const char *content)
{
    return insert(t, t->count, role, content);
}

static bool has_system(const qn_talk *t)
{
    return t->count && t->messages[0].role == QN_ROLE_SYSTEM;
}

qn_result qn_talk_set_system(qn_talk *t, const char *content)
{
    if (has_system(t)) {
        qn_free((char *)(uintptr_t)t->messages[0].content);
        memmove(t->messages, t->messages + 1, --t->count * sizeof *t->messages);
    }
    return *content ? insert(t, 0, QN_ROLE_SYSTEM, content) : QN_OK;
}

void qn_talk_forget(qn_talk *t, size_t count)
{
    while (count-- && t->count) qn_free((char *)(uintptr_t)t->messages[--t->count].content);
}

// ------------------------------------------------------------------------------ answers

// The conversation's tokens without the `skip` oldest messages behind the system's.
static qn_result encode_from(qn_talk *t, size_t skip, qn_tokens *out)
{
    const size_t first = has_system(t), count = t->count - skip;
    qn_message *some = qn_calloc(count, sizeof *some);
    if (!some) return qn_no_memory(count * sizeof *some);
    if (first) some[0] = t->messages[0];
    memcpy(some + first, t->messages + first + skip, (count - first) * sizeof *some);
    out->count = 0;
    qn_result r = qn_chat_encode(t->o.chat, some, count, out);
    qn_free(some);
    return r;
}

static qn_result encode_what_fits(qn_talk *t, qn_tokens *out, int64_t *left_out)
{
    const size_t context = (size_t)qn_runner_context(t->o.runner);
    size_t room = context / 2;
    if (t->o.max_tokens && (size_t)t->o.max_tokens < room) room = (size_t)t->o.max_tokens;
    const size_t last = t->count - has_system(t);
    for (size_t skip = 0; skip < last; skip++) {
        QN_TRY(encode_from(t, skip, out));
        *left_out = (int64_t)skip;
        const bool alone = skip + 1 == last;
        if (out->count + (alone ? 1 : room) <= context) return QN_OK;
    }
    return qn_fail(QN_ERR_INVALID,
                   "the message has %zu tokens with what stands around it, the "
                   "context holds %zu; use --context or a shorter message",
                   out->count, context);
}

// Lets the slot hold these tokens and run; what it has in common with them is not read again.
static qn_result feed(qn_talk *t, const qn_tokens *ids, qn_talk_stats *s)
{
    qn_runner *r = t->o.runner;
    size_t count, n = 0;
    const int32_t *text = qn_runner_text(r, 0, &count, NULL);
    while (n < count && n < ids->count && text[n] == ids->id[n]) n++;
    if (n < count || n == ids->count) QN_TRY(qn_runner_rewind(r, 0, n));
    const qn_runner_sampling how = { .how = t->o.sampling };
    QN_TRY(qn_runner_sample(r, 0, &how));
    s->prompt_tokens = (int64_t)ids->count;
    s->read_tokens = (int64_t)(ids->count - n);
    return qn_runner_feed(r, 0, ids->id + n, ids->count - n);
}

static qn_result write_answer(qn_talk *t, qn_answer *a, qn_talk_text text, void *user,
                              qn_talk_stats *s)
{
    const double start = qn_clock();
    double first = 0;
    bool more = true;
    while (a->finish == QN_FINISH_NOT) {
        size_t count, before = a->text.size;
        QN_TRY(qn_runner_step(t->o.runner, t->events, &count));
        for (size_t i = 0; i < count; i++) QN_TRY(qn_answer_push(a, &t->events[i]));
        if (count && !first) first = qn_clock();
        more = text(user, a->text.data ? a->text.data + before : "", a->text.size - before);
        if (!more) QN_TRY(qn_answer_end(a, QN_FINISH_STOP));
    }
    if (!first) first = qn_clock();
    s->prompt_seconds = first - start;
    s->seconds = qn_clock() - first;
    s->tokens = a->tokens;
    s->finish = a->finish;
    return qn_runner_hold(t->o.runner, 0);
}

static qn_result answer(qn_talk *t, qn_tokens *ids, qn_answer *a, qn_talk_text text, void *user,
                        qn_talk_stats *s)
{
    QN_TRY(encode_what_fits(t, ids, &s->left_out));
    QN_TRY(feed(t, ids, s));
    QN_TRY(qn_answer_start(a));
    QN_TRY(write_answer(t, a, text, user, s));
    if (a->finish == QN_FINISH_BROKEN)
        return qn_fail(QN_ERR_INVALID, "the model gave no usable number: its weights hold NaN or "
                                       "infinite values");
    t->o.sampling.seed++;
    return qn_talk_add(t, QN_ROLE_ASSISTANT, a->text.data ? a->text.data : "");
}

qn_result qn_talk_answer(qn_talk *t, qn_talk_text text, void *user, qn_talk_stats *out)
{
    const char *const stop[] = { t->o.chat->stop };
    qn_tokens ids = { 0 };
    qn_talk_stats s = { 0 };
    qn_answer a = { .chat = t->o.chat,
                    .trim = true,
                    .max_tokens = t->o.max_tokens ? t->o.max_tokens : INT32_MAX,
                    .stops = { .stop = stop, .count = t->o.chat->stop != NULL } };
    qn_result r = answer(t, &ids, &a, text, user, &s);
    if (r == QN_OK) *out = s;
    qn_answer_free(&a);
    qn_tokens_free(&ids);
    return r;
}

// ------------------------------------------------------------------------------ files

qn_result qn_talk_save(const qn_talk *t, const char *path)
{
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_array(&w, "messages");
    for (size_t i = 0; i < t->count; i++) {
        qn_json_put_object(&w, NULL);
        qn_json_put_string(&w, "role", qn_role_name(t->messages[i].role));
        qn_json_put_string(&w, "content", t->messages[i].content);
        qn_json_put_end(&w, '}');
    }
    qn_json_put_end(&w, ']');
    qn_json_put_end(&w, '}');
    return qn_json_save(&w, path);
}

static qn_result read_messages(qn_json list, qn_talk *into)
{
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        const char *role, *content;
        QN_TRY(qn_json_string(v, "role", &role));
        QN_TRY(qn_json_string(v, "content", &content));
        qn_role who = QN_ROLE_SYSTEM;
        while (who < QN_ROLES && strcmp(role, qn_role_name(who))) who++;
        if (who == QN_ROLES)
            return qn_json_fail(v, "role: found \"%.40s\", expected system, user or assistant",
                                role);
        QN_TRY(qn_talk_add(into, who, content));
    }
    return QN_OK;
}

qn_result qn_talk_load(qn_talk *t, const char *path)
{
    qn_json_doc *doc;
    qn_json list;
    qn_talk fresh = { 0 };
    QN_TRY(qn_json_open(path, NULL, &doc));
    qn_result r = qn_json_array(qn_json_root(doc), "messages", &list);
    if (r == QN_OK) r = read_messages(list, &fresh);
    qn_json_close(&doc);
    if (r != QN_OK) {
        qn_talk_forget(&fresh, fresh.count);
        qn_free(fresh.messages);
        return r;
    }
    qn_talk_forget(t, t->count);
    qn_free(t->messages);
    t->messages = fresh.messages;
    t->count = fresh.count;
    t->capacity = fresh.capacity;
    return QN_OK;
}
