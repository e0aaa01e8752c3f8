// What the files of hypernetworks share.
#ifndef QN_HYPER_H
#define QN_HYPER_H

#include "op.h"

// Refuses networks beyond the limits, and generated vectors of another length (0: not looked at).
qn_result qn_expect_net(const qn_node *n, const qn_target_net *net, int64_t chosen, int64_t count);
// The constant SHUFFLE of shaders/hyper/octet.glsl.
uint32_t qn_octet_shuffle(const qn_device_info *dev);

#endif
