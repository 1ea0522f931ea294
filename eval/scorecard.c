/* scorecard: see scorecard.h. */
#include "eval/scorecard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/tokenise.h"

static const double ALPHA = 0.05;

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the scores"); }

/* ---- scoring --------------------------------------------------------------------------------------------------- */

/* The replies of two systems, the longer one of each line cut to the words of the shorter. */
typedef struct {
    buf  text[2];
    str *line[2]; /* (n,) */
} cut_pair;

static void cut_free(cut_pair *p)
{
    for (int s = 0; s < 2; s++) {
        buf_free(&p->text[s]);
        free(p->line[s]);
    }
}

static int word_total(str s)
{
    int n = 0;
    for (str w; tokenise_next(&s, &w);) n++;
    return n;
}

static void append_words(buf *out, str s, int n)
{
    str w;
    for (int i = 0; i < n && tokenise_next(&s, &w); i++) {
        if (i) buf_chr(out, ' ');
        buf_str(out, w);
    }
}

static int cut_new(cut_pair *p, const scorecard *c, const scored *a, const scored *b, err *e)
{
    size_t  n = (size_t)c->n_lines + 1;
    size_t *at[2] = { calloc(n, sizeof **at), calloc(n, sizeof **at) };
    buf     one = { 0 }, two = { 0 };
    *p         = (cut_pair){ 0 };
    p->line[0] = calloc(n, sizeof **p->line);
    p->line[1] = calloc(n, sizeof **p->line);
    int r = at[0] && at[1] && p->line[0] && p->line[1] ? OK : no_memory(e);
    for (int i = 0; i < c->n_lines && r == OK; i++) {
        buf_reset(&one);
        buf_reset(&two);
        tokenise(c->tokenise, a->hyp[i], &one);
        tokenise(c->tokenise, b->hyp[i], &two);
        int na = word_total(buf_view(&one)), nb = word_total(buf_view(&two)), k = na < nb ? na : nb;
        append_words(&p->text[0], buf_view(&one), k);
        append_words(&p->text[1], buf_view(&two), k);
        at[0][i + 1] = p->text[0].n;
        at[1][i + 1] = p->text[1].n;
    }
    if (r == OK && (p->text[0].oom || p->text[1].oom || one.oom || two.oom)) r = no_memory(e);
    for (int s = 0; s < 2 && r == OK; s++)
        for (int i = 0; i < c->n_lines; i++) p->line[s][i] = (str){ (p->text[s].s ? p->text[s].s : "") + at[s][i], at[s][i + 1] - at[s][i] };
    free(at[0]);
    free(at[1]);
    buf_free(&one);
    buf_free(&two);
    if (r) cut_free(p);
    return r;
}

/* The references as the words of the tokenisation, so that cut replies, which are words already, can be scored without tokenising. */
static int explain_by_length(scorecard *c, const scored *a, scored *b, err *e)
{
    cut_pair      p;
    metric_space  space = { 0 };
    metric_rows   ra = { 0 }, rb = { 0 };
    comparison    cut[METRICS];
    int           n_ref = c->ref_at ? c->ref_at[c->n_lines] : 0, r = cut_new(&p, c, a, b, e);
    buf           text = { 0 };
    size_t       *at   = calloc((size_t)n_ref + 1, sizeof *at);
    str          *ref  = calloc((size_t)n_ref + 1, sizeof *ref);
    if (r) {
        free(at);
        free(ref);
        return r;
    }
    if (!at || !ref) r = no_memory(e);
    for (int i = 0; i < n_ref && r == OK; i++) {
        tokenise(c->tokenise, c->ref[i], &text);
        at[i + 1] = text.n;
    }
    if (r == OK && text.oom) r = no_memory(e);
    for (int i = 0; i < n_ref && r == OK; i++) ref[i] = (str){ (text.s ? text.s : "") + at[i], at[i + 1] - at[i] };
    if (r == OK) r = metric_rows_new(&ra, &space, p.line[0], c->n_lines, ref, c->ref_at, TOKENISE_NONE, e);
    if (r == OK) r = metric_rows_new(&rb, &space, p.line[1], c->n_lines, ref, c->ref_at, TOKENISE_NONE, e);
    if (r == OK) r = doubt_compare(&ra, &rb, &c->doubt, cut, e);
    if (r == OK) doubt_length(b->against, cut, ALPHA, b->explained);
    metric_rows_free(&ra);
    metric_rows_free(&rb);
    metric_space_free(&space);
    cut_free(&p);
    buf_free(&text);
    free(at);
    free(ref);
    return r;
}

