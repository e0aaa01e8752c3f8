// A process, a pipe, a clock.
#include "bench/child.h"

#include "io/textbuf.h"
#include "mem.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONGEST_LINE (1 << 20)

// Hands out whole lines; what is left stays.
static void take_lines(const qn_child *c, qn_textbuf *text)
{
    size_t at = 0;
    for (char *end; text->data && (end = memchr(text->data + at, '\n', text->size - at));) {
        *end = 0;
        c->line(c->user, text->data + at);
        at = (size_t)(end - text->data) + 1;
    }
    if (!at) return;
    memmove(text->data, text->data + at, text->size - at + 1);
    text->size -= at;
}

// Reads until the other end closes, the time is up, or nobody wants more.
static qn_child_end listen_to(const qn_child *c, int in, qn_textbuf *text)
{
    double spent = 0; // only while this process runs as well: both may be suspended for a while
    for (;;) {
        const double start = qn_clock();
        struct pollfd p = { .fd = in, .events = POLLIN };
        char piece[4096];
        int ready = poll(&p, 1, 100);
        if (c->go_on && !c->go_on()) return QN_CHILD_STOPPED;
        if (ready > 0) {
            ssize_t n = read(in, piece, sizeof piece);
            if (n == 0 || (n < 0 && errno != EINTR)) return QN_CHILD_EXITED;
            if (n > 0 && text->size < LONGEST_LINE) qn_textbuf_add(text, piece, (size_t)n);
            take_lines(c, text);
        }
        const double took = qn_clock() - start;
        spent += took < 0.2 ? took : 0.2;
        if (spent > c->limit) return QN_CHILD_LIMIT;
    }
}

// The exit of a child that has closed its pipe or was killed. One that a driver holds in the kernel
// is left behind after a while.
static qn_child_end reap(pid_t child, qn_child_end end, int *code)
{
    int status;
    if (end != QN_CHILD_EXITED) kill(child, SIGKILL);
    for (int i = 0; i < 500; i++) {
        pid_t got = waitpid(child, &status, WNOHANG);
        if (got == child) {
            if (end != QN_CHILD_EXITED) return end;
            *code = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
            return WIFEXITED(status) ? QN_CHILD_EXITED : QN_CHILD_SIGNAL;
        }
        if (got < 0 && errno != EINTR) break;
        if (i == 300) kill(child, SIGKILL);
        poll(NULL, 0, 10);
    }
    return end == QN_CHILD_EXITED ? QN_CHILD_LIMIT : end;
}

qn_result qn_child_run(const qn_child *c, qn_child_end *end, int *code)
{
    int ends[2];
    *code = 0;
    if (pipe(ends)) return qn_fail(QN_ERR_IO, "a pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        close(ends[0]);
        close(ends[1]);
        return qn_fail(QN_ERR_IO, "a process: %s", strerror(errno));
    }
    if (!child) {
        close(ends[0]);
        int nowhere = open("/dev/null", O_WRONLY); // compilers print what nobody asked for
        if (nowhere >= 0) dup2(nowhere, 1);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        _exit(c->work(c->user, ends[1])); // without closing what may hang
    }
    close(ends[1]);
    qn_textbuf text = { 0 };
    *end = listen_to(c, ends[0], &text);
    close(ends[0]);
    *end = reap(child, *end, code);
    qn_result r = qn_textbuf_status(&text);
    qn_textbuf_free(&text);
    return r;
}
