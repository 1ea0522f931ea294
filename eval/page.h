/* page: one self-contained HTML page with drawings as inline SVG: no scripts, nothing from the network, light and dark after the
 * reader's setting, readable on a telephone.  Knows nothing of dialogues, stores or scores: texts and numbers go in.  Everything
 * appends to a buf (check its oom once at the end); every text that is handed over is escaped here, control characters are
 * made visible, so a page may quote whatever a stranger typed. */
#ifndef DUET_PAGE_H
#define DUET_PAGE_H

#include "models/base.h"

enum { PAGE_COLOURS = 6 }; /* a seventh series has the first one's colour again */

void page_begin(buf *b, const char *lang, str title); /* lang as in HTML: "en", "zh" */
void page_end(buf *b);

void page_text(buf *b, str s);                                 /* nothing but the escaped text */
void page_section(buf *b, const char *id, const char *heading); /* closes the section before it; the page's links lead here */
void page_note(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* a paragraph */

/* A row of key figures: page_tiles, page_tile …, page_tiles_end.  mood: 0 plain, 1 good, -1 bad. */
void page_tiles(buf *b);
void page_tile(buf *b, int mood, const char *label, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void page_tiles_end(buf *b);

/* What was said: page_card with a heading, page_say for each line, page_card_end. */
void page_card(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void page_say(buf *b, str who, str text);
void page_card_end(buf *b);

/* A table: page_table, then for each row page_row and its cells, page_table_end.  heads: "name|#count": the names of the columns,
 * those that begin with # stand to the right, as numbers do. */
void page_table(buf *b, const char *heads);
void page_row(buf *b);
void page_cell(buf *b, str s);
void page_cell_html(buf *b, int mood, const buf *html); /* a number made of more than one text: ready HTML, to the right; mood 1 stands out */
void page_cell_num(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void page_table_end(buf *b);

/* Drawings stand side by side where there is room: page_figures, drawings, page_figures_end.  `note` (may be NULL) stands
 * below.  Numbers that are not finite are left out.  Nothing to draw: the title, and that there is nothing. */
void page_figures(buf *b);
void page_figures_end(buf *b);

typedef struct {
    str    label;
    double v; /* >= 0 */
    int    colour;
} page_bar;
/* Horizontal bars from 0, one below the other, the values written with `fmt` (of one double, "%.0f"). */
void page_bars(buf *b, const char *title, const char *note, const page_bar *bar, int n, const char *fmt);

typedef struct {
    const char   *name;
    const double *x, *y; /* (n,) y of columns and plots, x of plots and histograms */
    int           n;
    const double *lo, *hi; /* (n,) of lines: where y may lie, drawn as a band; NULL: none */
} page_series;
/* Columns over labels (n,) in order, such as days; the series' y (n,) stacked on one another.  Some labels are left out where
 * they would not fit. */
void page_columns(buf *b, const char *title, const char *note, const str *label, int n, const page_series *s, int n_series);

typedef struct {
    const char *name;
    double      x;
} page_mark;
/* Distributions of the series' x, each as shares of its own number, in common bins; a vertical line with its name at each mark.
 * Bins reach from the 0.5th to the 99.5th percentile of all; the first and last hold what lies outside too. */
void page_histogram(buf *b, const char *title, const char *note, const page_series *s, int n_series, const page_mark *mark, int n_mark);

enum { PAGE_LINES, PAGE_POINTS };
/* y over x, with names of the axes.  Lines have a dot at each point, so that a line of one point is seen. */
void page_plot(buf *b, const char *title, const char *note, int kind, const char *x_name, const char *y_name, const page_series *s,
               int n_series);

#endif
