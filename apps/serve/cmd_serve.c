// `quoin serve`: a model behind HTTP.
#include "cli/command.h"
#include "cli/term.h"
#include "fail.h"
#include "llm/generate.h"
#include "platform.h"
#include "serve/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct serve_opts {
    const char *host, *key_file, *name, *template, *memory;
    qn_opt_list origins;
    int64_t port, parallel, context, max_tokens, queue, connections;
    double seconds, client_seconds, drain;
    uint64_t body;
    int weights;
} serve_opts;

static const qn_opt options[] = {
    { "host", 0, QN_AT_STRING(serve_opts, host), .initial = "127.0.0.1",
      .help = "address to listen on; 0.0.0.0: every one of this machine's" },
    { "port", 'p', QN_AT_INT(serve_opts, port), .initial = "8080", .min = 0, .max = 65535,
      .help = "0: any that is free; standard output says which" },
    { "api-key-file", 0, QN_AT_PATH(serve_opts, key_file), .value = "FILE",
      .help = "the key that clients have to send; so does QUOIN_API_KEY in the environment" },
    { "origin", 0, QN_AT_LIST(serve_opts, origins), .value = "URL",
      .help = "web pages of other hosts that may use the server; *: all" },
    { "name", 0, QN_AT_STRING(serve_opts, name), .value = "NAME",
      .help = "what clients see as the model's name (default: the folder's)" },
    { "template", 0, QN_AT_STRING(serve_opts, template), .value = "NAME",
      .help = "how conversations are written: plain, chatml, llama3, phi3, zephyr or alpaca "
              "(default: as the folder says, else plain)" },
    { "memory", 'm', QN_AT_PATH(serve_opts, memory), .value = "FILE",
      .help = "what every answer starts from remembering; the file is not written" },
    { "parallel", 'n', QN_AT_INT(serve_opts, parallel), .initial = "4", .min = 1, .max = 256,
      .section = "Limits", .help = "answers written at once" },
    { "context", 'c', QN_AT_INT(serve_opts, context), .initial = "2048", .min = 2, .max = 1 << 22,
      .help = "tokens of prompt and answer together, for each" },
    { "max-tokens", 0, QN_AT_INT(serve_opts, max_tokens), .initial = "0", .min = 0, .max = 1 << 22,
      .help = "of an answer whose request does not say; 0: what the context holds" },
    { "queue", 0, QN_AT_INT(serve_opts, queue), .initial = "128", .min = 1, .max = 100000,
      .help = "requests that may wait; more are refused with status 503" },
    { "timeout", 0, QN_AT_FLOAT(serve_opts, seconds), .initial = "600", .min = 0, .max = 1e6,
      .help = "seconds that a request may take in all; 0: no limit" },
    { "client-timeout", 0, QN_AT_FLOAT(serve_opts, client_seconds), .initial = "30", .min = 1,
      .max = 3600, .help = "seconds that a client may be silent, or take to send its request" },
    { "drain", 0, QN_AT_FLOAT(serve_opts, drain), .initial = "30", .min = 0, .max = 3600,
      .help = "seconds for running answers when the server is told to stop" },
    { "body", 0, QN_AT_SIZE(serve_opts, body), .initial = "1M", .min = 1024, .max = 1 << 28,
      .help = "bytes of a request at most" },
    { "connections", 0, QN_AT_INT(serve_opts, connections), .initial = "512", .min = 4,
      .max = 65536, .help = "clients connected at once" },
    { "weights", 0, QN_AT_CHOICE(serve_opts, weights), .words = QN_WEIGHT_WORDS, .initial = "same",
      .section = "Model", .help = "how matrices are kept on the device; same: as in the files" },
    { 0 },
};

typedef struct serving {
    const qn_cli *cli;
    const serve_opts *o;
    qn_server *server;
    qn_context *ctx;
    qn_device *dev;
    qn_folder folder;
    qn_chat chat;
    qn_runner *runner;
    char key[256], name[256];
} serving;

enum { CHUNK = 64 };

static bool stopped(void *user)
{
    (void)user;
    return qn_interrupted();
}

// One line, without blanks around.
static qn_result read_key(serving *s)
{
    const char *given = getenv("QUOIN_API_KEY");
    char *text = NULL;
    size_t size;
    if (s->o->key_file) QN_TRY(qn_read_file(s->o->key_file, 4096, &text, &size));
    const char *key = text ? text : given ? given : "";
    key += strspn(key, " \t\r\n");
    size_t n = strcspn(key, " \t\r\n");
    qn_result r = QN_OK;
    if (key[n + strspn(key + n, " \t\r\n")] || n >= sizeof s->key)
        r = qn_fail(QN_ERR_INVALID,
                    "the API key: found several words or more than %zu bytes, "
                    "expected one word",
                    sizeof s->key - 1);
    else if (!n && (s->o->key_file || given))
        r = qn_fail(QN_ERR_INVALID, "the API key is empty");
    else
        memcpy(s->key, key, n);
    qn_free(text);
    return r;
}

