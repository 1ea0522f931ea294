/* plots: the pictures of an evaluation, for its pages: metrics over an option that varies, quality by depth of the talk, forward against reverse score,
 * lengths.  Drawings of page.h between page_figures and page_figures_end, which are the caller's. */
#ifndef DUET_PLOTS_H
#define DUET_PLOTS_H

#include <jansson.h>

#include "dialog/respond.h"
#include "eval/page.h"
#include "eval/scorecard.h"
#include "eval/testset.h"

enum { PLOT_LAMBDA, PLOT_N, PLOT_TEMPERATURE, PLOT_AXES };
/* Metrics over one option, a line for each group of at least two systems that differ in nothing else (lambda: of mode bidi), with intervals when they were
 * resampled; at most PAGE_COLOURS lines.  opts (c->n,): NULL for replies from elsewhere.  Returns the number of drawings; 0 when there is no such group. */
int plot_axis(buf *b, const scorecard *c, const respond_opts *const *opts, int axis);
const char *plot_axis_title(int axis);

/* Mean METEOR (words when there are no references) of the systems which (n,) by turns of the context, with 95 % intervals of the mean; the
 * deepest items are one group as soon as fewer than ten are left.  Nothing when all items are equally deep. */
void plot_depth(buf *b, const scorecard *c, const testset *t, const int *which, int n);

/* A dot for each candidate of a file of batch_generate that both models scored, at most PLOT_DOTS, evenly thinned; chosen ones are a series of their own.  chosen (n items,): NULL for those of
 * the file. */
enum { PLOT_DOTS = 1500 };
int plot_scatter(buf *b, const char *title, const json_t *lines, const int *chosen, err *e);

/* Shares of replies by their number of words. */
void plot_lengths(buf *b, const scorecard *c, const int *which, int n);

#endif