static int score_all(scorecard *c, void (*progress)(void *ctx, const char *what, str name), void *ctx, err *e)
{
    int r = OK;
    for (int s = 0; s < c->n && r == OK; s++) {
        scored *x = &c->system[s];
        if (progress) progress(ctx, "scoring", x->name);
        r = metric_rows_new(&x->rows, &c->space, x->hyp, c->n_lines, c->ref, c->ref_at, c->tokenise, e);
        if (r) break;
        int *count = metric_rows_scratch(&x->rows, e);
        if (!count) return E_NOMEM;
        metric_rows_score(&x->rows, NULL, METRIC_SUMS | METRIC_VARIETY, count, x->v);
        free(count);
        for (int n = 1; n <= VARIETY_DISTINCT; n++) {
            double total = variety_total(&x->rows.grams, n);
            if (s == 0 || total < c->size[n - 1]) c->size[n - 1] = total;
        }
    }
    for (int s = 0; s < c->n && r == OK; s++) {
        int *count = metric_rows_scratch(&c->system[s].rows, e);
        if (!count) return E_NOMEM;
        for (int n = 1; n <= VARIETY_DISTINCT; n++) c->system[s].equal[n - 1] = variety_rarefied(&c->system[s].rows.grams, n, c->size[n - 1], count);
        free(count);
    }
    for (int s = 0; s < c->n && r == OK && c->doubt.resamples; s++) {
        scored *x = &c->system[s];
        if (progress) progress(ctx, "resampling", x->name);
        r = doubt_intervals(&x->rows, &c->doubt, x->ci, e);
        if (r == OK && s) r = doubt_compare(&c->system[0].rows, &x->rows, &c->doubt, x->against, e);
        if (r == OK && s && x->against[METRIC_AVG_LEN].p < ALPHA) r = explain_by_length(c, &c->system[0], x, e);
    }
    return r;
}

int scorecard_new(scorecard *c, const str *name, const str *const *hyp, int n, int n_lines, const str *ref, const int *ref_at, int kind,
                  const doubt_opts *doubt, void (*progress)(void *ctx, const char *what, str name), void *ctx, err *e)
{
    *c = (scorecard){ .n_lines = n_lines, .tokenise = kind, .ref = ref, .ref_at = ref_at, .doubt = *doubt, .n = n };
    if (!(c->system = calloc((size_t)n, sizeof *c->system))) return no_memory(e);
    for (int s = 0; s < n; s++) {
        c->system[s].name = name[s];
        c->system[s].hyp  = hyp[s];
    }
    int r = score_all(c, progress, ctx, e);
    if (r) scorecard_free(c);
    return r;
}

void scorecard_free(scorecard *c)
{
    for (int s = 0; s < c->n && c->system; s++) metric_rows_free(&c->system[s].rows);
    free(c->system);
    metric_space_free(&c->space);
    *c = (scorecard){ 0 };
}

/* ---- writing down ---------------------------------------------------------------------------------------------- */

int scorecard_shows(const scorecard *c, int metric) { return c->n > 0 && !isnan(c->system[0].v[metric]); }

int scorecard_signature(const scorecard *c, buf *out, err *e)
{
    metric_signature(&c->system[0].rows, out);
    if (c->doubt.resamples)
        buf_fmt(out, "|resamples:%d|level:%g|seed:%llu", c->doubt.resamples, c->doubt.level, (unsigned long long)c->doubt.seed);
    return out->oom ? no_memory(e) : OK;
}

void scorecard_number(int metric, double v, buf *out)
{
    if (isnan(v)) buf_str(out, STR("–"));
    else if (metric == METRIC_AVG_LEN) buf_fmt(out, "%.2f", v);
    else buf_fmt(out, metric_list[metric].percent ? "%.2f" : "%.4f", metric_list[metric].percent ? 100 * v : v);
}

/* Right-aligned in `width` columns; numbers are ASCII but for the dash. */
static void column(buf *out, int metric, double v, int width)
{
    buf b = { 0 };
    scorecard_number(metric, v, &b);
    buf_fmt(out, "%*s", width + (isnan(v) ? 2 : 0), b.s ? b.s : "");
    buf_free(&b);
}

static void label(buf *out, int s) { buf_fmt(out, "%c", 'A' + s % 26); }

static void bracket(buf *out, int metric, double lo, double hi)
{
    buf_chr(out, '[');
    scorecard_number(metric, lo, out);
    buf_str(out, STR(", "));
    scorecard_number(metric, hi, out);
    buf_chr(out, ']');
}

/* "[lo, hi]   p" of one difference. */
static void put_difference(const scored *x, int k, buf *out)
{
    const comparison *d = &x->against[k];
    buf               b = { 0 };
    bracket(&b, k, d->lo, d->hi);
    column(out, k, d->diff, 11);
    buf_fmt(out, "  %-20s %7.4f%s", b.s ? b.s : "", d->p, x->explained[k] ? "  length" : "");
    buf_free(&b);
}

