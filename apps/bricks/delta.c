// Differences between models.
#include "delta.h"
#include "fail.h"
#include "mem.h"
#include "score.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#ifdef QN_HAVE_MD
#include <sys/types.h>

#include <sha2.h>
#endif

static const char format[] = "quoin-delta";
static const char *const methods[] = { "difference", "sparse", "exact" };
typedef enum method { DIFFERENCE, SPARSE, EXACT } method;

qn_result qn_delta_hash(const qn_safetensors *s, char text[QN_HASH_TEXT])
{
    *text = 0;
#ifdef QN_HAVE_MD
    SHA2_CTX ctx;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256Init(&ctx);
    for (size_t i = 0; i < qn_safetensors_count(s); i++) {
        const qn_safetensor *t = qn_safetensors_at(s, i);
        SHA256Update(&ctx, t->data, (size_t)t->size);
    }
    SHA256Final(digest, &ctx);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return QN_OK;
#else
    (void)s;
    return qn_fail(QN_ERR_UNSUPPORTED, "this program was built without libmd, which computes the "
                                       "hash of weights");
#endif
}

// ------------------------------------------------------------------------------ taking

typedef struct taking {
    const qn_brick_model *x, *base;
    const qn_delta_opts *o;
    qn_safetensors_writer *w;
    method how;
} taking;

static qn_result check_pair(const taking *k, const qn_safetensor *a, const qn_safetensor **b)
{
    *b = qn_safetensors_find(k->base->weights, a->name);
    if (!*b)
        return qn_fail(QN_ERR_INVALID, "%s has no tensor %s, which %s has", k->base->dir, a->name,
                       k->x->dir);
    bool same = (*b)->dtype == a->dtype && (*b)->rank == a->rank;
    for (int i = 0; same && i < a->rank; i++) same = (*b)->dim[i] == a->dim[i];
    if (!same)
        return qn_fail(QN_ERR_INVALID, "tensor %s has another type or shape in %s than in %s", a->name,
                       k->x->dir, k->base->dir);
    return QN_OK;
}

static bool differs(const qn_safetensor *a, const qn_safetensor *b)
{
    return a->size && memcmp(a->data, b->data, (size_t)a->size) != 0;
}

static int64_t kept_of(const taking *k, const qn_safetensor *t)
{
    const int64_t n = (int64_t)(k->o->density * (double)t->count);
    return n < 1 ? 1 : n;
}

static qn_result declare(taking *k, const qn_safetensor *t)
{
    char name[512];
    const int64_t kept = kept_of(k, t);
    if (!qn_st_dtype_is_float(t->dtype) || t->dtype == QN_ST_F64)
        return qn_fail(QN_ERR_UNSUPPORTED, "tensor %s differs and is %s; differences of F32, F16 and "
                                           "BF16 can be taken", t->name, qn_st_dtype_name(t->dtype));
    switch (k->how) {
    case EXACT:
        return qn_safetensors_add(k->w, t->name, t->dtype == QN_ST_F32 ? QN_ST_U32 : QN_ST_U16,
                                  t->rank, t->dim);
    case SPARSE:
        snprintf(name, sizeof name, "%s.idx", t->name);
        QN_TRY(qn_safetensors_add(k->w, name, QN_ST_U32, 1, &kept));
        snprintf(name, sizeof name, "%s.val", t->name);
        return qn_safetensors_add(k->w, name, QN_ST_F32, 1, &kept);
    default:
        return qn_safetensors_add(k->w, t->name, QN_ST_F32, t->rank, t->dim);
    }
}

static qn_result difference(const taking *k, const qn_safetensor *a, float **out)
{
    const qn_safetensor *b = qn_safetensors_find(k->base->weights, a->name);
    float *x = qn_malloc((size_t)a->count * sizeof *x), *y = qn_malloc((size_t)a->count * sizeof *y);
    qn_result r = x && y ? QN_OK : qn_no_memory((size_t)a->count * sizeof *x);
    if (r == QN_OK) r = qn_safetensor_f32(a, 0, a->count, x);
    if (r == QN_OK) r = qn_safetensor_f32(b, 0, b->count, y);
    for (uint64_t i = 0; r == QN_OK && i < a->count; i++) x[i] -= y[i];
    qn_free(y);
    if (r == QN_OK)
        *out = x;
    else
        qn_free(x);
    return r;
}

