// A reader of SPIR-V declarations. One pass: what an instruction refers to must have been declared
// before it, so sizes are known when they are asked for and nothing can be circular.
#include "bench/spirv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x07230203u
#define MOST_IDS (1u << 20)
#define MOST_SEARCHED (UINT64_C(1) << 30)

enum { // opcodes
    OP_NAME = 5,
    OP_MEMBER_NAME = 6,
    OP_ENTRY_POINT = 15,
    OP_EXECUTION_MODE = 16,
    OP_CAPABILITY = 17,
    OP_TYPE_BOOL = 20,
    OP_TYPE_INT = 21,
    OP_TYPE_FLOAT = 22,
    OP_TYPE_VECTOR = 23,
    OP_TYPE_MATRIX = 24,
    OP_TYPE_IMAGE = 25,
    OP_TYPE_SAMPLER = 26,
    OP_TYPE_SAMPLED_IMAGE = 27,
    OP_TYPE_ARRAY = 28,
    OP_TYPE_RUNTIME_ARRAY = 29,
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_CONSTANT = 43,
    OP_CONSTANT_COMPOSITE = 44,
    OP_SPEC_CONSTANT_TRUE = 48,
    OP_SPEC_CONSTANT_FALSE = 49,
    OP_SPEC_CONSTANT = 50,
    OP_SPEC_CONSTANT_COMPOSITE = 51,
    OP_SPEC_CONSTANT_OP = 52,
    OP_FUNCTION = 54,
    OP_VARIABLE = 59,
    OP_DECORATE = 71,
    OP_MEMBER_DECORATE = 72,
    OP_EXECUTION_MODE_ID = 331,
};

enum { // decorations and other numbers
    SPEC_ID = 1,
    BLOCK = 2,
    BUFFER_BLOCK = 3,
    ARRAY_STRIDE = 6,
    MATRIX_STRIDE = 7,
    BUILT_IN = 11,
    NON_WRITABLE = 24,
    NON_READABLE = 25,
    BINDING = 33,
    DESCRIPTOR_SET = 34,
    OFFSET = 35,
    WORKGROUP_SIZE = 25, // a built-in
    LOCAL_SIZE = 17,
    LOCAL_SIZE_ID = 38, // execution modes
    GL_COMPUTE = 5,     // an execution model
    CLASS_CONSTANT = 0,
    CLASS_UNIFORM = 2,
    CLASS_PUSH = 9,
    CLASS_STORAGE = 12,
};

// What is known of an id. `at` is the word of its instruction; 0: not declared yet.
typedef struct entry {
    uint32_t at, op, name; // name: the word where its characters begin; 0: none
    uint64_t size;         // of a type: bytes, without the array that has no length
    uint32_t length;       // of an array; 0: none, or not known
    uint32_t stride;       // array stride; of a struct: that of such an array at its end
    qn_spv_scalar scalar;
    uint32_t width;
    bool only_read, only_written, storage_block; // of a variable or a block's members
    uint32_t spec_id, binding, set;              // QN_SPV_NO_ID: not decorated
} entry;

typedef struct reader {
    const char *name;
    const uint32_t *words;
    size_t count;
    entry *ids;
    uint32_t bound;
    uint32_t size_id; // the constant that is the workgroup size; 0: none
    uint32_t local_ids[3];
    bool has_entry;
    uint32_t entry_function;
    uint64_t searched; // words, for members' decorations
    qn_spv_shader *out;
} reader;

static qn_result bad(const reader *r, size_t at, const char *fmt, ...) QN_PRINTF(3, 4);
static qn_result bad(const reader *r, size_t at, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return qn_fail(QN_ERR_FORMAT, "%s: word %zu: %s", r->name, at, text);
}

// ------------------------------------------------------------------------------------ pieces

// A string of at most `words` words, printable, cut to fit; false without an end.
static bool take_string(const uint32_t *w, size_t words, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < 4 * words; i++) {
        unsigned char c = (unsigned char)(w[i / 4] >> (8 * (i % 4)));
        if (!c) {
            out[n] = 0;
            return true;
        }
        if (n + 1 < size) out[n++] = c < 0x20 || c > 0x7e ? '?' : (char)c;
    }
    return false;
}

