/* stopwatch: see stopwatch.h. */
#include "eval/stopwatch.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WALL, CPU, WAITED, BUSY };

static double clock_of(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds that threads of this process stood in a queue for a processor, or -1 when the system does not say (Linux, Documentation/scheduler/
 * sched-stats: the second number of schedstat, in nanoseconds). */
static double waited(void)
{
    DIR   *d   = opendir("/proc/self/task");
    double sum = 0;
    int    any = 0;
    for (struct dirent *x; d && (x = readdir(d));) {
        char               path[300];
        unsigned long long ran, queued;
        if (x->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", x->d_name);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%llu %llu", &ran, &queued) == 2) sum += (double)queued * 1e-9, any = 1;
        if (f) fclose(f);
    }
    if (d) closedir(d);
    return any ? sum : -1;
}

/* Seconds that the processors worked since boot, for whomever, or -1. */
static double busy(void)
{
    unsigned long long v[8];
    FILE  *f  = fopen("/proc/stat", "r");
    int    ok = f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7) == 8;
    double hz = (double)sysconf(_SC_CLK_TCK);
    if (f) fclose(f);
    return ok ? (double)(v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / hz : -1; /* all but idle and iowait */
}

void stopwatch_start(stopwatch *w)
{
    *w            = (stopwatch){ 0 };
    w->at[BUSY]   = busy();
    w->at[WAITED] = waited();
    w->at[CPU]    = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    w->at[WALL]   = clock_of(CLOCK_MONOTONIC);
}

void stopwatch_lap(stopwatch *w) { w->lap = clock_of(CLOCK_MONOTONIC) - w->at[WALL]; }

void stopwatch_stop(stopwatch *w)
{
    enum { TICKS = 2 }; /* by which the busy time may be off */
    w->wall      = clock_of(CLOCK_MONOTONIC) - w->at[WALL];
    w->cpu       = clock_of(CLOCK_PROCESS_CPUTIME_ID) - w->at[CPU];
    double queue = waited(), work = busy(), wall = w->wall > 1e-9 ? w->wall : 1e-9;
    w->foreign   = queue >= 0 && w->at[WAITED] >= 0 ? (queue - w->at[WAITED]) / wall : (wall - w->cpu) / wall;
    if (wall >= 0.2 && work >= 0 && w->at[BUSY] >= 0) {
        double others = (work - w->at[BUSY] - w->cpu - TICKS / (double)sysconf(_SC_CLK_TCK)) / wall;
        if (others > w->foreign) w->foreign = others;
    }
    if (w->foreign < 0) w->foreign = 0;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stopwatch_quantile(double *x, int n, double q)
{
    qsort(x, (size_t)n, sizeof *x, rising);
    if (q == 0.5) return (x[(n - 1) / 2] + x[n / 2]) / 2;
    int i = (int)ceil(q * n) - 1;
    return x[i < 0 ? 0 : i >= n ? n - 1 : i];
}

static int quieter(const void *a, const void *b)
{
    const stopwatch *x = a, *y = b;
    double fx = x->foreign > STOPWATCH_DISTURBED ? x->foreign : 0, fy = y->foreign > STOPWATCH_DISTURBED ? y->foreign : 0; /* quiet is quiet */
    return fx != fy ? (fx > fy) - (fx < fy) : (x->at[WALL] > y->at[WALL]) - (x->at[WALL] < y->at[WALL]);
}

static void sum_up(stopwatch *w, int taken, int n, timing *t)
{
    double x[3][STOPWATCH_MAX];
    qsort(w, (size_t)taken, sizeof *w, quieter);
    *t = (timing){ .n = n };
    for (int i = 0; i < taken; i++) {
        int bad = w[i].foreign > STOPWATCH_DISTURBED;
        if (i >= n) t->dropped += bad;
        else t->disturbed += bad, x[0][i] = w[i].wall, x[1][i] = w[i].lap, x[2][i] = w[i].cpu;
    }
    t->median = stopwatch_quantile(x[0], n, 0.5);
    t->min    = x[0][0];
    t->max    = x[0][n - 1];
    t->lap    = stopwatch_quantile(x[1], n, 0.5);
    t->cpu    = stopwatch_quantile(x[2], n, 0.5);
}

int stopwatch_repeat(timed *f, void *ctx, int repeats, timing *t, err *e)
{
    enum { PATIENCE = 3, PAUSE = 100000 /* microseconds */ };
    stopwatch w[PATIENCE * STOPWATCH_MAX], warm;
    int       quiet = 0, n = 0, r;
    if (repeats < 1 || repeats > STOPWATCH_MAX) return err_set(e, E_ARG, "%d repeats: wanted 1 to %d", repeats, STOPWATCH_MAX);
    r = f(ctx, &warm, e);
    while (r == OK && quiet < repeats && n < PATIENCE * repeats) {
        r = f(ctx, &w[n], e);
        if (w[n++].foreign <= STOPWATCH_DISTURBED) quiet++;
        else if (n < PATIENCE * repeats) usleep(PAUSE); /* who disturbs may be done soon */
    }
    if (r == OK) sum_up(w, n, repeats, t);
    return r;
}
