// Corpora and the windows of tokens that training reads.
#include "data.h"
#include "fail.h"
#include "manual.h"
#include "mem.h"
#include "platform.h"
#include "random.h"

#include <math.h>
#include <string.h>

static const uint64_t FILE_LIMIT = (uint64_t)64 << 30;

enum { DEMO_LEAST = 65536, DEMO_ENOUGH = 8 << 20 }; // bytes that a demonstration needs, and takes

void qn_corpus_free(qn_corpus *c)
{
    qn_free(c->text);
    qn_free(c->end);
    *c = (qn_corpus){ 0 };
}

static qn_result append(qn_corpus *c, const char *text, size_t size)
{
    if (!size) return QN_OK;
    QN_TRY(qn_grow((void **)&c->text, &c->capacity, c->size + size, 1));
    QN_TRY(qn_grow((void **)&c->end, &c->document_cap, c->documents + 1, sizeof *c->end));
    memcpy(c->text + c->size, text, size);
    c->size += size;
    c->end[c->documents++] = c->size;
    return QN_OK;
}

static qn_result add_file(qn_corpus *c, const char *path, bool chosen)
{
    qn_mapping m;
    QN_TRY(qn_map_file(path, &m));
    qn_result r = QN_OK;
    if (m.size > FILE_LIMIT)
        r = qn_fail(QN_ERR_INVALID, "%s has %llu bytes, at most %llu can be read", path,
                    (unsigned long long)m.size, (unsigned long long)FILE_LIMIT);
    else if (m.size && memchr(m.data, 0, m.size < 4096 ? m.size : 4096))
        r = chosen ? qn_fail(QN_ERR_INVALID, "%s is not text: it holds NUL bytes", path) : QN_OK;
    else if (!m.size && chosen)
        r = qn_fail(QN_ERR_INVALID, "%s is empty: there is nothing to train on", path);
    else
        r = append(c, m.data, m.size);
    qn_unmap_file(&m);
    return r;
}

// Depth is bounded against links that lead back.
static qn_result add_tree(qn_corpus *c, const char *dir, int depth)
{
    enum { DEEPEST = 32 };
    if (depth > DEEPEST) return qn_fail(QN_ERR_INVALID, "%s lies too deep", dir);
    char **names;
    size_t count;
    QN_TRY(qn_list_dir(dir, &names, &count));
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        if (names[i][0] == '.') continue;
        char *path = qn_path_join(dir, names[i]);
        if (!path)
            r = qn_no_memory(strlen(dir));
        else
            r = qn_is_dir(path) ? add_tree(c, path, depth + 1) : add_file(c, path, false);
        qn_free(path);
    }
    qn_free_names(names, count);
    return r;
}

qn_result qn_corpus_add(qn_corpus *c, const char *path)
{
    size_t before = c->size;
    if (!qn_is_dir(path)) return add_file(c, path, true);
    QN_TRY(add_tree(c, path, 0));
    if (c->size == before) return qn_fail(QN_ERR_INVALID, "%s holds no text files", path);
    return QN_OK;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

// The indices (.dat) and the second names (.u8) beside each fortune file hold nothing new.
static bool is_fortune_file(const char *name)
{
    return !ends_with(name, ".dat") && !ends_with(name, ".u8") && name[0] != '.';
}

static bool any_file(const char *name)
{
    return name[0] != '.';
}

static qn_result add_page(qn_corpus *c, const char *path)
{
    char *text;
    size_t size;
    if (qn_manual_read(path, &text, &size) != QN_OK) return QN_OK; // one page more or less
    qn_result r = append(c, text, size);
    qn_free(text);
    return r;
}

static qn_result add_plain(qn_corpus *c, const char *path)
{
    return add_file(c, path, false);
}

static qn_result add_some(qn_corpus *c, const char *dir, bool (*wanted)(const char *),
                          qn_result (*add)(qn_corpus *, const char *))
{
    char **names;
    size_t count;
    QN_TRY(qn_list_dir(dir, &names, &count));
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        if (!wanted(names[i])) continue;
        char *path = qn_path_join(dir, names[i]);
        if (!path)
            r = qn_no_memory(strlen(dir));
        else if (!qn_is_dir(path))
            r = add(c, path);
        qn_free(path);
        if (c->size > DEMO_ENOUGH) break;
    }
    qn_free_names(names, count);
    return r;
}

