/* report: an evaluation as one self-contained HTML page: no scripts, no network, plots as inline SVG; readable at the width of a phone and in dark
 * mode.  Goes to a buffer. */
#ifndef DUET_REPORT_H
#define DUET_REPORT_H

#include "eval/batch.h"
#include "eval/scorecard.h"

typedef struct {
    const json_t *lines;      /* of batch_generate; NULL for replies from elsewhere */
    const char   *settings;   /* the options line, or where the replies come from */
    perplexities  ppl;
    const respond_opts *opts; /* as settings; NULL for replies from elsewhere */
} report_system;
/* One item as a card: the context, every reply with its candidates, the references. */
typedef struct {
    str           name, text;
    const json_t *line;   /* of batch_generate, for the candidates; NULL: without them */
    int           chosen; /* candidate */
    int           colour;
    double        meteor; /* NAN: not shown */
} report_reply;
void report_item(buf *b, const test_item *x, int number, const report_reply *r, int n);
/* The items on which the systems differ, most first: by METEOR (without references: by length).  order (n_lines,); their number, or an error. */
int report_spread(const scorecard *c, int *order, err *e);

/* The page: the table with intervals; metrics by lambda, N and temperature where the systems differ in one of these; by depth of the talk; length of replies; forward
 * against reverse score of all candidates; the items on which the systems differ most
 * by METEOR (without references: by length), at most `most`; then items with every reply and all candidates, at most `listed`. */
int report_html(const char *title, const scorecard *c, const testset *t, const report_system *system /* (c->n,) */, int most, int listed, buf *out, err *e);

#endif
