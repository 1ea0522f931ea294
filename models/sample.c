/* sample: see sample.h.  Scratch is sized once for a vocabulary; a draw allocates nothing.  The whole vocabulary is never
 * sorted, nor copied: one pass finds the largest logit of each block of neighbours, top-k looks only into blocks that can hold one of
 * the best, and the walk down the distribution pops a heap only as far as it goes. */
#include "models/sample.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/ops.h"

enum { BLOCK = OPS_TOP_BLOCK };

struct sample_space {
    int       n_vocab;
    float    *top;     /* (ceil(V / BLOCK),) the largest logit of each block of neighbours, touched ids left out; -inf: none */
    double   *z;       /* (V,) of touched ids and of candidates: logit after penalty; -inf = not to be drawn */
    double   *w;       /* (V,) by id: exp((z - max) / temperature); before that, the values top-k selects among */
    int      *order;   /* (V,) candidates: order[0..heap) is a heap, best first; behind it what was popped, the best at the end */
    int      *touched; /* (V,) ids whose z is not their logit: penalised or banned */
    uint32_t *mark;    /* (V,) == epoch: this id is touched */
    uint32_t  epoch;
    int       n, heap; /* candidates, and how many of them are still in the heap */
    int       n_touched;
};

static size_t n_blocks(const sample_space *s) { return ((size_t)s->n_vocab + BLOCK - 1) / BLOCK; }

sample_space *sample_space_new(int n_vocab)
{
    if (n_vocab <= 0) return NULL;
    size_t        v = (size_t)n_vocab;
    sample_space *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->n_vocab = n_vocab;
    s->top     = calloc(n_blocks(s), sizeof *s->top);
    s->z       = calloc(v, sizeof *s->z);
    s->w       = calloc(v, sizeof *s->w);
    s->order   = calloc(v, sizeof *s->order);
    s->touched = calloc(v, sizeof *s->touched);
    s->mark    = calloc(v, sizeof *s->mark);
    if (s->top && s->z && s->w && s->order && s->touched && s->mark) return s;
    sample_space_free(s);
    return NULL;
}

void sample_space_free(sample_space *s)
{
    if (!s) return;
    free(s->top);
    free(s->z);
    free(s->w);
    free(s->order);
    free(s->touched);
    free(s->mark);
    free(s);
}

/* exp(x) for x <= 0: x = k ln 2 + r, |r| <= ln 2 / 2, Taylor to r^13/13! (the rest is below 5e-18).  Only +, -, * and
 * exact scaling. */
static double exp_down(double x)
{
    static const double hi = 0x1.62e42fefa3800p-1, lo = 0x1.ef35793c76730p-45; /* ln 2, the first part with zeros at the end */
    static const double c[] = { 1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
                                1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800 };
    if (!(x > -745)) return 0;
    double k = (double)(int)(x * 1.4426950408889634 - 0.5), r = (x - k * hi) - k * lo, p = c[13];
    for (int i = 12; i >= 0; i--) p = p * r + c[i];
    return ldexp(p, (int)k);
}

static void next_epoch(sample_space *s)
{
    s->n_touched = 0;
    if (++s->epoch) return;
    memset(s->mark, 0, (size_t)s->n_vocab * sizeof *s->mark);
    s->epoch = 1;
}

/* A logit as a double: NaN becomes -inf; +inf the largest number, so that differences stay numbers. */
static double number(float x) { return x <= FLT_MAX ? (double)x : x > FLT_MAX ? DBL_MAX : -INFINITY; }

static int is_touched(const sample_space *s, int id) { return s->mark[id] == s->epoch; }

static void touch(sample_space *s, const float *logits, int id)
{
    if (is_touched(s, id)) return;
    s->mark[id]                = s->epoch;
    s->touched[s->n_touched++] = id;
    s->z[id]                   = number(logits[id]);
}

/* Take id out; returns how many ids that could be drawn went: 1 or 0. */
static int ban(sample_space *s, const float *logits, int id)
{
    if (id < 0 || id >= s->n_vocab) return 0;
    touch(s, logits, id);
    if (s->z[id] == -INFINITY) return 0;
    s->z[id] = -INFINITY;
    return 1;
}

/* Bans in the order in which they are lifted when nothing would be left. */
enum { BAN_ALL = 0, BAN_NO_NGRAM, BAN_LIST_ONLY, BAN_NONE };

