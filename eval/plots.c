/* plots: see plots.h. */
#include "eval/plots.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- metrics over an option ------------------------------------------------------------------------------------ */

static const int drawn[] = { METRIC_BLEU1 + 1, METRIC_METEOR, METRIC_F1, METRIC_DISTINCT1 + 1, METRIC_AVG_LEN, METRIC_GENERIC };
enum { N_DRAWN = sizeof drawn / sizeof drawn[0], LINE_POINTS = 128 };

const char *plot_axis_title(int axis) { return axis == PLOT_LAMBDA ? "Metrics by lambda" : axis == PLOT_N ? "Metrics by the number of candidates" : "Metrics by temperature"; }
static const char *axis_name(int axis) { return axis == PLOT_LAMBDA ? "lambda" : axis == PLOT_N ? "candidates (log2)" : "temperature"; }

static double axis_value(const respond_opts *o, int axis)
{
    return axis == PLOT_LAMBDA ? (double)o->lambda : axis == PLOT_N ? log2(o->n_cand) : (double)o->temperature;
}

/* The options without the one that varies, as text. */
static void others(const respond_opts *o, int axis, buf *out)
{
    respond_opts x = *o, d = respond_defaults();
    if (axis == PLOT_LAMBDA || x.mode != MODE_BIDI) x.lambda = d.lambda;
    if (axis == PLOT_N) x.n_cand = 1;
    if (axis == PLOT_TEMPERATURE) x.temperature = 1;
    buf_reset(out);
    respond_opts_format(&x, out);
}

typedef struct {
    int  at[LINE_POINTS], n; /* systems, by their value */
    char name[64];
} line;

static void line_add(line *l, const respond_opts *const *opts, int s, int axis)
{
    int k = l->n;
    for (int i = 0; i < l->n; i++)
        if (axis_value(opts[l->at[i]], axis) == axis_value(opts[s], axis)) return;
    if (l->n == LINE_POINTS) return;
    while (k > 0 && axis_value(opts[l->at[k - 1]], axis) > axis_value(opts[s], axis)) l->at[k] = l->at[k - 1], k--;
    l->at[k] = s;
    l->n++;
}

/* Groups of two systems and more; their number. */
static int find_lines(buf *b, const scorecard *c, const respond_opts *const *opts, int axis, line *l)
{
    buf one = { 0 }, two = { 0 };
    int n = 0;
    unsigned char *used = calloc((size_t)c->n + 1, 1);
    for (int s = 0; used && s < c->n && n < PAGE_COLOURS; s++) {
        if (!opts[s] || used[s] || (axis == PLOT_LAMBDA && opts[s]->mode != MODE_BIDI)) continue;
        others(opts[s], axis, &one);
        l[n] = (line){ .n = 0 };
        for (int k = s; k < c->n; k++) {
            if (!opts[k]) continue;
            others(opts[k], axis, &two);
            if (!str_eq(buf_view(&one), buf_view(&two))) continue;
            line_add(&l[n], opts, k, axis);
            used[k] = 1;
        }
        const respond_opts *o = opts[s];
        int w = snprintf(l[n].name, sizeof l[n].name, "%s", respond_mode_name(o->mode));
        if (o->mode == MODE_BIDI && axis != PLOT_LAMBDA) snprintf(l[n].name + w, sizeof l[n].name - (size_t)w, ", lambda %.6g", (double)o->lambda);
        n += l[n].n >= 2;
    }
    b->oom |= !used || one.oom || two.oom;
    free(used);
    buf_free(&one);
    buf_free(&two);
    return n;
}

static void draw_metric(buf *b, const scorecard *c, const respond_opts *const *opts, int axis, const line *l, int n, int k)
{
    double      v[PAGE_COLOURS][4][LINE_POINTS], by = metric_list[k].percent ? 100 : 1;
    page_series s[PAGE_COLOURS];
    char        title[96];
    for (int i = 0; i < n; i++) {
        for (int p = 0; p < l[i].n; p++) {
            const scored *x = &c->system[l[i].at[p]];
            v[i][0][p] = axis_value(opts[l[i].at[p]], axis);
            v[i][1][p] = by * x->v[k];
            v[i][2][p] = by * x->ci[k].lo;
            v[i][3][p] = by * x->ci[k].hi;
        }
        s[i] = (page_series){ l[i].name, v[i][0], v[i][1], l[i].n, c->doubt.resamples ? v[i][2] : NULL, v[i][3] };
    }
    snprintf(title, sizeof title, "%s%s", metric_list[k].title, metric_list[k].percent ? ", %" : "");
    page_plot(b, title, NULL, PAGE_LINES, axis_name(axis), "", s, n);
}

int plot_axis(buf *b, const scorecard *c, const respond_opts *const *opts, int axis)
{
    line l[PAGE_COLOURS];
    int  n = find_lines(b, c, opts, axis, l), drawings = 0;
    for (int k = 0; n && k < N_DRAWN; k++) {
        if (!scorecard_shows(c, drawn[k])) continue;
        draw_metric(b, c, opts, axis, l, n, drawn[k]);
        drawings++;
    }
    return drawings;
}

/* ---- depth ----------------------------------------------------------------------------------------------------- */

enum { DEPTHS = 24, FEW = 10 };

