/* report: see report.h.  Text of models and test sets is escaped, control characters made visible. */
#include "eval/report.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "corpus/dialogue.h"
#include "eval/page.h"
#include "eval/plots.h"

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the page"); }

static void dot(buf *b, int s) { buf_fmt(b, "<i class=\"dot\" style=\"background:var(--c%d)\"></i>", s % PAGE_COLOURS); }

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void put_range(buf *b, int k, double lo, double hi)
{
    buf_str(b, STR("<br><small>["));
    scorecard_number(k, lo, b);
    buf_str(b, STR(", "));
    scorecard_number(k, hi, b);
    buf_str(b, STR("]</small>"));
}

static void put_cell(buf *b, const scorecard *c, int s, int k, buf *cell)
{
    const scored     *x = &c->system[s];
    const comparison *d = &x->against[k];
    int               doubt = c->doubt.resamples != 0, real = doubt && s && d->p < 0.05;
    buf_reset(cell);
    if (real && x->explained[k]) buf_str(cell, STR("<span class=\"len\">"));
    scorecard_number(k, x->v[k], cell);
    if (real && x->explained[k]) buf_str(cell, STR("</span>"));
    if (doubt) put_range(cell, k, x->ci[k].lo, x->ci[k].hi);
    if (doubt && s) {
        buf_fmt(cell, "<br><small>%s", d->diff >= 0 ? "+" : "");
        scorecard_number(k, d->diff, cell);
        buf_fmt(cell, ", p %.4f</small>", d->p);
    }
    page_cell_html(b, real, cell);
}

static void put_perplexity(buf *b, const scorecard *c, const report_system *sys, const char *what, size_t at)
{
    int any = 0;
    for (int s = 0; s < c->n; s++) any |= !isnan(*(const double *)((const char *)&sys[s].ppl + at));
    if (!any) return;
    page_row(b);
    page_cell(b, str_of(what));
    for (int s = 0; s < c->n; s++) {
        double v = *(const double *)((const char *)&sys[s].ppl + at);
        if (isnan(v)) page_cell_num(b, "–");
        else page_cell_num(b, "%.3f", v);
    }
}

static void put_table(buf *b, const scorecard *c, const report_system *sys)
{
    buf heads = { 0 }, cell = { 0 };
    page_section(b, "metrics", "Metrics");
    buf_str(&heads, STR("metric"));
    for (int s = 0; s < c->n; s++) {
        buf_str(&heads, STR("|#"));
        buf_str(&heads, c->system[s].name);
    }
    page_table(b, heads.s ? heads.s : "");
    for (int k = 0; k < METRICS; k++) {
        if (!scorecard_shows(c, k)) continue;
        page_row(b);
        buf_reset(&cell);
        buf_fmt(&cell, "%s%s", metric_list[k].title, metric_list[k].percent ? ", %" : "");
        page_cell(b, buf_view(&cell));
        for (int s = 0; s < c->n; s++) put_cell(b, c, s, k, &cell);
    }
    for (int n = 1; n <= VARIETY_DISTINCT && c->n > 1; n++) {
        page_row(b);
        buf_reset(&cell);
        buf_fmt(&cell, "Distinct-%d of %.0f n-grams, %%", n, c->size[n - 1]);
        page_cell(b, buf_view(&cell));
        for (int s = 0; s < c->n; s++) {
            buf_reset(&cell);
            scorecard_number(METRIC_DISTINCT1, c->system[s].equal[n - 1], &cell);
            page_cell_html(b, 0, &cell);
        }
    }
    put_perplexity(b, c, sys, "perplexity of the references, a token", offsetof(perplexities, token));
    put_perplexity(b, c, sys, "… mean over items (DialoGPT)", offsetof(perplexities, item));
    put_perplexity(b, c, sys, "… a character", offsetof(perplexities, character));
    put_perplexity(b, c, sys, "… a word", offsetof(perplexities, word));
    page_table_end(b);
    b->oom |= heads.oom | cell.oom;
    buf_free(&heads);
    buf_free(&cell);
}

