/* doubt: is a difference real?  Confidence intervals by the paired bootstrap, p-values by approximate randomization, both from the rows of
 * metrics.h and reproducible from a seed (every draw is a value of the counter RNG), whatever the number of threads.  Pure. */
#ifndef DUET_DOUBT_H
#define DUET_DOUBT_H

#include "eval/metrics.h"

typedef struct {
    int      resamples; /* of each kind */
    double   level;     /* of the intervals: 0.95 */
    uint64_t seed;
} doubt_opts;
typedef struct {
    double lo, hi;
} interval;

/* out (METRICS,): of one system.  Sums over lines: percentile bootstrap over lines (Efron 1979; Koehn 2004): resample r draws line
 * rng_below(seed, r, j, n) for j = 0 … n - 1.  Distinct and Entropy fall when lines are drawn twice, so the bootstrap is wrong for them;
 * their interval is the delete-half jackknife's (Shao & Wu 1989): the metric minus and plus the quantiles of its deviation on random halves
 * of the lines from the mean of the halves. */
int doubt_intervals(const metric_rows *m, const doubt_opts *o, interval *out, err *e);

typedef struct {
    double a, b, diff;  /* diff = b - a */
    double lo, hi;      /* interval of diff; the same lines are drawn for both */
    double p;           /* two-sided, (1 + shuffles with |diff| at least as large) / (1 + shuffles); NaN when a metric is not defined */
} comparison;
/* out (METRICS,).  The two answer the same lines.  Approximate randomization (Noreen 1989; Riezler & Maxwell 2005): shuffle r exchanges the two
 * replies to line i when the low bit of rng_u64(seed, 2^32 + r, i) is set. */
int doubt_compare(const metric_rows *a, const metric_rows *b, const doubt_opts *o, comparison *out, err *e);

/* Does length alone explain it?  cut_a, cut_b: the rows of the same replies with the longer of the two cut to the words of the shorter, line by
 * line.  A metric is explained by length when replies differ in length (p < alpha), it differs (p < alpha), and no longer does, or the
 * other way round, when they are equally long.  explained (METRICS,): 1 for these. */
void doubt_length(const comparison *full, const comparison *cut, double alpha, unsigned char *explained);

/* The sign test (Arbuthnot 1710; Dixon & Mood 1946): two-sided, exact p of so lopsided a split of wins and losses when either is as likely; ties are left out.  1 when
 * there are none. */
double doubt_sign(int wins, int losses);

/* Wilson's 95 % interval of a share k / n (Wilson 1927); 0 to 1 when n is 0. */
void doubt_wilson(double k, double n, double *lo, double *hi);

#endif
