/* audit why: prints what why.h found out.  Program code. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit_commands.h"
#include "eval/ruletable.h"
#include "eval/why.h"

/* ---- for people ------------------------------------------------------------------------------------------------ */

static const char *kind_words(const exchange *x)
{
    if (x->r.kind == REPLY_REFUSED) return "refused: a rule blocked the line";
    return x->r.kind == REPLY_STOCK ? "a stock line: no candidate could be used" : NULL;
}

static void put_score(double v)
{
    if (isnan(v)) printf(" %9s", "-");
    else printf(" %9.3f", v);
}

/* Spans are of the text as it was judged; a redacted line is stored as it was fed, so they would point elsewhere. */
static int has_spans(const audit_job *j, const exchange *x, const verdict *v, int is_line)
{
    int whole = v->action != RULE_REDACT;
    for (int i = 0; i < v->n_hit; i++) {
        const safety_rule *r = rule_known(j->pack, x->r.rules_digest, v->hit[i].rule);
        whole &= r && r->action != RULE_REDACT;
    }
    return !is_line || whole;
}

static void put_verdict(const audit_job *j, const exchange *x, const verdict *v, str text, int is_line)
{
    char name[80];
    int  spans = has_spans(j, x, v, is_line);
    if (v->action == RULE_NONE) printf("none");
    else printf("%s by %s", safety_action_name(v->action), rule_name(j->pack, x->r.rules_digest, v->rule, name));
    for (int i = 0; i < v->n_hit; i++) {
        const safety_hit *hit = &v->hit[i];
        if (v->n_hit > 1) printf("%s%s", i == 0 ? ": " : ", ", rule_name(j->pack, x->r.rules_digest, hit->rule, name));
        if (hit->limit) printf(" (match limit)");
        if (!spans || hit->from > hit->to || hit->to > text.n) continue;
        printf(" \"");
        put_visible((str){ text.s + hit->from, hit->to - hit->from });
        putchar('"');
    }
}

static void put_head(const audit_job *j, const why *w)
{
    const exchange *x = &w->x;
    printf("turn %lld: conversation %lld, row %d, %.*s%s%s\n", (long long)x->id, (long long)x->conv, x->n, (int)x->created.n, x->created.s,
           x->undone ? ", undone later" : "", x->stale ? ", stale: it did not know the row before it" : "");
    for (int i = w->n_before > 4 ? w->n_before - 4 : 0; i < w->n_before; i++) {
        printf(w->before[i].speaker ? "          > " : "before    < ");
        put_visible(w->before[i].text);
        puts(w->before[i].hidden ? "  (never shown to the models)" : "");
    }
    printf("user      ");
    put_visible(x->r.user_text);
    printf("\nverdict   ");
    put_verdict(j, x, &x->r.user_v, x->r.user_text, 1);
    printf("\nreply     ");
    put_visible(x->r.text);
    if (kind_words(x)) printf("\nwhich is  %s", kind_words(x));
    else printf("\nwhich is  candidate %d of %d (numbered from 0), chosen by %s", x->r.chosen, x->r.n, respond_mode_name(w->o.mode));
    printf("\nsettings  ");
    put_visible(x->opts);
    printf("\nmodels    forward %.12s, backward %.12s; rules %.12s; arithmetic ", x->r.fwd_digest, x->r.bwd_digest[0] ? x->r.bwd_digest : "none",
           x->r.rules_digest[0] ? x->r.rules_digest : "none");
    put_visible(str_of(x->r.numerics));
    printf("\nagain     ");
    if (w->again.result == AUDIT_IDENTICAL) printf("answered again: everything is what was stored, to the bit");
    else if (w->again.result == AUDIT_NOT_COMPARABLE) printf("not recomputed: ");
    else printf("answered again: %s: ", audit_result_name(w->again.result));
    put_visible(str_of(w->again.what));
    putchar('\n');
}

static const exchange *sorted; /* what by_rank looks into: qsort takes no context */
static int by_rank(const void *a, const void *b)
{
    int              i = *(const int *)a, k = *(const int *)b;
    const candidate *p = &sorted->r.cand[i], *q = &sorted->r.cand[k];
    if (isnan(p->score) != isnan(q->score)) return isnan(p->score) ? 1 : -1;
    if (p->score != q->score && !isnan(p->score)) return p->score > q->score ? -1 : 1;
    return (i > k) - (i < k);
}

