/* limits: what this machine can do at most, measured: arithmetic in registers, reading from memory, reading from the last-level cache.  The figures of a
 * benchmark are worth something only beside these, taken in the same minutes. */
#ifndef DUET_LIMITS_H
#define DUET_LIMITS_H

#include "models/base.h"

typedef struct {
    int         threads;
    double      f32;              /* 10^9 operations a second, a multiply-add counts as two */
    double      i8;               /* the same for sums of products of bytes, exact in 32 bits */
    const char *f32_by, *i8_by;   /* the instructions that did it, the best this processor has */
    double      memory, cache;    /* 10^9 bytes a second */
    size_t      memory_bytes, cache_bytes; /* read over and over */
} machine_limits;
/* About a second; the best of several short runs, since others can only slow us down.  E_NOMEM. */
int limits_measure(machine_limits *m, int threads, err *e);

#endif
