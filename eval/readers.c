/* readers: see readers.h. */
#include "eval/readers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for readings"); }

/* ---- the sample -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t key;
    int64_t  id;
} ticket;

static int by_key(const void *a, const void *b)
{
    const ticket *p = a, *q = b;
    if (p->key != q->key) return p->key < q->key ? -1 : 1;
    return (p->id > q->id) - (p->id < q->id);
}

int readers_sample(const int64_t *id, int n, int want, uint64_t seed, int64_t *out, err *e)
{
    ticket *t = malloc(((size_t)n + 1) * sizeof *t);
    if (!t) return no_memory(e);
    for (int i = 0; i < n; i++) t[i] = (ticket){ rng_u64(seed, (uint64_t)id[i], 0), id[i] };
    qsort(t, (size_t)n, sizeof *t, by_key);
    if (want > n) want = n;
    for (int i = 0; i < want; i++) out[i] = t[i].id;
    free(t);
    return want;
}

/* ---- agreement --------------------------------------------------------------------------------------------------- */

/* The readings in order of exchange, then reader; of equals the last one given, which alone stays. */
typedef struct {
    int64_t turn;
    int     reader, label, at;
} cell;

static int by_cell(const void *a, const void *b)
{
    const cell *p = a, *q = b;
    if (p->turn != q->turn) return p->turn < q->turn ? -1 : 1;
    return p->reader != q->reader ? p->reader - q->reader : p->at - q->at;
}

static int by_reader(const void *a, const void *b)
{
    str    p = ((const readers_one *)a)->reader, q = ((const readers_one *)b)->reader;
    size_t n = p.n < q.n ? p.n : q.n;
    int    c = memcmp(p.s, q.s, n);
    return c ? c : (p.n > q.n) - (p.n < q.n);
}

static int find_reader(const readers_sum *s, str name)
{
    int i = 0;
    while (i < s->n_one && !str_eq(s->one[i].reader, name)) i++;
    return i;
}

static int gather(const reading *r, int n, readers_sum *s, cell *c)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        int k = find_reader(s, r[i].reader);
        if (k == s->n_one) s->one[s->n_one++].reader = r[i].reader;
    }
    qsort(s->one, (size_t)s->n_one, sizeof *s->one, by_reader);
    for (int i = 0; i < n; i++) c[i] = (cell){ r[i].turn, find_reader(s, r[i].reader), r[i].label, i };
    qsort(c, (size_t)n, sizeof *c, by_cell);
    for (int i = 0; i < n; i++) {
        if (i + 1 < n && c[i + 1].turn == c[i].turn && c[i + 1].reader == c[i].reader) continue;
        c[kept++] = c[i];
        s->one[c[i].reader].n++;
    }
    return kept;
}

/* m (L, L): how often a said i where b said j. */
static void make_pair(const cell *c, int n, int L, double *m, readers_pair *p)
{
    double row, col, same = 0, chance = 0;
    memset(m, 0, (size_t)L * (size_t)L * sizeof *m);
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n && c[k].turn == c[i].turn; k++)
            if (c[i].reader == p->a && c[k].reader == p->b) {
                m[c[i].label * L + c[k].label]++;
                p->n++;
            }
    for (int i = 0; i < L; i++) {
        row = col = 0;
        for (int k = 0; k < L; k++) row += m[i * L + k], col += m[k * L + i];
        same += m[i * L + i];
        chance += row * col;
    }
    double total = p->n;
    p->observed  = p->n ? same / total : NAN;
    p->kappa     = p->n && chance < total * total ? (same / total - chance / (total * total)) / (1 - chance / (total * total)) : NAN;
}