static void put_values(const scorecard *c, buf *out)
{
    int doubt = c->doubt.resamples && c->n <= 2;
    buf_fmt(out, "%-22s", "");
    for (int s = 0; s < c->n; s++) {
        buf_str(out, STR("          "));
        label(out, s);
    }
    if (doubt && c->n == 1) buf_fmt(out, "  %g %% interval", 100 * c->doubt.level);
    if (doubt && c->n == 2) buf_fmt(out, "      B - A  %g %% interval               p", 100 * c->doubt.level);
    buf_chr(out, '\n');
    for (int k = 0; k < METRICS; k++) {
        if (!scorecard_shows(c, k)) continue;
        buf_fmt(out, "%-22s", metric_list[k].title);
        for (int s = 0; s < c->n; s++) column(out, k, c->system[s].v[k], 11);
        if (doubt && c->n == 1) {
            buf_str(out, STR("  "));
            bracket(out, k, c->system[0].ci[k].lo, c->system[0].ci[k].hi);
        }
        if (doubt && c->n == 2) put_difference(&c->system[1], k, out);
        buf_chr(out, '\n');
    }
    for (int n = 1; n <= VARIETY_DISTINCT && c->n > 1; n++) {
        buf_fmt(out, "Distinct-%d, equal size", n);
        for (int s = 0; s < c->n; s++) column(out, METRIC_DISTINCT1, c->system[s].equal[n - 1], s ? 11 : 11 - 1);
        buf_chr(out, '\n');
    }
}

static int any_explained(const scored *x)
{
    for (int k = 0; k < METRICS; k++)
        if (x->explained[k]) return 1;
    return 0;
}

/* One sentence for each system whose gains length explains.  Systems are called by their letters in the table, by their names elsewhere. */
static void put_warnings(const scorecard *c, const char *lead, void (*call)(const scorecard *c, int s, buf *out), buf *out)
{
    for (int s = 1; s < c->n && c->doubt.resamples; s++) {
        const scored *x = &c->system[s];
        int           first = 1;
        if (!any_explained(x)) continue;
        buf_fmt(out, "%s", lead);
        call(c, s, out);
        buf_fmt(out, " is %s than ", x->against[METRIC_AVG_LEN].diff > 0 ? "longer" : "shorter");
        call(c, 0, out);
        buf_fmt(out, " by %.2f words a reply. Cut to the same length, line by line, these no longer differ, or the other way round: ",
                fabs(x->against[METRIC_AVG_LEN].diff));
        for (int k = 0; k < METRICS; k++) {
            if (!x->explained[k]) continue;
            buf_fmt(out, "%s%s", first ? "" : ", ", metric_list[k].title);
            first = 0;
        }
        buf_str(out, STR(".\n"));
    }
}

static void call_letter(const scorecard *c, int s, buf *out)
{
    (void)c;
    label(out, s);
}

static void call_bare(const scorecard *c, int s, buf *out) { buf_visible(out, c->system[s].name); }
void        scorecard_warnings(const scorecard *c, buf *out) { put_warnings(c, "", call_bare, out); }

int scorecard_table(const scorecard *c, buf *out, err *e)
{
    for (int s = 0; s < c->n && c->n > 1; s++) {
        label(out, s);
        buf_str(out, STR("  "));
        buf_visible(out, c->system[s].name);
        buf_chr(out, '\n');
    }
    put_values(c, out);
    for (int s = 1; s < c->n && c->n > 2 && c->doubt.resamples; s++) {
        buf_fmt(out, "\n%-22s      %c - A  %g %% interval               p\n", "", 'A' + s % 26, 100 * c->doubt.level);
        for (int k = 0; k < METRICS; k++) {
            if (!scorecard_shows(c, k)) continue;
            buf_fmt(out, "%-22s", metric_list[k].title);
            put_difference(&c->system[s], k, out);
            buf_chr(out, '\n');
        }
    }
    put_warnings(c, "\nwarning: ", call_letter, out);
    buf_str(out, STR("\nsignature: "));
    return scorecard_signature(c, out, e) == OK && (buf_chr(out, '\n'), !out->oom) ? OK : no_memory(e);
}

/* Text for a cell of a Markdown table. */
static void put_cell(buf *out, str s)
{
    buf b = { 0 };
    buf_visible(&b, s);
    for (size_t i = 0; i < b.n; i++) {
        if (strchr("|\\`*_<>[]", b.s[i])) buf_chr(out, '\\');
        buf_chr(out, b.s[i]);
    }
    out->oom |= b.oom;
    buf_free(&b);
}

static void call_name(const scorecard *c, int s, buf *out) { put_cell(out, c->system[s].name); }

