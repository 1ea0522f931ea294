/* stopwatch: how long something takes, again and again, on a machine that others use too.  A repeat during which our threads had to wait for a
 * processor, or during which others kept one busy, counts as disturbed and is taken again; what is left in the end says how many of its repeats
 * were disturbed all the same.  Knows nothing of models.  Reads /proc where there is one. */
#ifndef DUET_STOPWATCH_H
#define DUET_STOPWATCH_H

#include "models/base.h"

typedef struct { /* one repeat: the part between start and stop */
    double wall, cpu; /* seconds; cpu: of all threads of this process */
    double lap;       /* seconds from start to the last stopwatch_lap, 0 without */
    double foreign;   /* processors' worth of disturbance: the larger of (time our threads were ready to run and did not) / wall, and, for
                         repeats of 0.2 s and more, (time the processors worked for others, hypervisor included) / wall */
    double at[4];     /* readings at the start: wall, cpu, waited, busy */
} stopwatch;
void stopwatch_start(stopwatch *w);
void stopwatch_lap(stopwatch *w);
void stopwatch_stop(stopwatch *w);

/* More disturbance than this makes a repeat worthless. */
#define STOPWATCH_DISTURBED 0.06

typedef struct {
    double median, min, max; /* seconds, of the n repeats that count */
    double lap, cpu;         /* medians */
    int    n, disturbed;     /* of these n, how many were disturbed, because quiet ones would not come */
    int    dropped;          /* disturbed ones that were taken again */
} timing;

/* One repeat: prepares what it needs, and calls stopwatch_start and stopwatch_stop around what is timed. */
typedef int timed(void *ctx, stopwatch *w, err *e);
enum { STOPWATCH_MAX = 256 };
/* f once to warm up, then until `repeats` (<= STOPWATCH_MAX) quiet repeats are there, three times as many at most: the quietest count.
 * The first error of f comes back. */
int stopwatch_repeat(timed *f, void *ctx, int repeats, timing *t, err *e);

/* The q-quantile (0..1) of n > 0 numbers, which are sorted by this: element ceil(q n) of them, the middle for q = 0.5 (the mean of two when n is even). */
double stopwatch_quantile(double *x, int n, double q);

#endif