static void put_legend(buf *b, const scorecard *c, const report_system *sys, err *e)
{
    buf sig = { 0 };
    page_note(b, "%d items, %d systems.", c->n_lines, c->n);
    if (c->doubt.resamples)
        page_note(b, "In brackets: %g %% intervals of %d resamples. Under them: the difference from the first system and its p; bold when p < 0.05, red when it vanishes once "
                     "both replies of a line are cut to the same length.",
                  100 * c->doubt.level, c->doubt.resamples);
    for (int s = 0; s < c->n; s++) {
        buf_str(b, STR("<p>"));
        dot(b, s);
        buf_str(b, STR("<b>"));
        page_text(b, c->system[s].name);
        buf_str(b, STR("</b> <small>"));
        page_text(b, str_of(sys[s].settings));
        buf_str(b, STR("</small></p>\n"));
    }
    if (scorecard_signature(c, &sig, e) == OK) page_note(b, "%s", sig.s);
    b->oom |= sig.oom;
    buf_free(&sig);
    scorecard_warnings(c, &sig);
    str rest = buf_view(&sig), line;
    while (next_line(&rest, &line)) page_note(b, "Warning: %.*s", (int)line.n, line.s);
    b->oom |= sig.oom;
    buf_free(&sig);
}

/* ---- plots ----------------------------------------------------------------------------------------------------- */

static int put_plots(buf *b, const scorecard *c, const testset *t, const report_system *sys, err *e)
{
    const respond_opts **opts  = calloc((size_t)c->n + 1, sizeof *opts);
    int                 *which = calloc((size_t)c->n + 1, sizeof *which), r = opts && which ? OK : no_memory(e);
    for (int s = 0; s < c->n && r == OK; s++) {
        opts[s]  = sys[s].opts;
        which[s] = s;
    }
    for (int axis = 0; axis < PLOT_AXES && r == OK; axis++) {
        buf figures = { 0 };
        if (plot_axis(&figures, c, opts, axis)) {
            page_section(b, axis == PLOT_LAMBDA ? "lambda" : axis == PLOT_N ? "candidates" : "temperature", plot_axis_title(axis));
            page_figures(b);
            buf_str(b, buf_view(&figures));
            page_figures_end(b);
        }
        b->oom |= figures.oom;
        buf_free(&figures);
    }
    if (r == OK) {
        page_section(b, "lengths", "Depth and length");
        page_figures(b);
        plot_depth(b, c, t, which, c->n);
        plot_lengths(b, c, which, c->n);
        page_figures_end(b);
        page_section(b, "scores", "Forward against reverse score");
        page_figures(b);
    }
    for (int s = 0; s < c->n && r == OK; s++)
        if (sys[s].lines) r = plot_scatter(b, c->system[s].name.s, sys[s].lines, NULL, e);
    page_figures_end(b);
    free(opts);
    free(which);
    return r;
}

/* ---- items ----------------------------------------------------------------------------------------------------- */

static void put_score(buf *b, const json_t *v)
{
    if (json_is_number(v)) page_cell_num(b, "%.3f", json_number_value(v));
    else page_cell_num(b, "–");
}

static void put_candidates(buf *b, const report_reply *r)
{
    const json_t *cand, *cands = json_object_get(r->line, "candidates");
    size_t        k, n = json_array_size(cands);
    if (n == 0) return;
    buf_fmt(b, "<details><summary>%zu candidate%s</summary>", n, n == 1 ? "" : "s");
    page_table(b, "reply|fate|#forward|#reverse|#score");
    json_array_foreach(cands, k, cand) {
        const json_t *t = json_object_get(cand, "text");
        buf_str(b, (int)k == r->chosen ? STR("<tr class=\"chosen\">") : STR("<tr>"));
        page_cell(b, (str){ json_string_value(t), json_string_length(t) });
        page_cell(b, str_of(json_string_value(json_object_get(cand, "fate"))));
        put_score(b, json_object_get(cand, "fwd"));
        put_score(b, json_object_get(cand, "bwd"));
        put_score(b, json_object_get(cand, "score"));
    }
    page_table_end(b);
    buf_str(b, STR("</details>\n"));
}

