// The pipeline of a merge: while one tensor is computed, the next is read and the one before is
// written. Results go into shards that become visible one by one.
#include "merge.h"

#include "io/map.h"
#include "platform.h"
#include "vocabulary.h"
#include "worker.h"

#include <stdio.h>
#include <string.h>

#define STATE "quoin_merge.partial.json"

typedef struct run run;
typedef struct item { // a tensor, or a piece of one
    qn_merge_tensor tensor;
    bool begins; // an output tensor
} item;
typedef struct stage { // what a worker is given
    run *r;
    const item *item;
    int set;
} stage;

struct run {
    const qn_merge_opts *opts;
    qn_merge_plan plan;
    qn_merge_stats *stats;
    qn_blend *blend;
    qn_safetensors_writer *writer;
    qn_worker *reader, *author;
    qn_strmap names; // output by name
    stage reading, writing;
    item *items; // in the order of the writer
    size_t item_count, item_capacity;
    uint64_t done, kept;
};

// ---------------------------------------------------------------------------------- state

static uint64_t fnv64(uint64_t h, const char *s)
{
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3u;
    return (h ^ 0xff) * 0x100000001B3u;
}

// Everything that decides the bytes of the result.
static void fingerprint(const run *r, const char *text, char out[24])
{
    char line[512];
    uint64_t h = fnv64(0xCBF29CE484222325u, qn_version());
    h = fnv64(h, text);
    h = fnv64(h, r->plan.recipe->name ? r->plan.recipe->name : "");
    snprintf(line, sizeof line, "%llu %llu", (unsigned long long)r->opts->plan.seed,
             (unsigned long long)r->opts->shard_size);
    h = fnv64(h, line);
    for (size_t i = 0; i < r->plan.model_count; i++) {
        const qn_checkpoint *c = &r->plan.models[i];
        h = fnv64(h, c->dir);
        for (size_t k = 0; k < qn_safetensors_count(c->weights); k++)
            h = fnv64(h, qn_safetensors_at(c->weights, k)->name);
        static const char *const files[] = { "config.json", "model.safetensors",
                                             "model.safetensors.index.json", "tokenizer.json" };
        for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
            char *path = qn_path_join(c->dir, files[k]);
            snprintf(line, sizeof line, "%llu",
                     (unsigned long long)(path ? qn_file_time(path) : 0));
            h = fnv64(h, line);
            qn_free(path);
        }
    }
    snprintf(out, 24, "%016llx", (unsigned long long)h);
}

static bool same_state(const char *path, const char *print)
{
    qn_json_doc *doc;
    const char *found = "";
    if (!qn_file_exists(path) || qn_json_open(path, NULL, &doc) != QN_OK) return false;
    bool same = qn_json_string(qn_json_root(doc), "fingerprint", &found) == QN_OK &&
                strcmp(found, print) == 0;
    qn_json_close(&doc);
    return same;
}

static qn_result save_state(const char *path, const char *print)
{
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "fingerprint", print);
    qn_json_put_string(&w, "quoin_version", qn_version());
    qn_json_put_end(&w, '}');
    return qn_json_save(&w, path);
}

static bool is_weights(const char *name)
{
    size_t n = strlen(name);
    bool shard =
        strncmp(name, "model", 5) == 0 &&
        (strstr(name, ".safetensors") || strcmp(name, "model.safetensors.index.json") == 0);
    return shard || (n > 4 && strncmp(name, "pytorch_model", 13) == 0);
}

// Removes what earlier runs have left: all of it, or (resuming) pieces of files only.
static qn_result clear(const char *dir, bool pieces_only)
{
    char **names;
    size_t count;
    QN_TRY(qn_list_dir(dir, &names, &count));
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        size_t n = strlen(names[i]);
        bool piece = n > 4 && strcmp(names[i] + n - 4, ".tmp") == 0;
        if (!is_weights(names[i]) || (pieces_only && !piece)) continue;
        char *path = qn_path_join(dir, names[i]);
        r = path ? qn_remove_tree(path) : qn_no_memory(n);
        qn_free(path);
    }
    qn_free_names(names, count);
    return r;
}