// The folder's last name.
static void set_name(serving *s)
{
    const char *dir = s->cli->args[0];
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/') end--;
    size_t begin = end;
    while (begin && dir[begin - 1] != '/') begin--;
    snprintf(s->name, sizeof s->name, "%.*s", (int)(end - begin), dir + begin);
    if (s->o->name) snprintf(s->name, sizeof s->name, "%s", s->o->name);
}

static qn_result start_server(serving *s)
{
    const serve_opts *o = s->o;
    qn_server_opts opts = { .host = o->host,
                            .port = (int)o->port,
                            .key = *s->key ? s->key : NULL,
                            .origins = o->origins.items,
                            .origin_count = o->origins.count,
                            .body = o->body,
                            .client_seconds = o->client_seconds,
                            .connections = o->connections };
    return qn_server_start(&opts, &s->server);
}

static qn_result load_model(serving *s)
{
    const char *dir = s->cli->args[0];
    QN_TRY(qn_cli_open(s->cli, &s->ctx, &s->dev));
    QN_TRY(qn_folder_open(s->dev, dir, qn_weight_choice(s->o->weights), &s->folder));
    QN_TRY(qn_chat_open(dir, s->o->template, s->folder.tokenizer, s->folder.config.eos_token_id,
                        &s->chat));
    qn_runner_opts r = { .slots = s->o->parallel, .context = s->o->context, .chunk = CHUNK };
    uint8_t *usable = qn_folder_usable(&s->folder);
    if (!usable) return qn_no_memory((size_t)s->folder.config.vocab_size);
    r.usable = usable;
    qn_result result =
        qn_runner_create(s->dev, &s->folder.config, s->folder.weights, &r, &s->runner);
    qn_free(usable);
    if (result != QN_OK || !s->o->memory) return result;
    if (!qn_runner_remembers(s->runner))
        return qn_fail(QN_ERR_INVALID,
                       "%s: the model has no memory; quoin bricks add-memory gives "
                       "it one",
                       s->o->memory);
    for (int64_t i = 0; i < s->o->parallel; i++)
        QN_TRY(qn_runner_memory_load(s->runner, i, s->o->memory));
    return QN_OK;
}

static qn_result serve(serving *s)
{
    const serve_opts *o = s->o;
    const qn_model_config *c = &s->folder.config;
    qn_served what = {
        .model = s->name,
        .chat = &s->chat,
        .config = c,
        .limits = { .chat = &s->chat,
                    .vocab_size = c->vocab_size,
                    .bos = c->bos_token_id,
                    .context = o->context,
                    .max_tokens = o->max_tokens },
        .weight_bytes = qn_store_bytes(s->folder.weights),
        .scheduler = { .queue = o->queue,
                       .seconds = o->seconds,
                       .drain_seconds = o->drain,
                       .seed = (uint64_t)s->cli->seed },
        .loop = { .runner = s->runner, .chunk = CHUNK, .stop = stopped },
    };
    qn_cli_note(s->cli, "serving %s, template %s%s, %lld answers at once; Ctrl-C stops", s->name,
                qn_chat_format_name(s->chat.format),
                s->chat.named ? "" : " (the folder names none)", (long long)o->parallel);
    return qn_server_run(s->server, &what);
}

static int run(const qn_cli *cli, const void *opts)
{
    serving s = { .cli = cli, .o = opts };
    qn_interrupt_watch();
    qn_result r = read_key(&s);
    set_name(&s);
    if (r == QN_OK) r = start_server(&s);
    if (r == QN_OK) {
        printf("http://%s:%d\n", s.o->host, qn_server_port(s.server));
        fflush(stdout);
        r = load_model(&s);
    }
    if (r == QN_OK) r = serve(&s);
    int status = qn_cli_result(r);
    qn_server_stop(&s.server);
    qn_runner_destroy(&s.runner);
    qn_folder_close(&s.folder);
    qn_device_destroy(&s.dev);
    qn_context_destroy(&s.ctx);
    return status;
}

const qn_command qn_command_serve = {
    .args = "FOLDER",
    .args_min = 1,
    .args_max = 1,
    .about = "Serves the model in FOLDER over HTTP, in the manner of the OpenAI API: "
             "/v1/chat/completions, /v1/completions (both streaming or not), /v1/models, and "
             "/health, /metrics, /tokenize, /detokenize; docs/serve.md lists what they take. At / "
             "there is a page to chat in a browser. Several requests are answered at once, more "
             "wait in a queue, and a client that leaves cancels its request.\n\n"
             "The address goes to standard output as soon as connections are taken; until the "
             "model is loaded they are answered with status 503. Ctrl-C or SIGTERM stops taking "
             "requests and finishes those that run; a second one ends the program at once.\n\n"
             "Only this machine can connect unless --host says otherwise; then set a key, and put "
             "a proxy with TLS before the server: it speaks plain HTTP.",
    .examples = "quoin serve run/demo\n"
                "quoin serve run/demo --port 9000 --parallel 8 --context 4096\n"
                "QUOIN_API_KEY=secret quoin serve run/demo --host 0.0.0.0",
    .options = options,
    .opts_size = sizeof(serve_opts),
    .run = run,
};
