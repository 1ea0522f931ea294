/* report: see report.h.  Text of models and test sets is escaped, control characters made visible. */
#include "eval/report.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { PLOT_W = 520, PLOT_H = 340, EDGE = 46, MAX_DOTS = 1500 };

static const char *const colour[] = { "#2f6fb5", "#c4572b", "#3b8a4c", "#8a4fa3", "#9a7b16", "#3f8f95", "#b03a66", "#5a5a5a" };
static const char *colour_of(int s) { return colour[s % (int)(sizeof colour / sizeof colour[0])]; }
static int         no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the page"); }

static void put_text(buf *b, str s)
{
    buf v = { 0 };
    buf_visible(&v, s);
    for (size_t i = 0; i < v.n; i++) switch (v.s[i]) {
        case '&': buf_str(b, STR("&amp;")); break;
        case '<': buf_str(b, STR("&lt;")); break;
        case '>': buf_str(b, STR("&gt;")); break;
        case '"': buf_str(b, STR("&quot;")); break;
        default: buf_chr(b, v.s[i]);
        }
    b->oom |= v.oom;
    buf_free(&v);
}

static void put_head(buf *b, const char *title)
{
    buf_str(b, STR("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>"));
    put_text(b, str_of(title));
    buf_str(b, STR("</title><style>\n"
        ":root{--fg:#1c1c1c;--dim:#666;--line:#ddd;--bg:#fff;--soft:#f5f5f3}\n"
        "@media(prefers-color-scheme:dark){:root{--fg:#e6e6e6;--dim:#9a9a9a;--line:#3a3a3a;--bg:#181818;--soft:#232323}}\n"
        "body{font:15px/1.5 system-ui,'Noto Sans CJK SC',sans-serif;color:var(--fg);background:var(--bg);max-width:70rem;margin:0 auto;padding:1rem}\n"
        "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}small,.dim{color:var(--dim)}\n"
        ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
        "th,td{padding:.2rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\n"
        "th:first-child,td:first-child{text-align:left;white-space:normal;min-width:6.5rem;max-width:11rem;position:sticky;left:0;background:var(--bg)}\n"
        ".cands td:first-child{max-width:none}\n"
        ".real{font-weight:600}.len{color:#b35c00}.key{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.3em}\n"
        "svg{max-width:100%;height:auto}svg text{fill:var(--dim);font-size:12px}svg .axis{stroke:var(--dim);fill:none}\n"
        ".item{border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem;margin:.6rem 0}.turn{color:var(--dim)}\n"
        ".reply{margin:.25rem 0}.reply b{font-weight:600}details{margin:.15rem 0 .4rem 1rem}summary{cursor:pointer;color:var(--dim)}\n"
        ".cands td{white-space:normal;text-align:left;vertical-align:top}.cands .n{text-align:right;white-space:nowrap}.chosen td{background:var(--soft);font-weight:600}\n"
        ".sig{overflow-wrap:anywhere;font:12px/1.4 ui-monospace,monospace;color:var(--dim)}.warn{background:var(--soft);border-left:3px solid #b35c00;padding:.4rem .8rem}\n"
        "</style></head><body>\n<h1>"));
    put_text(b, str_of(title));
    buf_str(b, STR("</h1>\n"));
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void put_range(buf *b, int k, double lo, double hi)
{
    buf_str(b, STR("<br><small>["));
    scorecard_number(k, lo, b);
    buf_str(b, STR(", "));
    scorecard_number(k, hi, b);
    buf_str(b, STR("]</small>"));
}

static void put_cell(buf *b, const scorecard *c, int s, int k)
{
    const scored     *x = &c->system[s];
    const comparison *d = &x->against[k];
    int               doubt = c->doubt.resamples != 0, real = doubt && s && d->p < 0.05;
    buf_fmt(b, "<td%s>", real ? x->explained[k] ? " class=\"real len\"" : " class=\"real\"" : "");
    scorecard_number(k, x->v[k], b);
    if (doubt) put_range(b, k, x->ci[k].lo, x->ci[k].hi);
    if (doubt && s) {
        buf_fmt(b, "<br><small>%s", d->diff >= 0 ? "+" : "");
        scorecard_number(k, d->diff, b);
        buf_fmt(b, ", p %.4f</small>", d->p);
    }
    buf_str(b, STR("</td>"));
}

static void put_perplexity(buf *b, const scorecard *c, const report_system *sys, const char *what, size_t at)
{
    int any = 0;
    for (int s = 0; s < c->n; s++) any |= !isnan(*(const double *)((const char *)&sys[s].ppl + at));
    if (!any) return;
    buf_fmt(b, "<tr><td>%s</td>", what);
    for (int s = 0; s < c->n; s++) {
        double v = *(const double *)((const char *)&sys[s].ppl + at);
        if (isnan(v)) buf_str(b, STR("<td>–</td>"));
        else buf_fmt(b, "<td>%.3f</td>", v);
    }
    buf_str(b, STR("</tr>\n"));
}

static void put_table(buf *b, const scorecard *c, const report_system *sys)
{
    buf_str(b, STR("<h2>Metrics</h2>\n<div class=\"wide\"><table><tr><th>metric</th>"));
    for (int s = 0; s < c->n; s++) {
        buf_fmt(b, "<th><span class=\"key\" style=\"background:%s\"></span>", colour_of(s));
        put_text(b, c->system[s].name);
        buf_str(b, STR("</th>"));
    }
    buf_str(b, STR("</tr>\n"));
    for (int k = 0; k < METRICS; k++) {
        if (!scorecard_shows(c, k)) continue;
        buf_fmt(b, "<tr><td>%s%s</td>", metric_list[k].title, metric_list[k].percent ? ", %" : "");
        for (int s = 0; s < c->n; s++) put_cell(b, c, s, k);
        buf_str(b, STR("</tr>\n"));
    }
    for (int n = 1; n <= VARIETY_DISTINCT && c->n > 1; n++) {
        buf_fmt(b, "<tr><td>Distinct-%d of %.0f n-grams, %%</td>", n, c->size[n - 1]);
        for (int s = 0; s < c->n; s++) {
            buf_str(b, STR("<td>"));
            scorecard_number(METRIC_DISTINCT1, c->system[s].equal[n - 1], b);
            buf_str(b, STR("</td>"));
        }
        buf_str(b, STR("</tr>\n"));
    }
    put_perplexity(b, c, sys, "perplexity of the references, a token", offsetof(perplexities, token));
    put_perplexity(b, c, sys, "… mean over items (DialoGPT)", offsetof(perplexities, item));
    put_perplexity(b, c, sys, "… a character", offsetof(perplexities, character));
    put_perplexity(b, c, sys, "… a word", offsetof(perplexities, word));
    buf_str(b, STR("</table></div>\n"));
}

static void put_legend(buf *b, const scorecard *c, const report_system *sys, err *e)
{
    buf_fmt(b, "<p class=\"dim\">%d items. ", c->n_lines);
    if (c->doubt.resamples)
        buf_fmt(b, "In brackets: %g %% intervals of %d resamples. Under them: the difference from the first system and its p; bold when p &lt; 0.05, "
                   "<span class=\"len\">orange</span> when it vanishes once both replies of a line are cut to the same length.", 100 * c->doubt.level, c->doubt.resamples);
    buf_str(b, STR("</p>\n<ul>\n"));
    for (int s = 0; s < c->n; s++) {
        buf_fmt(b, "<li><span class=\"key\" style=\"background:%s\"></span><b>", colour_of(s));
        put_text(b, c->system[s].name);
        buf_str(b, STR("</b> <span class=\"sig\">"));
        put_text(b, str_of(sys[s].settings));
        buf_str(b, STR("</span></li>\n"));
    }
    buf_str(b, STR("</ul>\n<p class=\"sig\">"));
    buf sig = { 0 };
    if (scorecard_signature(c, &sig, e) == OK) put_text(b, buf_view(&sig));
    b->oom |= sig.oom;
    buf_free(&sig);
    buf_str(b, STR("</p>\n"));
}

/* ---- plots ----------------------------------------------------------------------------------------------------- */

typedef struct {
    double x0, x1, y0, y1;
} frame;
static double px(const frame *f, double x) { return EDGE + (x - f->x0) / (f->x1 - f->x0) * (PLOT_W - EDGE - 10); }
static double py(const frame *f, double y) { return PLOT_H - EDGE + 8 - (y - f->y0) / (f->y1 - f->y0) * (PLOT_H - EDGE - 4); }

/* A round step that gives about five ticks. */
static double tick_step(double span)
{
    double s = pow(10, floor(log10(span / 5)));
    return span / 5 / s < 1.5 ? s : span / 5 / s < 3.5 ? 2 * s : span / 5 / s < 7.5 ? 5 * s : 10 * s;
}

static void put_axes(buf *b, const frame *f, const char *x, const char *y)
{
    buf_fmt(b, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" aria-label=\"%s against %s\">\n<path class=\"axis\" d=\"M%d,4V%dH%d\"/>\n", PLOT_W, PLOT_H, PLOT_W, y, x, EDGE,
            PLOT_H - EDGE + 8, PLOT_W - 10);
    double sx = tick_step(f->x1 - f->x0), sy = tick_step(f->y1 - f->y0);
    for (double v = ceil(f->x0 / sx) * sx; v <= f->x1; v += sx)
        buf_fmt(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.4g</text>", px(f, v), PLOT_H - EDGE + 22, fabs(v) < sx / 1e6 ? 0 : v);
    for (double v = ceil(f->y0 / sy) * sy; v <= f->y1; v += sy)
        buf_fmt(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", EDGE - 5, py(f, v) + 4, fabs(v) < sy / 1e6 ? 0 : v);
    buf_fmt(b, "\n<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text><text x=\"12\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 12 %d)\">%s</text>\n", (PLOT_W + EDGE) / 2,
            PLOT_H - 4, x, (PLOT_H - EDGE) / 2, (PLOT_H - EDGE) / 2, y);
}

/* Shares of replies by their number of words. */
static void put_lengths(buf *b, const scorecard *c)
{
    enum { BINS = 41 };
    static const double none[BINS];
    double share[8][BINS], top = 0;
    int    n = c->n < 8 ? c->n : 8, longest = 1;
    for (int s = 0; s < n; s++) {
        memcpy(share[s], none, sizeof none);
        for (int i = 0; i < c->n_lines; i++) {
            int w = c->system[s].rows.words[i];
            w = w < BINS ? w : BINS - 1;
            if (w > longest) longest = w;
            share[s][w] += 100.0 / c->n_lines;
            top = fmax(top, share[s][w]);
        }
    }
    frame f = { 0, longest + 1, 0, top > 0 ? top * 1.05 : 1 };
    buf_str(b, STR("<h2>Length of the replies</h2>\n<p class=\"dim\">Share of the replies by their number of words; the last place holds all longer ones.</p>\n"));
    put_axes(b, &f, "words", "% of the replies");
    for (int s = 0; s < n; s++) {
        buf_fmt(b, "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" points=\"", colour_of(s));
        for (int w = 0; w <= longest; w++) buf_fmt(b, "%.1f,%.1f ", px(&f, w), py(&f, share[s][w]));
        buf_str(b, STR("\"/>\n"));
    }
    buf_str(b, STR("</svg>\n"));
}

typedef struct {
    double fwd, bwd;
    int    chosen;
} dot;

/* Candidates that both models scored, a token: of the whole set, thinned evenly to MAX_DOTS, all chosen ones kept in proportion. */
static int gather_dots(const json_t *lines, dot *d)
{
    int          n = 0, seen = 0;
    size_t       i, k, all = 0;
    const json_t *line, *cand;
    json_array_foreach(lines, i, line) all += json_array_size(json_object_get(line, "candidates"));
    int every = (int)(all / MAX_DOTS) + 1;
    json_array_foreach(lines, i, line) {
        json_int_t chosen = json_integer_value(json_object_get(line, "chosen"));
        json_array_foreach(json_object_get(line, "candidates"), k, cand) {
            const json_t *f = json_object_get(cand, "fwd"), *w = json_object_get(cand, "bwd");
            double        tokens = json_number_value(json_object_get(cand, "tokens")) + json_is_true(json_object_get(cand, "ended"));
            if (!json_is_number(f) || !json_is_number(w) || tokens < 1) continue;
            if (seen++ % every == 0 && n < MAX_DOTS) d[n++] = (dot){ json_number_value(f) / tokens, json_number_value(w), (json_int_t)k == chosen };
        }
    }
    return n;
}

static int put_scatter(buf *b, const scorecard *c, const report_system *sys, err *e)
{
    dot *d = malloc(MAX_DOTS * sizeof *d);
    if (!d) return no_memory(e);
    for (int s = 0, first = 1; s < c->n; s++) {
        int   n = sys[s].lines ? gather_dots(sys[s].lines, d) : 0;
        frame f = { INFINITY, -INFINITY, INFINITY, -INFINITY };
        if (n < 2) continue;
        for (int i = 0; i < n; i++) f = (frame){ fmin(f.x0, d[i].fwd), fmax(f.x1, d[i].fwd), fmin(f.y0, d[i].bwd), fmax(f.y1, d[i].bwd) };
        if (f.x1 - f.x0 < 1e-9) f.x1 = f.x0 + 1;
        if (f.y1 - f.y0 < 1e-9) f.y1 = f.y0 + 1;
        if (first) buf_str(b, STR("<h2>Forward against reverse score</h2>\n<p class=\"dim\">Each dot is a candidate: how likely the reply is after the context (a token), and how likely the context "
                                  "is after the reply. Filled: the chosen ones.</p>\n"));
        first = 0;
        buf_str(b, STR("<h3>"));
        put_text(b, c->system[s].name);
        buf_str(b, STR("</h3>\n"));
        put_axes(b, &f, "log P(reply | context), a token", "log P(context | reply)");
        for (int chosen = 0; chosen < 2; chosen++)
            for (int i = 0; i < n; i++)
                if (d[i].chosen == chosen)
                    buf_fmt(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" stroke=\"%s\" fill=\"%s\" fill-opacity=\".8\" stroke-opacity=\".55\"/>", px(&f, d[i].fwd), py(&f, d[i].bwd), colour_of(s),
                            chosen ? colour_of(s) : "none");
        buf_str(b, STR("</svg>\n"));
    }
    free(d);
    return OK;
}

/* ---- items ----------------------------------------------------------------------------------------------------- */

static void put_score(buf *b, const json_t *v)
{
    if (json_is_number(v)) buf_fmt(b, "<td class=\"n\">%.3f</td>", json_number_value(v));
    else buf_str(b, STR("<td class=\"n\">–</td>"));
}

static void put_candidates(buf *b, const json_t *line)
{
    const json_t *cand, *cands = json_object_get(line, "candidates");
    size_t        k, n = json_array_size(cands);
    if (n == 0) return;
    buf_fmt(b, "<details><summary>%zu candidate%s</summary><div class=\"wide\"><table class=\"cands\"><tr><th>reply</th><th>fate</th><th>forward</th><th>reverse</th><th>score</th></tr>", n,
            n == 1 ? "" : "s");
    json_array_foreach(cands, k, cand) {
        const json_t *t = json_object_get(cand, "text");
        buf_fmt(b, "<tr%s><td>", (json_int_t)k == json_integer_value(json_object_get(line, "chosen")) ? " class=\"chosen\"" : "");
        put_text(b, (str){ json_string_value(t), json_string_length(t) });
        buf_str(b, STR("</td><td>"));
        put_text(b, str_of(json_string_value(json_object_get(cand, "fate"))));
        buf_str(b, STR("</td>"));
        put_score(b, json_object_get(cand, "fwd"));
        put_score(b, json_object_get(cand, "bwd"));
        put_score(b, json_object_get(cand, "score"));
        buf_str(b, STR("</tr>"));
    }
    buf_str(b, STR("</table></div></details>"));
}

static void put_item(buf *b, const scorecard *c, const testset *t, const report_system *sys, int i, int with_candidates)
{
    const test_item *x = &t->item[i];
    buf_fmt(b, "<div class=\"item\"><small>%d</small>", i + 1);
    for (int k = 0; k < x->n_turn; k++) {
        buf_str(b, STR("<div class=\"turn\">"));
        put_text(b, x->turn[k]);
        buf_str(b, STR("</div>"));
    }
    for (int s = 0; s < c->n; s++) {
        buf_fmt(b, "<div class=\"reply\"><span class=\"key\" style=\"background:%s\"></span><b>", colour_of(s));
        put_text(b, c->system[s].hyp[i]);
        buf_str(b, STR("</b> <small>"));
        put_text(b, c->system[s].name);
        if (scorecard_shows(c, METRIC_METEOR)) buf_fmt(b, ", METEOR %.1f", 100 * c->system[s].rows.sentence[i].meteor);
        buf_str(b, STR("</small></div>"));
        if (with_candidates && sys[s].lines) put_candidates(b, json_array_get(sys[s].lines, (size_t)i));
    }
    if (x->n_ref) {
        buf_fmt(b, "<small>%s: ", x->n_ref == 1 ? "reference" : "references");
        for (int k = 0; k < x->n_ref; k++) {
            if (k) buf_str(b, STR(" · "));
            put_text(b, x->ref[k]);
        }
        buf_str(b, STR("</small>"));
    }
    buf_str(b, STR("</div>\n"));
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

static int put_differences(buf *b, const scorecard *c, const testset *t, const report_system *sys, int most, err *e)
{
    spread *x = malloc(((size_t)t->n + 1) * sizeof *x);
    if (!x) return no_memory(e);
    for (int i = 0; i < t->n; i++) x[i] = (spread){ spread_of(c, i), i };
    qsort(x, (size_t)t->n, sizeof *x, by_spread);
    buf_str(b, STR("<h2>Where the systems differ most</h2>\n"));
    for (int i = 0; i < t->n && i < most && x[i].by > 0; i++) put_item(b, c, t, sys, x[i].item, 0);
    free(x);
    return OK;
}

int report_html(const char *title, const scorecard *c, const testset *t, const report_system *sys, int most, int listed, buf *out, err *e)
{
    int r = OK;
    put_head(out, title);
    put_legend(out, c, sys, e);
    put_table(out, c, sys);
    put_lengths(out, c);
    r = put_scatter(out, c, sys, e);
    if (r == OK && c->n > 1) r = put_differences(out, c, t, sys, most, e);
    buf_fmt(out, "<h2>Replies</h2>\n");
    if (t->n > listed) buf_fmt(out, "<p class=\"dim\">The first %d of %d items; all are in the JSONL files beside this page.</p>\n", listed, t->n);
    for (int i = 0; i < t->n && i < listed && r == OK; i++) put_item(out, c, t, sys, i, 1);
    buf_str(out, STR("</body></html>\n"));
    return r ? r : out->oom ? no_memory(e) : OK;
}
