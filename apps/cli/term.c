// Terminal width, interrupts and closed pipes, for POSIX systems and Windows.
#include "cli/term.h"

#include <signal.h>
#include <stdlib.h>

#ifdef _WIN32
#include <io.h>
#include <windows.h>
#else
#include <sys/ioctl.h>
#include <unistd.h>
#endif

static volatile sig_atomic_t interrupted, pipe_closed;

bool qn_is_terminal(FILE *f)
{
#ifdef _WIN32
    return _isatty(_fileno(f));
#else
    return isatty(fileno(f));
#endif
}

int qn_terminal_width(FILE *f)
{
    int width = 0;
#ifdef _WIN32
    CONSOLE_SCREEN_BUFFER_INFO info;
    HANDLE h = (HANDLE)_get_osfhandle(_fileno(f));
    if (GetConsoleScreenBufferInfo(h, &info)) width = info.srWindow.Right - info.srWindow.Left + 1;
#else
    struct winsize size;
    if (ioctl(fileno(f), TIOCGWINSZ, &size) == 0) width = size.ws_col;
#endif
    return width > 0 ? width : 80;
}

static void on_signal(int number)
{
    interrupted = number;
    signal(number, SIG_DFL); // the second one ends the process
}

void qn_interrupt_watch(void)
{
#ifdef _WIN32
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
#else
    // No SA_RESTART: a blocked read returns, and the caller looks at the flag.
    struct sigaction action = { .sa_handler = on_signal };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
#endif
}

bool qn_interrupted(void)
{
    return interrupted != 0;
}

bool qn_interrupt_take(void)
{
    if (interrupted != SIGINT) return false;
    interrupted = 0;
    qn_interrupt_watch();
    return true;
}

#ifndef _WIN32
static void on_closed_pipe(int number)
{
    (void)number;
    pipe_closed = 1;
}
#endif

void qn_survive_closed_pipes(void)
{
#ifndef _WIN32
    struct sigaction action = { .sa_handler = on_closed_pipe, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGPIPE, &action, NULL);
#endif
}

bool qn_pipe_closed(void)
{
    return pipe_closed != 0;
}