static int put_candidates(const audit_job *j, const why *w, err *e)
{
    const exchange *x     = &w->x;
    int            *order = malloc(((size_t)x->r.n + 1) * sizeof *order);
    if (!order) return err_set(e, E_NOMEM, "out of memory for a table");
    for (int k = 0; k < x->r.n; k++) order[k] = k;
    sorted = x;
    qsort(order, (size_t)x->r.n, sizeof *order, by_rank);
    printf("\ncandidates, best first: fwd = log P(reply | context), bwd = log P(line | reply)\n");
    printf("     k tokens       fwd%s       bwd%s     score  fate       text\n", j->per_token ? " per token" : "", j->per_token ? " per token" : "");
    for (int i = 0; i < x->r.n; i++) {
        int              k = order[i];
        const candidate *c = &x->r.cand[k];
        printf("%c %4d %5d%c", k == x->r.chosen ? '>' : ' ', k, c->n, c->ended ? ' ' : '+');
        put_score(c->fwd);
        if (j->per_token) put_score(c->n + c->ended ? c->fwd / (c->n + c->ended) : NAN);
        put_score(c->bwd);
        if (j->per_token) put_score(c->n_source ? c->bwd / c->n_source : NAN);
        put_score(c->score);
        if (c->dup_of >= 0) printf("  same as %-3d", c->dup_of);
        else printf("  %-9s  ", respond_fate_name(c->fate));
        put_visible(c->text);
        if (c->v.action && c->dup_of < 0) {
            printf("  [");
            put_verdict(j, x, &c->v, c->text, 0);
            putchar(']');
        }
        putchar('\n');
    }
    free(order);
    for (int k = 0; k < x->r.n; k++)
        if (!x->r.cand[k].ended) return puts("  + cut off: the model had not closed the reply"), OK;
    return OK;
}

static void put_choices(const why *w)
{
    printf("\nother ways to choose among them\n");
    for (int i = 0; i < w->n_by; i++) {
        const why_choice *c = &w->by[i];
        printf("%c %-9s  ", i == 0 ? '>' : ' ', c->name);
        if (c->chosen < 0) printf("(none is usable)");
        else {
            printf("%3d  ", c->chosen);
            put_visible(w->x.r.cand[c->chosen].text);
        }
        printf("  (%s)\n", c->what);
    }
}

static void put_token(const why_token *t)
{
    put_visible(t->text);
    if (t->after > 0) printf(" %.3g>%.3g", 100 * t->before, 100 * t->after);
    else printf(" %.3g>-", 100 * t->before);
}

static void put_steps(const why *w)
{
    if (w->withheld) {
        printf("\ncandidate %d is stored redacted: its draws are not shown, they would say what was blanked out\n", w->candidate);
        return;
    }
    printf("\nwhat the sampler saw, candidate %d: a draw u falls into the part of one of the tokens that the filters kept\n", w->candidate);
    printf("step      u   from     to  kept  rank   logp  drawn, and the likeliest: %% before > after penalty, temperature and filters (- = removed)\n");
    for (int i = 0; i < w->n_step; i++) {
        const why_step *s = &w->step[i];
        printf("%4d  %.3f  %.3f  %.3f %5d %5d %6.2f  ", i, s->u, s->from, s->to, s->kept, s->rank, s->logp);
        put_token(&s->drawn);
        printf("  |");
        for (int k = 0; k < s->n_top; k++) {
            printf(k ? "   " : " ");
            put_token(&s->top[k]);
        }
        putchar('\n');
    }
    if (!w->agree) puts("  here the draws leave the stored reply: another token, or another end");
    if (!w->n_source) return;
    printf("\nthe line's tokens under the backward model, given candidate %d (log-probs; their sum is its bwd)\n ", w->candidate);
    for (int i = 0; i < w->n_source; i++) {
        putchar(' ');
        put_visible(w->source[i].text);
        printf(" %.2f ", w->source[i].logp);
    }
    putchar('\n');
}

/* ---- for machines ---------------------------------------------------------------------------------------------- */

static json_t *js_verdict(const audit_job *j, const exchange *x, const verdict *v)
{
    char    name[80];
    json_t *hits = json_array();
    for (int i = 0; i < v->n_hit; i++)
        json_array_append_new(hits, json_pack("{s:s, s:I, s:I, s:b}", "rule", rule_name(j->pack, x->r.rules_digest, v->hit[i].rule, name), "from",
                                              (json_int_t)v->hit[i].from, "to", (json_int_t)v->hit[i].to, "limit", v->hit[i].limit));
    return json_pack("{s:s, s:o, s:o}", "action", safety_action_name(v->action), "rule",
                     v->rule < 0 ? json_null() : json_string(rule_name(j->pack, x->r.rules_digest, v->rule, name)), "hits", hits);
}

static json_t *js_token(const why_token *t)
{
    return json_pack("{s:i, s:o, s:f, s:f}", "id", t->id, "text", js_text(t->text), "before", t->before, "after", t->after);
}

static json_t *js_steps(const why *w)
{
    json_t *list = json_array();
    for (int i = 0; i < w->n_step; i++) {
        const why_step *s   = &w->step[i];
        json_t         *top = json_array();
        for (int k = 0; k < s->n_top; k++) json_array_append_new(top, js_token(&s->top[k]));
        json_array_append_new(list, json_pack("{s:o, s:o, s:i, s:i, s:f, s:f, s:f, s:o}", "drawn", js_token(&s->drawn), "logp", js_number(s->logp), "rank",
                                              s->rank, "kept", s->kept, "u", s->u, "from", s->from, "to", s->to, "top", top));
    }
    return list;
}