static void name_of(const reader *r, uint32_t id, char out[QN_SPV_NAME])
{
    uint32_t at = r->ids[id].name;
    out[0] = 0;
    if (at) take_string(r->words + at, r->count - at, out, QN_SPV_NAME);
}

// The operand as an id below the bound, declared or not.
static qn_result id_at(const reader *r, size_t at, uint32_t *id)
{
    *id = r->words[at];
    if (*id == 0 || *id >= r->bound) return bad(r, at, "id %u, but the bound is %u", *id, r->bound);
    return QN_OK;
}

static qn_result known_at(const reader *r, size_t at, const entry **e)
{
    uint32_t id;
    QN_TRY(id_at(r, at, &id));
    *e = &r->ids[id];
    if (!(*e)->at) return bad(r, at, "id %u is used before it is declared", id);
    return QN_OK;
}

static qn_result declare(reader *r, size_t at, size_t operand, uint32_t op, entry **out)
{
    uint32_t id;
    QN_TRY(id_at(r, at + operand, &id));
    entry *e = &r->ids[id];
    if (e->at) return bad(r, at, "id %u is declared twice", id);
    e->at = (uint32_t)at;
    e->op = op;
    *out = e;
    return QN_OK;
}

static qn_result need(const reader *r, size_t at, size_t length, size_t least)
{
    if (length < least)
        return bad(r, at, "an instruction of %zu words, expected %zu", length, least);
    return QN_OK;
}

// A decoration of one member, looked up in the whole module; false: it has none.
static bool member_decoration(const reader *r, uint32_t type, uint32_t member, uint32_t what,
                              uint32_t *value)
{
    for (size_t at = 5; at < r->count;) {
        uint32_t op = r->words[at] & 0xffff, length = r->words[at] >> 16;
        if (op == OP_FUNCTION) break;
        if (op == OP_MEMBER_DECORATE && length >= 4 && r->words[at + 1] == type &&
            r->words[at + 2] == member && r->words[at + 3] == what) {
            *value = length >= 5 ? r->words[at + 4] : 0;
            return true;
        }
        at += length;
    }
    return false;
}

static void member_name(const reader *r, uint32_t type, uint32_t member, char out[QN_SPV_NAME])
{
    out[0] = 0;
    for (size_t at = 5; at < r->count;) {
        uint32_t op = r->words[at] & 0xffff, length = r->words[at] >> 16;
        if (op == OP_FUNCTION) break;
        if (op == OP_MEMBER_NAME && length >= 4 && r->words[at + 1] == type &&
            r->words[at + 2] == member) {
            take_string(r->words + at + 3, length - 3, out, QN_SPV_NAME);
            return;
        }
        at += length;
    }
}

// ------------------------------------------------------------------------------------ types

static qn_result read_array(reader *r, size_t at, size_t length, uint32_t op)
{
    entry *e;
    const entry *element, *count = NULL;
    QN_TRY(need(r, at, length, op == OP_TYPE_ARRAY ? 4 : 3));
    QN_TRY(known_at(r, at + 2, &element));
    if (op == OP_TYPE_ARRAY) {
        QN_TRY(known_at(r, at + 3, &count));
        if (count->op != OP_CONSTANT && count->op != OP_SPEC_CONSTANT)
            count = NULL; // computed from constants: its length is not needed here
    }
    QN_TRY(declare(r, at, 1, op, &e));
    e->scalar = element->scalar;
    e->width = element->width;
    if (!e->stride) e->stride = element->size > UINT32_MAX ? UINT32_MAX : (uint32_t)element->size;
    if (count) e->length = r->words[count->at + 3];
    e->size = (uint64_t)e->stride * e->length;
    return QN_OK;
}

