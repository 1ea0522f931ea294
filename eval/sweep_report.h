/* sweep_report: what a sweep found, written down: a page with plots, a table in Markdown, everything in JSON.  Prints nothing: buffers. */
#ifndef DUET_SWEEP_REPORT_H
#define DUET_SWEEP_REPORT_H

#include "eval/scorecard.h"
#include "eval/sweep.h"
#include "eval/testset.h"

typedef struct {
    const testset     *set;
    const sweep_plan  *plan;
    const respond_opts *base;
    json_t *const     *lines;  /* (plan->n_drawing,) of batch_read */
    sweep_reply *const *reply; /* (plan->n,) each (set->n,) */
    const scorecard   *card;   /* of the points, in their order */
    const char        *models; /* one line: which they are */
} sweep_result;

/* The table of points by the chief metrics, with intervals; * where it differs from the baseline (p < 0.05), L where length alone explains that. */
int sweep_markdown(const sweep_result *s, buf *out, err *e);
/* The same for a terminal, without intervals. */
int sweep_table(const sweep_result *s, buf *out, err *e);
/* scorecard_json, and of each system "options" and "chosen": means over items {"forward_token", "reverse_token"}, shares {"as_baseline"}. */
json_t *sweep_json(const sweep_result *s, err *e);
/* The page: the table; metrics by lambda, by N, by temperature; quality by depth of the talk; forward against reverse score of the candidates; the items on which
 * the crossing and the baseline differ most, with all candidates, at most `listed`. */
int sweep_html(const sweep_result *s, int listed, buf *out, err *e);

#endif
