// What a device reaches at best: measured, not looked up.
#ifndef QN_PEAK_H
#define QN_PEAK_H

#include <quoin/graph.h>

// Operations per second of the dense f32 matrix product of a size that fills the device: the best
// of a few runs. Takes some tenths of a second on a software driver.
qn_result qn_peak_matmul(qn_device *dev, double *flops_per_second);

#endif
