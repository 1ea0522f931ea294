/* recheck: see recheck.h. */
#include "eval/recheck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *recheck_name(int kind)
{
    static const char *const names[RECHECK_KINDS] = { "same", "newly blocked", "newly allowed", "other action", "other rule", "not judged whole" };
    return kind >= 0 && kind < RECHECK_KINDS ? names[kind] : NULL;
}

int recheck_differs(const recheck_sum *s) { return s->kind[RECHECK_BLOCKED] + s->kind[RECHECK_ALLOWED] + s->kind[RECHECK_ACTION] > 0; }

static int has_name(const safety *s, const char *digest, int rule)
{
    return s && rule < safety_n_rules(s) && strcmp(digest, safety_digest(s)) == 0;
}

const char *recheck_rule_name(const safety *s, const char *digest, int rule, char out[80])
{
    if (rule < 0) snprintf(out, 80, "-");
    else if (has_name(s, digest, rule)) snprintf(out, 80, "%.*s", (int)safety_rule_at(s, rule)->id.n, safety_rule_at(s, rule)->id.s);
    else snprintf(out, 80, "rule %d of %.12s", rule, digest[0] ? digest : "?");
    return out;
}

typedef struct {
    const safety *was, *now;
    int (*f)(void *ctx, const recheck_item *x);
    void        *ctx;
    arena       *a; /* of the sums */
    int          cap;
    recheck_sum *sum;
} job;

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory judging stored texts"); }

static recheck_rule *row_of(job *j, const char *name, str category)
{
    recheck_sum *s = j->sum;
    err          e;
    for (int i = 0; i < s->n_rule; i++)
        if (str_eq(s->rule[i].rule, str_of(name))) {
            if (!s->rule[i].category.n) s->rule[i].category = category;
            return &s->rule[i];
        }
    if (s->n_rule == j->cap) {
        j->cap           = j->cap ? 2 * j->cap : 32;
        recheck_rule *up = arena_new(j->a, (size_t)j->cap, sizeof *up);
        if (!up) return NULL;
        if (s->n_rule) memcpy(up, s->rule, (size_t)s->n_rule * sizeof *up);
        s->rule = up;
    }
    str kept = arena_str(j->a, str_of(name), &e);
    if (!kept.s) return NULL;
    s->rule[s->n_rule] = (recheck_rule){ kept, category, 0, 0 };
    return &s->rule[s->n_rule++];
}

static str category_of(const safety *s, const char *digest, int rule)
{
    return has_name(s, digest, rule) ? safety_rule_at(s, rule)->category : (str){ 0 };
}

/* A redacted line was stored without what made it so.  A blocked one may have been redacted too; that shows only in rules at hand. */
static int is_redacted(const job *j, const exchange *x)
{
    const verdict *v   = &x->r.user_v;
    int            yes = v->action == RULE_REDACT;
    for (int i = 0; i < v->n_hit; i++)
        if (has_name(j->was, x->r.rules_digest, v->hit[i].rule)) yes |= safety_rule_at(j->was, v->hit[i].rule)->action == RULE_REDACT;
    return yes;
}

static int kind_of(const job *j, const exchange *x, const verdict *was, const verdict *is, const recheck_item *t)
{
    if (is->action == RULE_BLOCK && was->action != RULE_BLOCK) return RECHECK_BLOCKED;
    if (is->action == was->action) {
        int names = was->rule >= 0 && has_name(j->was, x->r.rules_digest, was->rule);
        return names && strcmp(t->was_rule, t->is_rule) != 0 ? RECHECK_RULE : RECHECK_SAME;
    }
    if (t->k < 0 && is_redacted(j, x)) return RECHECK_PARTLY;
    return was->action == RULE_BLOCK ? RECHECK_ALLOWED : RECHECK_ACTION;
}

static int judge(job *j, const exchange *x, int k, str text, const verdict *was, int shown, arena *a, err *e)
{
    char         name[2][80];
    verdict      is;
    recheck_sum *s = j->sum;
    int          r = safety_check(j->now, text, k < 0 ? WHERE_USER : WHERE_REPLY, a, &is, e);
    if (r) return r;
    recheck_item t = { x->id, x->conv, x->n, k, shown, RECHECK_SAME, text, was->action, is.action,
                       recheck_rule_name(j->was, x->r.rules_digest, was->rule, name[0]),
                       recheck_rule_name(j->now, safety_digest(j->now), is.rule, name[1]) };
    t.kind = kind_of(j, x, was, &is, &t);
    for (int i = 0; i < 2; i++) {
        const verdict *v = i ? &is : was;
        if (v->rule < 0 || t.kind == RECHECK_PARTLY) continue;
        recheck_rule *row = row_of(j, name[i], i ? category_of(j->now, safety_digest(j->now), v->rule) : category_of(j->was, x->r.rules_digest, v->rule));
        if (!row) return no_memory(e);
        if (i) row->is++;
        else row->was++;
    }
    s->kind[t.kind]++;
    if (k < 0) s->n_lines++;
    else s->n_candidates++;
    if (k >= 0 && shown && t.kind == RECHECK_BLOCKED) s->replies_blocked++;
    if (t.kind == RECHECK_SAME || j->f(j->ctx, &t) == 0) return OK;
    return err_set(e, E_CANCEL, "stopped");
}

static int judge_exchange(job *j, const exchange *x, arena *a, err *e)
{
    const reply *p = &x->r;
    if (x->forgotten) return j->sum->n_forgotten++, OK;
    int r = judge(j, x, -1, p->user_text, &p->user_v, 1, a, e);
    for (int k = 0; r == OK && k < p->n; k++) {
        const candidate *c = &p->cand[k];
        if (c->fate == CAND_DUPLICATE || c->fate == CAND_EMPTY) continue;
        r = judge(j, x, k, c->text, &c->v, k == p->chosen, a, e);
    }
    return r;
}

static int by_id(const void *a, const void *b)
{
    str    p = ((const recheck_rule *)a)->rule, q = ((const recheck_rule *)b)->rule;
    size_t n = p.n < q.n ? p.n : q.n;
    int    c = memcmp(p.s, q.s, n);
    return c ? c : (p.n > q.n) - (p.n < q.n);
}

int recheck(history *h, const int64_t *id, int n, const safety *was, const safety *now, int (*f)(void *ctx, const recheck_item *x), void *ctx,
            arena *a, recheck_sum *sum, err *e)
{
    job   j   = { was, now, f, ctx, a, 0, sum };
    arena mem = { 0 };
    int   r   = OK;
    *sum      = (recheck_sum){ 0 };
    for (int i = 0; r == OK && i < n; i++) {
        exchange x;
        arena_reset(&mem);
        r = hist_exchange(h, id[i], &mem, &x, e);
        if (r == OK) r = judge_exchange(&j, &x, &mem, e);
    }
    arena_free(&mem);
    if (sum->n_rule) qsort(sum->rule, (size_t)sum->n_rule, sizeof *sum->rule, by_id);
    return r;
}
