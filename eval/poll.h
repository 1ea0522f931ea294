/* poll: what the judges of a study found: wins, ties and losses of each pair of systems, or the shares that are sensible and specific; and how far the judges
 * agree.  Pure numbers, and how they are written down (buffers). */
#ifndef DUET_POLL_H
#define DUET_POLL_H

#include "eval/ballot.h"
#include "eval/readers.h"

enum { POLL_PAIRS = STUDY_SYSTEMS * (STUDY_SYSTEMS - 1) / 2 };
/* One question about two systems.  Of several judges the majority speaks for a unit: it is won when more say a than b. */
typedef struct {
    int    n;                    /* units judged */
    double win, tie, loss;       /* of a: units */
    double lo[3], hi[3];         /* Wilson intervals of the three shares */
    double vote[3];              /* shares of the single judgments: win, tie, loss */
    double p;                    /* sign test of win against loss */
} poll_versus;
/* ssa: share of a system's replies, each the mean of its judges. */
typedef struct {
    int    n;
    double share, lo, hi;
} poll_share;
typedef struct {
    int         a, b;
    int         n_same;          /* equal replies: ties that nobody was asked about, for every question */
    poll_versus q[STUDY_QUESTIONS]; /* pair; ssa: over the items on which both are judged, 1 beats 0 */
} poll_pair;
typedef struct {
    const study *s;
    int          n_judgments, n_units; /* units judged by anybody */
    double       seconds;              /* median of those that were timed; NaN */
    poll_pair   *pair;                 /* (n_pair,) */
    int          n_pair;
    poll_share   system[STUDY_SYSTEMS][2]; /* ssa: sensible, specific */
    double       ssa[STUDY_SYSTEMS];       /* their mean */
    readers_sum  agree[STUDY_QUESTIONS];   /* labels: pair b, tie, a; ssa no, yes */
    int          first_won;            /* pair: answers for the reply that was shown first … */
    int          second_won;           /* … and second: does the side pull? */
    double       side_p;
} poll;
int poll_count(const study *s, const ballot *list, int n, arena *a, poll *p, err *e);

int     poll_text(const poll *p, buf *out, err *e);
json_t *poll_json(const poll *p, err *e);
/* The page: the counts with intervals as bars, agreement, and every unit with its answers. */
int     poll_html(const poll *p, const ballot *list, int n, buf *out, err *e);

#endif