void report_item(buf *b, const test_item *x, int number, const report_reply *r, int n)
{
    page_card(b, "%d", number);
    for (int k = 0; k < x->n_turn; k++) page_say(b, (x->n_turn - 1 - k) & 1 ? STR(">") : STR("<"), x->turn[k]);
    for (int s = 0; s < n; s++) {
        buf_str(b, STR("<p class=\"reply\">"));
        dot(b, r[s].colour);
        buf_str(b, STR("<b>"));
        page_text(b, r[s].text);
        buf_str(b, STR("</b> <small>"));
        page_text(b, r[s].name);
        if (!isnan(r[s].meteor)) buf_fmt(b, ", METEOR %.1f", 100 * r[s].meteor);
        buf_str(b, STR("</small></p>\n"));
        if (r[s].line) put_candidates(b, &r[s]);
    }
    for (int k = 0; k < x->n_ref; k++) {
        buf_str(b, STR("<p class=\"note\">reference: "));
        page_text(b, x->ref[k]);
        buf_str(b, STR("</p>\n"));
    }
    page_card_end(b);
}

static void put_item(buf *b, const scorecard *c, const testset *t, const report_system *sys, int i, int with_candidates, report_reply *r)
{
    for (int s = 0; s < c->n; s++) {
        const json_t *line = with_candidates && sys[s].lines ? json_array_get(sys[s].lines, (size_t)i) : NULL;
        r[s] = (report_reply){ c->system[s].name, c->system[s].hyp[i], line, (int)json_integer_value(json_object_get(line, "chosen")), s,
                               scorecard_shows(c, METRIC_METEOR) ? c->system[s].rows.sentence[i].meteor : NAN };
    }
    report_item(b, &t->item[i], i + 1, r, c->n);
}

typedef struct {
    double by;
    int    item;
} spread;
static int by_spread(const void *a, const void *b)
{
    const spread *x = a, *y = b;
    return x->by != y->by ? (x->by < y->by) - (x->by > y->by) : (x->item > y->item) - (x->item < y->item);
}

/* How far apart the systems are on an item: the range of METEOR, or of the words. */
static double spread_of(const scorecard *c, int i)
{
    double lo = INFINITY, hi = -INFINITY;
    for (int s = 0; s < c->n; s++) {
        const metric_rows *m = &c->system[s].rows;
        double             v = m->has_refs ? m->sentence[i].meteor : m->words[i];
        lo = fmin(lo, v);
        hi = fmax(hi, v);
    }
    return hi - lo;
}

int report_spread(const scorecard *c, int *order, err *e)
{
    spread *x = malloc(((size_t)c->n_lines + 1) * sizeof *x);
    int     n = 0;
    if (!x) return no_memory(e);
    for (int i = 0; i < c->n_lines; i++) x[i] = (spread){ spread_of(c, i), i };
    qsort(x, (size_t)c->n_lines, sizeof *x, by_spread);
    while (n < c->n_lines && x[n].by > 0) order[n] = x[n].item, n++;
    free(x);
    return n;
}

int report_html(const char *title, const scorecard *c, const testset *t, const report_system *sys, int most, int listed, buf *out, err *e)
{
    report_reply *said  = calloc((size_t)c->n + 1, sizeof *said);
    int          *order = calloc((size_t)c->n_lines + 1, sizeof *order), n = 0, r = said && order ? OK : no_memory(e);
    page_begin(out, "en", str_of(title));
    put_legend(out, c, sys, e);
    put_table(out, c, sys);
    if (r == OK) r = put_plots(out, c, t, sys, e);
    if (r == OK && c->n > 1) {
        n = report_spread(c, order, e);
        r = n < 0 ? n : OK;
        page_section(out, "differences", "Where the systems differ most");
    }
    for (int i = 0; i < n && i < most && r == OK; i++) put_item(out, c, t, sys, order[i], 0, said);
    page_section(out, "replies", "Replies");
    if (t->n > listed) page_note(out, "The first %d of %d items; all are in the JSONL files beside this page.", listed, t->n);
    for (int i = 0; i < t->n && i < listed && r == OK; i++) put_item(out, c, t, sys, i, 1, said);
    page_end(out);
    free(said);
    free(order);
    return r ? r : out->oom ? no_memory(e) : OK;
}