/* group[i] of an item of i turns; the number of groups. */
static int depth_groups(const testset *t, int n, int group[DEPTHS + 1], double x[DEPTHS + 1])
{
    int count[DEPTHS + 1] = { 0 }, left = n, k = -1, have = 0;
    for (int i = 0; i < n; i++) count[t->item[i].n_turn < DEPTHS ? t->item[i].n_turn : DEPTHS]++;
    for (int d = 0; d <= DEPTHS; d++) {
        if (count[d] && (k < 0 || (have >= FEW && left >= FEW))) {
            x[++k] = d;
            have   = 0;
        }
        group[d] = k < 0 ? 0 : k;
        have += count[d];
        left -= count[d];
    }
    return k + 1;
}

void plot_depth(buf *b, const scorecard *c, const testset *t, const int *which, int n)
{
    double      x[DEPTHS + 1], v[PAGE_COLOURS][3][DEPTHS + 1];
    int         group[DEPTHS + 1], groups = depth_groups(t, c->n_lines, group, x);
    page_series s[PAGE_COLOURS];
    int         refs = scorecard_shows(c, METRIC_METEOR);
    char        note[160];
    if (groups < 2) return;
    if (n > PAGE_COLOURS) n = PAGE_COLOURS;
    for (int k = 0; k < n; k++) {
        const metric_rows *m = &c->system[which[k]].rows;
        double             sum[DEPTHS + 1] = { 0 }, square[DEPTHS + 1] = { 0 }, count[DEPTHS + 1] = { 0 };
        for (int i = 0; i < c->n_lines; i++) {
            int    g = group[t->item[i].n_turn < DEPTHS ? t->item[i].n_turn : DEPTHS];
            double y = refs ? 100 * m->sentence[i].meteor : m->words[i];
            sum[g] += y;
            square[g] += y * y;
            count[g]++;
        }
        for (int g = 0; g < groups; g++) {
            double mean = sum[g] / count[g], var = fmax(0, square[g] / count[g] - mean * mean);
            double half = count[g] > 1 ? 1.96 * sqrt(var / (count[g] - 1)) : NAN;
            v[k][0][g] = mean;
            v[k][1][g] = mean - half;
            v[k][2][g] = mean + half;
        }
        s[k] = (page_series){ c->system[which[k]].name.s, x, v[k][0], groups, v[k][1], v[k][2] };
    }
    snprintf(note, sizeof note, "Mean over the items with so many turns before the reply (the last group: so many and more), with 95 %% intervals of the mean.");
    page_plot(b, refs ? "METEOR by depth of the talk" : "Words by depth of the talk", note, PAGE_LINES, "turns of context", refs ? "METEOR, %" : "words", s, n);
}

/* ---- scores ---------------------------------------------------------------------------------------------------- */

int plot_scatter(buf *b, const char *title, const json_t *lines, const int *chosen, err *e)
{
    double      *p = calloc((size_t)PLOT_DOTS * 4, sizeof *p);
    page_series  s[2];
    size_t       i, k, all = 0, seen = 0;
    const json_t *row, *cand;
    if (!p) return err_set(e, E_NOMEM, "out of memory for the page");
    s[0] = (page_series){ "candidates", p, p + PLOT_DOTS, 0, NULL, NULL };
    s[1] = (page_series){ "chosen", p + 2 * PLOT_DOTS, p + 3 * PLOT_DOTS, 0, NULL, NULL };
    json_array_foreach(lines, i, row) all += json_array_size(json_object_get(row, "candidates"));
    size_t every = all / PLOT_DOTS + 1;
    json_array_foreach(lines, i, row) {
        json_int_t pick = chosen ? chosen[i] : json_integer_value(json_object_get(row, "chosen"));
        json_array_foreach(json_object_get(row, "candidates"), k, cand) {
            const json_t *f = json_object_get(cand, "fwd"), *w = json_object_get(cand, "bwd");
            double        tokens = json_number_value(json_object_get(cand, "tokens")) + json_is_true(json_object_get(cand, "ended"));
            int           is = (json_int_t)k == pick;
            if (!json_is_number(f) || !json_is_number(w) || tokens < 1) continue;
            if (!is && seen++ % every) continue;
            if (s[is].n == PLOT_DOTS) continue;
            p[(size_t)(2 * is * PLOT_DOTS + s[is].n)]       = json_number_value(f) / tokens;
            p[(size_t)((2 * is + 1) * PLOT_DOTS + s[is].n)] = json_number_value(w);
            s[is].n++;
        }
    }
    if (s[0].n + s[1].n > 1)
        page_plot(b, title, "Each dot is a candidate: how likely the reply is after the context, how likely the line is after the reply. Thinned evenly when there are many.", PAGE_POINTS,
                  "log P(reply | context) a token", "log P(line | reply)", s, 2);
    free(p);
    return OK;
}

/* ---- lengths --------------------------------------------------------------------------------------------------- */

void plot_lengths(buf *b, const scorecard *c, const int *which, int n)
{
    enum { BINS = 41 };
    double      x[BINS], share[PAGE_COLOURS][BINS];
    page_series s[PAGE_COLOURS];
    int         longest = 1;
    if (n > PAGE_COLOURS) n = PAGE_COLOURS;
    memset(share, 0, sizeof share);
    for (int w = 0; w < BINS; w++) x[w] = w;
    for (int k = 0; k < n; k++)
        for (int i = 0; i < c->n_lines; i++) {
            int w = c->system[which[k]].rows.words[i];
            w = w < BINS ? w : BINS - 1;
            if (w > longest) longest = w;
            share[k][w] += 100.0 / c->n_lines;
        }
    for (int k = 0; k < n; k++) s[k] = (page_series){ c->system[which[k]].name.s, x, share[k], longest + 1, NULL, NULL };
    page_plot(b, "Length of the replies", "Share of the replies by their number of words; the last place holds all longer ones.", PAGE_LINES, "words", "% of the replies", s, n);
}
