#include "khr.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 5, MAGIC = 0x07230203 };
enum { USE_A = 0, USE_B = 1, USE_SUM = 2, USES = 3, UNKNOWN = -1 };

// Opcodes and capabilities, as the two specifications number them.
enum {
    OP_EXTENSION = 10,
    OP_CAPABILITY = 17,
    OP_TYPE_INT = 21,
    OP_CONSTANT_TRUE = 41,
    OP_CONSTANT_FALSE = 42,
    OP_CONSTANT = 43,
    OP_CONVERT_FIRST = 109, // OpConvertFToU
    OP_CONVERT_LAST = 124,  // OpBitcast
    NV_TYPE = 5358,
    NV_LOAD = 5359,
    NV_STORE = 5360,
    NV_MUL_ADD = 5361,
    NV_LENGTH = 5362,
    KHR_TYPE = 4456,
    KHR_LOAD = 4457,
    KHR_STORE = 4458,
    KHR_MUL_ADD = 4459,
    KHR_LENGTH = 4460,
    NV_CAPABILITY = 5357,
    KHR_CAPABILITY = 6022,
};

static const char nv_name[] = "SPV_NV_cooperative_matrix";
static const char khr_name[] = "SPV_KHR_cooperative_matrix";

typedef struct module {
    const uint32_t *words;
    size_t count;
    uint32_t bound;       // ids are below it
    uint32_t *type_of;    // by id: type of the value, 0 when it has none
    int *use;             // by id of a matrix type
    uint8_t *kind;        // by id: opcode class below
    uint32_t int_type;    // some 32-bit integer type
    uint32_t layout[2];   // ids of the constants 0 and 1 of it, which are uses A and B as well
    uint32_t sum;         // and 2
    uint32_t *out;
    size_t out_count, out_cap;
    char *error;
    size_t error_size;
} module;

enum { KIND_NONE, KIND_MATRIX, KIND_TRUE, KIND_FALSE };

static bool fail(module *m, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (m->error_size) vsnprintf(m->error, m->error_size, fmt, ap);
    va_end(ap);
    return false;
}

static bool put(module *m, const uint32_t *w, size_t n)
{
    if (m->out_count + n > m->out_cap) {
        size_t cap = 2 * m->out_cap + n + 64;
        uint32_t *bigger = realloc(m->out, cap * sizeof *bigger);
        if (!bigger) return fail(m, "out of memory");
        m->out = bigger;
        m->out_cap = cap;
    }
    memcpy(m->out + m->out_count, w, n * sizeof *w);
    m->out_count += n;
    return true;
}

// An instruction at w: its opcode, and all its words including the first.
static uint32_t op_of(const uint32_t *w) { return w[0] & 0xffff; }
static uint32_t length_of(const uint32_t *w) { return w[0] >> 16; }

// Opcodes of which we read operands, the words they need, and how many of those, from the first
// operand on, are ids.
static const struct {
    uint32_t op, words, ids;
} forms[] = {
    { OP_EXTENSION, 2, 0 },   { OP_CAPABILITY, 2, 0 }, { OP_TYPE_INT, 4, 1 },
    { OP_CONSTANT_TRUE, 3, 2 }, { OP_CONSTANT_FALSE, 3, 2 }, { NV_TYPE, 6, 5 },
    { NV_LOAD, 6, 5 },        { NV_STORE, 5, 4 },      { NV_MUL_ADD, 6, 5 },
    { NV_LENGTH, 4, 3 },
};

static bool check(module *m, const uint32_t *w)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (forms[i].op != op_of(w)) continue;
        if (length_of(w) < forms[i].words)
            return fail(m, "instruction %u has %u words, expected %u", op_of(w), length_of(w),
                        forms[i].words);
        for (uint32_t k = 1; k <= forms[i].ids; k++)
            if (w[k] == 0 || w[k] >= m->bound)
                return fail(m, "instruction %u names id %u, expected one below %u", op_of(w), w[k],
                            m->bound);
    }
    return true;
}

