/* overlap: see overlap.h.  One trie holds the n-grams of all references; a hypothesis's n-gram that is not in it matches nothing. */
#include "eval/overlap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ngrams *g;
    int    *count;        /* (nodes,) over all references */
    int    *most, *here;  /* (nodes,) in the references of this segment, in this text; zero between segments */
    ivec    touched;      /* nodes with most != 0 */
    double  words;        /* of all references */
    int     zero;
} work;

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for n-grams"); }

/* Calls f for each n-gram of a line that is in the trie. */
#define EACH_GRAM(w, line, i, orders, node)                                                                            \
    for (int from_ = 0, len_ = word_count(line, i); from_ < len_; from_++)                                             \
        for (int order_ = 1, node = 0; order_ <= (orders) && from_ + order_ <= len_ &&                                 \
                                       (node = ngrams_find((w)->g, node, word_ids(line, i)[from_ + order_ - 1])) >= 0; \
             order_++)

static int learn(work *w, const word_lines *ref, int orders, err *e)
{
    int r = OK;
    for (int i = 0; i < ref->n && r == OK; i++)
        for (int from = 0, len = word_count(ref, i); from < len && r == OK; from++)
            for (int k = 0, node = 0; k < orders && from + k < len && r == OK; k++) r = ngrams_add(w->g, node, word_ids(ref, i)[from + k], &node, e);
    if (r) return r;
    size_t n = (size_t)ngrams_size(w->g);
    w->count = calloc(n, sizeof *w->count);
    w->most  = calloc(n, sizeof *w->most);
    w->here  = calloc(n, sizeof *w->here);
    if (!w->count || !w->most || !w->here) return no_memory(e);
    for (int i = 0; i < ref->n; i++) {
        w->words += word_count(ref, i);
        EACH_GRAM(w, ref, i, orders, node) w->count[node]++;
    }
    return OK;
}

static double information(const work *w, int node)
{
    int    prefix = ngrams_prefix(w->g, node);
    double all    = prefix == 0 || (w->zero >= 0 && ngrams_prefix(w->g, prefix) == 0 && ngrams_word(w->g, prefix) == w->zero)
                        ? w->words : w->count[prefix];
    return -log(w->count[node] / all) / log(2);
}

static void lengths(const word_lines *hyp, int i, const word_lines *ref, int from, int to, overlap *o)
{
    int words = word_count(hyp, i), closest = -1;
    for (int k = from; k < to; k++) {
        int len = word_count(ref, k);
        o->average += len / (double)(to - from);
        if (closest < 0 || abs(words - len) < abs(words - closest) || (abs(words - len) == abs(words - closest) && len < closest)) closest = len;
    }
    o->words   = words;
    o->closest = closest < 0 ? 0 : closest;
}

static void segment(work *w, const word_lines *hyp, int i, const word_lines *ref, int from, int to, int orders, overlap *o)
{
    lengths(hyp, i, ref, from, to, o);
    for (int k = from; k < to; k++) {
        EACH_GRAM(w, ref, k, orders, node) {
            if (++w->here[node] > w->most[node]) {
                if (w->most[node]++ == 0) ivec_push(&w->touched, node);
            }
        }
        EACH_GRAM(w, ref, k, orders, node) w->here[node] = 0;
    }
    for (int n = 0; n < orders && n < o->words; n++) o->total[n] = o->words - n;
    EACH_GRAM(w, hyp, i, orders, node) {
        if (w->here[node] >= w->most[node]) continue;
        w->here[node]++;
        o->match[order_ - 1]++;
        o->info[order_ - 1] += information(w, node);
    }
    EACH_GRAM(w, hyp, i, orders, node) w->here[node] = 0;
    for (size_t k = 0; k < w->touched.n; k++) w->most[w->touched.v[k]] = 0;
    w->touched.n = 0;
}

int overlap_count(const word_lines *hyp, const word_lines *ref, const int *ref_at, int orders, int zero, overlap *out, err *e)
{
    work w = { .g = ngrams_new(), .zero = zero };
    int  r = w.g ? learn(&w, ref, orders, e) : no_memory(e);
    memset(out, 0, (size_t)hyp->n * sizeof *out);
    for (int i = 0; i < hyp->n && r == OK; i++) segment(&w, hyp, i, ref, ref_at[i], ref_at[i + 1], orders, &out[i]);
    if (r == OK && w.touched.oom) r = no_memory(e);
    ngrams_free(w.g);
    free(w.count);
    free(w.most);
    free(w.here);
    ivec_free(&w.touched);
    return r;
}

void overlap_add(overlap *sum, const overlap *x, double times)
{
    sum->words += times * x->words;
    sum->closest += times * x->closest;
    sum->average += times * x->average;
    for (int n = 0; n < OVERLAP_MAX; n++) {
        sum->match[n] += times * x->match[n];
        sum->total[n] += times * x->total[n];
        sum->info[n] += times * x->info[n];
    }
}

static double brevity(const overlap *o) { return o->words <= 0 ? 0 : exp(fmin(0, 1 - o->closest / o->words)); }

double bleu_plain(const overlap *o, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++) {
        if (o->match[k] <= 0) return 0;
        sum += log(o->match[k] / o->total[k]);
    }
    return brevity(o) * exp(sum / n);
}

double bleu_mteval(const overlap *o, int n)
{
    double sum = 0, smooth = 1;
    for (int k = 0; k < n; k++) {
        if (o->total[k] <= 0) continue;
        sum += o->match[k] > 0 ? log(o->match[k] / o->total[k]) : log(1 / ((smooth *= 2) * o->total[k]));
    }
    return brevity(o) * exp(sum / n);
}

double bleu_sentence(const overlap *o, int n)
{
    double sum = 0;
    if (o->match[0] <= 0) return 0;
    for (int k = 0; k < n; k++) sum += log((o->match[k] > 0 ? o->match[k] : 0.1) / fmax(o->total[k], 1));
    return brevity(o) * exp(sum / n);
}

double nist_score(const overlap *o, int n)
{
    double sum = 0, ratio = o->average > 0 ? o->words / o->average : 0, beta = log(2) / (log(1.5) * log(1.5));
    if (ratio <= 0) return 0;
    for (int k = 0; k < n; k++) sum += o->info[k] / fmax(o->total[k], 1);
    return ratio >= 1 ? sum : sum * exp(-beta * log(ratio) * log(ratio));
}
