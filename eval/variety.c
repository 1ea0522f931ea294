/* variety: see variety.h. */
#include "eval/variety.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/overlap.h"

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for n-grams"); }

/* ---- distinct and entropy -------------------------------------------------------------------------------------- */

static void fill_logarithms(variety_grams *g)
{
    for (int c = 1; c < (int)(sizeof g->c_ln_c / sizeof *g->c_ln_c); c++) g->c_ln_c[c] = c * log(c);
}

/* Splits the n-grams into those that occur once, most of them, which need no table to be counted, and the others. */
static int split(variety_grams *g, err *e)
{
    int *count = calloc((size_t)g->nodes + 1, sizeof *count), r = count ? OK : no_memory(e);
    for (int k = 0; k < VARIETY_ENTROPY && r == OK; k++) {
        size_t all = g->at[k][g->n], n = 0;
        g->single[k]  = calloc((size_t)g->n + 1, sizeof *g->single[k]);
        g->more_at[k] = calloc((size_t)g->n + 1, sizeof *g->more_at[k]);
        g->more[k]    = malloc((all + 1) * sizeof *g->more[k]);
        if (!g->single[k] || !g->more_at[k] || !g->more[k]) {
            r = no_memory(e);
            break;
        }
        for (size_t p = 0; p < all; p++) count[g->node[k][p]]++;
        for (int i = 0; i < g->n; i++) {
            for (size_t p = g->at[k][i]; p < g->at[k][i + 1]; p++) {
                int *c = &count[g->node[k][p]]; /* negative: -1 - its new number */
                if (*c > 1) *c = -1 - g->kinds[k]++;
                if (*c == 1) g->single[k][i]++;
                else g->more[k][n++] = -1 - *c;
            }
            g->more_at[k][i + 1] = n;
        }
        for (size_t p = 0; p < all; p++) count[g->node[k][p]] = 0;
    }
    free(count);
    if (r) variety_grams_free(g);
    return r;
}

int variety_grams_new(variety_grams *g, const word_lines *w, ngrams *t, err *e)
{
    int r = OK;
    *g    = (variety_grams){ .n = w->n };
    fill_logarithms(g);
    for (int k = 0; k < VARIETY_ENTROPY && r == OK; k++) {
        g->at[k]   = calloc((size_t)w->n + 1, sizeof *g->at[k]);
        g->node[k] = malloc((w->at[w->n] + 1) * sizeof *g->node[k]);
        if (!g->at[k] || !g->node[k]) r = no_memory(e);
    }
    size_t n[VARIETY_ENTROPY] = { 0 };
    for (int i = 0; i < w->n && r == OK; i++) {
        for (int from = 0, len = word_count(w, i); from < len && r == OK; from++)
            for (int k = 0, node = 0; k < VARIETY_ENTROPY && from + k < len && r == OK; k++) {
                r = ngrams_add(t, node, word_ids(w, i)[from + k], &node, e);
                g->node[k][n[k]++] = node;
            }
        for (int k = 0; k < VARIETY_ENTROPY; k++) g->at[k][i + 1] = n[k];
    }
    g->nodes = ngrams_size(t);
    if (r == OK) return split(g, e);
    variety_grams_free(g);
    return r;
}

int variety_grams_join(variety_grams *g, const variety_grams *a, const variety_grams *b, err *e)
{
    *g = (variety_grams){ .n = a->n + b->n, .nodes = a->nodes > b->nodes ? a->nodes : b->nodes };
    fill_logarithms(g);
    for (int k = 0; k < VARIETY_ENTROPY; k++) {
        size_t na = a->at[k][a->n], nb = b->at[k][b->n];
        g->at[k]   = malloc(((size_t)g->n + 1) * sizeof *g->at[k]);
        g->node[k] = malloc((na + nb + 1) * sizeof *g->node[k]);
        if (!g->at[k] || !g->node[k]) {
            variety_grams_free(g);
            return no_memory(e);
        }
        memcpy(g->at[k], a->at[k], ((size_t)a->n + 1) * sizeof *g->at[k]);
        for (int i = 0; i <= b->n; i++) g->at[k][a->n + i] = na + b->at[k][i];
        memcpy(g->node[k], a->node[k], na * sizeof *g->node[k]);
        memcpy(g->node[k] + na, b->node[k], nb * sizeof *g->node[k]);
    }
    return split(g, e);
}