// Which results have which type. Instructions with a result type have it first; those that do not
// and still have an id there are types, stores and the like, whose entries nobody asks for: only
// matrix types are looked up.
static bool read_types(module *m)
{
    for (size_t at = HEADER; at < m->count;) {
        const uint32_t *w = m->words + at;
        uint32_t n = length_of(w);
        if (n == 0 || n > m->count - at) return fail(m, "the module is cut off at word %zu", at);
        if (!check(m, w)) return false;
        switch (op_of(w)) {
        case OP_TYPE_INT:
            if (w[2] == 32 && !m->int_type) m->int_type = w[1];
            break;
        case OP_CONSTANT_TRUE: m->kind[w[2]] = KIND_TRUE; break;
        case OP_CONSTANT_FALSE: m->kind[w[2]] = KIND_FALSE; break;
        case NV_TYPE: m->kind[w[1]] = KIND_MATRIX; break;
        default: break;
        }
        if (n >= 3 && w[1] < m->bound && w[2] < m->bound && m->kind[w[1]] == KIND_MATRIX &&
            op_of(w) != NV_TYPE)
            m->type_of[w[2]] = w[1];
        at += n;
    }
    return true;
}

static bool note_use(module *m, uint32_t type, int use, bool *changed)
{
    static const char *const names[] = { "left factor", "right factor", "sum" };
    if (m->kind[type] != KIND_MATRIX) return fail(m, "id %u is no cooperative matrix type", type);
    if (m->use[type] == use) return true;
    if (m->use[type] != UNKNOWN)
        return fail(m,
                    "matrix type %u is used as %s and as %s: give the sizes of the three kinds of "
                    "tile by different specialisation constants",
                    type, names[m->use[type]], names[use]);
    m->use[type] = use;
    *changed = true;
    return true;
}

static bool infer_from(module *m, const uint32_t *w, bool *changed)
{
    uint32_t op = op_of(w);
    if (op == NV_MUL_ADD) {
        for (int i = 0; i < USES; i++)
            if (!note_use(m, m->type_of[w[3 + i]], i, changed)) return false;
        return note_use(m, w[1], USE_SUM, changed);
    }
    // A conversion keeps the use, whichever side it is known of.
    if (op < OP_CONVERT_FIRST || op > OP_CONVERT_LAST || length_of(w) != 4) return true;
    if (w[1] >= m->bound || w[3] >= m->bound || m->kind[w[1]] != KIND_MATRIX) return true;
    uint32_t to = w[1], from = m->type_of[w[3]];
    if (!from) return true;
    if (m->use[from] != UNKNOWN) return note_use(m, to, m->use[from], changed);
    if (m->use[to] != UNKNOWN) return note_use(m, from, m->use[to], changed);
    return true;
}

static bool infer_uses(module *m)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t at = HEADER; at < m->count; at += length_of(m->words + at))
            if (!infer_from(m, m->words + at, &changed)) return false;
    }
    return true;
}

// The constants that KHR needs, made before the first matrix type: by then the integer type exists,
// as the type's own scope and sizes are such constants.
static bool put_constants(module *m)
{
    if (m->sum) return true;
    if (!m->int_type) return fail(m, "there is no 32-bit integer type");
    uint32_t first = m->out[3];
    for (uint32_t value = 0; value < USES; value++) {
        const uint32_t w[] = { 4u << 16 | OP_CONSTANT, m->int_type, first + value, value };
        if (!put(m, w, 4)) return false;
    }
    m->layout[0] = first;
    m->layout[1] = first + 1;
    m->sum = first + 2;
    m->out[3] = first + USES;
    return true;
}

static bool put_type(module *m, const uint32_t *w)
{
    if (!put_constants(m)) return false;
    int use = m->use[w[1]];
    if (use == UNKNOWN)
        return fail(m, "matrix type %u takes part in no multiply-add, so its use is unknown", w[1]);
    const uint32_t out[] = { 7u << 16 | KHR_TYPE, w[1], w[2], w[3], w[4], w[5],
                             use == USE_SUM ? m->sum : m->layout[use] };
    return put(m, out, 7);
}

