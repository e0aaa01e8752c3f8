// The inside of the server: a request on its way through the routes. server.c knows HTTP, routes.c
// knows what each path does.
#ifndef QN_SERVE_VISIT_H
#define QN_SERVE_VISIT_H

#include "serve/server.h"

#include <stdatomic.h>

struct MHD_Connection;

typedef enum qn_route_id {
#define QN_ROUTE(id, path, alias, method, flags) QN_ROUTE_##id,
#include "serve/routes.def"
#undef QN_ROUTE
    QN_ROUTE_COUNT
} qn_route_id;

enum { QN_ROUTE_OPEN = 1, QN_ROUTE_EARLY = 2 }; // flags: no key needed; no model needed

typedef struct qn_visit qn_visit;
typedef struct qn_path {
    const char *path, *alias; // alias may be NULL
    const char *method;       // "GET" or "POST"
    int flags;
    void (*handle)(qn_visit *v); // leaves an answer or a job
} qn_path;
extern const qn_path qn_paths[QN_ROUTE_COUNT];

struct qn_visit {
    qn_server *s;
    struct MHD_Connection *connection;
    int fd;
    const qn_path *route; // NULL: no such path
    double started;
    char line[256]; // method and path, for the log
    // The body, and whether it is more than it may be.
    qn_textbuf body;
    uint64_t received;
    // The answer: a text, or what the job says.
    int status;
    const char *type; // NULL: JSON
    qn_textbuf out;
    qn_job *job;
    bool queued; // handed to the HTTP library
};

// Answers so far, for /metrics: by route (the last one: no such path) and hundred of the status.
typedef struct qn_http_figures {
    atomic_llong answers[QN_ROUTE_COUNT + 1][6];
    atomic_llong visits; // being answered
} qn_http_figures;

// What is served at present; NULL while the model is being loaded.
const qn_served *qn_server_served(const qn_server *s);
qn_scheduler *qn_server_scheduler(const qn_server *s);
const qn_http_figures *qn_server_figures(const qn_server *s);
double qn_server_age(const qn_server *s); // seconds since the start

// Leaves an error as the answer; code may be NULL.
void qn_visit_fail(qn_visit *v, int status, const char *code, const char *fmt, ...) QN_PRINTF(4, 5);
// The same with this thread's message and the status that fits the result.
void qn_visit_fail_result(qn_visit *v, qn_result r, const char *code);

#endif
