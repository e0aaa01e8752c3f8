// GGUF: every tensor of a file that opens lies within it and can be read.
#include "io/gguf.h"
#include "llm/weights.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qn_gguf *g;
    if (qn_gguf_parse("fuzz", data, size, &g) != QN_OK) {
        if (!*qn_error_message()) abort();
        return 0;
    }
    for (size_t i = 0; i < qn_gguf_count(g); i++) {
        const qn_gguf_tensor *t = qn_gguf_at(g, i);
        const uint8_t *bytes = t->data;
        if (qn_gguf_find(g, t->name) != t) abort();
        if (t->size && (bytes < data || bytes + t->size > data + size)) abort();
        for (uint64_t k = 0; k < t->size; k++) sink = bytes[k];
        char name[QN_GGUF_NAME];
        sink = (uint8_t)qn_gguf_name_of(t->name, name)[0];
    }
    qn_gguf_text text;
    int64_t n;
    static const char *const keys[] = { "general.architecture", "general.alignment", "a", "" };
    for (int i = 0; i < 4; i++) {
        if (qn_gguf_text_of(g, keys[i], &text) && text.size)
            sink = (uint8_t)(text.data[0] + text.data[text.size - 1]);
        if (qn_gguf_integer_of(g, keys[i], &n)) sink = (uint8_t)n;
    }
    qn_gguf_close(&g);
    return 0;
}