static qn_result write_exact(taking *k, const qn_safetensor *a)
{
    const qn_safetensor *b = qn_safetensors_find(k->base->weights, a->name);
    const uint8_t *p = a->data, *q = b->data;
    uint8_t part[4096];
    for (uint64_t at = 0; at < a->size;) {
        const uint64_t n = a->size - at < sizeof part ? a->size - at : sizeof part;
        for (uint64_t i = 0; i < n; i++) part[i] = p[at + i] ^ q[at + i];
        QN_TRY(qn_safetensors_write(k->w, part, n));
        at += n;
    }
    return QN_OK;
}

// The kept positions of a tensor's difference, ascending, or the values there.
static qn_result write_sparse(taking *k, const qn_safetensor *a, bool values)
{
    const size_t n = (size_t)kept_of(k, a);
    float *d = NULL, *magnitude = NULL;
    int32_t *top = qn_malloc(n * sizeof *top);
    qn_result r = top ? difference(k, a, &d) : qn_no_memory(n * sizeof *top);
    if (r == QN_OK && !(magnitude = qn_malloc((size_t)a->count * sizeof *magnitude)))
        r = qn_no_memory((size_t)a->count * sizeof *magnitude);
    for (uint64_t i = 0; r == QN_OK && i < a->count; i++) magnitude[i] = fabsf(d[i]);
    if (r == QN_OK) r = qn_score_top(magnitude, (size_t)a->count, n, top);
    for (size_t i = 0; r == QN_OK && values && i < n; i++) magnitude[i] = d[top[i]];
    if (r == QN_OK)
        r = qn_safetensors_write(k->w, values ? (const void *)magnitude : top, n * sizeof *top);
    qn_free(d);
    qn_free(magnitude);
    qn_free(top);
    return r;
}

static qn_result write_one(taking *k, const char *name)
{
    const qn_safetensor *a = qn_safetensors_find(k->x->weights, name);
    if (k->how == SPARSE) {
        char base[512];
        const size_t n = strlen(name) - 4; // ".idx", ".val"
        snprintf(base, sizeof base, "%.*s", (int)n, name);
        a = qn_safetensors_find(k->x->weights, base);
        return write_sparse(k, a, !strcmp(name + n, ".val"));
    }
    if (k->how == EXACT) return write_exact(k, a);
    float *d;
    QN_TRY(difference(k, a, &d));
    qn_result r = qn_safetensors_write(k->w, d, a->count * sizeof *d);
    qn_free(d);
    return r;
}

static qn_result take(taking *k, size_t *changed)
{
    for (size_t i = 0; i < qn_safetensors_count(k->base->weights); i++) {
        const char *name = qn_safetensors_at(k->base->weights, i)->name;
        if (!qn_safetensors_find(k->x->weights, name))
            return qn_fail(QN_ERR_INVALID, "%s has no tensor %s, which %s has", k->x->dir, name,
                           k->base->dir);
    }
    *changed = 0;
    for (size_t i = 0; i < qn_safetensors_count(k->x->weights); i++) {
        const qn_safetensor *a = qn_safetensors_at(k->x->weights, i), *b;
        QN_TRY(check_pair(k, a, &b));
        if (!differs(a, b)) continue;
        QN_TRY(declare(k, a));
        ++*changed;
    }
    const qn_safetensor *due;
    qn_result r;
    while ((r = qn_safetensors_next(k->w, &due)) == QN_OK && due) QN_TRY(write_one(k, due->name));
    return r;
}