/* z of the ids that penalty and bans touch.  Returns how many of `alive` ids that could be drawn before can be drawn then. */
static int prepare(sample_space *s, const float *logits, const sample_opts *o, const int *seen, int n_seen, const int *reply,
                   int n_reply, int lift, int alive)
{
    int V = s->n_vocab;
    next_epoch(s);
    if (o->rep_penalty > 0 && o->rep_penalty != 1) {
        double p = (double)o->rep_penalty;
        for (int i = 0; i < n_seen; i++) {
            int id = seen[i];
            if (id < 0 || id >= V || is_touched(s, id)) continue;
            touch(s, logits, id);
            if (s->z[id] == -INFINITY) continue;
            double x = s->z[id] < 0 && o->rep_rule == PENALTY_SIGNED ? s->z[id] * p : s->z[id] / p;
            s->z[id] = x > DBL_MAX ? DBL_MAX : x < -DBL_MAX ? -DBL_MAX : x;
        }
    }
    if (lift < BAN_NONE)
        for (int i = 0; i < o->n_ban; i++) alive -= ban(s, logits, o->ban[i]);
    if (lift < BAN_LIST_ONLY && n_reply < o->min_new) alive -= ban(s, logits, o->sep);
    if (lift < BAN_NO_NGRAM && o->no_repeat > 0) {
        int head = o->no_repeat - 1; /* tokens before the one that would close the n-gram */
        for (int i = 0; i + head < n_reply; i++)
            if (head == 0 || memcmp(reply + i, reply + n_reply - head, (size_t)head * sizeof *reply) == 0)
                alive -= ban(s, logits, reply[i + head]);
    }
    return alive;
}

/* The blocks of touched ids without them. */
static void lower_tops(sample_space *s, const float *logits)
{
    for (int i = 0; i < s->n_touched; i++) {
        int   id = s->touched[i], b = id / BLOCK, end = (b + 1) * BLOCK < s->n_vocab ? (b + 1) * BLOCK : s->n_vocab;
        float m  = -INFINITY;
        if (!(logits[id] >= s->top[b])) continue; /* it was not the largest */
        for (int j = b * BLOCK; j < end; j++)
            if (!is_touched(s, j) && logits[j] > m) m = logits[j];
        s->top[b] = m;
    }
}

/* Into a heap h of the k largest numbers so far, the smallest on top; *n of them are there. */
static void keep_largest(double *h, int k, int *n, double x)
{
    int at;
    if (*n < k) { /* grow: sift up */
        for (at = (*n)++; at > 0 && h[(at - 1) / 2] > x; at = (at - 1) / 2) h[at] = h[(at - 1) / 2];
    } else { /* replace the top: sift down */
        at = 0;
        for (int c; (c = 2 * at + 1) < k; at = c) {
            if (c + 1 < k && h[c + 1] < h[c]) c++;
            if (h[c] >= x) break;
            h[at] = h[c];
        }
    }
    h[at] = x;
}

/* order[0..n) = all ids that can be drawn, rising.  z of them is set. */
static void everyone(sample_space *s, const float *logits)
{
    s->n = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        if (!is_touched(s, i)) s->z[i] = number(logits[i]);
        if (s->z[i] > -INFINITY) s->order[s->n++] = i;
    }
}

/* order[0..n) = the ids whose z is at least `least`, a number, rising.  z of them is set. */
static void at_least(sample_space *s, const float *logits, double least)
{
    s->n = 0;
    for (size_t b = 0; b < n_blocks(s); b++) {
        int end = (int)(b + 1) * BLOCK < s->n_vocab ? (int)(b + 1) * BLOCK : s->n_vocab;
        if (!(number(s->top[b]) >= least)) continue;
        for (int i = (int)b * BLOCK; i < end; i++) {
            double x = number(logits[i]);
            if (x >= least && !is_touched(s, i)) s->z[i] = x, s->order[s->n++] = i;
        }
    }
    for (int i = 0; i < s->n_touched; i++) {
        int id = s->touched[i], at = s->n;
        if (!(s->z[id] >= least)) continue;
        for (; at > 0 && s->order[at - 1] > id; at--) s->order[at] = s->order[at - 1];
        s->order[at] = id;
        s->n++;
    }
}

/* order[0..n) = the ids whose z is at least the k-th largest, 0 < k <= ids that can be drawn.  Of every block the largest is known: k blocks
 * hold k ids that are at least the k-th largest of those, and what is smaller than that is not among the best k.  Few are left, and of those
 * the k-th largest is found. */
static void best_k(sample_space *s, const float *logits, int k)
{
    int    n = 0, all = 0;
    double least;
    for (size_t b = 0; b < n_blocks(s); b++) {
        double x = number(s->top[b]);
        if (x > -INFINITY && (n < k || x > s->w[0])) keep_largest(s->w, k, &n, x);
    }
    if (n == k) at_least(s, logits, s->w[0]);
    else everyone(s, logits);
    all = s->n, n = 0;
    for (int j = 0; j < all; j++)
        if (n < k || s->z[s->order[j]] > s->w[0]) keep_largest(s->w, k, &n, s->z[s->order[j]]);
    least = s->w[0];
    s->n  = 0;
    for (int j = 0; j < all; j++)
        if (s->z[s->order[j]] >= least) s->order[s->n++] = s->order[j];
}

/* Does id a come before id b in the walk? */
static int before(const sample_space *s, int a, int b) { return s->z[a] > s->z[b] || (s->z[a] == s->z[b] && a < b); }

static void sift_down(sample_space *s, int at)
{
    int id = s->order[at];
    for (int c; (c = 2 * at + 1) < s->heap; at = c) {
        if (c + 1 < s->heap && before(s, s->order[c + 1], s->order[c])) c++;
        if (!before(s, s->order[c], id)) break;
        s->order[at] = s->order[c];
    }
    s->order[at] = id;
}

