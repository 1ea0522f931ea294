/* page: see page.h. */
#include "eval/page.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the page -------------------------------------------------------------------------------------------------- */

static const char style[] =
    ":root{--bg:#fff;--fg:#1d2329;--soft:#5b6670;--line:#d9dee3;--card:#f5f7f9;--good:#1a7f4b;--bad:#c0352b;"
    "--c0:#2f6db5;--c1:#d9822b;--c2:#3a9a6a;--c3:#b8434e;--c4:#7a5bb5;--c5:#7b8794}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e4e8eb;--soft:#9aa5b0;--line:#333b43;--card:#1d2329;--good:#57c28b;"
    "--bad:#f0766d;--c0:#6aa5e8;--c1:#eba557;--c2:#65c296;--c3:#e47c86;--c4:#ab8fe6;--c5:#9aa5b0}}\n"
    "*{box-sizing:border-box}body{margin:0 auto;padding:1rem;max-width:70rem;background:var(--bg);color:var(--fg);"
    "font:16px/1.5 system-ui,\"Noto Sans CJK SC\",\"PingFang SC\",\"Microsoft YaHei\",sans-serif;overflow-wrap:anywhere}\n"
    "h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.25rem;margin:2.2rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--line)}\n"
    "p{margin:.5rem 0;max-width:46rem}p.note,figcaption span,.tile span{color:var(--soft)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:.8rem 0}\n"
    ".tile{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}.tile b{display:block;font-size:1.35rem;line-height:1.3}\n"
    ".tile span{font-size:.85rem}.good{color:var(--good)}.bad{color:var(--bad)}\n"
    ".figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.2rem;margin:.8rem 0}\n"
    "figure{margin:0;min-width:0}figcaption{font-size:.95rem;font-weight:600}figcaption span{display:block;font-weight:400;font-size:.85rem}\n"
    "svg{display:block;width:100%;height:auto;max-width:40rem}svg text{fill:var(--fg);font-size:12.5px}svg .soft{fill:var(--soft)}\n"
    "svg .grid{stroke:var(--line)}svg .mark{stroke:var(--fg);stroke-dasharray:3 3}\n"
    ".wide{overflow-x:auto;margin:.6rem 0}table{border-collapse:collapse;font-size:.92rem}\n"
    "th,td{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line)}\n"
    "th{font-weight:600;color:var(--soft)}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}th,td{overflow-wrap:normal}td:not(.n){min-width:6rem;max-width:30rem}\n"
    ".card{background:var(--card);border-radius:.5rem;padding:.5rem .8rem;margin:.6rem 0}.card h3{margin:0;font-size:.85rem;font-weight:400;"
    "color:var(--soft)}.card p{margin:.15rem 0}.card p b{display:inline-block;min-width:3.2em;color:var(--soft);font-weight:600}.card p.reply b{color:var(--fg)}\n"
    ".key{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.85rem;font-weight:400}.key i{display:inline-block;width:.75em;height:.75em;"
    "border-radius:.15em;margin-right:.35em}\n"
    ".strong{font-weight:600}.len{color:var(--bad)}small,.dim{color:var(--soft);font-weight:400}.dot{display:inline-block;width:.75em;height:.75em;border-radius:.15em;margin-right:.35em}\n"
    "details{margin:.15rem 0 .5rem}summary{cursor:pointer;color:var(--soft);font-size:.85rem}.chosen td{font-weight:600;background:var(--bg)}\n"
    "@media print{body{max-width:none}figure,.tile{break-inside:avoid}}\n";

void page_text(buf *b, str s)
{
    buf v = { 0 };
    buf_visible(&v, s);
    b->oom |= v.oom;
    for (size_t i = 0; i < v.n; i++) {
        switch (v.s[i]) {
        case '&': buf_str(b, STR("&amp;")); break;
        case '<': buf_str(b, STR("&lt;")); break;
        case '>': buf_str(b, STR("&gt;")); break;
        case '"': buf_str(b, STR("&quot;")); break;
        case '\'': buf_str(b, STR("&#39;")); break;
        default: buf_chr(b, v.s[i]);
        }
    }
    buf_free(&v);
}

