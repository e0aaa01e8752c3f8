// `quoin bricks index`: which plugin suits a text.
#include "bricks/delta.h"
#include "bricks/instances.h"
#include "bricks/probe.h"
#include "bricks/score.h"
#include "cli/command.h"
#include "cli/report.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <quoin/io.h>
#include <quoin/ops.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct index_opts {
    const char *model, *query;
    int64_t top, length;
    double least;
} index_opts;

static const qn_opt options[] = {
    { "model", 'm', QN_AT_PATH(index_opts, model), .value = "MODEL",
      .help = "the model that reads the examples" },
    { "length", 'l', QN_AT_INT(index_opts, length), .initial = "64", .min = 2, .max = 65536,
      .help = "tokens of an example at most" },
    { "query", 0, QN_AT_STRING(index_opts, query), .value = "TEXT", .section = "Retrieval",
      .help = "show which plugins suit this text, from an index made before" },
    { "top", 't', QN_AT_INT(index_opts, top), .initial = "3", .min = 1, .max = 10000,
      .help = "how many at most" },
    { "min", 0, QN_AT_FLOAT(index_opts, least), .initial = "0", .min = -1, .max = 1,
      .help = "cosine that a plugin needs" },
    { 0 },
};

enum { ROWS = 4 };

// Adds to sum[C] the mean final state of each instance of a function; returns how many there were.
static qn_result add_states(qn_probe *p, const qn_instances *in, size_t length, size_t width,
                            double *sums, double *counts)
{
    const size_t N = ROWS * length;
    int32_t *ids = qn_malloc(N * sizeof *ids), *labels = qn_malloc(N * sizeof *labels);
    float *h = qn_malloc(N * width * sizeof *h);
    qn_result r = ids && labels && h ? QN_OK : qn_no_memory(N * width * sizeof *h);
    for (size_t first = 0; r == QN_OK && first < in->count; first += ROWS) {
        const size_t placed = qn_instances_batch(in, first, ROWS, length, ids, labels);
        r = qn_probe_run(p, ids, labels);
        if (r == QN_OK) r = qn_probe_final(p, h);
        for (size_t row = 0; r == QN_OK && row < placed; row++) {
            const qn_instance *one = &in->items[first + row];
            counts[one->function]++;
            for (size_t i = 0; i < one->count * width; i++)
                sums[(size_t)one->function * width + i % width] +=
                    (double)h[row * length * width + i] / (double)one->count;
        }
    }
    qn_free(ids);
    qn_free(labels);
    qn_free(h);
    return r;
}

// vectors [functions, C], each of length 1.
static qn_result vectors_of(qn_device *dev, const qn_folder *f, const qn_instances *in, size_t length,
                            float **out)
{
    const size_t C = (size_t)f->config.n_embd, n = in->function_count;
    qn_probe *p = NULL;
    double *sums = qn_calloc(n * C, sizeof *sums), *counts = qn_calloc(n, sizeof *counts);
    float *v = qn_malloc(n * C * sizeof *v);
    qn_result r = sums && counts && v ? QN_OK : qn_no_memory(n * C * sizeof *sums);
    if (r == QN_OK) r = qn_probe_create(dev, f, ROWS, (int64_t)length, QN_PROBE_FINAL, &p);
    if (r == QN_OK) r = add_states(p, in, length, C, sums, counts);
    for (size_t k = 0; r == QN_OK && k < n; k++) {
        double norm = 0;
        for (size_t i = 0; i < C; i++) norm += sums[k * C + i] * sums[k * C + i];
        norm = norm > 0 ? sqrt(norm) : 1;
        for (size_t i = 0; i < C; i++) v[k * C + i] = (float)(sums[k * C + i] / norm);
    }
    qn_probe_destroy(&p);
    qn_free(sums);
    qn_free(counts);
    if (r == QN_OK)
        *out = v;
    else
        qn_free(v);
    return r;
}