static qn_result check_folder(const run *r, bool resumed)
{
    const char *out = r->opts->out;
    for (size_t i = 0; i < r->plan.model_count; i++)
        if (qn_same_file(out, r->plan.models[i].dir))
            return qn_fail(QN_ERR_INVALID, "the output folder %s is one of the merged models", out);
    if (!qn_is_dir(out)) return QN_OK;
    char **names;
    size_t count;
    bool weights = false, ours = resumed || r->opts->force;
    QN_TRY(qn_list_dir(out, &names, &count));
    for (size_t i = 0; i < count; i++) {
        weights |= is_weights(names[i]);
        ours |= strcmp(names[i], "quoin_merge.json") == 0 || strcmp(names[i], STATE) == 0;
    }
    qn_free_names(names, count);
    if (!weights || ours) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "%s holds a model that is no merge; --force replaces it", out);
}

static qn_result prepare_folder(run *r, const char *text)
{
    char print[24], *path = qn_path_join(r->opts->out, STATE);
    if (!path) return qn_no_memory(1);
    fingerprint(r, text, print);
    bool resumed = same_state(path, print);
    qn_result result = check_folder(r, resumed);
    if (result == QN_OK) result = qn_make_dirs(r->opts->out);
    uint64_t room = result == QN_OK ? qn_disk_free(r->opts->out) : 0;
    if (result == QN_OK && !resumed && r->plan.written > room)
        result = qn_fail(QN_ERR_IO, "%s: %.2f GB are needed, %.2f GB are free", r->opts->out,
                         (double)r->plan.written / 1e9, (double)room / 1e9);
    if (result == QN_OK) result = clear(r->opts->out, resumed);
    if (result == QN_OK) result = save_state(path, print);
    qn_free(path);
    return result;
}

// ---------------------------------------------------------------------------------- pipeline

static qn_result declare_outputs(run *r)
{
    for (size_t i = 0; i < r->plan.count; i++) {
        const qn_merge_tensor *t = &r->plan.outputs[i].tensor;
        uint32_t found;
        QN_TRY(qn_safetensors_add(r->writer, t->name, t->stored, t->rank, t->dim));
        QN_TRY(qn_strmap_add(&r->names, t->name, strlen(t->name), (uint32_t)i, &found));
    }
    return QN_OK;
}

static const qn_merge_output *output_of(const run *r, const char *name)
{
    return &r->plan.outputs[qn_strmap_find(&r->names, name, strlen(name))];
}

static qn_result read_stage(void *arg)
{
    stage *s = arg;
    return qn_merge_fill(s->r->blend, s->set, &s->item->tensor);
}

// The bytes of a result: in the blend's output, or those of the first source as they are.
static qn_result write_stage(void *arg)
{
    enum { PIECE = 16 << 20 };
    stage *s = arg;
    const qn_merge_tensor *t = &s->item->tensor;
    const char *data =
        t->copied ? t->sources[0].tensor->data : qn_blend_result(s->r->blend, s->set);
    uint64_t size = qn_merge_out_bytes(t);
    for (uint64_t at = 0; at < size; at += PIECE)
        QN_TRY(
            qn_safetensors_write(s->r->writer, data + at, size - at < PIECE ? size - at : PIECE));
    if (t->copied) qn_map_release(data, size);
    return QN_OK;
}

static void report(run *r, const qn_merge_tensor *t)
{
    for (size_t i = 0; i < t->count; i++) r->done += t->sources[i].tensor->size;
    r->done += qn_merge_out_bytes(t);
    qn_merge_progress p = { r->done, r->plan.read + r->plan.written, t->name };
    if (r->opts->progress) r->opts->progress(r->opts->user, &p);
}

// Starts reading an item; NULL: none is left.
static qn_result read_ahead(run *r, const item *i, int set)
{
    if (!i) return QN_OK;
    QN_TRY(qn_merge_reserve_inputs(r->blend, set, &i->tensor));
    r->reading = (stage){ r, i, set };
    qn_worker_post(r->reader, read_stage, &r->reading);
    return QN_OK;
}