// Loads and stores: the operands before the stride, and then the layout where NV has a flag behind.
static bool put_access(module *m, const uint32_t *w, uint32_t op, uint32_t before)
{
    uint32_t n = length_of(w), stride = w[before], flag = w[before + 1];
    if (m->kind[flag] != KIND_TRUE && m->kind[flag] != KIND_FALSE)
        return fail(m, "the column flag of a load or store (id %u) is no constant", flag);
    if (!m->sum) return fail(m, "a load or store comes before any matrix type");
    const uint32_t head = n << 16 | op;
    const uint32_t tail[] = { m->layout[m->kind[flag] == KIND_TRUE], stride };
    return put(m, &head, 1) && put(m, w + 1, before - 1) && put(m, tail, 2) &&
           put(m, w + before + 2, n - before - 2);
}

static bool put_renamed(module *m, const uint32_t *w, uint32_t op)
{
    const uint32_t head = length_of(w) << 16 | op;
    return put(m, &head, 1) && put(m, w + 1, length_of(w) - 1);
}

static bool put_extension(module *m, const uint32_t *w)
{
    const char *name = (const char *)(w + 1);
    size_t room = (length_of(w) - 1) * sizeof *w;
    if (strnlen(name, room) == room) return fail(m, "an extension's name has no end");
    if (strcmp(name, nv_name) != 0) return put(m, w, length_of(w));
    uint32_t out[1 + sizeof khr_name / 4 + 1] = { 0 };
    const uint32_t n = 1 + sizeof khr_name / 4 + (sizeof khr_name % 4 != 0);
    out[0] = n << 16 | OP_EXTENSION;
    memcpy(out + 1, khr_name, sizeof khr_name);
    return put(m, out, n);
}

static bool rewrite(module *m, const uint32_t *w)
{
    switch (op_of(w)) {
    case OP_CAPABILITY: {
        const uint32_t out[] = { w[0], w[1] == NV_CAPABILITY ? KHR_CAPABILITY : w[1] };
        return put(m, out, 2);
    }
    case OP_EXTENSION: return put_extension(m, w);
    case NV_TYPE: return put_type(m, w);
    case NV_LOAD: return put_access(m, w, KHR_LOAD, 4);
    case NV_STORE: return put_access(m, w, KHR_STORE, 3);
    case NV_MUL_ADD: return put_renamed(m, w, KHR_MUL_ADD);
    case NV_LENGTH: return put_renamed(m, w, KHR_LENGTH);
    default: return put(m, w, length_of(w));
    }
}

static bool convert(module *m)
{
    if (!read_types(m) || !infer_uses(m) || !put(m, m->words, HEADER)) return false;
    for (size_t at = HEADER; at < m->count; at += length_of(m->words + at))
        if (!rewrite(m, m->words + at)) return false;
    return true;
}

uint32_t *qn_coopmat_to_khr(const uint32_t *words, size_t count, size_t *out_count, char *error,
                            size_t error_size)
{
    enum { MOST_IDS = 1 << 22 }; // what the specification allows to ask for
    module m = { .words = words, .count = count, .error = error, .error_size = error_size };
    *out_count = 0;
    if (count < HEADER || words[0] != MAGIC) {
        fail(&m, "this is no SPIR-V module");
        return NULL;
    }
    m.bound = words[3];
    if (m.bound == 0 || m.bound > MOST_IDS - USES) {
        fail(&m, "the module claims %u ids, expected 1 to %d", m.bound, MOST_IDS - USES);
        return NULL;
    }
    m.type_of = calloc(m.bound, sizeof *m.type_of);
    m.use = malloc(m.bound * sizeof *m.use);
    m.kind = calloc(m.bound, sizeof *m.kind);
    bool good = m.type_of && m.use && m.kind;
    if (!good) fail(&m, "out of memory");
    for (uint32_t i = 0; good && i < m.bound; i++) m.use[i] = UNKNOWN;
    good = good && convert(&m);
    free(m.type_of);
    free(m.use);
    free(m.kind);
    if (!good) {
        free(m.out);
        return NULL;
    }
    *out_count = m.out_count;
    return m.out;
}