/* The next id of the walk. */
static int pop(sample_space *s)
{
    int best = s->order[0], last = --s->heap;
    s->order[0]    = s->order[last];
    s->order[last] = best;
    if (s->heap > 1) sift_down(s, 0);
    return best;
}

/* Candidates after top-k, with their weights, as a heap.  Returns the sum of the weights. */
static double gather(sample_space *s, const float *logits, const sample_opts *o, int alive)
{
    double max = -DBL_MAX, sum = 0;
    if (o->top_k > 0 && o->top_k < alive) best_k(s, logits, o->top_k);
    else everyone(s, logits);
    for (int j = 0; j < s->n; j++)
        if (s->z[s->order[j]] > max) max = s->z[s->order[j]];
    for (int j = 0; j < s->n; j++) {
        int id   = s->order[j];
        s->w[id] = exp_down((s->z[id] - max) / (double)o->temperature);
        sum += s->w[id];
    }
    s->heap = s->n;
    for (int at = s->n / 2 - 1; at >= 0; at--) sift_down(s, at);
    return sum;
}

/* Pop what top-p keeps; *sum becomes the mass of it.  What was popped stands at order[heap..n), the likeliest last. */
static void nucleus(sample_space *s, const sample_opts *o, double *sum)
{
    double total = *sum, p = (double)o->top_p, mass = 0;
    while (s->heap > 0) {
        int keep = s->heap == s->n || (o->top_p_rule == TOP_P_BEFORE ? mass <= p * total : total - mass > (1 - p) * total);
        if (!keep) break;
        mass += s->w[pop(s)];
    }
    *sum = mass;
}

static int greedy(sample_space *s, const float *logits)
{
    float m = -INFINITY;
    int   best = -1, at = -1;
    for (size_t b = 0; b < n_blocks(s); b++)
        if (s->top[b] > m) m = s->top[b], at = (int)b * BLOCK;
    for (int i = at; at >= 0 && best < 0; i++)
        if (logits[i] == m && !is_touched(s, i)) best = i, s->z[i] = number(m);
    for (int i = 0; i < s->n_touched; i++) {
        int id = s->touched[i];
        if (s->z[id] > -INFINITY && (best < 0 || before(s, id, best))) best = id;
    }
    return best;
}

static int has_top_p(const sample_opts *o) { return o->top_p > 0 && o->top_p < 1; }

/* All filters.  Returns -1 with the kept candidates in s (popped ones when top-p is on, else the heap) and their mass in
 * *sum, or the one id that is certain. */
static int filter(sample_space *s, const float *logits, const sample_opts *o, const int *seen, int n_seen, const int *reply,
                  int n_reply, double *sum)
{
    int all = ops_tops(s->top, logits, s->n_vocab), alive = 0;
    for (int lift = BAN_ALL; lift <= BAN_NONE && alive == 0; lift++)
        alive = prepare(s, logits, o, seen, n_seen, reply, n_reply, lift, all);
    if (alive == 0) return 0;
    lower_tops(s, logits);
    if (!(o->temperature > 0)) return greedy(s, logits);
    *sum = gather(s, logits, o, alive);
    if (has_top_p(o)) nucleus(s, o, sum);
    return -1;
}

int sample_draw(const float *logits, int n_vocab, const sample_opts *o, const int *seen, int n_seen, const int *reply,
                int n_reply, double u, sample_space *s)
{
    assert(n_vocab == s->n_vocab);
    double sum, mass = 0;
    int    id = filter(s, logits, o, seen, n_seen, reply, n_reply, &sum), last = -1;
    if (id >= 0) return id;
    /* Walk until the mass passes u * sum.  Rounding may leave the walk a hair short of the end: then the last id that has
     * mass is it. */
    double goal = u * sum;
    int    n    = has_top_p(o) ? s->n - s->heap : s->n;
    for (int j = 0; j < n; j++) {
        id = has_top_p(o) ? s->order[s->n - 1 - j] : pop(s);
        if (s->w[id] == 0) break; /* so are all that follow */
        last = id;
        mass += s->w[id];
        if (mass > goal) break;
    }
    return last;
}

void sample_probs(const float *logits, int n_vocab, const sample_opts *o, const int *seen, int n_seen, const int *reply,
                  int n_reply, double *probs, sample_space *s)
{
    assert(n_vocab == s->n_vocab);
    double sum;
    int    id = filter(s, logits, o, seen, n_seen, reply, n_reply, &sum);
    for (int i = 0; i < n_vocab; i++) probs[i] = 0;
    if (id >= 0) {
        probs[id] = 1;
        return;
    }
    for (int j = has_top_p(o) ? s->heap : 0; j < s->n; j++) probs[s->order[j]] = s->w[s->order[j]] / sum;
}

double sample_logprob(const float *logits, int n_vocab, int id)
{
    assert(id >= 0 && id < n_vocab);
    return (double)logits[id] - ops_logsumexp(logits, n_vocab);
}