static qn_result save_vectors(const char *path, const float *v, size_t n, size_t C)
{
    qn_safetensors_writer *w;
    const qn_safetensor *t;
    const int64_t dim[2] = { (int64_t)n, (int64_t)C };
    QN_TRY(qn_safetensors_create(path, NULL, &w));
    qn_result r = qn_safetensors_add(w, "vectors", QN_ST_F32, 2, dim);
    if (r == QN_OK) r = qn_safetensors_next(w, &t);
    if (r == QN_OK) r = qn_safetensors_write(w, v, n * C * sizeof *v);
    if (r == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return r;
}

static qn_result save_names(const char *path, const char *model, const qn_instances *in)
{
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "model", model);
    qn_json_put_array(&w, "bricks");
    for (size_t i = 0; i < in->function_count; i++) {
        size_t examples = 0;
        for (size_t k = 0; k < in->count; k++) examples += in->items[k].function == (int)i;
        qn_json_put_object(&w, NULL);
        qn_json_put_string(&w, "name", in->functions[i]);
        qn_json_put_int(&w, "examples", (int64_t)examples);
        qn_json_put_end(&w, '}');
    }
    qn_json_put_end(&w, ']');
    qn_json_put_end(&w, '}');
    return qn_json_save(&w, path);
}

static qn_result make_index(const qn_cli *cli, const index_opts *o, qn_device *dev,
                            const qn_folder *f, const char *vectors, const char *names)
{
    qn_instances in;
    float *v = NULL;
    QN_TRY(qn_instances_open(cli->args[0], f->tokenizer, (size_t)o->length, 0, &in));
    qn_result r = vectors_of(dev, f, &in, (size_t)o->length, &v);
    if (r == QN_OK)
        r = save_vectors(vectors, v, in.function_count, (size_t)f->config.n_embd);
    if (r == QN_OK) r = save_names(names, o->model, &in);
    if (r == QN_OK)
        qn_cli_note(cli, "%zu plugins by %zu examples: %s", in.function_count, in.count, vectors);
    qn_free(v);
    qn_instances_close(&in);
    return r;
}

// ------------------------------------------------------------------------------ retrieval

// The query as one instance of one function.
static qn_result query_vector(const index_opts *o, qn_device *dev, const qn_folder *f, float **out)
{
    qn_instance one = { 0 };
    qn_instances in = { .function_count = 1, .items = &one, .count = 1 };
    const qn_encode_opts plain = { .plain = true };
    qn_result r = qn_tokenizer_encode(f->tokenizer, o->query, strlen(o->query), &plain, &in.tokens);
    one.count = in.tokens.count < (size_t)o->length ? in.tokens.count : (size_t)o->length;
    if (r == QN_OK && !one.count) r = qn_fail(QN_ERR_INVALID, "--query is empty");
    if (r == QN_OK) r = vectors_of(dev, f, &in, (size_t)o->length, out);
    qn_tokens_free(&in.tokens);
    return r;
}

static qn_result show(const qn_cli *cli, const index_opts *o, const double *cosine, const char **name,
                      size_t n)
{
    static const qn_column columns[] = { { .key = "plugin" },
                                         { .key = "cosine", .type = QN_COLUMN_REAL },
                                         { .key = "weight", .type = QN_COLUMN_REAL } };
    uint32_t *order = qn_malloc((n + 1) * sizeof *order);
    qn_report *report = NULL;
    qn_result r = order ? qn_score_order(cosine, n, order) : qn_no_memory(n * sizeof *order);
    size_t kept = 0;
    double sum = 0;
    while (r == QN_OK && kept < n && kept < (size_t)o->top && cosine[order[kept]] >= o->least)
        sum += exp((cosine[order[kept++]] - cosine[order[0]]) / 0.05);
    if (r == QN_OK)
        r = qn_report_open(stdout, cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, 3, &report);
    for (size_t i = 0; r == QN_OK && i < kept; i++)
        r = qn_report_row(report,
                          (qn_value[]){ QN_TEXT(name[order[i]]), QN_REAL(cosine[order[i]]),
                                        QN_REAL(exp((cosine[order[i]] - cosine[order[0]]) / 0.05) /
                                                sum) });
    qn_result closed = report ? qn_report_close(&report) : QN_OK;
    qn_free(order);
    return r == QN_OK ? closed : r;
}