static qn_result add_item(run *r, const qn_merge_tensor *t, bool begins)
{
    QN_TRY(qn_grow((void **)&r->items, &r->item_capacity, r->item_count + 1, sizeof *r->items));
    r->items[r->item_count++] = (item){ *t, begins };
    return QN_OK;
}

// Where every element stands for itself, pieces keep buffers small and the three stages busy.
static qn_result add_pieces(run *r, const qn_merge_tensor *t)
{
    const uint64_t piece = (uint64_t)1 << 22; // elements
    if (t->out_count <= piece || !qn_merge_divisible(t)) return add_item(r, t, true);
    for (uint64_t at = 0; at < t->out_count; at += piece) {
        qn_merge_tensor part;
        qn_tensor_source *sources = qn_arena_alloc(&r->plan.arena, t->count * sizeof *sources);
        qn_safetensor *views = qn_arena_alloc(&r->plan.arena, t->count * sizeof *views);
        if (!sources || !views) return qn_no_memory(t->count * sizeof *views);
        uint64_t count = t->out_count - at < piece ? t->out_count - at : piece;
        qn_merge_piece(t, at, count, sources, views, &part);
        QN_TRY(add_item(r, &part, at == 0));
    }
    return QN_OK;
}

// The order of outputs is the writer's. It hands out one at a time, while reading is one ahead: so
// it is asked for all of them first.
static qn_result order_outputs(run *r, size_t *count)
{
    for (*count = 0;; ++*count) {
        const char *name = qn_safetensors_due(r->writer, *count);
        if (!name) return QN_OK;
        QN_TRY(add_pieces(r, &output_of(r, name)->tensor));
    }
}

// Room for the largest items at once: buffers that grow bit by bit are filled with zeros each time.
static qn_result reserve(run *r)
{
    for (size_t set = 0; set < QN_BLEND_SETS; set++) {
        const qn_merge_tensor *in = NULL, *out = NULL;
        for (size_t i = set; i < r->item_count; i += QN_BLEND_SETS) {
            const qn_merge_tensor *t = &r->items[i].tensor;
            if (t->copied) continue;
            if (!in || qn_merge_slot_bytes(t) > qn_merge_slot_bytes(in)) in = t;
            if (!out || qn_merge_out_bytes(t) > qn_merge_out_bytes(out)) out = t;
        }
        if (!in) continue;
        QN_TRY(qn_merge_reserve_inputs(r->blend, (int)set, in));
        QN_TRY(qn_merge_reserve_output(r->blend, (int)set, out));
    }
    return QN_OK;
}

static qn_result pipeline(run *r)
{
    QN_TRY(reserve(r));
    QN_TRY(read_ahead(r, r->item_count ? r->items : NULL, 0));
    for (size_t i = 0; i < r->item_count; i++) {
        const qn_safetensor *due;
        const item *now = &r->items[i];
        int set = (int)(i % QN_BLEND_SETS);
        QN_TRY(qn_worker_wait(r->reader));
        QN_TRY(read_ahead(r, i + 1 < r->item_count ? now + 1 : NULL, 1 - set));
        // The output of this set was written two items ago: waited for below.
        QN_TRY(qn_merge_reserve_output(r->blend, set, &now->tensor));
        QN_TRY(qn_merge_compute(r->blend, set, &now->tensor));
        QN_TRY(qn_worker_wait(r->author));
        if (now->begins) QN_TRY(qn_safetensors_next(r->writer, &due));
        r->writing = (stage){ r, now, set };
        qn_worker_post(r->author, write_stage, &r->writing);
        report(r, &now->tensor);
        if (r->opts->stop && r->opts->stop()) {
            QN_TRY(qn_worker_wait(r->author));
            return qn_fail(QN_ERR_CANCELLED, "stopped; the same command goes on from here");
        }
    }
    return qn_worker_wait(r->author);
}