static json_t *js_candidates(const audit_job *j, const why *w)
{
    json_t *list = json_array();
    for (int k = 0; k < w->x.r.n; k++) {
        const candidate *c = &w->x.r.cand[k];
        json_array_append_new(list, json_pack("{s:i, s:o, s:i, s:b, s:s, s:o, s:o, s:o, s:i, s:o, s:o}", "k", k, "text", js_text(c->text), "tokens", c->n,
                                              "ended", c->ended, "fate", respond_fate_name(c->fate), "dup_of",
                                              c->dup_of < 0 ? json_null() : json_integer(c->dup_of), "fwd", js_number(c->fwd), "bwd",
                                              js_number(c->bwd), "source_tokens", c->n_source, "score", js_number(c->score), "verdict",
                                              js_verdict(j, &w->x, &c->v)));
    }
    return list;
}

static int why_json(const audit_job *j, const why *w, err *e)
{
    static const char *const kinds[] = { "model", "refused", "stock" };
    const exchange *x = &w->x;
    json_t *by = json_array(), *source = json_array();
    char    hash[65], seed[24];
    sha256_hex(x->hash, hash);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)x->seed);
    for (int i = 0; i < w->n_by; i++)
        json_array_append_new(by, json_pack("{s:s, s:i}", "by", w->by[i].name, "chosen", w->by[i].chosen));
    for (int i = 0; i < w->n_source; i++)
        json_array_append_new(source, json_pack("{s:i, s:o, s:o}", "id", w->source[i].id, "text", js_text(w->source[i].text), "logp",
                                                js_number(w->source[i].logp)));
    json_t *o = json_pack("{s:I, s:I, s:i, s:b, s:b, s:b, s:o, s:o, s:s, s:o, s:s, s:o, s:s, s:i}", "turn", (json_int_t)x->id, "conversation",
                          (json_int_t)x->conv, "n", x->n, "undone", x->undone, "forgotten", x->forgotten, "stale", x->stale, "created",
                          js_text(x->created), "user", js_text(x->r.user_text), "hash", hash, "reply", js_text(x->r.text), "kind",
                          kinds[x->r.kind % 3], "opts", js_text(x->opts), "seed", seed, "chosen", x->r.chosen);
    json_t *p = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:s, s:i, s:b, s:b, s:o, s:o}", "fwd", x->r.fwd_digest, "bwd", x->r.bwd_digest, "rules",
                          x->r.rules_digest, "numerics", js_text(str_of(x->r.numerics)), "user_verdict", js_verdict(j, x, &x->r.user_v),
                          "candidates", js_candidates(j, w), "choices", by, "again", audit_result_name(w->again.result), "again_what",
                          w->again.what, "steps_of", w->candidate, "steps_agree", w->agree, "steps_withheld", w->withheld, "steps", js_steps(w), "source", source);
    if (!o || !p || json_object_update(o, p)) {
        json_decref(o);
        o = NULL;
    }
    json_decref(p);
    return js_line(o, e);
}

/* ---------------------------------------------------------------------------------------------------------------- */

/* The turn that is row j->row of conversation j->turn. */
static int find_row(const audit_job *j, int64_t *id, err *e)
{
    arena     a = { 0 };
    exchange *x;
    int       n, r = hist_exchanges(j->h, j->turn, &a, &x, &n, e);
    *id = 0;
    for (int i = 0; r == OK && i < n; i++)
        if (x[i].n == j->row) *id = x[i].id;
    arena_free(&a);
    if (r == OK && !*id) return err_set(e, E_ARG, "conversation %lld has no exchange in row %d", (long long)j->turn, j->row);
    return r;
}

int audit_run_why(audit_job *j, int *status, err *e)
{
    int64_t      id     = j->turn;
    arena        a      = { 0 };
    why          w;
    audit_models models = { 0 };
    int          r      = j->row ? find_row(j, &id, e) : OK;
    if (r == OK) r = j->no_replay ? audit_open_rules(j, e) : audit_open_models(j, e);
    models = (audit_models){ j->r, j->pack };
    if (r == OK) r = why_turn(j->h, id, j->r ? &models : NULL, j->candidate, j->top, &a, &w, e);
    if (r == OK && j->json) r = why_json(j, &w, e);
    else if (r == OK) {
        put_head(j, &w);
        if (w.x.r.n && !w.x.forgotten) r = put_candidates(j, &w, e);
        if (w.n_by) put_choices(&w);
        if (w.n_step) put_steps(&w);
    }
    if (r == OK) *status = w.again.result == AUDIT_DIFFERENT ? EXIT_DIFFERS : EXIT_OK;
    arena_free(&a);
    return r;
}
