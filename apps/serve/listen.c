// Sockets, as POSIX has them.
#include "listen.h"
#include "fail.h"

#ifndef _WIN32
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static int open_one(const struct addrinfo *a)
{
    const int yes = 1;
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0) return -1;
    // Addresses of connections that ended a moment ago are no obstacle; another server is.
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 256) == 0) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static qn_result explain(const char *host, int port, int why)
{
    if (why == EADDRINUSE)
        return qn_fail(QN_ERR_IO,
                       "%s, port %d: another program listens there; choose another one "
                       "with --port",
                       host, port);
    if (why == EACCES)
        return qn_fail(QN_ERR_IO,
                       "%s, port %d: not allowed; ports below 1024 are the system's, "
                       "choose another one with --port",
                       host, port);
    return qn_fail(QN_ERR_IO, "%s, port %d: %s", host, port, strerror(why));
}

static int port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t size = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

qn_result qn_listen(const char *host, int port, int *fd, int *bound, bool *loopback)
{
    char service[16];
    struct addrinfo *list;
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    snprintf(service, sizeof service, "%d", port);
    int e = getaddrinfo(host, service, &hints, &list);
    if (e) return qn_fail(QN_ERR_IO, "--host %s: %s", host, gai_strerror(e));
    int found = -1;
    for (const struct addrinfo *a = list; a && found < 0; a = a->ai_next) {
        found = open_one(a);
        if (found >= 0) *loopback = is_loopback(a->ai_addr);
    }
    int why = errno;
    freeaddrinfo(list);
    if (found < 0) return explain(host, port, why);
    *fd = found;
    *bound = port_of(found);
    return QN_OK;
}

bool qn_peer_gone(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}
#endif