/* Krippendorff (2011): of the pairable values, observed over expected disagreement. */
static void make_alpha(const cell *c, int n, int L, double *value, readers_sum *s)
{
    double observed = 0, total = 0, expected = 0;
    memset(value, 0, (size_t)L * sizeof *value); /* pairable values of each label */
    for (int i = 0, to; i < n; i = to) {
        for (to = i; to < n && c[to].turn == c[i].turn; to++) {}
        int m = to - i, differ = 0;
        s->n_turns++;
        for (int k = i; k < to; k++) s->share[c[k].label] += 1.0 / m;
        if (m < 2) continue;
        s->n_shared++;
        for (int k = i; k < to; k++) {
            value[c[k].label]++;
            for (int l = i; l < to; l++) differ += c[k].label != c[l].label;
        }
        observed += (double)differ / (m - 1);
        total += m;
    }
    for (int i = 0; i < L; i++) {
        expected += value[i] * (total - value[i]);
        if (s->n_turns) s->share[i] /= s->n_turns;
    }
    s->alpha = expected > 0 ? 1 - (total - 1) * observed / expected : NAN;
}

double readers_fleiss(const int *count, int n, int L, int m)
{
    double alike = 0, chance = 0;
    for (int k = 0; k < L; k++) {
        double share = 0;
        for (int i = 0; i < n; i++) {
            double x = count[(size_t)i * (size_t)L + (size_t)k];
            share += x / ((double)n * m);
            alike += x * (x - 1) / ((double)n * m * (m - 1));
        }
        chance += share * share;
    }
    return n > 0 && m > 1 && chance < 1 - 1e-12 ? (alike - chance) / (1 - chance) : NAN;
}

/* The exchanges that have the commonest number of readings. */
static int make_fleiss(const cell *c, int n, int L, arena *a, readers_sum *s, err *e)
{
    int *with  = arena_new(a, (size_t)s->n_one + 1, sizeof *with); /* exchanges with so many readings */
    int *count = arena_new(a, (size_t)s->n_turns * (size_t)L, sizeof *count), rows = 0;
    s->fleiss  = NAN;
    if (!with || !count) return no_memory(e);
    for (int i = 0, to; i < n; i = to) {
        for (to = i; to < n && c[to].turn == c[i].turn; to++) {}
        with[to - i]++;
    }
    for (int m = 2; m <= s->n_one; m++)
        if (with[m] && with[m] >= s->fleiss_n) s->fleiss_m = m, s->fleiss_n = with[m];
    for (int i = 0, to; i < n; i = to) {
        for (to = i; to < n && c[to].turn == c[i].turn; to++) {}
        if (to - i != s->fleiss_m) continue;
        for (int k = i; k < to; k++) count[(size_t)rows * (size_t)L + (size_t)c[k].label]++;
        rows++;
    }
    if (s->fleiss_m) s->fleiss = readers_fleiss(count, rows, L, s->fleiss_m);
    return OK;
}

int readers_agree(const reading *r, int n, int n_labels, arena *a, readers_sum *s, err *e)
{
    size_t L = (size_t)n_labels;
    *s       = (readers_sum){ .alpha = NAN };
    s->one   = arena_new(a, (size_t)n, sizeof *s->one);
    s->share = arena_new(a, L, sizeof *s->share);
    cell   *c = arena_new(a, (size_t)n, sizeof *c);
    double *m = arena_new(a, L * L, sizeof *m);
    if (!s->one || !s->share || !c || !m) return no_memory(e);
    for (int i = 0; i < n; i++)
        if (r[i].label < 0 || r[i].label >= n_labels) return err_set(e, E_ARG, "turn %lld: there is no label %d", (long long)r[i].turn, r[i].label);
    n       = gather(r, n, s, c);
    s->pair = arena_new(a, (size_t)s->n_one * (size_t)s->n_one, sizeof *s->pair);
    if (!s->pair) return no_memory(e);
    for (int i = 0; i < s->n_one; i++)
        for (int k = i + 1; k < s->n_one; k++) {
            s->pair[s->n_pair] = (readers_pair){ .a = i, .b = k };
            make_pair(c, n, n_labels, m, &s->pair[s->n_pair++]);
        }
    make_alpha(c, n, n_labels, m, s);
    return make_fleiss(c, n, n_labels, a, s, e);
}