int scorecard_markdown(const scorecard *c, buf *out, err *e)
{
    int doubt = c->doubt.resamples != 0;
    buf_str(out, STR("| metric |"));
    for (int s = 0; s < c->n; s++) {
        buf_chr(out, ' ');
        put_cell(out, c->system[s].name);
        buf_str(out, STR(" |"));
        if (s && doubt) buf_str(out, STR(" difference, interval, p |"));
    }
    buf_str(out, STR("\n|---|"));
    for (int s = 0; s < c->n; s++) buf_fmt(out, "---:|%s", s && doubt ? "---|" : "");
    for (int k = 0; k < METRICS; k++) {
        if (!scorecard_shows(c, k)) continue;
        buf_fmt(out, "\n| %s |", metric_list[k].title);
        for (int s = 0; s < c->n; s++) {
            const scored *x = &c->system[s];
            buf_chr(out, ' ');
            scorecard_number(k, x->v[k], out);
            if (s == 0 && doubt) {
                buf_chr(out, ' ');
                bracket(out, k, x->ci[k].lo, x->ci[k].hi);
            }
            buf_str(out, STR(" |"));
            if (s == 0 || !doubt) continue;
            buf_chr(out, ' ');
            scorecard_number(k, x->against[k].diff, out);
            buf_chr(out, ' ');
            bracket(out, k, x->against[k].lo, x->against[k].hi);
            buf_fmt(out, " p=%.4f%s |", x->against[k].p, x->explained[k] ? " (length)" : "");
        }
    }
    for (int n = 1; n <= VARIETY_DISTINCT && c->n > 1; n++) {
        buf_fmt(out, "\n| Distinct-%d at equal size (%.0f) |", n, c->size[n - 1]);
        for (int s = 0; s < c->n; s++) {
            buf_chr(out, ' ');
            scorecard_number(METRIC_DISTINCT1, c->system[s].equal[n - 1], out);
            buf_fmt(out, " |%s", s && doubt ? " |" : "");
        }
    }
    buf_str(out, STR("\n\n"));
    put_warnings(c, "Warning: ", call_name, out);
    buf_str(out, STR("\n`"));
    int r = scorecard_signature(c, out, e);
    buf_str(out, STR("`\n"));
    return r ? r : out->oom ? no_memory(e) : OK;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *js_real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static void js_system(const scorecard *c, const scored *x, json_t *o)
{
    for (int k = 0; k < METRICS; k++) json_object_set_new(o, metric_list[k].key, js_real(x->v[k]));
    if (c->n > 1) {
        json_t *equal = json_array();
        for (int n = 0; n < VARIETY_DISTINCT; n++) json_array_append_new(equal, js_real(x->equal[n]));
        json_object_set_new(o, "distinct_equal_size", equal);
    }
    if (!c->doubt.resamples) return;
    json_t *ci = json_object();
    for (int k = 0; k < METRICS; k++)
        if (scorecard_shows(c, k)) json_object_set_new(ci, metric_list[k].key, json_pack("[o, o]", js_real(x->ci[k].lo), js_real(x->ci[k].hi)));
    json_object_set_new(o, "intervals", ci);
}

static json_t *js_comparison(const scorecard *c, const scored *x)
{
    json_t *metrics = json_object();
    for (int k = 0; k < METRICS; k++) {
        const comparison *d = &x->against[k];
        if (!scorecard_shows(c, k)) continue;
        json_object_set_new(metrics, metric_list[k].key, json_pack("{s:o, s:o, s:o, s:o, s:b}", "diff", js_real(d->diff), "lo", js_real(d->lo), "hi", js_real(d->hi),
                                                                   "p", js_real(d->p), "length_explains", x->explained[k]));
    }
    return json_pack("{s:s%, s:s%, s:o}", "a", c->system[0].name.s, c->system[0].name.n, "b", x->name.s, x->name.n, "metrics", metrics);
}

json_t *scorecard_json(const scorecard *c, err *e)
{
    buf     sig = { 0 };
    json_t *root = json_object();
    int     r = scorecard_signature(c, &sig, e);
    if (r == OK && c->n == 1) js_system(c, &c->system[0], root);
    if (r == OK && c->n > 1) {
        json_t *systems = json_array(), *pairs = json_array();
        for (int s = 0; s < c->n; s++) {
            json_t *o = json_pack("{s:s%}", "name", c->system[s].name.s, c->system[s].name.n);
            js_system(c, &c->system[s], o);
            json_array_append_new(systems, o);
            if (s && c->doubt.resamples) json_array_append_new(pairs, js_comparison(c, &c->system[s]));
        }
        json_object_set_new(root, "systems", systems);
        json_object_set_new(root, "comparisons", pairs);
    }
    if (r == OK) json_object_set_new(root, "signature", json_stringn(sig.s, sig.n));
    buf_free(&sig);
    if (r == OK && json_object_size(root) > 0) return root;
    json_decref(root);
    if (r == OK) no_memory(e);
    return NULL;
}
