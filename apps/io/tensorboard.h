// Event files that TensorBoard shows: scalars and histograms over steps. A file is a sequence of
// TFRecords (length, masked CRC-32C of it, data, masked CRC-32C of the data), each an Event
// protocol buffer. Every run gets a new file beside older ones, which TensorBoard reads together.
#ifndef QN_TENSORBOARD_H
#define QN_TENSORBOARD_H

#include "fail.h"

typedef struct qn_tensorboard qn_tensorboard;

// Makes <dir>/events.out.tfevents.<seconds>.<host>, never touching a file that exists; makes the
// directory too. A run that resumes gives the first step it will write: readers then forget what
// older files have from that step on. 0: a new run.
qn_result qn_tensorboard_open(const char *dir, int64_t first_step, qn_tensorboard **out);
// The events of one step become visible together with qn_tensorboard_flush(). Tags such as
// "loss/train" group by their first part. NaN and infinities are written as they are.
qn_result qn_tensorboard_scalar(qn_tensorboard *t, int64_t step, const char *tag, double value);
// The values 0 .. count-1 weighted by load[i] (at least 0): expert i got load[i] of the tokens.
qn_result qn_tensorboard_load(qn_tensorboard *t, int64_t step, const char *tag, const double *load,
                              size_t count);
qn_result qn_tensorboard_flush(qn_tensorboard *t);
const char *qn_tensorboard_path(const qn_tensorboard *t);
// Flushes and closes; the result is that of the flush.
qn_result qn_tensorboard_close(qn_tensorboard **t);

// CRC-32C (Castagnoli) of the data, and TensorFlow's masking of it. [tfrecord]
uint32_t qn_crc32c(const void *data, size_t size);
uint32_t qn_crc32c_masked(const void *data, size_t size);

#endif
