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
} report_system;
/* The page: the table with intervals; length of replies; forward against reverse score of all candidates; the items on which the systems differ most
 * by METEOR (without references: by length), at most `most`; then items with every reply and all candidates, at most `listed`. */
int report_html(const char *title, const scorecard *c, const testset *t, const report_system *system /* (c->n,) */, int most, int listed, buf *out, err *e);

#endif
