/* recheck: see recheck.h. */
#include "eval/recheck.h"

#include <string.h>

const char *recheck_name(int kind)
{
    static const char *const names[RECHECK_KINDS] = { "same", "newly blocked", "newly allowed", "other action", "other rule", "not judged whole" };
    return kind >= 0 && kind < RECHECK_KINDS ? names[kind] : NULL;
}

int recheck_differs(const recheck_sum *s) { return s->kind[RECHECK_BLOCKED] + s->kind[RECHECK_ALLOWED] + s->kind[RECHECK_ACTION] > 0; }

typedef struct {
    const safety *was, *now;
    int (*f)(void *ctx, const recheck_item *x);
    void        *ctx;
    recheck_sum *sum;
} job;

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory judging stored texts"); }

/* A redacted text was stored without what made it so.  A blocked one may have been redacted too; that shows only in rules at hand. */
static int is_redacted(const job *j, const exchange *x, const verdict *v)
{
    int yes = v->action == RULE_REDACT;
    for (int i = 0; i < v->n_hit; i++)
        if (rule_known(j->was, x->r.rules_digest, v->hit[i].rule)) yes |= safety_rule_at(j->was, v->hit[i].rule)->action == RULE_REDACT;
    return yes;
}

static int kind_of(const job *j, const exchange *x, const verdict *was, const verdict *is, const recheck_item *t)
{
    if (is->action == RULE_BLOCK && was->action != RULE_BLOCK) return RECHECK_BLOCKED;
    if (is->action == was->action) {
        int names = rule_known(j->was, x->r.rules_digest, was->rule) != NULL;
        return names && strcmp(t->was_rule, t->is_rule) != 0 ? RECHECK_RULE : RECHECK_SAME;
    }
    if (is_redacted(j, x, was)) return RECHECK_PARTLY;
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
                       rule_name(j->was, x->r.rules_digest, was->rule, name[0]),
                       rule_name(j->now, safety_digest(j->now), is.rule, name[1]) };
    t.kind = kind_of(j, x, was, &is, &t);
    for (int i = 0; i < 2; i++) {
        const verdict *v = i ? &is : was;
        if (v->rule < 0 || t.kind == RECHECK_PARTLY) continue;
        rule_row *row = rule_table_row(&s->rules, i ? j->now : j->was, i ? safety_digest(j->now) : x->r.rules_digest, v->rule);
        if (!row) return no_memory(e);
        row->n[i]++;
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

int recheck(history *h, const int64_t *id, int n, const safety *was, const safety *now, int (*f)(void *ctx, const recheck_item *x), void *ctx,
            arena *a, recheck_sum *sum, err *e)
{
    job   j   = { was, now, f, ctx, sum };
    arena mem = { 0 };
    int   r   = OK;
    *sum      = (recheck_sum){ .rules.a = a };
    for (int i = 0; r == OK && i < n; i++) {
        exchange x;
        arena_reset(&mem);
        r = hist_exchange(h, id[i], &mem, &x, e);
        if (r == OK) r = judge_exchange(&j, &x, &mem, e);
    }
    arena_free(&mem);
    rule_table_sort(&sum->rules);
    return r;
}
