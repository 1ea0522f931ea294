/* sweep_report: see sweep_report.h. */
#include "eval/sweep_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/page.h"
#include "eval/plots.h"
#include "eval/report.h"

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the report of a sweep"); }

/* The columns of the table: what tells most at a glance. */
static const int    shown[]  = { METRIC_BLEU1 + 1, METRIC_BLEU4, METRIC_NIST1 + 1, METRIC_METEOR, METRIC_F1, METRIC_DISTINCT1 + 1, METRIC_ENTROPY4, METRIC_AVG_LEN, METRIC_GENERIC, METRIC_REPETITION };
static const char *const title[] = { "BLEU-2", "BLEU-4", "NIST-2", "METEOR", "F1", "Dist-2", "Ent-4", "length", "generic", "repeats" };
enum { N_SHOWN = sizeof shown / sizeof shown[0], FIGURES_OF = 3 };

static int crossing(const sweep_result *s)
{
    for (int p = 0; p < s->plan->n; p++) {
        const respond_opts *o = &s->plan->point[p].o, *b = s->base;
        if (o->mode == b->mode && o->n_cand == b->n_cand && o->temperature == b->temperature && o->lambda == b->lambda) return p;
    }
    return 0;
}

/* What the models think of the replies that were chosen, and how many are those of the baseline. */
typedef struct {
    double forward, reverse; /* mean log P a token; NaN without */
    double same;             /* share of items with the baseline's reply */
} chosen_means;

static chosen_means means_of(const sweep_result *s, int p)
{
    double fwd = 0, bwd = 0, n = 0, m = 0, same = 0;
    for (int i = 0; i < s->set->n; i++) {
        const sweep_reply *r = &s->reply[p][i];
        same += str_eq(r->text, s->reply[0][i].text);
        if (isfinite(r->fwd) && r->tokens > 0) fwd += r->fwd / r->tokens, n++;
        if (isfinite(r->bwd) && r->source > 0) bwd += r->bwd / r->source, m++;
    }
    return (chosen_means){ n > 0 ? fwd / n : NAN, m > 0 ? bwd / m : NAN, same / s->set->n };
}

static int differs(const sweep_result *s, int p, int k) { return s->card->doubt.resamples && p && s->card->system[p].against[k].p < 0.05; }

static void put_mark(const sweep_result *s, int p, int k, buf *out)
{
    if (differs(s, p, k)) buf_str(out, s->card->system[p].explained[k] ? STR("*L") : STR("*"));
}

