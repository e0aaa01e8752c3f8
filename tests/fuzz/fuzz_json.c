// JSON: what is accepted is written and read again without change.
#include "io/json.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Reads everything in every way; look-ups refuse or answer.
static void walk(qn_json v)
{
    int64_t n;
    double d;
    bool flag;
    const char *s;
    qn_json list;
    int good = (qn_json_number(v, NULL, -1e308, 1e308, &d) == QN_OK) +
               (qn_json_bool(v, NULL, &flag) == QN_OK) +
               (qn_json_nul_string(v, NULL, &s) == QN_OK) +
               (qn_json_array(v, NULL, &list) == QN_OK) + (qn_json_object(v, NULL, &list) == QN_OK);
    if (good > 1) abort();
    if (qn_json_int(v, NULL, -100, 100, &n) == QN_OK && (n < -100 || n > 100)) abort();
    qn_json_string(v, "key", &s);
    for (qn_json item = qn_json_first(v); item.node; item = qn_json_next(item)) walk(item);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const qn_json_limits limits = { .depth = 200 };
    qn_json_doc *doc, *again;
    if (qn_json_parse("fuzz", (const char *)data, size, &limits, &doc) != QN_OK) return 0;
    walk(qn_json_root(doc));
    qn_json_writer first = { .compact = size & 1 }, second = { .compact = size & 1 };
    qn_json_put_value(&first, NULL, qn_json_root(doc));
    if (first.status == QN_OK) { // strings with NUL are not written
        if (qn_json_parse("again", first.text, first.size, &limits, &again) != QN_OK) abort();
        qn_json_put_value(&second, NULL, qn_json_root(again));
        if (second.status != QN_OK || first.size != second.size) abort();
        if (memcmp(first.text, second.text, first.size)) abort();
        qn_json_close(&again);
    }
    qn_json_writer_free(&first);
    qn_json_writer_free(&second);
    qn_json_close(&doc);
    return 0;
}