static qn_result rank(const qn_cli *cli, const index_opts *o, const float *q, size_t C,
                      const qn_safetensors *s, qn_json names)
{
    const qn_safetensor *t = qn_safetensors_find(s, "vectors");
    qn_json list;
    QN_TRY(qn_json_array(names, "bricks", &list));
    const size_t n = qn_json_count(list);
    if (!t || t->dtype != QN_ST_F32 || t->rank != 2 || (size_t)t->dim[0] != n ||
        (size_t)t->dim[1] != C)
        return qn_json_fail(names, "its vectors are not %zu of width %zu; make the index anew", n, C);
    double *cosine = qn_calloc(n + 1, sizeof *cosine);
    const char **name = qn_calloc(n + 1, sizeof *name);
    float *row = qn_malloc(C * sizeof *row);
    qn_result r = cosine && name && row ? QN_OK : qn_no_memory(n * sizeof *cosine);
    size_t i = 0;
    for (qn_json v = qn_json_first(list); r == QN_OK && v.node; v = qn_json_next(v), i++) {
        r = qn_json_string(v, "name", &name[i]);
        if (r == QN_OK) r = qn_safetensor_f32(t, i * C, C, row);
        for (size_t k = 0; r == QN_OK && k < C; k++) cosine[i] += (double)row[k] * (double)q[k];
    }
    if (r == QN_OK) r = show(cli, o, cosine, name, n);
    qn_free(cosine);
    qn_free(name);
    qn_free(row);
    return r;
}

static qn_result retrieve(const qn_cli *cli, const index_opts *o, qn_device *dev, const qn_folder *f,
                          const char *vectors, const char *names)
{
    qn_json_doc *doc = NULL;
    qn_safetensors *s = NULL;
    float *q = NULL;
    qn_result r = qn_json_open(names, NULL, &doc);
    if (r == QN_OK) r = qn_safetensors_open(vectors, &s);
    if (r == QN_OK) r = query_vector(o, dev, f, &q);
    if (r == QN_OK) r = rank(cli, o, q, (size_t)f->config.n_embd, s, qn_json_root(doc));
    qn_free(q);
    qn_safetensors_close(&s);
    qn_json_close(&doc);
    return r;
}

static int run(const qn_cli *cli, const void *opts)
{
    const index_opts *o = opts;
    if (!o->model) return qn_cli_misuse(cli, "--model MODEL is missing: what reads the examples");
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    qn_folder f = { 0 };
    char *vectors = qn_path_join(cli->args[0], "bricks_index.safetensors");
    char *names = qn_path_join(cli->args[0], "bricks_index.json");
    qn_result r = vectors && names ? qn_cli_open(cli, &ctx, &dev) : qn_no_memory(64);
    if (r == QN_OK) r = qn_folder_open(dev, o->model, QN_F32, &f);
    if (r == QN_OK)
        r = o->query ? retrieve(cli, o, dev, &f, vectors, names)
                     : make_index(cli, o, dev, &f, vectors, names);
    qn_folder_close(&f);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    qn_free(vectors);
    qn_free(names);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_index = {
    .args = "DIR",
    .args_min = 1,
    .args_max = 1,
    .about = "Makes an index of the plugins (differences, adapters) in a folder: for each NAME.txt or "
             "NAME.jsonl with examples of what plugin NAME is for, the mean final state of the model "
             "on them, in bricks_index.safetensors and bricks_index.json. With --query it shows which "
             "of them suit a text: cosine, and weights softmax(cosine / 0.05).",
    .examples = "quoin bricks index plugins --model run/book\n"
                "quoin bricks index plugins --model run/book --query 'int main(void)' --top 2",
    .options = options,
    .opts_size = sizeof(index_opts),
    .run = run,
};
