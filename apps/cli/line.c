// Reading lines.
#include "cli/line.h"
#include "cli/term.h"
#include "fail.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef QN_HAVE_LIBEDIT
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>
#include <wchar.h>
#endif

enum { LONGEST = 1 << 20, RECALLED = 1000 };

struct qn_line {
    bool terminal;
    const char *prompt;
    char *file;
    char *text;
    size_t capacity;
#ifdef QN_HAVE_LIBEDIT
    EditLine *edit;
    History *history;
#endif
};

#ifdef QN_HAVE_LIBEDIT
static char *show_prompt(EditLine *e)
{
    qn_line *l = NULL;
    el_get(e, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

// One byte. A Ctrl-C that comes between the prompt and the read is not slept over: it is let in only
// while ppoll() waits.
static int read_byte(char *byte)
{
    sigset_t held, before;
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigprocmask(SIG_BLOCK, &held, &before);
    int ready = -1;
    do ready = qn_interrupted() ? -1 : ppoll(&p, 1, NULL, &before);
    while (ready < 0 && errno == EINTR && !qn_interrupted());
    int n = ready > 0 && !qn_interrupted() ? (int)read(STDIN_FILENO, byte, 1) : -1;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return n;
}

// A character for the editor: 1, 0 at the end, -1 after Ctrl-C. Bytes that are none are skipped.
static int read_character(EditLine *e, wchar_t *out)
{
    (void)e;
    mbstate_t state = { 0 };
    for (;;) {
        char byte;
        int n = read_byte(&byte);
        if (n <= 0) return n;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1) memset(&state, 0, sizeof state);
        if (used == 0 || used == 1) return 1;
    }
}

static void open_editor(qn_line *l)
{
    HistEvent event;
    setlocale(LC_CTYPE, ""); // what a character is; numbers stay as they are
    l->history = history_init();
    l->edit = el_init("quoin", stdin, stderr, stderr);
    if (!l->edit || !l->history) return;
    history(l->history, &event, H_SETSIZE, RECALLED);
    history(l->history, &event, H_SETUNIQUE, 1);
    if (l->file) history(l->history, &event, H_LOAD, l->file);
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT, show_prompt);
    el_set(l->edit, EL_GETCFN, read_character);
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_HIST, history, l->history);
    el_source(l->edit, NULL);
}

static const char *read_edited(qn_line *l)
{
    HistEvent event;
    int count = 0;
    const char *text = el_gets(l->edit, &count);
    if (!text || count <= 0) return NULL;
    if (strspn(text, " \t\r\n") < strlen(text)) {
        history(l->history, &event, H_ENTER, text);
        if (l->file) history(l->history, &event, H_SAVE, l->file);
    }
    return text;
}
#endif

qn_result qn_line_open(const char *file, qn_line **out)
{
    *out = NULL;
    qn_line *l = qn_calloc(1, sizeof *l);
    if (!l) return qn_no_memory(sizeof *l);
    l->terminal = qn_is_terminal(stdin) && qn_is_terminal(stderr);
    if (file && !(l->file = qn_strdup(file))) {
        qn_free(l);
        return qn_no_memory(strlen(file));
    }
#ifdef QN_HAVE_LIBEDIT
    if (l->terminal) open_editor(l);
#endif
    *out = l;
    return QN_OK;
}

void qn_line_close(qn_line **line)
{
    qn_line *l = *line;
    *line = NULL;
    if (!l) return;
#ifdef QN_HAVE_LIBEDIT
    if (l->edit) el_end(l->edit);
    if (l->history) history_end(l->history);
#endif
    qn_free(l->file);
    qn_free(l->text);
    qn_free(l);
}

// The whole line, however long up to the limit; what is beyond is the next one.
static const char *read_plain(qn_line *l)
{
    size_t n = 0;
    for (int c; n < LONGEST && (c = fgetc(stdin)) != EOF;) {
        if (qn_grow((void **)&l->text, &l->capacity, n + 2, 1) != QN_OK) return NULL;
        l->text[n++] = (char)c;
        l->text[n] = 0;
        if (c == '\n') break;
    }
    if (ferror(stdin)) clearerr(stdin); // interrupted
    return n && !qn_interrupted() ? l->text : NULL;
}

static const char *read_any(qn_line *l)
{
#ifdef QN_HAVE_LIBEDIT
    if (l->edit) return read_edited(l);
#endif
    if (l->terminal) {
        fputs(l->prompt, stderr);
        fflush(stderr);
    }
    return read_plain(l);
}

const char *qn_line_read(qn_line *l, const char *prompt)
{
    l->prompt = prompt;
    const char *read = read_any(l);
    if (!read) return NULL;
    size_t n = strlen(read);
    while (n && (read[n - 1] == '\n' || read[n - 1] == '\r')) n--;
    if (read != l->text) { // the editor's own
        if (qn_grow((void **)&l->text, &l->capacity, n + 1, 1) != QN_OK) return NULL;
        memcpy(l->text, read, n);
    }
    l->text[n] = 0;
    return l->text;
}