static qn_result read_struct(reader *r, size_t at, size_t length)
{
    entry *e;
    QN_TRY(need(r, at, length, 2));
    QN_TRY(declare(r, at, 1, OP_TYPE_STRUCT, &e));
    const uint32_t id = r->words[at + 1];
    r->searched += 5 * (uint64_t)r->count * (length - 2);
    if (r->searched > MOST_SEARCHED)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: too many members of blocks for its length",
                       r->name);
    uint32_t stride = 0;
    bool all_read = length > 2, all_written = length > 2;
    for (uint32_t m = 0; m + 2 < length; m++) {
        const entry *t;
        uint32_t offset = 0, matrix = 0, ignored;
        QN_TRY(known_at(r, at + 2 + m, &t));
        member_decoration(r, id, m, OFFSET, &offset);
        uint64_t size = t->size;
        if (t->op == OP_TYPE_MATRIX && member_decoration(r, id, m, MATRIX_STRIDE, &matrix))
            size = (uint64_t)matrix * r->words[t->at + 3];
        if ((uint64_t)offset + size > e->size) e->size = (uint64_t)offset + size;
        if (t->op == OP_TYPE_RUNTIME_ARRAY) stride = t->stride;
        if (m == 0 || t->op == OP_TYPE_RUNTIME_ARRAY) e->scalar = t->scalar, e->width = t->width;
        all_read &= member_decoration(r, id, m, NON_WRITABLE, &ignored);
        all_written &= member_decoration(r, id, m, NON_READABLE, &ignored);
    }
    e->stride = stride;
    e->only_read |= all_read;
    e->only_written |= all_written;
    return QN_OK;
}