static void put_fixed(const sweep_result *s, buf *out)
{
    buf_fmt(out, "%d items; %s; what is not swept: ", s->set->n, s->models);
    respond_opts_format(s->base, out);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

int sweep_table(const sweep_result *s, buf *out, err *e)
{
    buf cell = { 0 };
    buf_fmt(out, "%-26s", "");
    for (int k = 0; k < N_SHOWN; k++)
        if (scorecard_shows(s->card, shown[k])) buf_fmt(out, " %9s", title[k]);
    buf_fmt(out, " %9s %9s %9s %6s\n", "D-2 equal", "fwd/tok", "rev/tok", "same");
    for (int p = 0; p < s->plan->n; p++) {
        chosen_means m = means_of(s, p);
        buf_fmt(out, "%-26s", s->plan->point[p].name);
        for (int k = 0; k < N_SHOWN; k++) {
            if (!scorecard_shows(s->card, shown[k])) continue;
            buf_reset(&cell);
            scorecard_number(shown[k], s->card->system[p].v[shown[k]], &cell);
            put_mark(s, p, shown[k], &cell);
            buf_fmt(out, " %9s", cell.s ? cell.s : "");
        }
        buf_fmt(out, " %9.2f %9.3f %9.3f %5.0f%%\n", 100 * s->card->system[p].equal[1], m.forward, m.reverse, 100 * m.same);
    }
    if (s->card->doubt.resamples)
        buf_fmt(out, "\n* differs from %s (p < 0.05); L: no longer, or the other way round, once both replies are cut to one length\n", s->plan->point[0].name);
    put_fixed(s, out);
    buf_str(out, STR("\nsignature: "));
    int r = scorecard_signature(s->card, out, e);
    buf_chr(out, '\n');
    out->oom |= cell.oom;
    buf_free(&cell);
    return r ? r : out->oom ? no_memory(e) : OK;
}

int sweep_markdown(const sweep_result *s, buf *out, err *e)
{
    buf_str(out, STR("| setting |"));
    for (int k = 0; k < N_SHOWN; k++)
        if (scorecard_shows(s->card, shown[k])) buf_fmt(out, " %s |", title[k]);
    buf_str(out, STR(" Dist-2, equal size | log P forward, a token | log P reverse, a token | as baseline |\n|---|"));
    for (int k = 0; k < N_SHOWN; k++)
        if (scorecard_shows(s->card, shown[k])) buf_str(out, STR("---:|"));
    buf_str(out, STR("---:|---:|---:|---:|\n"));
    for (int p = 0; p < s->plan->n; p++) {
        chosen_means m = means_of(s, p);
        buf_fmt(out, "| %s |", s->plan->point[p].name);
        for (int k = 0; k < N_SHOWN; k++) {
            if (!scorecard_shows(s->card, shown[k])) continue;
            buf_chr(out, ' ');
            scorecard_number(shown[k], s->card->system[p].v[shown[k]], out);
            put_mark(s, p, shown[k], out);
            if (s->card->doubt.resamples) {
                buf_str(out, STR(" ["));
                scorecard_number(shown[k], s->card->system[p].ci[shown[k]].lo, out);
                buf_str(out, STR(", "));
                scorecard_number(shown[k], s->card->system[p].ci[shown[k]].hi, out);
                buf_chr(out, ']');
            }
            buf_str(out, STR(" |"));
        }
        buf_fmt(out, " %.2f | %.3f | %.3f | %.0f %% |\n", 100 * s->card->system[p].equal[1], m.forward, m.reverse, 100 * m.same);
    }
    buf_fmt(out, "\n\\* differs from %s (p < 0.05); L: no longer, or the other way round, once both replies of an item are cut to one length.\n\n", s->plan->point[0].name);
    put_fixed(s, out);
    buf_str(out, STR("\n\n`"));
    int r = scorecard_signature(s->card, out, e);
    buf_str(out, STR("`\n"));
    return r ? r : out->oom ? no_memory(e) : OK;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *js_finite(double x) { return isfinite(x) ? json_real(x) : json_null(); }

json_t *sweep_json(const sweep_result *s, err *e)
{
    json_t *root = scorecard_json(s->card, e), *systems = json_object_get(root, "systems");
    buf     b = { 0 };
    if (!root) return NULL;
    if (!systems) { /* one point alone: its numbers are the root */
        systems = json_array();
        json_array_append(systems, root);
    } else json_incref(systems);
    for (int p = 0; p < s->plan->n; p++) {
        chosen_means m = means_of(s, p);
        json_t      *o = json_array_get(systems, (size_t)p);
        buf_reset(&b);
        respond_opts_format(&s->plan->point[p].o, &b);
        json_object_set_new(o, "options", json_stringn(b.s ? b.s : "", b.n));
        json_object_set_new(o, "drawing", json_string(s->plan->drawing[s->plan->point[p].drawing].name));
        json_object_set_new(o, "chosen", json_pack("{s:o, s:o, s:f}", "forward_token", js_finite(m.forward), "reverse_token", js_finite(m.reverse), "as_baseline", m.same));
    }
    json_decref(systems);
    json_object_set_new(root, "models", json_string(s->models));
    json_object_set_new(root, "items", json_integer(s->set->n));
    if (b.oom) {
        json_decref(root);
        root = NULL;
        no_memory(e);
    }
    buf_free(&b);
    return root;
}

/* ---- the page -------------------------------------------------------------------------------------------------- */

static void put_rows(buf *b, const sweep_result *s)
{
    buf heads = { 0 }, cell = { 0 };
    buf_str(&heads, STR("setting"));
    for (int k = 0; k < N_SHOWN; k++)
        if (scorecard_shows(s->card, shown[k])) buf_fmt(&heads, "|#%s%s", title[k], metric_list[shown[k]].percent ? ", %" : "");
    buf_str(&heads, STR("|#Dist-2, equal size|#forward|#reverse|#as baseline"));
    page_table(b, heads.s ? heads.s : "");
    for (int p = 0; p < s->plan->n; p++) {
        chosen_means  m = means_of(s, p);
        const scored *x = &s->card->system[p];
        page_row(b);
        page_cell(b, str_of(s->plan->point[p].name));
        for (int k = 0; k < N_SHOWN; k++) {
            int metric = shown[k];
            if (!scorecard_shows(s->card, metric)) continue;
            buf_reset(&cell);
            scorecard_number(metric, x->v[metric], &cell);
            put_mark(s, p, metric, &cell);
            if (s->card->doubt.resamples) {
                buf_str(&cell, STR("<br><small>["));
                scorecard_number(metric, x->ci[metric].lo, &cell);
                buf_str(&cell, STR(", "));
                scorecard_number(metric, x->ci[metric].hi, &cell);
                buf_str(&cell, STR("]</small>"));
            }
            page_cell_html(b, differs(s, p, metric), &cell);
        }
        page_cell_num(b, "%.2f", 100 * x->equal[1]);
        page_cell_num(b, "%.3f", m.forward);
        if (isfinite(m.reverse)) page_cell_num(b, "%.3f", m.reverse);
        else page_cell_num(b, "–");
        page_cell_num(b, "%.0f %%", 100 * m.same);
    }
    page_table_end(b);
    b->oom |= heads.oom | cell.oom;
    buf_free(&heads);
    buf_free(&cell);
}

static void put_axes(buf *b, const sweep_result *s, const respond_opts *const *opts)
{
    static const char *const id[] = { "lambda", "candidates", "temperature" };
    for (int axis = 0; axis < PLOT_AXES; axis++) {
        buf f = { 0 };
        if (plot_axis(&f, s->card, opts, axis)) {
            page_section(b, id[axis], plot_axis_title(axis));
            page_figures(b);
            buf_str(b, buf_view(&f));
            page_figures_end(b);
        }
        b->oom |= f.oom;
        buf_free(&f);
    }
}

/* The baseline, the crossing, and another of its N and temperature that is neither, the reverse score alone before others. */
static int three(const sweep_result *s, int at[FIGURES_OF])
{
    int n = 0, c = crossing(s), other = -1;
    const respond_opts *x = &s->plan->point[c].o;
    at[n++] = 0;
    if (c != 0) at[n++] = c;
    for (int p = 1; p < s->plan->n; p++) {
        const respond_opts *o = &s->plan->point[p].o;
        if (p == c || o->n_cand != x->n_cand || o->temperature != x->temperature || o->mode == x->mode) continue;
        if (other < 0 || (o->mode == MODE_MMI && s->plan->point[other].o.mode != MODE_MMI)) other = p;
    }
    if (other >= 0) at[n++] = other;
    return n;
}

static int put_scatters(buf *b, const sweep_result *s, const int *at, int n, err *e)
{
    int *pick = calloc((size_t)s->set->n + 1, sizeof *pick), r = pick ? OK : no_memory(e);
    for (int k = 0; k < n && r == OK; k++) {
        const sweep_point *p = &s->plan->point[at[k]];
        for (int i = 0; i < s->set->n; i++) pick[i] = s->reply[at[k]][i].chosen;
        r = plot_scatter(b, p->name, s->lines[p->drawing], pick, e);
    }
    free(pick);
    return r;
}

static double apart(const sweep_result *s, int a, int b, int i)
{
    const metric_rows *x = &s->card->system[a].rows, *y = &s->card->system[b].rows;
    return x->has_refs ? fabs(x->sentence[i].meteor - y->sentence[i].meteor) : abs(x->words[i] - y->words[i]);
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

static int put_items(buf *b, const sweep_result *s, const int *at, int n, int listed, err *e)
{
    spread *x = malloc(((size_t)s->set->n + 1) * sizeof *x);
    if (!x) return no_memory(e);
    for (int i = 0; i < s->set->n; i++) x[i] = (spread){ n > 1 ? apart(s, at[0], at[1], i) : 0, i };
    qsort(x, (size_t)s->set->n, sizeof *x, by_spread);
    for (int i = 0; i < s->set->n && i < listed; i++) {
        report_reply r[FIGURES_OF];
        int          item = x[i].item;
        for (int k = 0; k < n; k++) {
            const sweep_point *p = &s->plan->point[at[k]];
            r[k] = (report_reply){ str_of(p->name), s->reply[at[k]][item].text, k == n - 1 ? json_array_get(s->lines[p->drawing], (size_t)item) : NULL,
                                   s->reply[at[k]][item].chosen, k, s->card->system[at[k]].rows.has_refs ? s->card->system[at[k]].rows.sentence[item].meteor : NAN };
        }
        report_item(b, &s->set->item[item], item + 1, r, n);
    }
    free(x);
    return OK;
}

int sweep_html(const sweep_result *s, int listed, buf *out, err *e)
{
    const respond_opts **opts = calloc((size_t)s->plan->n + 1, sizeof *opts);
    int                  at[FIGURES_OF], n = three(s, at), r = opts ? OK : no_memory(e);
    buf                  note = { 0 };
    for (int p = 0; opts && p < s->plan->n; p++) opts[p] = &s->plan->point[p].o;
    page_begin(out, "en", STR("Duet: a sweep over the ranking"));
    put_fixed(s, &note);
    page_note(out, "%s", note.s ? note.s : "");
    page_note(out, "Bands and brackets: %g %% intervals of %d resamples of the items.", 100 * s->card->doubt.level, s->card->doubt.resamples);
    if (r == OK) put_axes(out, s, opts);
    page_section(out, "depth", "Depth and length");
    page_figures(out);
    plot_depth(out, s->card, s->set, at, n);
    plot_lengths(out, s->card, at, n);
    page_figures_end(out);
    page_section(out, "scores", "Forward against reverse score");
    page_figures(out);
    if (r == OK) r = put_scatters(out, s, at, n, e);
    page_figures_end(out);
    page_section(out, "table", "All settings");
    page_note(out, "* and bold: differs from %s (p < 0.05); L: no longer, or the other way round, once both replies of an item are cut to one length. forward, reverse: mean log P a token of the "
                   "chosen replies, of the line after them.",
              s->plan->point[0].name);
    put_rows(out, s);
    buf_reset(&note);
    if (scorecard_signature(s->card, &note, e) == OK) page_note(out, "%s", note.s);
    page_section(out, "items", "Where they differ most");
    if (r == OK) r = put_items(out, s, at, n, listed, e);
    page_end(out);
    free(opts);
    out->oom |= note.oom;
    buf_free(&note);
    return r ? r : out->oom ? no_memory(e) : OK;
}
