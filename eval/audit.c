/* audit: see audit.h. */
#include "eval/audit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the chain ------------------------------------------------------------------------------------------------- */

static int add_fault(arena *a, audit_fault **list, int *n, int64_t conv, int64_t bad, str what, err *e)
{
    audit_fault *up = arena_new(a, (size_t)*n + 1, sizeof *up); /* faults are few */
    if (!up) return err_set(e, E_NOMEM, "out of memory for a list of faults");
    if (*n) memcpy(up, *list, (size_t)*n * sizeof *up);
    up[(*n)++] = (audit_fault){ conv, bad, what };
    *list      = up;
    return OK;
}

int audit_verify(history *h, arena *a, audit_fault **fault, int *n, int64_t *n_rows, err *e)
{
    conversation *c = NULL;
    int64_t       bad, good;
    str           what;
    int           n_conv = 0;
    *fault               = NULL;
    *n                   = 0;
    *n_rows              = 0;
    int r                = hist_verify(h, 0, a, &bad, &what, n_rows, e);
    if (r || bad == 0) return r;
    str whole = what;
    int64_t whole_bad = bad;
    *n_rows   = 0;
    /* Which conversations?  When they cannot even be listed, the first fault says it all. */
    if (hist_list(h, 0, a, &c, &n_conv, NULL) != OK) n_conv = 0;
    for (int i = n_conv - 1; i >= 0 && r == OK; i--) { /* oldest first */
        r = hist_verify(h, c[i].id, a, &bad, &what, &good, e);
        if (r) break;
        *n_rows += good;
        if (bad) r = add_fault(a, fault, n, c[i].id, bad, what, e);
    }
    if (r == OK && *n == 0) r = add_fault(a, fault, n, 0, whole_bad, whole, e);
    return r;
}

/* ---- comparing ------------------------------------------------------------------------------------------------- */

const char *audit_result_name(int result)
{
    static const char *const names[AUDIT_RESULTS] = { "identical", "within tolerance", "different", "not comparable" };
    return result >= 0 && result < AUDIT_RESULTS ? names[result] : NULL;
}

static int same_ids(const int *a, int n, const int *b, int m) { return n == m && (n == 0 || memcmp(a, b, (size_t)n * sizeof *a) == 0); }

/* The same bits, but for what the record does not keep apart: NaNs among themselves, and the signs of zero. */
static int same_bits(double a, double b)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    return (a == 0 && b == 0) || memcmp(&a, &b, sizeof a) == 0;
}

static int same_verdict(const verdict *a, const verdict *b)
{
    if (a->action != b->action || a->rule != b->rule || a->n_hit != b->n_hit) return 0;
    for (int i = 0; i < a->n_hit; i++) {
        const safety_hit *p = &a->hit[i], *q = &b->hit[i];
        if (p->rule != q->rule || p->limit != q->limit || p->from != q->from || p->to != q->to) return 0;
    }
    return 1;
}

/* Two numbers: the same bits; or with slack, not too far from one another. */
static int same_score(double was, double is, audit_slack *slack)
{
    if (!slack) return same_bits(was, is);
    if (isnan(is)) return 1; /* not scored again */
    if (isnan(was)) return 0;
    double d = was == is ? 0 : fabs(was - is); /* equal infinities too */
    if (d > slack->max) slack->max = d;
    slack->n++;
    return d <= slack->tolerance;
}

static int compare_candidate(const candidate *s, const candidate *g, int k, audit_slack *slack, char *what, size_t n)
{
    const struct {
        const char *name;
        double      was, is;
    } number[] = { { "fwd", s->fwd, g->fwd }, { "bwd", s->bwd, g->bwd }, { "score", s->score, g->score } };
    const char *name = !same_ids(s->id, s->n, g->id, g->n) ? "tokens"
                       : !str_eq(s->text, g->text)         ? "text"
                       : s->ended != g->ended              ? "end"
                       : s->fate != g->fate                ? "fate"
                       : s->dup_of != g->dup_of            ? "dup_of"
                       : s->n_source != g->n_source        ? "n_source"
                       : !same_verdict(&s->v, &g->v)       ? "verdict"
                                                           : NULL;
    if (name) return snprintf(what, n, "candidate %d: another %s", k, name), 1;
    for (int i = 0; i < 3; i++)
        if (!same_score(number[i].was, number[i].is, slack))
            return snprintf(what, n, "candidate %d: %s was %.17g, is %.17g", k, number[i].name, number[i].was, number[i].is), 1;
    return 0;
}

