// The HTTP side: connections, routes, keys, origins, limits. There is one only where libmicrohttpd
// was found when quoin was built.
#ifndef QN_SERVE_SERVER_H
#define QN_SERVE_SERVER_H

#include "serve/scheduler.h"

typedef struct qn_server qn_server;

typedef struct qn_server_opts {
    const char *host;           // NULL: "127.0.0.1"
    int port;                   // 0: any that is free
    const char *key;            // clients have to show it; NULL: none
    const char *const *origins; // of web pages that may use the server, beside this machine's and
    size_t origin_count;        // the server's own; "*": all
    uint64_t body;              // bytes of a request's body at most
    double client_seconds;      // that a client may be silent, or take to send its request
    int64_t connections;        // at once
} qn_server_opts;

// Listens, and answers /health with 503 until there is a model. QN_ERR_UNSUPPORTED without
// libmicrohttpd; QN_ERR_IO when the port is taken.
qn_result qn_server_start(const qn_server_opts *opts, qn_server **out);
int qn_server_port(const qn_server *s);
// Closes every connection. Not while qn_server_run() runs.
void qn_server_stop(qn_server **s);

// What is served.
typedef struct qn_served {
    const char *model; // its name for clients
    const qn_chat *chat;
    const qn_model_config *config;
    qn_request_limits limits;
    uint64_t weight_bytes;
    qn_scheduler_opts scheduler; // chat, model and hooks are filled in
    qn_scheduler_loop loop;
} qn_served;

// Serves on the calling thread until loop.stop() says so and what runs is finished; then refuses
// new connections and waits a moment for answers to leave.
qn_result qn_server_run(qn_server *s, const qn_served *what);

#endif
