/* sentence: see sentence.h. */
#include "eval/sentence.h"

#include <math.h>
#include <stdlib.h>

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for a sentence"); }

/* One stage: match[i] = word of the reference that word i of the hypothesis is matched with, -1 none. */
static void stage(const int *h, int nh, const int *r, int nr, const int *form, int *match, unsigned char *taken)
{
    for (int i = nh - 1; i >= 0; i--) {
        if (match[i] >= 0) continue;
        for (int j = nr - 1; j >= 0; j--) {
            if (taken[j] || form[h[i]] != form[r[j]]) continue;
            match[i] = j;
            taken[j] = 1;
            break;
        }
    }
}

int meteor_score(const int *h, int nh, const int *r, int nr, const int *lower, const int *stem, double *score, err *e)
{
    *score = 0;
    if (nh == 0 || nr == 0) return OK;
    int           *match = malloc((size_t)nh * sizeof *match);
    unsigned char *taken = calloc((size_t)nr, 1);
    if (!match || !taken) {
        free(match);
        free(taken);
        return no_memory(e);
    }
    for (int i = 0; i < nh; i++) match[i] = -1;
    stage(h, nh, r, nr, lower, match, taken);
    if (stem) stage(h, nh, r, nr, stem, match, taken);
    int matches = 0, chunks = 0, before = -2;
    for (int i = 0; i < nh; i++) { /* a chunk goes on where both texts go on with the next word */
        if (match[i] >= 0) {
            matches++;
            chunks += i == 0 || match[i - 1] < 0 || match[i] != before + 1;
        }
        before = match[i] >= 0 ? match[i] : -2;
    }
    free(match);
    free(taken);
    if (matches == 0) return OK;
    double p = matches / (double)nh, q = matches / (double)nr, f = p * q / (0.9 * p + 0.1 * q);
    *score = f * (1 - 0.5 * pow(chunks / (double)matches, 3));
    return OK;
}

int lcs_length(const int *a, int na, const int *b, int nb, int *n, err *e)
{
    int *row = calloc((size_t)nb + 1, sizeof *row);
    if (!row) return no_memory(e);
    for (int i = 0; i < na; i++) {
        int corner = 0; /* of the row above, one to the left */
        for (int j = 0; j < nb; j++) {
            int above  = row[j + 1];
            row[j + 1] = a[i] == b[j] ? corner + 1 : row[j] > above ? row[j] : above;
            corner     = above;
        }
    }
    *n = row[nb];
    free(row);
    return OK;
}

double rouge_l_f1(int lcs, int nh, int nr) { return lcs > 0 ? 2.0 * lcs / (nh + nr) : 0; }

double rouge_l_coco(double p, double r) { return p > 0 && r > 0 ? (1 + 1.2 * 1.2) * p * r / (r + 1.2 * 1.2 * p) : 0; }

static int by_number(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static int *sorted(const int *v, int n, const int *form)
{
    int *s = malloc(((size_t)n + 1) * sizeof *s);
    for (int i = 0; s && i < n; i++) s[i] = form[v[i]];
    if (s) qsort(s, (size_t)n, sizeof *s, by_number);
    return s;
}

int word_f1(const int *h, int nh, const int *r, int nr, const int *lower, double *score, err *e)
{
    int *a = sorted(h, nh, lower), *b = sorted(r, nr, lower), common = 0;
    for (int i = 0, j = 0; a && b && i < nh && j < nr;) {
        common += a[i] == b[j];
        int x = a[i], y = b[j];
        i += x <= y;
        j += y <= x;
    }
    int got = a && b ? OK : no_memory(e);
    free(a);
    free(b);
    *score = common ? 2.0 * common / (nh + nr) : 0;
    return got;
}

int sentence_score(const word_lines *hyp, int i, const word_lines *ref, int from, int to, const int *lower, const int *stem, sentence_scores *s, err *e)
{
    const int *h = word_ids(hyp, i);
    int        nh = word_count(hyp, i), r = OK;
    double     p = 0, q = 0;
    *s = (sentence_scores){ 0 };
    for (int k = from; k < to && r == OK; k++) {
        const int *w  = word_ids(ref, k);
        int        nw = word_count(ref, k), lcs = 0, both_empty = nh == 0 && nw == 0;
        double     m = 0, exact = 0, f = 0;
        r = meteor_score(h, nh, w, nw, lower, stem, &m, e);
        if (r == OK) r = meteor_score(h, nh, w, nw, lower, NULL, &exact, e);
        if (r == OK) r = word_f1(h, nh, w, nw, lower, &f, e);
        if (r == OK) r = lcs_length(h, nh, w, nw, &lcs, e);
        s->meteor       = fmax(s->meteor, m);
        s->meteor_exact = fmax(s->meteor_exact, exact);
        s->f1           = fmax(s->f1, f);
        s->rouge_l_f1   = fmax(s->rouge_l_f1, rouge_l_f1(lcs, nh, nw));
        p               = fmax(p, (lcs + both_empty) / fmax(nh, 1));
        q               = fmax(q, (lcs + both_empty) / fmax(nw, 1));
    }
    s->rouge_l = rouge_l_coco(p, q);
    return r;
}
