/* readers: which stored exchanges a person should read, and how far those who read agree.  Pure: ids and labels in, numbers out. */
#ifndef DUET_READERS_H
#define DUET_READERS_H

#include "models/base.h"

/* `want` (or all n) of the ids, at random: those with the smallest counter hash of (seed, id), in that order.  So the same seed
 * gives the same sample, and rows that were added later push out only as many as are drawn from among them.  out (min(want, n),);
 * returns their number. */
int readers_sample(const int64_t *id, int n, int want, uint64_t seed, int64_t *out, err *e);

typedef struct {
    int64_t turn;
    str     reader;
    int     label; /* 0 … n_labels-1 */
} reading;
typedef struct {
    str reader;
    int n; /* exchanges read */
} readers_one;
typedef struct {
    int    a, b;     /* indices into one[] */
    int    n;        /* exchanges that both have read */
    double observed; /* share of them with the same label */
    double kappa;    /* Cohen 1960; NaN where chance alone explains everything (one label), or n is 0 */
} readers_pair;
typedef struct {
    readers_one  *one; /* (n_one,) by name */
    int           n_one;
    readers_pair *pair; /* (n_pair,) */
    int           n_pair;
    int           n_turns;  /* exchanges read by anybody */
    int           n_shared; /* by two or more: those alpha rests on */
    double        alpha;    /* Krippendorff's for nominal labels, any number of readers; NaN as kappa */
    double        fleiss;   /* Fleiss' kappa (readers_fleiss) over the exchanges that fleiss_m readers have read; NaN as kappa */
    int           fleiss_m, fleiss_n; /* that number of readers: the one that most exchanges have (of equals the larger), 2 and more; those exchanges */
    double       *share;    /* (n_labels,) of all readings, each exchange counting once */
} readers_sum;
/* Fleiss 1971: how far m readers, not the same ones each time, agree beyond chance.  count (n, n_labels): how many gave that label; each row sums to m >= 2.  NaN
 * where chance alone explains everything. */
double readers_fleiss(const int *count, int n, int n_labels, int m);

/* One label per reader and exchange: of several the last one counts.  Everything is in the arena. */
int readers_agree(const reading *r, int n, int n_labels, arena *a, readers_sum *s, err *e);

#endif