void variety_grams_free(variety_grams *g)
{
    for (int k = 0; k < VARIETY_ENTROPY; k++) {
        free(g->at[k]);
        free(g->node[k]);
        free(g->single[k]);
        free(g->more_at[k]);
        free(g->more[k]);
    }
    *g = (variety_grams){ 0 };
}

static double c_ln_c(const variety_grams *g, int c) { return c < (int)(sizeof g->c_ln_c / sizeof *g->c_ln_c) ? g->c_ln_c[c] : c * log(c); }

/* -sum c/N ln(c/N) = ln N - (sum c ln c) / N. */
void variety_count(const variety_grams *g, const int *times, int *count, variety *v)
{
    *v = (variety){ 0 };
    for (int k = 0; k < VARIETY_ENTROPY; k++) {
        double     all = 0, kinds = 0, sum = 0;
        const int *more = g->more[k];
        for (int i = 0; i < g->n; i++) {
            int t = times ? times[i] : 1;
            if (t == 0) continue;
            for (size_t p = g->more_at[k][i]; p < g->more_at[k][i + 1]; p++) count[more[p]] += t;
            kinds += g->single[k][i];
            sum += g->single[k][i] * c_ln_c(g, t);
            all += t * (double)(g->at[k][i + 1] - g->at[k][i]);
        }
        for (int i = 0; i < g->kinds[k]; i++) {
            kinds += count[i] > 0;
            sum += c_ln_c(g, count[i]);
            count[i] = 0;
        }
        if (k < VARIETY_DISTINCT) v->distinct[k] = all > 0 ? kinds / all : 0;
        v->entropy[k] = all > 0 ? fmax(0, log(all) - sum / all) : 0;
        if (k == 0) v->tokens = all;
    }
}

double variety_total(const variety_grams *g, int n) { return (double)g->at[n - 1][g->n]; }

double variety_rarefied(const variety_grams *g, int n, double tokens, int *count)
{
    size_t     all  = g->at[n - 1][g->n];
    const int *node = g->node[n - 1];
    double     N = (double)all, kinds = 0;
    if (all == 0 || tokens <= 0) return 0;
    if (tokens > N) tokens = N;
    double none = lgamma(N - tokens + 1) - lgamma(N + 1);
    for (size_t p = 0; p < all; p++) count[node[p]]++;
    for (size_t p = 0; p < all; p++) {
        double c = count[node[p]]; /* 1 - C(N - c, tokens) / C(N, tokens): the chance that one of the c is drawn */
        if (c > 0) kinds += N - c < tokens ? 1 : 1 - exp(lgamma(N - c + 1) - lgamma(N - c - tokens + 1) + none);
        count[node[p]] = 0;
    }
    return kinds / tokens;
}

/* ---- repetition and generic replies ---------------------------------------------------------------------------- */

int variety_repeats(const int *w, int n)
{
    for (int i = 0; i + 2 < n; i++) {
        if (w[i] == w[i + 1] && w[i] == w[i + 2]) return 1;
        for (int j = i + 1; j + 2 < n; j++)
            if (memcmp(w + i, w + j, 3 * sizeof *w) == 0) return 1;
    }
    return 0;
}

int variety_generic(const word_lines *w, const int *lower, unsigned char *generic, err *e)
{
    ngrams *t    = ngrams_new(); /* a whole reply is one node */
    int    *node = calloc((size_t)w->n + 1, sizeof *node), *count = NULL, r = t && node ? OK : no_memory(e);
    for (int i = 0; i < w->n && r == OK; i++)
        for (int k = 0; k < word_count(w, i) && r == OK; k++) r = ngrams_add(t, node[i], lower[word_ids(w, i)[k]], &node[i], e);
    if (r == OK && !(count = calloc((size_t)ngrams_size(t), sizeof *count))) r = no_memory(e);
    for (int i = 0; i < w->n && r == OK; i++) count[node[i]]++;
    for (int i = 0; i < w->n && r == OK; i++) generic[i] = count[node[i]] >= 3 && 100.0 * count[node[i]] >= w->n;
    ngrams_free(t);
    free(node);
    free(count);
    return r;
}