int audit_compare(const reply *s, const reply *g, int with_user_verdict, audit_slack *slack, char *what, size_t n)
{
    static const char *const kinds[] = { "answered", "refused", "answered with a stock line" };
    what[0] = 0;
    if (s->kind != g->kind) return snprintf(what, n, "it was %s, is %s", kinds[s->kind % 3], kinds[g->kind % 3]), 1;
    int         same = str_eq(s->user_text, g->user_text) && same_ids(s->user_id, s->n_user_id, g->user_id, g->n_user_id);
    const char *name = !same                                                        ? "user line"
                       : with_user_verdict && !same_verdict(&s->user_v, &g->user_v) ? "verdict on the user line"
                       : s->cut != g->cut                                           ? "cut of the user line"
                       : strcmp(s->prompt_digest, g->prompt_digest) != 0            ? "prompt"
                                                                                    : NULL;
    if (name) return snprintf(what, n, "another %s", name), 1;
    if (s->n != g->n) return snprintf(what, n, "there were %d candidates, are %d", s->n, g->n), 1;
    for (int k = 0; k < s->n; k++)
        if (compare_candidate(&s->cand[k], &g->cand[k], k, slack, what, n)) return 1;
    if (slack && s->chosen != g->chosen) return 0;
    if (s->chosen != g->chosen) return snprintf(what, n, "candidate %d was chosen, now %d", s->chosen, g->chosen), 1;
    if (!str_eq(s->text, g->text)) return snprintf(what, n, "another reply text"), 1;
    if (!same_ids(s->id, s->n_id, g->id, g->n_id)) return snprintf(what, n, "other reply tokens"), 1;
    return 0;
}

/* ---- replay ---------------------------------------------------------------------------------------------------- */

static int real_respond(void *ctx, const turn *hist, int n, str user, const respond_opts *o, arena *a, reply *out, err *e)
{
    return respond(((audit_models *)ctx)->r, hist, n, user, o, a, out, e);
}
static int real_given(void *ctx, const turn *hist, int n, str user, const respond_opts *o, const candidate *cand, arena *a, reply *out, err *e)
{
    return respond_given(((audit_models *)ctx)->r, hist, n, user, o, cand, a, out, e);
}
static int real_redacts(void *ctx, int rule)
{
    const safety *s = ((audit_models *)ctx)->rules;
    return s && rule >= 0 && rule < safety_n_rules(s) && safety_rule_at(s, rule)->action == RULE_REDACT;
}

audit_machine audit_machine_of(audit_models *m)
{
    gpt2 *b = responder_bwd(m->r);
    return (audit_machine){ m, real_respond, real_given, real_redacts, gpt2_digest(responder_fwd(m->r)), b ? gpt2_digest(b) : "",
                            m->rules ? safety_digest(m->rules) : "", 0.01 };
}

static int verdict_of(audit_result *out, int result, const char *what)
{
    out->result = result;
    snprintf(out->what, sizeof out->what, "%s", what);
    return OK;
}

static int other_digest(audit_result *out, const char *name, const char *was, const char *is)
{
    if (strcmp(was, is) == 0) return 0;
    char what[sizeof out->what];
    snprintf(what, sizeof what, "%s: %.12s… then, %.12s… now", name, was[0] ? was : "none", is[0] ? is : "none");
    verdict_of(out, AUDIT_NOT_COMPARABLE, what);
    return 1;
}

/* Has an exchange before number n of the conversation been forgotten?  Then the context is not what it was. */
static int context_forgotten(history *h, int64_t conv, int n, arena *a, int *yes, err *e)
{
    exchange *x;
    int       count, r = hist_exchanges(h, conv, a, &x, &count, e);
    *yes = 0;
    for (int i = 0; r == OK && i < count; i++) *yes |= x[i].n < n && x[i].forgotten;
    return r;
}

/* Do the stored scores lead to the stored choice, and is that what was said?  Needs no model. */
static const char *check_choice(const exchange *x, const respond_opts *o, arena *a, err *e)
{
    const reply *s = &x->r;
    candidate   *c = arena_new(a, (size_t)s->n, sizeof *c);
    int          chosen;
    if (!c) return err_set(e, E_NOMEM, "out of memory for a replay"), NULL;
    if (s->n) memcpy(c, s->cand, (size_t)s->n * sizeof *c);
    if (respond_rank(c, s->n, o, &chosen, e)) return NULL;
    if (chosen != s->chosen) return "the stored scores choose another candidate than was chosen";
    const candidate *it = chosen >= 0 ? &s->cand[chosen] : NULL;
    if (it && (!str_eq(it->text, s->text) || !same_ids(it->id, it->n, s->id, s->n_id)))
        return "the reply is not the chosen candidate";
    return "";
}

static int hits_redact(const audit_machine *m, const verdict *v)
{
    for (int i = 0; i < v->n_hit; i++)
        if (m->redacts(m->ctx, v->hit[i].rule)) return 1;
    return 0;
}

