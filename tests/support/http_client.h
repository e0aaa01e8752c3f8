// A small blocking HTTP client for tests: one request per connection, or bytes as they are.
#ifndef QN_TEST_HTTP_CLIENT_H
#define QN_TEST_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static inline int http_connect(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = { .tv_sec = 400 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline bool http_send(int fd, const void *data, size_t size)
{
    for (const char *p = data; size;) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

// Everything up to the connection's end; free(). With a time limit set, being stopped and continued
// interrupts a call even without a handler (signal(7)).
static inline char *http_read_all(int fd, size_t *size)
{
    size_t cap = 4096, n = 0;
    char *text = malloc(cap + 1);
    for (ssize_t got; (got = recv(fd, text + n, cap - n, 0)) > 0 || (got < 0 && errno == EINTR);) {
        if (got < 0) continue;
        n += (size_t)got;
        if (n == cap) text = realloc(text, (cap *= 2) + 1);
    }
    text[n] = 0;
    if (size) *size = n;
    return text;
}

// Chunks of a chunked body put together, in place.
static inline void http_unchunk(char *body)
{
    char *out = body, *in = body;
    for (;;) {
        char *end;
        unsigned long n = strtoul(in, &end, 16);
        if (!n || strncmp(end, "\r\n", 2)) break;
        memmove(out, end + 2, n);
        out += n;
        in = end + 2 + n + 2;
    }
    *out = 0;
}

typedef struct http_answer {
    int status; // 0: there was none
    char *head, *body;
} http_answer;

static inline void http_free(http_answer *a)
{
    free(a->head);
    *a = (http_answer){ 0 };
}

// `headers` are whole lines. A body makes it a POST of JSON unless the headers name another type.
static inline http_answer http(int port, const char *method, const char *path, const char *headers,
                               const char *body)
{
    http_answer a = { 0 };
    char head[2048];
    int fd = http_connect(port);
    if (fd < 0) return a;
    int n = snprintf(head, sizeof head,
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s%s", method, path,
                     headers ? headers : "",
                     body && !(headers && strcasestr(headers, "content-type"))
                         ? "Content-Type: application/json\r\n"
                         : "");
    if (body)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    http_send(fd, head, (size_t)n);
    if (body) http_send(fd, body, strlen(body));
    a.head = http_read_all(fd, NULL);
    close(fd);
    sscanf(a.head, "HTTP/1.1 %d", &a.status);
    a.body = strstr(a.head, "\r\n\r\n");
    if (!a.body) {
        a.body = a.head + strlen(a.head);
        return a;
    }
    a.body[2] = 0;
    a.body += 4;
    if (strcasestr(a.head, "transfer-encoding: chunked")) http_unchunk(a.body);
    return a;
}

#endif