/* ---- self-BLEU ------------------------------------------------------------------------------------------------- */

/* Of each n-gram: the two replies that have it most often.  A reply's own n-grams are clipped by the other one's count. */
typedef struct {
    int first, second, who; /* counts; who has `first` */
} top_two;

static int by_length(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* Nearest to n among the lengths of all others; the shorter of two as near.  sorted (m,) holds n itself once for the reply. */
static int nearest_length(const int *sorted, int m, int n)
{
    int lo = 0, hi = m;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (sorted[mid] < n) lo = mid + 1;
        else hi = mid;
    }
    if (lo + 1 < m && sorted[lo + 1] == n) return n; /* another one of this length */
    int below = lo > 0 ? sorted[lo - 1] : -1, above = lo + 1 < m ? sorted[lo + 1] : -1;
    if (below < 0) return above < 0 ? 0 : above;
    return above < 0 || n - below <= above - n ? below : above;
}

static void self_one(const variety_grams *g, const top_two *top, int i, int *here, overlap *o)
{
    for (int k = 0; k < VARIETY_ENTROPY; k++) {
        o->total[k] = (double)(g->at[k][i + 1] - g->at[k][i]);
        for (size_t p = g->at[k][i]; p < g->at[k][i + 1]; p++) {
            int node = g->node[k][p], most = top[node].who == i ? top[node].second : top[node].first;
            if (here[node] < most) here[node]++, o->match[k]++;
        }
        for (size_t p = g->at[k][i]; p < g->at[k][i + 1]; p++) here[g->node[k][p]] = 0;
    }
}

static void count_top(const variety_grams *g, int *here, top_two *top)
{
    for (int i = 0; i < g->n; i++)
        for (int k = 0; k < VARIETY_ENTROPY; k++) {
            for (size_t p = g->at[k][i]; p < g->at[k][i + 1]; p++) here[g->node[k][p]]++;
            for (size_t p = g->at[k][i]; p < g->at[k][i + 1]; p++) {
                int      node = g->node[k][p], c = here[node];
                top_two *t = &top[node];
                if (c > t->first) *t = (top_two){ c, t->first, i };
                else if (c > t->second) t->second = c;
                here[node] = 0;
            }
        }
}

int variety_self_bleu(const word_lines *w, double *self_bleu, err *e)
{
    ngrams       *t    = ngrams_new();
    variety_grams g    = { 0 };
    int           r    = t ? variety_grams_new(&g, w, t, e) : no_memory(e), *here = NULL, *len = NULL;
    top_two      *top  = NULL;
    ngrams_free(t);
    if (r) return r;
    here = calloc((size_t)g.nodes + 1, sizeof *here);
    top  = calloc((size_t)g.nodes + 1, sizeof *top);
    len  = malloc(((size_t)w->n + 1) * sizeof *len);
    if (!here || !top || !len) r = no_memory(e);
    if (r == OK) {
        for (int i = 0; i < g.nodes; i++) top[i].who = -1;
        for (int i = 0; i < w->n; i++) len[i] = word_count(w, i);
        qsort(len, (size_t)w->n, sizeof *len, by_length);
        count_top(&g, here, top);
    }
    for (int i = 0; i < w->n && r == OK; i++) {
        overlap o = { .words = word_count(w, i), .closest = nearest_length(len, w->n, word_count(w, i)) };
        self_one(&g, top, i, here, &o);
        self_bleu[i] = w->n > 1 ? bleu_sentence(&o, 4) : 0;
    }
    free(here);
    free(top);
    free(len);
    variety_grams_free(&g);
    return r;
}