qn_result qn_delta_take(const qn_brick_model *x, const qn_brick_model *base, const char *path,
                        const qn_delta_opts *opts, size_t *changed)
{
    char hash[QN_HASH_TEXT];
    taking k = { .x = x, .base = base, .o = opts,
                 .how = opts->exact ? EXACT : opts->density > 0 ? SPARSE : DIFFERENCE };
    QN_TRY(qn_delta_hash(base->weights, hash));
    const qn_st_meta meta[] = { { "format", format },
                                { "base_sha256", hash },
                                { "method", methods[k.how] } };
    const qn_safetensors_opts w = { .meta = meta, .meta_count = 3 };
    QN_TRY(qn_safetensors_create(path, &w, &k.w));
    qn_result r = take(&k, changed);
    if (r == QN_OK) return qn_safetensors_commit(&k.w);
    qn_safetensors_abandon(&k.w);
    return r;
}

// ------------------------------------------------------------------------------ applying

struct qn_delta {
    qn_safetensors *file;
    const char *path, *base;
    method how;
    double scale;
};

qn_result qn_delta_open(const char *path, qn_delta **out)
{
    qn_delta *d = qn_calloc(1, sizeof *d);
    *out = NULL;
    if (!d) return qn_no_memory(sizeof *d);
    d->path = path;
    d->base = "";
    const char *found = "nothing", *how = "nothing";
    qn_result r = qn_safetensors_open(path, &d->file);
    size_t count = 0;
    const qn_st_meta *meta = r == QN_OK ? qn_safetensors_meta(d->file, &count) : NULL;
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(meta[i].key, "format")) found = meta[i].value;
        if (!strcmp(meta[i].key, "method")) how = meta[i].value;
        if (!strcmp(meta[i].key, "base_sha256")) d->base = meta[i].value;
    }
    if (r == QN_OK && strcmp(found, format) != 0)
        r = qn_fail(QN_ERR_FORMAT, "%s: format is %.40s, expected %s", path, found, format);
    int at = 0;
    while (at < 3 && strcmp(how, methods[at]) != 0) at++;
    d->how = (method)at;
    if (r == QN_OK && at == 3)
        r = qn_fail(QN_ERR_FORMAT, "%s: method is %.40s, expected difference, sparse or exact", path,
                    how);
    if (r == QN_OK)
        *out = d;
    else
        qn_delta_close(&d);
    return r;
}

void qn_delta_close(qn_delta **d)
{
    if (!*d) return;
    qn_safetensors_close(&(*d)->file);
    qn_free(*d);
    *d = NULL;
}

const char *qn_delta_base(const qn_delta *d)
{
    return d->base;
}

static qn_result add_difference(const qn_delta *d, const qn_edit_tensor *t, float *out)
{
    const qn_safetensor *s = qn_safetensors_find(d->file, t->name);
    float *x = qn_malloc((size_t)s->count * sizeof *x);
    if (!x) return qn_no_memory((size_t)s->count * sizeof *x);
    qn_result r = qn_safetensor_f32(s, 0, s->count, x);
    for (uint64_t i = 0; r == QN_OK && i < s->count; i++)
        out[i] = d->scale == 1    ? out[i] + x[i]
                 : d->scale == -1 ? out[i] - x[i]
                                  : (float)((double)out[i] + d->scale * (double)x[i]);
    qn_free(x);
    return r;
}

static qn_result add_sparse(const qn_delta *d, const qn_edit_tensor *t, float *out)
{
    char name[512];
    snprintf(name, sizeof name, "%s.idx", t->name);
    const qn_safetensor *idx = qn_safetensors_find(d->file, name);
    snprintf(name, sizeof name, "%s.val", t->name);
    const qn_safetensor *val = qn_safetensors_find(d->file, name);
    for (uint64_t i = 0; i < idx->count; i++) {
        int64_t at;
        float x;
        QN_TRY(qn_safetensor_i64(idx, i, 1, &at));
        QN_TRY(qn_safetensor_f32(val, i, 1, &x));
        if (at >= (int64_t)t->source->count)
            return qn_fail(QN_ERR_FORMAT, "%s: index %lld of %llu elements", d->path, (long long)at,
                           (unsigned long long)t->source->count);
        out[at] = (float)((double)out[at] + d->scale * (double)x);
    }
    return QN_OK;
}