static void word(buf *b, const char *s) { page_text(b, str_of(s)); }

static void text_of(buf *b, const char *fmt, va_list ap)
{
    char s[1000];
    vsnprintf(s, sizeof s, fmt, ap);
    word(b, s);
}

void page_begin(buf *b, const char *lang, str title)
{
    buf_str(b, STR("<!DOCTYPE html>\n<html lang=\""));
    word(b, lang);
    buf_str(b, STR("\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"color-scheme\" content=\"light dark\">\n"
                   /* Nothing may be fetched and nothing may run, whatever got into the page. */
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>"));
    page_text(b, title);
    buf_str(b, STR("</title>\n<style>\n"));
    buf_str(b, str_of(style));
    buf_str(b, STR("</style>\n</head>\n<body>\n<h1>"));
    page_text(b, title);
    buf_str(b, STR("</h1>\n<section>\n"));
}

void page_end(buf *b) { buf_str(b, STR("</section>\n</body>\n</html>\n")); }

void page_section(buf *b, const char *id, const char *heading)
{
    buf_str(b, STR("</section>\n<section id=\""));
    word(b, id);
    buf_str(b, STR("\">\n<h2>"));
    word(b, heading);
    buf_str(b, STR("</h2>\n"));
}

void page_note(buf *b, const char *fmt, ...)
{
    va_list ap;
    buf_str(b, STR("<p class=\"note\">"));
    va_start(ap, fmt);
    text_of(b, fmt, ap);
    va_end(ap);
    buf_str(b, STR("</p>\n"));
}

void page_tiles(buf *b) { buf_str(b, STR("<div class=\"tiles\">\n")); }
void page_tiles_end(buf *b) { buf_str(b, STR("</div>\n")); }

void page_tile(buf *b, int mood, const char *label, const char *fmt, ...)
{
    va_list ap;
    buf_fmt(b, "<div class=\"tile\"><b%s>", mood > 0 ? " class=\"good\"" : mood < 0 ? " class=\"bad\"" : "");
    va_start(ap, fmt);
    text_of(b, fmt, ap);
    va_end(ap);
    buf_str(b, STR("</b><span>"));
    word(b, label);
    buf_str(b, STR("</span></div>\n"));
}

void page_card(buf *b, const char *fmt, ...)
{
    va_list ap;
    buf_str(b, STR("<div class=\"card\"><h3>"));
    va_start(ap, fmt);
    text_of(b, fmt, ap);
    va_end(ap);
    buf_str(b, STR("</h3>\n"));
}
void page_card_end(buf *b) { buf_str(b, STR("</div>\n")); }

void page_say(buf *b, str who, str text)
{
    buf_str(b, STR("<p><b>"));
    page_text(b, who);
    buf_str(b, STR("</b> "));
    page_text(b, text);
    buf_str(b, STR("</p>\n"));
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

void page_table(buf *b, const char *heads)
{
    buf_str(b, STR("<div class=\"wide\"><table>\n<thead><tr>"));
    for (const char *p = heads; *p;) {
        size_t n = strcspn(p, "|"), num = *p == '#';
        buf_fmt(b, "<th%s>", num ? " class=\"n\"" : "");
        page_text(b, (str){ p + num, n - num });
        buf_str(b, STR("</th>"));
        p += n + (p[n] == '|');
    }
    buf_str(b, STR("</tr></thead>\n<tbody>\n"));
}
/* HTML lets a row end where the next one, or the table, begins. */
void page_row(buf *b) { buf_str(b, STR("<tr>")); }
void page_table_end(buf *b) { buf_str(b, STR("</tbody></table></div>\n")); }

void page_cell(buf *b, str s)
{
    buf_str(b, STR("<td>"));
    page_text(b, s);
    buf_str(b, STR("</td>\n"));
}

void page_cell_html(buf *b, int mood, const buf *html)
{
    buf_fmt(b, "<td class=\"n%s\">", mood ? " strong" : "");
    buf_str(b, buf_view(html));
    b->oom |= html->oom;
    buf_str(b, STR("</td>\n"));
}

void page_cell_num(buf *b, const char *fmt, ...)
{
    va_list ap;
    buf_str(b, STR("<td class=\"n\">"));
    va_start(ap, fmt);
    text_of(b, fmt, ap);
    va_end(ap);
    buf_str(b, STR("</td>\n"));
}

/* ---- drawings: what they share --------------------------------------------------------------------------------- */

enum { WIDE = 440, HIGH = 230, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 24 }; /* a drawing in its own units, and its margins */

typedef struct { /* data to drawing units */
    double x0, x1, y0, y1;
    int    bottom;
} frame;

static double at_x(const frame *f, double x) { return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDE - LEFT - RIGHT); }
static double at_y(const frame *f, double y) { return HIGH - f->bottom - (y - f->y0) / (f->y1 - f->y0) * (HIGH - TOP - f->bottom); }

void page_figures(buf *b) { buf_str(b, STR("<div class=\"figures\">\n")); }
void page_figures_end(buf *b) { buf_str(b, STR("</div>\n")); }

static void figure(buf *b, const char *title, const char *note)
{
    buf_str(b, STR("<figure><figcaption>"));
    word(b, title);
    if (note) {
        buf_str(b, STR("<span>"));
        word(b, note);
        buf_str(b, STR("</span>"));
    }
}

static void nothing(buf *b) { buf_str(b, STR("<span>(nothing to draw)</span></figcaption></figure>\n")); }

/* The end of the caption with a key to the colours when there are several series, then the drawing's head. */
static void svg(buf *b, const char *title, int high, const page_series *s, int n_series)
{
    if (n_series > 1) {
        buf_str(b, STR("<span class=\"key\">"));
        for (int i = 0; i < n_series; i++) {
            buf_fmt(b, "<span><i style=\"background:var(--c%d)\"></i>", i % PAGE_COLOURS);
            word(b, s[i].name);
            buf_str(b, STR("</span>"));
        }
        buf_str(b, STR("</span>"));
    }
    buf_fmt(b, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDE, high);
    word(b, title);
    buf_str(b, STR("\">\n"));
}

static void svg_end(buf *b) { buf_str(b, STR("</svg></figure>\n")); }

static void label(buf *b, double x, double y, const char *anchor, const char *class, const char *s)
{
    buf_fmt(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s%s%s>", x, y, anchor, class ? " class=\"" : "", class ? class : "", class ? "\"" : "");
    word(b, s);
    buf_str(b, STR("</text>\n"));
}

/* 1, 2 or 5 times a power of ten, so that about `want` of it cover `span`. */
static double nice_step(double span, int want)
{
    double raw = span / want, p = pow(10, floor(log10(raw)));
    return raw <= p ? p : raw <= 2 * p ? 2 * p : raw <= 5 * p ? 5 * p : 10 * p;
}

/* Widen an empty range; then ticks may be taken from it. */
static void widen(double *lo, double *hi)
{
    double by = *lo == 0 ? 1 : fabs(*lo) / 10;
    if (*hi - *lo > 1e-12 * (fabs(*hi) + fabs(*lo))) return;
    *lo -= by;
    *hi += by;
}

static void y_axis(buf *b, const frame *f, const char *unit)
{
    double step = nice_step(f->y1 - f->y0, 5);
    for (double k = ceil(f->y0 / step - 1e-9); k * step <= f->y1 + step * 1e-9; k++) {
        char s[40];
        snprintf(s, sizeof s, "%.6g%s", k * step + 0.0, unit);
        buf_fmt(b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT, WIDE - RIGHT, at_y(f, k * step), at_y(f, k * step));
        label(b, LEFT - 5, at_y(f, k * step) + 4, "end", "soft", s);
    }
}

static void x_axis(buf *b, const frame *f)
{
    double step = nice_step(f->x1 - f->x0, 5);
    for (double k = ceil(f->x0 / step - 1e-9); k * step <= f->x1 + step * 1e-9; k++) {
        char s[40];
        snprintf(s, sizeof s, "%.6g", k * step + 0.0);
        label(b, at_x(f, k * step), HIGH - f->bottom + 16, "middle", "soft", s);
    }
}

/* ---- bars and columns ------------------------------------------------------------------------------------------ */

void page_bars(buf *b, const char *title, const char *note, const page_bar *bar, int n, const char *fmt)
{
    enum { ROW = 32 };
    double most = 0;
    figure(b, title, note);
    for (int i = 0; i < n; i++)
        if (isfinite(bar[i].v) && bar[i].v > most) most = bar[i].v;
    if (n == 0) {
        nothing(b);
        return;
    }
    svg(b, title, n * ROW + 4, NULL, 0);
    for (int i = 0; i < n; i++) {
        char   s[60];
        double v = isfinite(bar[i].v) && most > 0 ? bar[i].v / most : 0;
        buf_fmt(b, "<text x=\"0\" y=\"%d\">", i * ROW + 14);
        page_text(b, bar[i].label);
        buf_str(b, STR("</text>\n"));
        if (isfinite(bar[i].v)) snprintf(s, sizeof s, fmt, bar[i].v);
        else snprintf(s, sizeof s, "–");
        label(b, WIDE, i * ROW + 14, "end", NULL, s);
        buf_fmt(b, "<rect x=\"0\" y=\"%d\" width=\"%d\" height=\"7\" rx=\"2\" style=\"fill:var(--line);opacity:.5\"/>"
                   "<rect x=\"0\" y=\"%d\" width=\"%.1f\" height=\"7\" rx=\"2\" style=\"fill:var(--c%d)\"/>\n",
                i * ROW + 19, WIDE, i * ROW + 19, v * WIDE, (bar[i].colour % PAGE_COLOURS + PAGE_COLOURS) % PAGE_COLOURS);
    }
    svg_end(b);
}

/* Labels below columns: the first, and of the others those that have room. */
static void column_labels(buf *b, const frame *f, const str *name, int n)
{
    size_t longest = 1;
    int    every   = 1;
    for (int i = 0; i < n; i++)
        if (name[i].n > longest) longest = name[i].n;
    double wide = (double)longest * 7; /* enough for ASCII, and for a Chinese character's three bytes */
    while (every < n && wide + 10 > every * (double)(WIDE - LEFT - RIGHT) / n) every++;
    for (int i = 0; i < n; i += every) {
        double x = at_x(f, i + .5);
        int    edge = x + wide / 2 > WIDE;
        buf_fmt(b, "<text class=\"soft\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">", edge ? WIDE : x, HIGH - f->bottom + 16, edge ? "end" : "middle");
        page_text(b, name[i]);
        buf_str(b, STR("</text>\n"));
    }
}

void page_columns(buf *b, const char *title, const char *note, const str *name, int n, const page_series *s, int n_series)
{
    double most = 0;
    figure(b, title, note);
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < n_series; k++) sum += isfinite(s[k].y[i]) ? s[k].y[i] : 0;
        if (sum > most) most = sum;
    }
    if (n == 0 || most <= 0) {
        nothing(b);
        return;
    }
    frame  f   = { 0, n, 0, most, BOTTOM };
    double gap = n > 60 ? 0 : .12;
    svg(b, title, HIGH, s, n_series);
    y_axis(b, &f, "");
    for (int i = 0; i < n; i++) {
        double from = 0;
        buf_str(b, STR("<g><title>"));
        page_text(b, name[i]);
        for (int k = 0; k < n_series; k++) {
            if (!isfinite(s[k].y[i])) continue;
            buf_str(b, STR("; "));
            word(b, s[k].name);
            buf_fmt(b, ": %.6g", s[k].y[i]);
        }
        buf_str(b, STR("</title>"));
        for (int k = 0; k < n_series; k++) {
            double y = isfinite(s[k].y[i]) ? s[k].y[i] : 0;
            if (y > 0)
                buf_fmt(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" style=\"fill:var(--c%d)\"/>", at_x(&f, i + gap),
                        at_y(&f, from + y), at_x(&f, 1 - gap) - at_x(&f, gap), at_y(&f, from) - at_y(&f, from + y), k % PAGE_COLOURS);
            from += y;
        }
        buf_str(b, STR("</g>\n"));
    }
    column_labels(b, &f, name, n);
    svg_end(b);
}

/* ---- histograms ------------------------------------------------------------------------------------------------ */

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* Edges of common bins: *lo, *step, number; 0 when there is no number.  Memory out: also 0, and b->oom. */
static int bins(buf *b, const page_series *s, int n_series, double *lo, double *step)
{
    size_t total = 0, n = 0;
    for (int k = 0; k < n_series; k++) total += (size_t)s[k].n;
    double *all = malloc((total + 1) * sizeof *all);
    if (!all) return b->oom = 1, 0;
    for (int k = 0; k < n_series; k++)
        for (int i = 0; i < s[k].n; i++)
            if (isfinite(s[k].x[i])) all[n++] = s[k].x[i];
    qsort(all, n, sizeof *all, by_size);
    double hi = n ? all[n - 1 - (n - 1) / 200] : 0;
    *lo       = n ? all[(n - 1) / 200] : 0;
    free(all);
    if (n == 0) return 0;
    widen(lo, &hi);
    *step = nice_step(hi - *lo, n < 100 ? 12 : 24);
    *lo   = floor(*lo / *step + 1e-9) * *step;
    return (int)ceil((hi - *lo) / *step - 1e-9);
}

static void shares(const page_series *s, double lo, double step, int n_bin, double *share)
{
    int n = 0;
    memset(share, 0, (size_t)n_bin * sizeof *share);
    for (int i = 0; i < s->n; i++) {
        if (!isfinite(s->x[i])) continue;
        double at = floor((s->x[i] - lo) / step);
        share[at < 0 ? 0 : at >= n_bin ? n_bin - 1 : (int)at]++;
        n++;
    }
    for (int i = 0; i < n_bin && n; i++) share[i] *= 100.0 / n;
}

void page_histogram(buf *b, const char *title, const char *note, const page_series *s, int n_series, const page_mark *mark, int n_mark)
{
    double lo, step, most = 0;
    figure(b, title, note);
    int     n     = bins(b, s, n_series, &lo, &step);
    double *share = n ? malloc((size_t)n * (size_t)n_series * sizeof *share) : NULL;
    if (!share) {
        b->oom |= n > 0;
        nothing(b);
        return;
    }
    for (int k = 0; k < n_series; k++) shares(&s[k], lo, step, n, share + k * n);
    for (int i = 0; i < n * n_series; i++)
        if (share[i] > most) most = share[i];
    frame f = { lo, lo + n * step, 0, most * (n_mark ? 1.12 : 1), BOTTOM };
    svg(b, title, HIGH, s, n_series);
    y_axis(b, &f, "%");
    for (int k = 0; k < n_series; k++) {
        buf_fmt(b, "<path style=\"fill:var(--c%d);fill-opacity:.22;stroke:var(--c%d);stroke-width:1.5\" d=\"M%.1f %.1f", k % PAGE_COLOURS,
                k % PAGE_COLOURS, at_x(&f, lo), at_y(&f, 0));
        for (int i = 0; i < n; i++)
            buf_fmt(b, "V%.1fH%.1f", at_y(&f, share[k * n + i]), at_x(&f, lo + (i + 1) * step));
        buf_fmt(b, "V%.1fZ\"/>\n", at_y(&f, 0));
    }
    for (int i = 0; i < n_mark; i++) {
        if (!(mark[i].x >= f.x0 && mark[i].x <= f.x1)) continue;
        double x = at_x(&f, mark[i].x);
        buf_fmt(b, "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", x, x, TOP, HIGH - BOTTOM);
        label(b, x > WIDE - 50 ? x - 3 : x + 3, TOP + 8 + 13 * (i % 3), x > WIDE - 50 ? "end" : "start", NULL, mark[i].name);
    }
    x_axis(b, &f);
    svg_end(b);
    free(share);
}

/* ---- lines and points ------------------------------------------------------------------------------------------ */

static int is_point(const page_series *s, int i) { return isfinite(s->x[i]) && isfinite(s->y[i]); }

static int has_band(const page_series *s, int i) { return s->lo && is_point(s, i) && isfinite(s->lo[i]) && isfinite(s->hi[i]); }

static void series_band(buf *b, const frame *f, const page_series *s, int colour)
{
    int n = 0;
    buf_fmt(b, "<path style=\"fill:var(--c%d);fill-opacity:.13\" d=\"", colour);
    for (int i = 0; i < s->n; i++)
        if (has_band(s, i)) buf_fmt(b, "%c%.1f %.1f", n++ ? 'L' : 'M', at_x(f, s->x[i]), at_y(f, s->hi[i]));
    for (int i = s->n - 1; i >= 0; i--)
        if (has_band(s, i)) buf_fmt(b, "L%.1f %.1f", at_x(f, s->x[i]), at_y(f, s->lo[i]));
    buf_str(b, n ? STR("Z\"/>\n") : STR("M0 0\"/>\n"));
}

static void series_line(buf *b, const frame *f, const page_series *s, int colour)
{
    int pen = 0; /* a gap where a number is missing */
    if (s->lo) series_band(b, f, s, colour);
    buf_fmt(b, "<path style=\"fill:none;stroke:var(--c%d);stroke-width:1.8\" d=\"", colour);
    for (int i = 0; i < s->n; i++) {
        if (is_point(s, i)) buf_fmt(b, "%c%.1f %.1f", pen ? 'L' : 'M', at_x(f, s->x[i]), at_y(f, s->y[i]));
        pen = is_point(s, i);
    }
    buf_str(b, STR("\"/>\n"));
    buf_fmt(b, "<g style=\"fill:var(--c%d)\">", colour);
    for (int i = 0; i < s->n; i++)
        if (is_point(s, i)) buf_fmt(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.2\"/>", at_x(f, s->x[i]), at_y(f, s->y[i]));
    buf_str(b, STR("</g>\n"));
}

void page_plot(buf *b, const char *title, const char *note, int kind, const char *x_name, const char *y_name, const page_series *s,
               int n_series)
{
    frame f = { INFINITY, -INFINITY, INFINITY, -INFINITY, BOTTOM + 16 };
    figure(b, title, note);
    for (int k = 0; k < n_series; k++)
        for (int i = 0; i < s[k].n; i++) {
            if (!is_point(&s[k], i)) continue;
            f.x0 = fmin(f.x0, s[k].x[i]);
            f.x1 = fmax(f.x1, s[k].x[i]);
            f.y0 = fmin(f.y0, has_band(&s[k], i) ? s[k].lo[i] : s[k].y[i]);
            f.y1 = fmax(f.y1, has_band(&s[k], i) ? s[k].hi[i] : s[k].y[i]);
        }
    if (!(f.x0 <= f.x1)) {
        nothing(b);
        return;
    }
    widen(&f.x0, &f.x1);
    widen(&f.y0, &f.y1);
    svg(b, title, HIGH, s, n_series);
    y_axis(b, &f, "");
    x_axis(b, &f);
    for (int k = 0; k < n_series; k++) {
        if (kind == PAGE_LINES) {
            series_line(b, &f, &s[k], k % PAGE_COLOURS);
            continue;
        }
        buf_fmt(b, "<g style=\"fill:var(--c%d);opacity:.6\">", k % PAGE_COLOURS);
        for (int i = 0; i < s[k].n; i++)
            if (is_point(&s[k], i)) buf_fmt(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2\"/>", at_x(&f, s[k].x[i]), at_y(&f, s[k].y[i]));
        buf_str(b, STR("</g>\n"));
    }
    label(b, WIDE - RIGHT, HIGH - 6, "end", "soft", x_name);
    label(b, LEFT + 4, TOP + 4, "start", "soft", y_name);
    svg_end(b);
}