static qn_result read_type(reader *r, size_t at, size_t length, uint32_t op)
{
    entry *e;
    const entry *part = NULL;
    if (op == OP_TYPE_ARRAY || op == OP_TYPE_RUNTIME_ARRAY) return read_array(r, at, length, op);
    if (op == OP_TYPE_STRUCT) return read_struct(r, at, length);
    const bool numbers = op == OP_TYPE_INT || op == OP_TYPE_FLOAT;
    const bool parts = op == OP_TYPE_VECTOR || op == OP_TYPE_MATRIX || op == OP_TYPE_POINTER;
    QN_TRY(need(r, at, length, op == OP_TYPE_FLOAT ? 3 : numbers || parts ? 4 : 2));
    // A pointer may be declared before what it points to; such ones are of no use here.
    if (op == OP_TYPE_POINTER &&
        (!r->words[at + 3] || r->words[at + 3] >= r->bound || !r->ids[r->words[at + 3]].at))
        return QN_OK;
    if (op == OP_TYPE_VECTOR || op == OP_TYPE_MATRIX) QN_TRY(known_at(r, at + 2, &part));
    QN_TRY(declare(r, at, 1, op, &e));
    if (op == OP_TYPE_BOOL) e->scalar = QN_SPV_BOOL, e->width = 32, e->size = 4;
    if (numbers) {
        e->width = r->words[at + 2];
        if (e->width != 8 && e->width != 16 && e->width != 32 && e->width != 64)
            return bad(r, at, "numbers of %u bits", e->width);
        e->size = e->width / 8;
        e->scalar = op == OP_TYPE_FLOAT    ? QN_SPV_FLOAT
                    : r->words[at + 3] & 1 ? QN_SPV_INT
                                           : QN_SPV_UINT;
    }
    if (part) {
        e->scalar = part->scalar;
        e->width = part->width;
        if (r->words[at + 3] > 16) return bad(r, at, "a vector of %u parts", r->words[at + 3]);
        e->size = part->size * r->words[at + 3];
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ constants

static qn_result read_constant(reader *r, size_t at, size_t length, uint32_t op)
{
    entry *e;
    const entry *type;
    const bool composite = op == OP_CONSTANT_COMPOSITE || op == OP_SPEC_CONSTANT_COMPOSITE;
    const bool truth = op == OP_SPEC_CONSTANT_TRUE || op == OP_SPEC_CONSTANT_FALSE;
    QN_TRY(need(r, at, length, truth || composite ? 3 : 4));
    QN_TRY(known_at(r, at + 1, &type));
    QN_TRY(declare(r, at, 2, op, &e));
    e->scalar = type->scalar;
    e->width = type->width;
    e->size = length;
    if ((op != OP_SPEC_CONSTANT && !truth) || e->spec_id == QN_SPV_NO_ID) return QN_OK;
    qn_spv_shader *s = r->out;
    if (s->constant_count == QN_SPV_CONSTANTS)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: more than %d specialisation constants", r->name,
                       QN_SPV_CONSTANTS);
    qn_spv_constant *c = &s->constants[s->constant_count++];
    *c = (qn_spv_constant){ .id = e->spec_id, .scalar = e->scalar, .width = e->width };
    c->value = truth ? op == OP_SPEC_CONSTANT_TRUE : r->words[at + 3];
    name_of(r, r->words[at + 2], c->name);
    return QN_OK;
}

// ------------------------------------------------------------------------------------ variables

static const char *kind_of(const entry *type)
{
    switch (type->op) {
    case OP_TYPE_IMAGE:
        return "an image or a texel buffer";
    case OP_TYPE_SAMPLER:
        return "a sampler";
    case OP_TYPE_SAMPLED_IMAGE:
        return "a sampled image";
    default:
        return "of a type that is not known here";
    }
}

static qn_result read_push(reader *r, uint32_t type)
{
    qn_spv_shader *s = r->out;
    const entry *block = &r->ids[type];
    if (block->op != OP_TYPE_STRUCT || s->push_size)
        return bad(r, block->at, "push constants that are not one block");
    s->push_size = block->size;
    const uint32_t length = r->words[block->at] >> 16;
    for (uint32_t m = 0; m + 2 < length; m++) {
        if (s->member_count == QN_SPV_MEMBERS)
            return qn_fail(QN_ERR_UNSUPPORTED, "%s: more than %d push constants", r->name,
                           QN_SPV_MEMBERS);
        const entry *t = &r->ids[r->words[block->at + 2 + m]];
        qn_spv_member *to = &s->members[s->member_count++];
        *to = (qn_spv_member){ .size = t->size > 1024 ? 1024 : (uint32_t)t->size,
                               .scalar = t->scalar,
                               .width = t->width };
        member_decoration(r, type, m, OFFSET, &to->offset);
        member_name(r, type, m, to->name);
    }
    return QN_OK;
}

static qn_result read_variable(reader *r, size_t at, size_t length)
{
    entry *e;
    const entry *pointer;
    QN_TRY(need(r, at, length, 4));
    QN_TRY(id_at(r, at + 1, &(uint32_t){ 0 }));
    pointer = &r->ids[r->words[at + 1]];
    QN_TRY(declare(r, at, 2, OP_VARIABLE, &e));
    const uint32_t class = r->words[at + 3];
    if (class != CLASS_CONSTANT && class != CLASS_UNIFORM && class != CLASS_PUSH &&
        class != CLASS_STORAGE)
        return QN_OK;
    if (pointer->op != OP_TYPE_POINTER) return bad(r, at, "a variable whose type is no pointer");
    uint32_t type = r->words[pointer->at + 3];
    if (class == CLASS_PUSH) return read_push(r, type);
    qn_spv_shader *s = r->out;
    if (s->binding_count == QN_SPV_BINDINGS)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: more than %d bindings", r->name, QN_SPV_BINDINGS);
    qn_spv_binding *b = &s->bindings[s->binding_count++];
    *b = (qn_spv_binding){ .set = e->set == QN_SPV_NO_ID ? 0 : e->set,
                           .binding = e->binding == QN_SPV_NO_ID ? 0 : e->binding,
                           .count = 1 };
    const entry *t = &r->ids[type];
    if (t->op == OP_TYPE_ARRAY || t->op == OP_TYPE_RUNTIME_ARRAY) {
        b->count = t->length;
        type = r->words[t->at + 2];
        t = &r->ids[type];
    }
    name_of(r, r->words[at + 2], b->name);
    if (!b->name[0]) name_of(r, type, b->name);
    if (t->op != OP_TYPE_STRUCT || class == CLASS_CONSTANT) {
        b->other = kind_of(t);
        return QN_OK;
    }
    b->storage = class == CLASS_STORAGE || t->storage_block;
    b->reads = !(e->only_written || t->only_written);
    b->writes = b->storage && !(e->only_read || t->only_read);
    b->fixed = t->size;
    b->stride = t->stride;
    b->scalar = t->scalar;
    b->width = t->width;
    return QN_OK;
}

// ------------------------------------------------------------------------------------ annotations

static qn_result read_decoration(reader *r, size_t at, size_t length)
{
    uint32_t id;
    QN_TRY(need(r, at, length, 3));
    QN_TRY(id_at(r, at + 1, &id));
    entry *e = &r->ids[id];
    const uint32_t value = length > 3 ? r->words[at + 3] : 0;
    switch (r->words[at + 2]) {
    case SPEC_ID:
        e->spec_id = value;
        break;
    case BUFFER_BLOCK:
        e->storage_block = true;
        break;
    case ARRAY_STRIDE:
        e->stride = value;
        break;
    case NON_WRITABLE:
        e->only_read = true;
        break;
    case NON_READABLE:
        e->only_written = true;
        break;
    case BINDING:
        e->binding = value;
        break;
    case DESCRIPTOR_SET:
        e->set = value;
        break;
    case BUILT_IN:
        if (value == WORKGROUP_SIZE) r->size_id = id;
        break;
    default:
        break;
    }
    return QN_OK;
}

static qn_result read_entry_point(reader *r, size_t at, size_t length)
{
    QN_TRY(need(r, at, length, 4));
    if (r->words[at + 1] != GL_COMPUTE || r->has_entry) return QN_OK;
    char *name = r->out->entry;
    if (!take_string(r->words + at + 3, length - 3, name, QN_SPV_NAME) ||
        strlen(name) + 1 == QN_SPV_NAME)
        return bad(r, at, "an entry point whose name has no end, or a long one");
    r->has_entry = true;
    r->entry_function = r->words[at + 2];
    return QN_OK;
}

static qn_result read_mode(reader *r, size_t at, size_t length, bool ids)
{
    QN_TRY(need(r, at, length, 3));
    if (r->words[at + 1] != r->entry_function ||
        r->words[at + 2] != (ids ? LOCAL_SIZE_ID : LOCAL_SIZE))
        return QN_OK;
    QN_TRY(need(r, at, length, 6));
    for (int i = 0; i < 3; i++) {
        r->out->local[i] = r->words[at + 3 + (size_t)i];
        if (ids) QN_TRY(id_at(r, at + 3 + (size_t)i, &r->local_ids[i]));
    }
    return QN_OK;
}

static qn_result read_instruction(reader *r, size_t at, size_t length, uint32_t op)
{
    qn_spv_shader *s = r->out;
    switch (op) {
    case OP_NAME:
        QN_TRY(need(r, at, length, 3));
        QN_TRY(id_at(r, at + 1, &(uint32_t){ 0 }));
        if (!take_string(r->words + at + 2, length - 2, (char[QN_SPV_NAME]){ 0 }, QN_SPV_NAME))
            return bad(r, at, "a name without an end");
        r->ids[r->words[at + 1]].name = (uint32_t)at + 2;
        return QN_OK;
    case OP_CAPABILITY:
        QN_TRY(need(r, at, length, 2));
        if (s->capability_count == QN_SPV_CAPABILITIES)
            return qn_fail(QN_ERR_UNSUPPORTED, "%s: more than %d capabilities", r->name,
                           QN_SPV_CAPABILITIES);
        s->capabilities[s->capability_count++] = r->words[at + 1];
        return QN_OK;
    case OP_ENTRY_POINT:
        return read_entry_point(r, at, length);
    case OP_EXECUTION_MODE:
        return read_mode(r, at, length, false);
    case OP_EXECUTION_MODE_ID:
        return read_mode(r, at, length, true);
    case OP_DECORATE:
        return read_decoration(r, at, length);
    case OP_TYPE_BOOL:
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT:
    case OP_TYPE_VECTOR:
    case OP_TYPE_MATRIX:
    case OP_TYPE_IMAGE:
    case OP_TYPE_SAMPLER:
    case OP_TYPE_SAMPLED_IMAGE:
    case OP_TYPE_ARRAY:
    case OP_TYPE_RUNTIME_ARRAY:
    case OP_TYPE_STRUCT:
    case OP_TYPE_POINTER:
        return read_type(r, at, length, op);
    case OP_CONSTANT:
    case OP_CONSTANT_COMPOSITE:
    case OP_SPEC_CONSTANT_TRUE:
    case OP_SPEC_CONSTANT_FALSE:
    case OP_SPEC_CONSTANT:
    case OP_SPEC_CONSTANT_OP:
    case OP_SPEC_CONSTANT_COMPOSITE:
        return read_constant(r, at, length, op);
    case OP_VARIABLE:
        return read_variable(r, at, length);
    default:
        return QN_OK;
    }
}

// ------------------------------------------------------------------------------------ the whole

// One dimension of the workgroup from a constant.
static void take_local(reader *r, int i, uint32_t id)
{
    const entry *e = id && id < r->bound ? &r->ids[id] : NULL;
    if (!e || (e->op != OP_CONSTANT && e->op != OP_SPEC_CONSTANT)) return;
    r->out->local[i] = r->words[e->at + 3];
    if (e->op == OP_SPEC_CONSTANT) r->out->local_constant[i] = e->spec_id;
}

static qn_result finish(reader *r)
{
    if (!r->has_entry)
        return qn_fail(QN_ERR_FORMAT, "%s: there is no entry point of a compute shader", r->name);
    for (int i = 0; i < 3; i++) take_local(r, i, r->local_ids[i]);
    const entry *e = r->size_id ? &r->ids[r->size_id] : NULL;
    if (e && (e->op == OP_CONSTANT_COMPOSITE || e->op == OP_SPEC_CONSTANT_COMPOSITE) &&
        e->size >= 6)
        for (int i = 0; i < 3; i++) take_local(r, i, r->words[e->at + 3 + (size_t)i]);
    for (int i = 0; i < 3; i++)
        if (!r->out->local[i])
            return qn_fail(QN_ERR_FORMAT, "%s: the workgroup's size is not declared", r->name);
    return QN_OK;
}

static qn_result read_all(reader *r)
{
    for (size_t at = 5; at < r->count;) {
        const uint32_t length = r->words[at] >> 16;
        if (!length || length > r->count - at)
            return bad(r, at, "an instruction of %u words, but %zu are left", length,
                       r->count - at);
        at += length;
    }
    for (size_t at = 5; at < r->count;) {
        const uint32_t op = r->words[at] & 0xffff, length = r->words[at] >> 16;
        if (op == OP_FUNCTION) break; // no declarations behind it
        QN_TRY(read_instruction(r, at, length, op));
        at += length;
    }
    return finish(r);
}

qn_result qn_spv_read(const char *name, const uint32_t *words, size_t count, qn_spv_shader *out)
{
    reader r = { .name = name, .words = words, .count = count, .out = out };
    *out = (qn_spv_shader){ .local_constant = { QN_SPV_NO_ID, QN_SPV_NO_ID, QN_SPV_NO_ID } };
    if (count < 5 || words[0] != MAGIC)
        return qn_fail(QN_ERR_FORMAT, "%s: not a SPIR-V module of this machine's byte order", name);
    r.bound = words[3];
    if (!r.bound || r.bound > MOST_IDS || r.bound / 16 > count || count > UINT32_MAX)
        return qn_fail(QN_ERR_FORMAT, "%s: a bound of %u ids in %zu words", name, r.bound, count);
    r.ids = qn_calloc(r.bound, sizeof *r.ids);
    if (!r.ids) return qn_no_memory(r.bound * sizeof *r.ids);
    for (uint32_t i = 0; i < r.bound; i++)
        r.ids[i].spec_id = r.ids[i].binding = r.ids[i].set = QN_SPV_NO_ID;
    qn_result result = read_all(&r);
    qn_free(r.ids);
    return result;
}
