// SPIR-V declarations: whatever the bytes, an answer within the tables or a sentence.
#include "bench/spirv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qn_spv_shader s;
    size_t count = size / 4;
    uint32_t *words = malloc(count * 4 + 1); // exactly as long as it claims to be
    if (!words) return 0;
    if (count) memcpy(words, data, count * 4);
    if (qn_spv_read("fuzz", words, count, &s) == QN_OK) {
        if (!s.local[0] || !s.local[1] || !s.local[2]) abort();
        if (s.binding_count > QN_SPV_BINDINGS || s.member_count > QN_SPV_MEMBERS ||
            s.constant_count > QN_SPV_CONSTANTS || strlen(s.entry) >= sizeof s.entry)
            abort();
        for (uint32_t i = 0; i < s.binding_count; i++)
            if (strlen(s.bindings[i].name) >= QN_SPV_NAME) abort();
    }
    free(words);
    return 0;
}