static qn_result write_tensors(run *r)
{
    const qn_st_meta meta[] = { { "format", "pt" } };
    char *path = qn_path_join(r->opts->out, "model.safetensors");
    if (!path) return qn_no_memory(1);
    qn_result result = qn_safetensors_create(
        path,
        &(qn_safetensors_opts){
            .meta = meta, .meta_count = 1, .shard_limit = r->opts->shard_size, .by_shard = true },
        &r->writer);
    qn_free(path);
    QN_TRY(result);
    QN_TRY(declare_outputs(r));
    size_t count = 0;
    result = order_outputs(r, &count);
    r->stats->kept = r->plan.count - count;
    qn_safetensors_total(r->writer, &r->kept);
    r->done = r->kept;
    if (result == QN_OK) result = pipeline(r);
    if (result == QN_OK) r->stats->tensors = count;
    // Workers use what follows: they have to be idle before it goes.
    if (r->reader) (void)qn_worker_wait(r->reader);
    if (result != QN_OK) {
        char message[1024];
        snprintf(message, sizeof message, "%s", qn_error_message());
        if (r->author) (void)qn_worker_wait(r->author);
        (void)qn_fail(result, "%s", message);
    }
    return result == QN_OK ? qn_safetensors_commit(&r->writer) : result;
}

static qn_result save_files(run *r, const char *text)
{
    const char *out = r->opts->out;
    QN_TRY(qn_merge_save_config(&r->plan, out));
    if (!r->opts->no_tokenizer) QN_TRY(qn_merge_save_tokenizer(&r->plan, out));
    if (!r->opts->no_card) QN_TRY(qn_merge_save_card(&r->plan, text, out));
    char *path = qn_path_join(out, "mergekit_config.yml");
    qn_result result = path ? qn_write_file(path, text, strlen(text)) : qn_no_memory(1);
    qn_free(path);
    QN_TRY(result);
    return qn_merge_save_audit(&r->plan, out);
}

static void measure(run *r)
{
    uint64_t most = 0, bound = 0;
    for (size_t i = 0; i < r->plan.count; i++) {
        const qn_merge_tensor *t = &r->plan.outputs[i].tensor;
        uint64_t inputs = 0, largest = qn_merge_out_bytes(t);
        for (size_t k = 0; k < t->count; k++) {
            inputs++;
            if (t->sources[k].tensor->size > largest) largest = t->sources[k].tensor->size;
        }
        if (3 * largest * inputs > bound) bound = 3 * largest * inputs;
        if (qn_merge_out_bytes(t) > most) most = qn_merge_out_bytes(t);
    }
    r->stats->bound = bound + most;
    r->stats->read = r->plan.read;
    r->stats->written = r->plan.written;
}

static qn_result run_all(run *r, qn_device *dev, const char *text)
{
    QN_TRY(prepare_folder(r, text));
    QN_TRY(qn_blend_create(dev, &r->blend));
    qn_blend_window(r->blend, r->opts->window);
    QN_TRY(qn_worker_start(&r->reader));
    QN_TRY(qn_worker_start(&r->author));
    QN_TRY(write_tensors(r));
    QN_TRY(save_files(r, text));
    char *state = qn_path_join(r->opts->out, STATE);
    qn_result result = state ? qn_remove_tree(state) : qn_no_memory(1);
    qn_free(state);
    return result;
}

qn_result qn_merge_run(qn_device *dev, const qn_recipe *recipe, const char *text,
                       const qn_merge_opts *opts, qn_merge_stats *stats)
{
    run r = { .opts = opts, .stats = stats };
    double start = qn_clock();
    *stats = (qn_merge_stats){ 0 };
    QN_TRY(qn_merge_plan_make(recipe, &opts->plan, &r.plan));
    measure(&r);
    qn_result result = run_all(&r, dev, text);
    qn_worker_stop(&r.reader);
    qn_worker_stop(&r.author);
    qn_safetensors_abandon(&r.writer);
    if (r.blend) stats->device_peak = qn_blend_peak(r.blend);
    qn_blend_destroy(&r.blend);
    qn_strmap_free(&r.names);
    qn_free(r.items);
    qn_merge_plan_free(&r.plan);
    stats->seconds = qn_clock() - start;
    return result;
}