qn_result qn_corpus_add_demo(qn_corpus *c, const char **source)
{
    static const struct {
        const char *dir, *source;
        bool (*wanted)(const char *);
        qn_result (*add)(qn_corpus *, const char *);
    } places[] = {
        { "/usr/share/games/fortunes", "the fortune files in /usr/share/games/fortunes",
          is_fortune_file, add_plain },
        { "/usr/share/fortune", "the fortune files in /usr/share/fortune", is_fortune_file,
          add_plain },
        { "/usr/share/games/fortune", "the fortune files in /usr/share/games/fortune",
          is_fortune_file, add_plain },
        { "/usr/share/man/man1", "the manual pages in /usr/share/man/man1", any_file, add_page },
        { "/usr/share/common-licenses", "the licences in /usr/share/common-licenses", any_file,
          add_plain },
        { "/usr/share/licenses", "the licences in /usr/share/licenses", any_file, add_plain },
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (!qn_is_dir(places[i].dir)) continue;
        size_t before = c->size;
        QN_TRY(add_some(c, places[i].dir, places[i].wanted, places[i].add));
        if (c->size - before >= DEMO_LEAST) {
            *source = places[i].source;
            return QN_OK;
        }
    }
    return qn_fail(
        QN_ERR_IO,
        "no text was found on this machine (fortunes, manual pages, licences); give some "
        "with --text FILE, or install the package `fortunes`");
}

uint64_t qn_corpus_fingerprint(const qn_corpus *c)
{
    uint64_t h = 1469598103934665603u ^ c->size; // FNV-1a over words of eight bytes
    size_t i = 0;
    for (; i + 8 <= c->size; i += 8) {
        uint64_t w;
        memcpy(&w, c->text + i, 8);
        h = (h ^ w) * 1099511628211u;
        h ^= h >> 29;
    }
    for (; i < c->size; i++) h = (h ^ (unsigned char)c->text[i]) * 1099511628211u;
    return h;
}

qn_result qn_corpus_split(const qn_corpus *c, double share, qn_slice *train, qn_slice *held)
{
    size_t cut = c->size - (size_t)((double)c->size * share);
    const char *line = cut < c->size ? memchr(c->text + cut, '\n', c->size - cut) : NULL;
    const size_t most = c->size / 20; // do not look for the line's end further than this
    if (line && (size_t)(line + 1 - c->text) - cut <= most) cut = (size_t)(line + 1 - c->text);
    while (cut < c->size && ((unsigned char)c->text[cut] & 0xc0) == 0x80) cut++; // whole characters
    if (cut == 0 || (share > 0 && cut == c->size))
        return qn_fail(QN_ERR_INVALID, "a text of %zu bytes is too short to hold out a share of %g",
                       c->size, share);
    *train = (qn_slice){ c->text, cut };
    *held = (qn_slice){ c->text + cut, c->size - cut };
    return QN_OK;
}

uint64_t qn_windows_per_epoch(const qn_windows *w)
{
    if (w->count < w->positions + 1) return 0;
    // Up to T tokens are lost to the epoch's offset, where the text is long enough for that.
    uint64_t usable = w->count - 1;
    return usable < 2 * w->positions ? 1 : (usable - (w->positions - 1)) / w->positions;
}

void qn_windows_get(const qn_windows *w, uint64_t index, int32_t *ids, int32_t *labels)
{
    const uint64_t per_epoch = qn_windows_per_epoch(w);
    const uint64_t epoch = index / per_epoch, slack = w->count - 1 - per_epoch * w->positions;
    qn_random rng = qn_random_start(w->seed, epoch);
    uint64_t offset = qn_random_below(&rng, slack + 1);
    uint64_t key = w->seed * 0x9E3779B97F4A7C15u + epoch;
    uint64_t at = offset + qn_permute(index % per_epoch, per_epoch, key) * w->positions;
    memcpy(ids, w->tokens + at, (size_t)w->positions * sizeof *ids);
    memcpy(labels, w->tokens + at + 1, (size_t)w->positions * sizeof *labels);
}

double qn_unigram_bits(const int32_t *train, uint64_t train_count, const int32_t *held,
                       uint64_t held_count, uint64_t held_bytes, int64_t vocab)
{
    double *count = qn_calloc((size_t)vocab, sizeof *count), bits = 0;
    if (!count || !held_bytes) {
        qn_free(count);
        return NAN;
    }
    for (uint64_t i = 0; i < train_count; i++) count[train[i]]++;
    double total = (double)train_count + (double)vocab;
    for (uint64_t i = 0; i < held_count; i++) bits -= log2((count[held[i]] + 1) / total);
    qn_free(count);
    return bits / (double)held_bytes;
}
