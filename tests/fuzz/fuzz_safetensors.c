// Safetensors: every tensor of a file that opens lies within it and can be read.
#include "io/safetensors_impl.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qn_safetensors *s;
    if (qn_safetensors_parse("fuzz", data, size, &s) != QN_OK) {
        if (!*qn_error_message()) abort();
        return 0;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < qn_safetensors_count(s); i++) {
        const qn_safetensor *t = qn_safetensors_at(s, i);
        const uint8_t *bytes = t->data;
        if (qn_safetensors_find(s, t->name) != t) abort();
        if (t->size && (bytes < data || bytes + t->size > data + size)) abort();
        for (uint64_t k = 0; k < t->size; k++) sink = bytes[k];
        total += t->size;
        double d[4];
        float f[4];
        int64_t n[4];
        uint64_t count = t->count < 4 ? t->count : 4;
        if (qn_st_dtype_is_float(t->dtype)) {
            if (qn_safetensor_f64(t, t->count - count, count, d) != QN_OK) abort();
            if (qn_safetensor_f32(t, 0, count, f) != QN_OK) abort();
        } else if (qn_safetensor_i64(t, t->count - count, count, n) != QN_OK) {
            abort();
        }
        if (qn_safetensor_f32(t, t->count, 1, f) == QN_OK) abort();
    }
    if (total > size) abort();
    size_t metas;
    const qn_st_meta *meta = qn_safetensors_meta(s, &metas);
    for (size_t i = 0; i < metas; i++)
        if (!meta[i].key || !meta[i].value) abort();
    qn_safetensors_close(&s);
    return 0;
}
