/* scorecard: several systems on the same lines: their metrics, intervals, comparisons with the first of them, and how all that is written down:
 * a table for people, Markdown, JSON.  Prints nothing: everything goes to buffers. */
#ifndef DUET_SCORECARD_H
#define DUET_SCORECARD_H

#include <jansson.h>

#include "eval/doubt.h"

typedef struct {
    str           name;
    const str    *hyp;                      /* (n_lines,) the caller's */
    metric_rows   rows;
    double        v[METRICS];
    interval      ci[METRICS];              /* when resampled */
    double        equal[VARIETY_DISTINCT];  /* Distinct at the size of the smallest system (variety_rarefied) */
    comparison    against[METRICS];         /* with the first system; the first one's own are unused */
    unsigned char explained[METRICS];       /* a difference from the first that length alone explains (doubt_length) */
} scored;
typedef struct {
    int          n_lines, tokenise;
    const str   *ref;                       /* as metric_rows_new; the caller's */
    const int   *ref_at;
    doubt_opts   doubt;                     /* resamples 0: no intervals, no comparisons */
    metric_space space;
    scored      *system;                    /* (n,) */
    int          n;
    double       size[VARIETY_DISTINCT];    /* n-grams of the smallest system */
} scorecard;
/* Score the systems.  name, hyp (n,) stay the caller's and must live as long.  progress (may be NULL) is told what is done next. */
int  scorecard_new(scorecard *c, const str *name, const str *const *hyp, int n, int n_lines, const str *ref, const int *ref_at, int tokenise,
                   const doubt_opts *doubt, void (*progress)(void *ctx, const char *what, str name), void *ctx, err *e);
void scorecard_free(scorecard *c);

/* Metrics that are shown for people: those that are defined. */
int  scorecard_shows(const scorecard *c, int metric);
int  scorecard_signature(const scorecard *c, buf *out, err *e); /* metric_signature and the resampling */
void scorecard_number(int metric, double v, buf *out);          /* as people read it: "12.35" (percent), "2.6213" */
void scorecard_warnings(const scorecard *c, buf *out);          /* one line for each system whose difference from the first length alone explains */
int  scorecard_table(const scorecard *c, buf *out, err *e);
int  scorecard_markdown(const scorecard *c, buf *out, err *e);
/* One system: {"bleu1": …, "signature": …} and, when resampled, "intervals": {"bleu1": [lo, hi]}.  Several: {"signature", "systems": [{"name", the
 * same}], "comparisons": [{"a", "b", "metrics": {"bleu1": {"diff", "lo", "hi", "p", "length_explains"}}}]}.  Shares are fractions, null is not defined. */
json_t *scorecard_json(const scorecard *c, err *e);

#endif