/* Other arithmetic may draw other tokens, so the stored ones are given: teacher forcing. */
static int rejudge(const exchange *x, const turn *hist, int n, const audit_machine *m, const respond_opts *o, const char *now, int with_user_verdict,
                   arena *a, audit_result *out, err *e)
{
    const reply *s     = &x->r;
    audit_slack  slack = { .tolerance = m->tolerance };
    reply        again;
    err          why = { 0 };
    char         what[sizeof out->what], diff[100];
    for (int k = 0; k < s->n; k++)
        if (hits_redact(m, &s->cand[k].v)) {
            snprintf(what, sizeof what, "arithmetic '%.40s' then, '%.40s' now; candidate %d was redacted before it was stored, its tokens are not in the record",
                     s->numerics, now, k);
            return verdict_of(out, AUDIT_NOT_COMPARABLE, what);
        }
    int          r = s->n && s->n != o->n_cand ? err_set(&why, E_ARG, "the record has %d candidates, its settings want %d", s->n, o->n_cand)
                                               : m->given(m->ctx, hist, n, s->user_text, o, s->n ? s->cand : NULL, a, &again, &why);
    if (r && r != E_ARG && r != E_LIMIT) {
        if (e) *e = why;
        return r;
    }
    if (r) return verdict_of(out, AUDIT_DIFFERENT, why.msg);
    int         differs = audit_compare(s, &again, with_user_verdict, &slack, diff, sizeof diff);
    const char *choice  = differs ? "" : check_choice(x, o, a, e);
    if (!choice) return e ? e->code : E_NOMEM;
    out->max_dlogp  = slack.n ? slack.max : NAN;
    out->n_compared = slack.n;
    int bad         = differs || choice[0];
    if (!bad && slack.n == 0) {
        snprintf(what, sizeof what, "arithmetic '%.40s' then, '%.40s' now, and no scores to compare", s->numerics, now);
        return verdict_of(out, AUDIT_NOT_COMPARABLE, what);
    }
    if (bad) snprintf(what, sizeof what, "arithmetic '%.24s' then, '%.24s' now, tokens given: %.100s", s->numerics, now, differs ? diff : choice);
    else snprintf(what, sizeof what, "arithmetic '%.24s' then, '%.24s' now; the stored tokens, judged again: scores differ by %.3g at most, within %.3g",
                  s->numerics, now, slack.max, m->tolerance);
    return verdict_of(out, bad ? AUDIT_DIFFERENT : AUDIT_WITHIN, what);
}

int audit_replay(history *h, int64_t turn_id, const audit_machine *m, arena *a, audit_result *out, err *e)
{
    exchange     x;
    respond_opts o;
    turn        *hist;
    reply        again;
    err          why = { 0 };
    char         what[sizeof out->what];
    int          n, gone, r = hist_exchange(h, turn_id, a, &x, e);
    if (r) return r;
    *out = (audit_result){ .turn = turn_id, .conv = x.conv, .n = x.n, .max_dlogp = NAN };
    if (x.forgotten) return verdict_of(out, AUDIT_NOT_COMPARABLE, "its words are forgotten");
    if (x.stale) return verdict_of(out, AUDIT_NOT_COMPARABLE, "another program had added turns that this reply did not know");
    if (other_digest(out, "forward model", x.r.fwd_digest, m->fwd) || other_digest(out, "backward model", x.r.bwd_digest, m->bwd) ||
        other_digest(out, "rules", x.r.rules_digest, m->rules))
        return OK;
    if (respond_opts_parse(&o, x.opts, &why) || o.seed != x.seed)
        return verdict_of(out, AUDIT_NOT_COMPARABLE, why.code ? why.msg : "the seed in the options is not the seed of the row");
    if ((r = hist_turns(h, x.conv, x.n, a, &hist, &n, e))) return r;
    r = m->respond(m->ctx, hist, n, x.r.user_text, &o, a, &again, &why);
    if (r == E_NOMEM || r == E_CANCEL || r == E_IO) {
        if (e) *e = why;
        return r;
    }
    if (r) return verdict_of(out, AUDIT_DIFFERENT, why.msg); /* there was a reply, and now there is none */

    int redacted = hits_redact(m, &x.r.user_v);
    if (strcmp(x.r.numerics, again.numerics) != 0 && x.r.kind != REPLY_REFUSED)
        return rejudge(&x, hist, n, m, &o, again.numerics, !redacted, a, out, e);
    if (!audit_compare(&x.r, &again, !redacted, NULL, what, sizeof what)) return verdict_of(out, AUDIT_IDENTICAL, "");
    if (redacted && (x.r.kind == REPLY_REFUSED || !str_eq(x.r.user_text, again.user_text)))
        return verdict_of(out, AUDIT_NOT_COMPARABLE, "the line was redacted before it was stored; the raw one is not in the record");
    if (strcmp(x.r.prompt_digest, again.prompt_digest) != 0) {
        if ((r = context_forgotten(h, x.conv, x.n, a, &gone, e))) return r;
        if (gone) return verdict_of(out, AUDIT_NOT_COMPARABLE, "words before it in the conversation are forgotten");
    }
    return verdict_of(out, AUDIT_DIFFERENT, what);
}
