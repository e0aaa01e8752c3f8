// A socket that listens.
#ifndef QN_SERVE_LISTEN_H
#define QN_SERVE_LISTEN_H

#include <quoin/base.h>

// Binds `host` (a name or an address) and `port` (0: any that is free) and listens. *fd is closed
// with close(); *bound is the port; *loopback tells whether only this machine can connect.
// QN_ERR_IO with a sentence when the port is taken or the address is not this machine's.
qn_result qn_listen(const char *host, int port, int *fd, int *bound, bool *loopback);

// Whether the other end of a connection has closed it.
bool qn_peer_gone(int fd);

#endif