static qn_result add_exact(const qn_delta *d, const qn_edit_tensor *t, float *out)
{
    // The makers' values are rounded to the type afterwards, which keeps exact ones.
    const qn_safetensor *s = qn_safetensors_find(d->file, t->name);
    const uint8_t *p = t->source->data, *q = s->data;
    for (uint64_t i = 0; i < t->source->count; i++) {
        uint8_t bytes[4] = { 0 };
        const size_t n = t->dtype == QN_ST_F32 ? 4 : 2;
        for (size_t k = 0; k < n; k++) bytes[k] = p[i * n + k] ^ q[i * n + k];
        qn_safetensor one = *t->source;
        one.data = bytes;
        one.count = 1;
        QN_TRY(qn_safetensor_f32(&one, 0, 1, &out[i]));
    }
    return QN_OK;
}

static qn_result make_changed(void *user, const qn_edit_tensor *t, float *out)
{
    const qn_delta *d = user;
    if (d->how == EXACT) return add_exact(d, t, out);
    QN_TRY(qn_safetensor_f32(t->source, 0, t->source->count, out));
    return d->how == SPARSE ? add_sparse(d, t, out) : add_difference(d, t, out);
}

static bool same_dims(const qn_safetensor *s, const qn_edit_tensor *t)
{
    bool same = s->rank == t->rank;
    for (int i = 0; same && i < s->rank; i++) same = s->dim[i] == t->dim[i];
    return same;
}

// The model's tensor that an entry of the file changes, checked.
static qn_result find_target(const qn_delta *d, qn_edit *e, const qn_safetensor *s,
                             qn_edit_tensor **out)
{
    char name[512];
    size_t n = strlen(s->name);
    const bool sparse = d->how == SPARSE;
    if (sparse && (n < 5 || (strcmp(s->name + n - 4, ".idx") && strcmp(s->name + n - 4, ".val"))))
        return qn_fail(QN_ERR_FORMAT, "%s: tensor %s, expected NAME.idx and NAME.val", d->path,
                       s->name);
    snprintf(name, sizeof name, "%.*s", (int)(sparse ? n - 4 : n), s->name);
    *out = qn_edit_find(e, name);
    if (!*out) return qn_fail(QN_ERR_INVALID, "%s: the model has no tensor %s", d->path, name);
    const bool narrow = (*out)->dtype == QN_ST_F16 || (*out)->dtype == QN_ST_BF16;
    if (!narrow && (*out)->dtype != QN_ST_F32)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s is %s in the model", d->path, name,
                       qn_st_dtype_name((*out)->dtype));
    bool good;
    if (sparse) {
        char twin[512];
        const bool idx = !strcmp(s->name + n - 4, ".idx");
        snprintf(twin, sizeof twin, "%s.%s", name, idx ? "val" : "idx");
        const qn_safetensor *other = qn_safetensors_find(d->file, twin);
        good = other && other->count == s->count &&
               (idx ? s->dtype == QN_ST_U32 : s->dtype == QN_ST_F32);
    } else if (d->how == EXACT) {
        good = same_dims(s, *out) && s->dtype == (narrow ? QN_ST_U16 : QN_ST_U32);
    } else {
        good = same_dims(s, *out) && qn_st_dtype_is_float(s->dtype);
    }
    if (!good)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s does not fit the model's %s", d->path, s->name,
                       name);
    return QN_OK;
}

qn_result qn_delta_apply(qn_delta *d, qn_edit *e, double scale)
{
    if (d->how == EXACT && scale != 1 && scale != -1)
        return qn_fail(QN_ERR_INVALID, "%s is exact and cannot be scaled by %g; take a difference "
                                       "without --exact for that", d->path, scale);
    d->scale = scale;
    for (size_t i = 0; i < qn_safetensors_count(d->file); i++) {
        qn_edit_tensor *t;
        QN_TRY(find_target(d, e, qn_safetensors_at(d->file, i), &t));
        t->make = make_changed;
        t->user = d;
    }
    return QN_OK;
}
