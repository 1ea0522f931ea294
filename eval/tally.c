/* tally: see tally.h. */
#include "eval/tally.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LONGEST_PIECE = 12, PICTURE = 100 /* most columns of time */ };

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory counting a store"); }

static int push(tally_list *l, double v, arena *a)
{
    if (l->n == l->cap) {
        int     cap = l->cap ? 2 * l->cap : 256;
        double *up  = arena_new(a, (size_t)cap, sizeof *up);
        if (!up) return -1;
        if (l->n) memcpy(up, l->v, (size_t)l->n * sizeof *up);
        l->v   = up;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return 0;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

double tally_quantile(const tally_list *l, double p)
{
    double *v = malloc(((size_t)l->n + 1) * sizeof *v), q = NAN;
    int     n = 0;
    if (!v) return NAN;
    for (int i = 0; i < l->n; i++)
        if (isfinite(l->v[i])) v[n++] = l->v[i];
    qsort(v, (size_t)n, sizeof *v, by_size);
    if (n) {
        int at = (int)ceil(p * n) - 1;
        q      = v[at < 0 ? 0 : at >= n ? n - 1 : at];
    }
    free(v);
    return q;
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name, *what;
} faults[TALLY_FAULTS] = {
    { "repetition", "one character four times in a row, or a piece of 2 to 12 characters three times" },
    { "dirty words", "a rule against abuse, hate, swearing or sexual talk hit, blocked or not" },
    { "other rule hit", "any other rule hit, or one whose pack is not at hand" },
    { "echo", "the user's own line" },
    { "cut off", "the model had not closed the reply when its length was reached" },
    { "broken character", "bytes that are no text" },
};
const char *tally_fault_name(int fault) { return fault >= 0 && fault < TALLY_FAULTS ? faults[fault].name : NULL; }
const char *tally_fault_what(int fault) { return fault >= 0 && fault < TALLY_FAULTS ? faults[fault].what : NULL; }

int tally_repeats(str t)
{
    enum { KEEP = 3 * LONGEST_PIECE };
    uint32_t last[KEEP]; /* the last characters, newest at (n - 1) % KEEP */
    int      n = 0;
    for (size_t i = 0; i < t.n;) {
        i += utf8_next(t.s + i, t.n - i, &last[n % KEEP]);
        n++;
        for (int piece = 1; piece <= LONGEST_PIECE; piece++) {
            int times = piece == 1 ? 4 : 3, same = 1;
            if (piece * times > n) break;
            for (int k = 0; same && k < piece * (times - 1); k++) same = last[(n - 1 - k) % KEEP] == last[(n - 1 - k - piece) % KEEP];
            if (same && last[(n - 1) % KEEP] != ' ') return 1;
        }
    }
    return 0;
}

static int is_dirty(str category)
{
    static const char *const dirty[] = { "abuse", "hate", "minors", "sexual", "swearing" };
    for (size_t i = 0; i < sizeof dirty / sizeof *dirty; i++)
        if (str_eq(category, str_of(dirty[i]))) return 1;
    return 0;
}

static int is_broken(str t)
{
    for (size_t i = 0; i < t.n;) {
        uint32_t cp;
        i += utf8_next(t.s + i, t.n - i, &cp);
        if (cp == UTF8_BAD || cp == 0xFFFD) return 1;
    }
    return 0;
}

static void count_faults(const exchange *x, const candidate *c, const safety *rules, int64_t n[TALLY_FAULTS])
{
    int dirty = 0, other = 0;
    for (int i = 0; i < c->v.n_hit; i++) {
        const safety_rule *r = rule_known(rules, x->r.rules_digest, c->v.hit[i].rule);
        if (r && is_dirty(r->category)) dirty = 1;
        else other = 1;
    }
    n[TALLY_REPEATED] += tally_repeats(c->text);
    n[TALLY_DIRTY] += dirty;
    n[TALLY_RULE] += other && !dirty;
    n[TALLY_ECHO] += respond_is_echo(x->r.user_text, c->text);
    n[TALLY_CUT] += !c->ended;
    n[TALLY_BROKEN] += is_broken(c->text);
}

/* ---- one exchange -------------------------------------------------------------------------------------------------- */

/* Each rule counts once for a text. */
static int count_rules(tally *t, const exchange *x, const verdict *v, int what, const safety *rules)
{
    for (int i = 0; i < v->n_hit; i++) {
        int seen = 0;
        for (int k = 0; k < i; k++) seen |= v->hit[k].rule == v->hit[i].rule;
        rule_row *row = seen ? NULL : rule_table_row(&t->rules, rules, x->r.rules_digest, v->hit[i].rule);
        if (row) row->n[what]++;
        else if (!seen) return -1;
    }
    return 0;
}

static int is_usable(const candidate *c) { return c->fate == CAND_OK || c->fate == CAND_ECHO || c->fate == CAND_NAN; }
static double per_token(double logp, int n) { return n > 0 && isfinite(logp) ? logp / n : NAN; }

static int count_scores(tally *t, const exchange *x, arena *a)
{
    int bad = 0;
    t->n_scored++;
    for (int k = 0; k < x->r.n; k++) {
        const candidate *c   = &x->r.cand[k];
        double           fwd = per_token(c->fwd, c->n + c->ended), bwd = per_token(c->bwd, c->n_source);
        if (!is_usable(c) || (isnan(fwd) && isnan(bwd))) continue;
        bad |= push(&t->fwd, fwd, a) | push(&t->bwd, bwd, a);
        if (k == x->r.chosen) bad |= push(&t->fwd_chosen, fwd, a) | push(&t->bwd_chosen, bwd, a);
    }
    return bad;
}

/* Was another one chosen than the likeliest per token? */
static void count_move(tally *t, const reply *r)
{
    int best = -1, usable = 0;
    for (int k = 0; k < r->n; k++) {
        const candidate *c = &r->cand[k];
        if (c->fate != CAND_OK || c->n + c->ended == 0) continue;
        usable++;
        if (best < 0 || c->fwd / (c->n + c->ended) > r->cand[best].fwd / (r->cand[best].n + r->cand[best].ended)) best = k;
    }
    if (usable < 2 || r->chosen < 0) return;
    t->n_ranked++;
    t->n_moved += best != r->chosen;
}

/* Models, rules and arithmetic together; they change rarely, so the list is short and the last one most likely. */
static int count_setup(tally *t, const reply *r, arena *a)
{
    err e;
    for (int i = t->n_setup - 1; i >= 0; i--) {
        tally_setup *s = &t->setup[i];
        if (strcmp(s->fwd, r->fwd_digest) || strcmp(s->bwd, r->bwd_digest) || strcmp(s->rules, r->rules_digest) || strcmp(s->numerics, r->numerics)) continue;
        s->n++;
        return 0;
    }
    tally_setup *up = arena_new(a, (size_t)t->n_setup + 1, sizeof *up);
    if (!up) return -1;
    if (t->n_setup) memcpy(up, t->setup, (size_t)t->n_setup * sizeof *up);
    t->setup           = up;
    up[t->n_setup++] = (tally_setup){ arena_str(a, str_of(r->fwd_digest), &e).s, arena_str(a, str_of(r->bwd_digest), &e).s,
                                      arena_str(a, str_of(r->rules_digest), &e).s, arena_str(a, str_of(r->numerics), &e).s, 1 };
    const tally_setup *s = &up[t->n_setup - 1];
    return s->fwd && s->bwd && s->rules && s->numerics ? 0 : -1;
}

static int count_exchange(tally *t, const exchange *x, const safety *rules, int with_scores, arena *a)
{
    const reply *r   = &x->r;
    int          bad = push(&t->seconds, x->seconds, a) | count_setup(t, r, a);
    t->n_turns++;
    t->kind[r->kind]++;
    t->n_undone += x->undone != 0;
    t->n_stale += x->stale != 0;
    t->n_cand += r->n;
    if (r->n) bad |= push(&t->candidates, r->n, a);
    for (int k = 0; k < r->n; k++) t->fate[r->cand[k].fate]++; /* fates stay when words go */
    if (x->forgotten) return t->n_forgotten++, bad;
    t->line_action[r->user_v.action]++;
    bad |= count_rules(t, x, &r->user_v, 0, rules);
    for (int k = 0; k < r->n; k++) {
        const candidate *c = &r->cand[k];
        if (c->fate == CAND_EMPTY) continue;
        t->n_drawn++;
        t->cand_action[c->v.action]++;
        count_faults(x, c, rules, t->of_drawn);
        bad |= count_rules(t, x, &c->v, 1, rules);
        if (k != r->chosen) continue;
        t->n_shown++;
        count_faults(x, c, rules, t->of_shown);
        bad |= count_rules(t, x, &c->v, 2, rules);
    }
    count_move(t, r);
    return with_scores ? bad | count_scores(t, x, a) : bad;
}

/* ---- time ---------------------------------------------------------------------------------------------------------- */

/* "2026-11-24T15:04:05Z" as seconds since 1970; -1 when it is no such thing. */
static time_t when(str created)
{
    char      s[24];
    int       n = 0;
    struct tm tm = { 0 };
    if (created.n != 20) return -1;
    memcpy(s, created.s, 20);
    s[20] = 0;
    if (sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &n) != 6 || n != 20) return -1;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return timegm(&tm);
}

enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };

