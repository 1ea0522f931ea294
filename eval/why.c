/* why: see why.h. */
#include "eval/why.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory explaining a reply"); }

/* ---- other ways to choose ---------------------------------------------------------------------------------------- */

static int is_usable(int fate) { return fate == CAND_OK || fate == CAND_ECHO || fate == CAND_NAN; }

/* What a mode would choose among the candidates as they were drawn. */
static int choose(const reply *r, respond_opts o, int mode, arena *a, int *chosen, err *e)
{
    candidate *c = arena_new(a, (size_t)r->n, sizeof *c);
    if (!c) return no_memory(e);
    if (r->n) memcpy(c, r->cand, (size_t)r->n * sizeof *c);
    for (int k = 0; k < r->n; k++) /* NaN is a fate that the ranking gives */
        if (c[k].fate == CAND_NAN) c[k].fate = respond_is_echo(r->user_text, c[k].text) ? CAND_ECHO : CAND_OK;
    o.mode = mode;
    return respond_rank(c, r->n, &o, chosen, e);
}

static int likeliest(const reply *r)
{
    int best = -1;
    for (int k = 0; k < r->n; k++)
        if (is_usable(r->cand[k].fate) && !isnan(r->cand[k].fwd) && (best < 0 || r->cand[k].fwd > r->cand[best].fwd)) best = k;
    return best;
}

int why_choices(const reply *r, const respond_opts *o, why_choice by[WHY_CHOICES], arena *a, err *e)
{
    static const struct {
        int         mode, needs_bwd;
        const char *what;
    } modes[] = { { MODE_MMI, 1, "the line is likeliest given the reply" },
                  { MODE_BIDI, 1, "both directions, weighed by lambda" },
                  { MODE_JOINT, 1, "the mean over reply and line" },
                  { MODE_SAMPLED, 1, "drawn by the backward score" },
                  { MODE_FORWARD, 0, "the likeliest reply per token: without MMI" },
                  { MODE_NONE, 0, "the first usable draw: no ranking at all" } };
    int has_bwd = 0, n = 0, got = OK;
    for (int k = 0; k < r->n; k++) has_bwd |= !isnan(r->cand[k].bwd);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; got == OK && i < sizeof modes / sizeof *modes; i++) {
            int own = modes[i].mode == o->mode;
            if (own == pass || (!own && (modes[i].mode == MODE_JOINT || (modes[i].needs_bwd && !has_bwd)))) continue; /* joint keeps no parts */
            by[n] = (why_choice){ respond_mode_name(modes[i].mode), modes[i].what, -1, 1 };
            got   = choose(r, *o, modes[i].mode, a, &by[n++].chosen, e);
        }
    if (got) return got;
    by[n++] = (why_choice){ "likeliest", "the likeliest reply as a whole: short ones win", likeliest(r), 0 };
    return n;
}

/* ---- the watch ----------------------------------------------------------------------------------------------------- */

typedef struct {
    why             *w;
    arena           *a;
    const tokenizer *t;
    int              top, cap, oom;
    sample_space    *space;
    double          *after; /* (V,) */
} watcher;

static str token_text(watcher *x, int id)
{
    buf raw = { 0 };
    err e   = { 0 };
    str s   = tokenizer_is_special(x->t, id) ? tokenizer_token(x->t, id) : (str){ 0 };
    if (!s.n && tokenizer_decode(x->t, &id, 1, &raw, &e) == OK) s = buf_view(&raw);
    s = arena_str(x->a, s, &e);
    x->oom |= raw.oom || !s.s;
    buf_free(&raw);
    return s.s ? s : STR("");
}

static why_token token_of(watcher *x, const respond_draw *d, int id)
{
    return (why_token){ id, token_text(x, id), exp(sample_logprob(d->logits, d->n_vocab, id)), x->after[id] };
}

/* The likeliest tokens by the model, and the drawn one's place among all. */
static void list_top(watcher *x, const respond_draw *d, why_step *s)
{
    const float *z = d->logits;
    int         *best = calloc((size_t)x->top + 1, sizeof *best), n = 0;
    s->top            = arena_new(x->a, (size_t)x->top, sizeof *s->top);
    s->rank           = 1;
    if (!best || !s->top) {
        x->oom = 1;
        free(best);
        return;
    }
    for (int id = 0; id < d->n_vocab; id++) {
        s->rank += z[id] > z[d->id] || (z[id] == z[d->id] && id < d->id);
        int at = n;
        while (at > 0 && z[id] > z[best[at - 1]]) at--;
        if (at >= x->top) continue;
        if (n < x->top) n++;
        memmove(best + at + 1, best + at, (size_t)(n - 1 - at) * sizeof *best);
        best[at] = id;
    }
    for (int i = 0; i < n; i++) s->top[i] = token_of(x, d, best[i]);
    s->n_top = n;
    free(best);
}

