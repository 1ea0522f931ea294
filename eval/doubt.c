/* doubt: see doubt.h. */
#include "eval/doubt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHUFFLES = 1, HALVES = 2 }; /* the high word of an RNG stream; 0 is the bootstrap */

static uint64_t stream(int kind, int r) { return (uint64_t)kind << 32 | (uint32_t)r; }
static int      no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for resampling"); }

static void draw_lines(const doubt_opts *o, int r, int *times, int n)
{
    memset(times, 0, (size_t)n * sizeof *times);
    for (int j = 0; j < n; j++) times[rng_below(o->seed, stream(0, r), (uint64_t)j, (uint64_t)n)]++;
}

/* A random half of the lines: the first n / 2 of a Fisher-Yates shuffle; the other half is 0. */
static void draw_half(const doubt_opts *o, int r, int *times, int *order, int n)
{
    for (int i = 0; i < n; i++) order[i] = i;
    memset(times, 0, (size_t)n * sizeof *times);
    for (int i = 0; i < n / 2; i++) {
        int j    = i + (int)rng_below(o->seed, stream(HALVES, r), (uint64_t)i, (uint64_t)(n - i)), x = order[i];
        order[i] = order[j];
        order[j] = x;
        times[order[i]] = 1;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Quantile of sorted values by linear interpolation between order statistics. */
static double quantile(const double *v, int n, double q)
{
    double at = q * (n - 1);
    int    i  = (int)at;
    return i + 1 < n ? v[i] + (at - i) * (v[i + 1] - v[i]) : v[n - 1];
}

/* drawn (resamples,) is sorted here.  point: the metric itself. */
static interval interval_of(double *drawn, int n, int sums, double point, double level)
{
    double tail = (1 - level) / 2, shift = 0;
    if (isnan(point)) return (interval){ NAN, NAN };
    if (!sums) {
        for (int i = 0; i < n; i++) shift += drawn[i] / n;
        shift = point - shift;
    }
    qsort(drawn, (size_t)n, sizeof *drawn, by_value);
    return (interval){ quantile(drawn, n, tail) + shift, quantile(drawn, n, 1 - tail) + shift };
}

/* What one thread needs. */
typedef struct {
    int *one, *two, *count;
} scratch;

static int scratch_new(scratch *s, const metric_rows *m)
{
    s->one   = calloc((size_t)m->n + 1, sizeof *s->one);
    s->two   = calloc((size_t)m->n + 1, sizeof *s->two);
    s->count = metric_rows_scratch(m, NULL);
    return s->one && s->two && s->count;
}

static void scratch_free(scratch *s)
{
    free(s->one);
    free(s->two);
    free(s->count);
}

/* Resample a alone (b NULL) or b - a; drawn (METRICS, resamples).  Nodes are numbers of one trie, so scratch for the larger one serves both. */
static int resample(const metric_rows *a, const metric_rows *b, const doubt_opts *o, double *drawn, err *e)
{
    int failed = 0, R = o->resamples;
#pragma omp parallel reduction(| : failed)
    {
        scratch s = { 0 };
        double  x[METRICS], y[METRICS] = { 0 };
        failed = !scratch_new(&s, b && b->grams.nodes > a->grams.nodes ? b : a);
#pragma omp for schedule(static)
        for (int r = 0; r < 2 * R; r++) {
            int half = r >= R, which = half ? METRIC_VARIETY : METRIC_SUMS, at = half ? r - R : r;
            if (failed) continue;
            if (half) draw_half(o, at, s.one, s.two, a->n);
            else draw_lines(o, at, s.one, a->n);
            metric_rows_score(a, s.one, which, s.count, x);
            if (b) metric_rows_score(b, s.one, which, s.count, y);
            for (int k = 0; k < METRICS; k++)
                if (metric_list[k].sums != half) drawn[(size_t)k * (size_t)R + (size_t)at] = b ? y[k] - x[k] : x[k];
        }
        scratch_free(&s);
    }
    return failed ? no_memory(e) : OK;
}

static int point(const metric_rows *m, double *v, err *e)
{
    int *count = metric_rows_scratch(m, e);
    if (!count) return E_NOMEM;
    metric_rows_score(m, NULL, METRIC_SUMS | METRIC_VARIETY, count, v);
    free(count);
    return OK;
}

int doubt_intervals(const metric_rows *m, const doubt_opts *o, interval *out, err *e)
{
    double  v[METRICS];
    double *drawn = malloc((size_t)METRICS * (size_t)o->resamples * sizeof *drawn);
    int     r     = drawn ? point(m, v, e) : no_memory(e);
    if (r == OK) r = resample(m, NULL, o, drawn, e);
    for (int k = 0; k < METRICS && r == OK; k++)
        out[k] = interval_of(drawn + (size_t)k * (size_t)o->resamples, o->resamples, metric_list[k].sums, v[k], o->level);
    free(drawn);
    return r;
}

/* beyond (METRICS,): shuffles whose difference is at least as large. */
static int shuffle(const metric_rows *a, const metric_rows *b, const doubt_opts *o, const comparison *c, int *beyond, err *e)
{
    metric_rows both;
    int         n = a->n, failed = 0, r = metric_rows_join(&both, a, b, e);
    if (r) return r;
#pragma omp parallel reduction(| : failed) reduction(+ : beyond[:METRICS])
    {
        scratch s = { 0 };
        double  x[METRICS], y[METRICS];
        failed = !scratch_new(&s, &both);
#pragma omp for schedule(static)
        for (int k = 0; k < o->resamples; k++) {
            if (failed) continue;
            for (int i = 0; i < n; i++) {
                int swap     = (int)(rng_u64(o->seed, stream(SHUFFLES, k), (uint64_t)i) & 1);
                s.one[i]     = s.two[n + i] = !swap;
                s.one[n + i] = s.two[i] = swap;
            }
            metric_rows_score(&both, s.one, METRIC_SUMS | METRIC_VARIETY, s.count, x);
            metric_rows_score(&both, s.two, METRIC_SUMS | METRIC_VARIETY, s.count, y);
            for (int q = 0; q < METRICS; q++) beyond[q] += fabs(y[q] - x[q]) >= fabs(c[q].diff) - 1e-12;
        }
        scratch_free(&s);
    }
    metric_rows_free(&both);
    return failed ? no_memory(e) : OK;
}

int doubt_compare(const metric_rows *a, const metric_rows *b, const doubt_opts *o, comparison *out, err *e)
{
    double  x[METRICS], y[METRICS];
    int     beyond[METRICS] = { 0 };
    double *drawn = malloc((size_t)METRICS * (size_t)o->resamples * sizeof *drawn);
    int     r     = a->n == b->n ? OK : err_set(e, E_ARG, "the systems have %d and %d lines", a->n, b->n);
    if (r == OK && !drawn) r = no_memory(e);
    if (r == OK) r = point(a, x, e);
    if (r == OK) r = point(b, y, e);
    for (int k = 0; k < METRICS && r == OK; k++) out[k] = (comparison){ .a = x[k], .b = y[k], .diff = y[k] - x[k], .lo = NAN, .hi = NAN, .p = NAN };
    if (r == OK) r = resample(a, b, o, drawn, e);
    if (r == OK) r = shuffle(a, b, o, out, beyond, e);
    for (int k = 0; k < METRICS && r == OK; k++) {
        if (isnan(out[k].diff)) continue;
        interval i = interval_of(drawn + (size_t)k * (size_t)o->resamples, o->resamples, metric_list[k].sums, out[k].diff, o->level);
        out[k].lo  = i.lo;
        out[k].hi  = i.hi;
        out[k].p   = (1.0 + beyond[k]) / (1.0 + o->resamples);
    }
    free(drawn);
    return r;
}

void doubt_length(const comparison *full, const comparison *cut, double alpha, unsigned char *explained)
{
    for (int k = 0; k < METRICS; k++) {
        int differs = full[k].p < alpha, still = cut[k].p < alpha && (cut[k].diff > 0) == (full[k].diff > 0);
        explained[k] = full[METRIC_AVG_LEN].p < alpha && k != METRIC_AVG_LEN && differs && !still;
    }
}

double doubt_sign(int wins, int losses)
{
    int    n = wins + losses, few = wins < losses ? wins : losses;
    double p = 0;
    for (int k = 0; k <= few; k++) p += exp(lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0) - n * log(2));
    return fmin(1, 2 * p);
}

void doubt_wilson(double k, double n, double *lo, double *hi)
{
    const double z = 1.959963984540054, z2 = z * z, p = n > 0 ? k / n : 0;
    double       mid = n > 0 ? (p + z2 / (2 * n)) / (1 + z2 / n) : 0.5;
    double       half = n > 0 ? z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) : 0.5;
    *lo = fmax(0, mid - half);
    *hi = fmin(1, mid + half);
}