/* Number of the column that a time belongs to: whole units since 1970, or months since year 0. */
static int64_t column_of(int64_t t, int64_t width)
{
    struct tm tm;
    time_t    at = (time_t)t;
    if (width) return t / width;
    gmtime_r(&at, &tm);
    return (int64_t)tm.tm_year * 12 + tm.tm_mon;
}

static void column_name(int64_t c, int64_t width, char *out, size_t n)
{
    struct tm tm = { 0 };
    time_t    t  = (time_t)(c * width);
    if (width) gmtime_r(&t, &tm);
    else tm.tm_year = (int)(c / 12), tm.tm_mon = (int)(c % 12), tm.tm_mday = 1;
    strftime(out, n, width == MINUTE ? "%H:%M" : width == HOUR ? "%m-%d %Hh" : width == DAY ? "%Y-%m-%d" : "%Y-%m", &tm);
}

typedef struct {
    int64_t at;
    int     kind;
} moment;

static int count_time(tally_time *t, const moment *m, int n, arena *a, err *e)
{
    static const struct {
        int64_t     width;
        const char *unit;
    } units[] = { { MINUTE, "minute" }, { HOUR, "hour" }, { DAY, "day" }, { 0, "month" } };
    int64_t lo = INT64_MAX, hi = INT64_MIN, first, last;
    int     u = 0;
    t->unit = units[0].unit;
    for (int i = 0; i < n; i++) {
        if (m[i].at < 0) continue;
        if (m[i].at < lo) lo = m[i].at;
        if (m[i].at > hi) hi = m[i].at;
    }
    if (lo > hi) return OK;
    while (u < 3 && (hi - lo) / units[u].width >= PICTURE) u++;
    first   = column_of(lo, units[u].width);
    last    = column_of(hi, units[u].width);
    t->unit = units[u].unit;
    t->n    = (int)(last - first + 1);
    t->name = arena_new(a, (size_t)t->n, sizeof *t->name);
    for (int k = 0; k < 3; k++)
        if (!(t->kind[k] = arena_new(a, (size_t)t->n, sizeof *t->kind[k]))) return no_memory(e);
    if (!t->name) return no_memory(e);
    for (int i = 0; i < n; i++)
        if (m[i].at >= 0) t->kind[m[i].kind][column_of(m[i].at, units[u].width) - first]++;
    for (int i = 0; i < t->n; i++) {
        char s[40];
        column_name(first + i, units[u].width, s, sizeof s);
        t->name[i] = arena_str(a, str_of(s), e);
        if (!t->name[i].s) return E_NOMEM;
    }
    return OK;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

int tally_store(history *h, const int64_t *id, int n, const safety *rules, arena *a, tally *t, err *e)
{
    arena   mem   = { 0 };
    int     every = (n - 1) / TALLY_SCORES + 1, r = OK;
    moment *m     = malloc(((size_t)n + 1) * sizeof *m);
    *t            = (tally){ .rules.a = a };
    if (!m) return no_memory(e);
    for (int i = 0; i < n && r == OK; i++) {
        exchange x;
        arena_reset(&mem);
        r = hist_exchange(h, id[i], &mem, &x, e);
        if (r) break;
        m[i] = (moment){ when(x.created), x.r.kind };
        t->time.undated += m[i].at < 0;
        if (count_exchange(t, &x, rules, i % every == 0, a)) r = no_memory(e);
    }
    arena_free(&mem);
    if (r == OK) r = count_time(&t->time, m, n, a, e);
    free(m);
    rule_table_sort(&t->rules);
    return r;
}