static void see_draw(void *ctx, const respond_draw *d)
{
    watcher *x = ctx;
    why     *w = x->w;
    if (x->oom) return;
    if (d->step == 0) w->n_step = 0;
    if (w->n_step == x->cap) {
        x->cap       = x->cap ? 2 * x->cap : 32;
        why_step *up = arena_new(x->a, (size_t)x->cap, sizeof *up);
        if (!up) {
            x->oom = 1;
            return;
        }
        if (w->n_step) memcpy(up, w->step, (size_t)w->n_step * sizeof *up);
        w->step = up;
    }
    sample_probs(d->logits, d->n_vocab, d->o, d->seen, d->n_seen, d->reply, d->n_reply, x->after, x->space);
    why_step *s = &w->step[w->n_step++];
    *s          = (why_step){ .drawn = token_of(x, d, d->id), .logp = sample_logprob(d->logits, d->n_vocab, d->id), .u = d->u };
    double q    = x->after[d->id];
    for (int id = 0; id < d->n_vocab; id++) {
        s->kept += x->after[id] > 0;
        if (x->after[id] > q || (x->after[id] == q && id < d->id)) s->from += x->after[id];
    }
    s->to = s->from + q;
    list_top(x, d, s);
}

static void see_source(void *ctx, const int *id, const double *logp, int n)
{
    watcher *x = ctx;
    x->w->source = arena_new(x->a, (size_t)n, sizeof *x->w->source);
    if (!x->w->source) {
        x->oom = 1;
        return;
    }
    for (int i = 0; i < n; i++) x->w->source[i] = (why_source){ id[i], token_text(x, id[i]), logp[i] };
    x->w->n_source = n;
}

/* Do the steps draw the stored tokens?  What comes after the first other one belongs to another reply. */
static void compare_steps(why *w, const audit_machine *m)
{
    const candidate *c = &w->x.r.cand[w->candidate];
    for (int i = 0; i < c->v.n_hit; i++) w->withheld |= m->redacts(m->ctx, c->v.hit[i].rule);
    if (w->withheld) {
        w->n_step = 0;
        w->agree  = 1;
        return;
    }
    w->agree           = w->n_step == c->n + (c->ended != 0);
    for (int i = 0; i < w->n_step && i < c->n; i++) {
        if (w->step[i].drawn.id == c->id[i]) continue;
        w->agree  = 0;
        w->n_step = i + 1;
        return;
    }
}

static int answer_again(history *h, audit_models *m, int top, arena *a, why *w, err *e)
{
    const gpt2   *fwd   = responder_fwd(m->r);
    int           V     = gpt2_cfg(fwd)->n_vocab;
    watcher       x     = { .w = w, .a = a, .t = gpt2_tokenizer(fwd), .top = top < V ? top : V, .space = sample_space_new(V),
                            .after = calloc((size_t)V, sizeof *x.after) };
    respond_watch watch = { w->candidate, &x, see_draw, see_source };
    audit_machine real  = audit_machine_of(m);
    int           r     = x.space && x.after ? OK : no_memory(e);
    if (r == OK) {
        responder_watch(m->r, &watch);
        r = audit_replay(h, w->x.id, &real, a, &w->again, e);
        responder_watch(m->r, NULL);
    }
    if (r == OK && x.oom) r = no_memory(e);
    sample_space_free(x.space);
    free(x.after);
    if (r == OK && w->candidate >= 0) compare_steps(w, &real);
    return r;
}

int why_turn(history *h, int64_t id, audit_models *m, int k, int top, arena *a, why *w, err *e)
{
    err why_not = { 0 };
    *w          = (why){ .candidate = -1, .again = { .turn = id, .result = AUDIT_NOT_COMPARABLE } };
    int r       = hist_exchange(h, id, a, &w->x, e);
    if (r) return r;
    if (k >= 0 && w->x.r.n == 0) return err_set(e, E_ARG, "turn %lld has no candidates: nothing was drawn", (long long)id);
    if (k >= w->x.r.n)
        return err_set(e, E_ARG, "turn %lld has %d candidate%s, numbered from 0: there is no %d", (long long)id, w->x.r.n,
                       w->x.r.n == 1 ? "" : "s", k);
    if ((r = hist_turns(h, w->x.conv, w->x.n, a, &w->before, &w->n_before, e))) return r;
    w->again.conv = w->x.conv;
    w->again.n    = w->x.n;
    w->candidate  = k >= 0 ? k : w->x.r.chosen;
    if (w->x.forgotten) {
        snprintf(w->again.what, sizeof w->again.what, "its words are forgotten");
        return OK;
    }
    if (respond_opts_parse(&w->o, w->x.opts, &why_not)) {
        snprintf(w->again.what, sizeof w->again.what, "its settings cannot be read: %.180s", why_not.msg);
        return OK;
    }
    if (w->x.r.n) {
        w->n_by = why_choices(&w->x.r, &w->o, w->by, a, e);
        if (w->n_by < 0) return w->n_by;
    }
    if (m) return answer_again(h, m, top, a, w, e);
    snprintf(w->again.what, sizeof w->again.what, "not asked for");
    return OK;
}
