/* rank: see rank.h. */
#include "eval/rank.h"

#include <math.h>
#include <string.h>

int rank_candidates(const testset *t, int i, const rank_opts *o, str *text, err *e)
{
    int n = 1;
    if (t->item[i].n_ref < 1) return err_set(e, E_ARG, "test item %d has no reference to be found again", i + 1);
    text[0] = t->item[i].ref[0];
    for (uint64_t step = 0; n < o->k; step++) {
        int other = (int)rng_below(o->seed, (uint64_t)i, step, (uint64_t)t->n), again = other == i || t->item[other].n_ref < 1;
        if (step > 1000 + 100 * (uint64_t)o->k) return err_set(e, E_ARG, "the set has fewer than %d different replies", o->k);
        for (int c = 0; c < n && !again; c++) again = str_eq(text[c], t->item[other].ref[0]);
        if (!again) text[n++] = t->item[other].ref[0];
    }
    return OK;
}

int rank_place(const candidate *c, int k)
{
    int place = 1;
    for (int i = 1; i < k; i++) place += isnan(c[0].score) || (!isnan(c[i].score) && c[i].score >= c[0].score);
    return place;
}

/* The candidates' tokens, cut to what respond_score takes. */
static int prepare(responder *r, const str *text, int k, arena *a, candidate *c, err *e)
{
    int most = gpt2_cfg(responder_fwd(r))->n_ctx / 2, got = OK;
    if (responder_bwd(r) && gpt2_cfg(responder_bwd(r))->n_ctx / 2 < most) most = gpt2_cfg(responder_bwd(r))->n_ctx / 2;
    for (int i = 0; i < k && got == OK; i++) {
        turn t;
        got  = respond_turn(r, text[i], 1, a, &t, e);
        c[i] = (candidate){ .text = text[i], .id = t.id, .n = t.n < most ? t.n : most, .ended = 1, .fate = CAND_OK, .dup_of = -1, .v = { .rule = -1 } };
    }
    return got;
}

int rank_item(responder *r, const testset *t, int i, const rank_opts *o, const respond_opts *ro, arena *a, int place[RANK_MODES], err *e)
{
    static const int mode[RANK_MODES] = { MODE_FORWARD, MODE_MMI, MODE_BIDI };
    const test_item *x = &t->item[i];
    size_t           k = (size_t)o->k;
    str             *text = arena_new(a, k, sizeof *text);
    candidate       *c = arena_new(a, k, sizeof *c), *by = arena_new(a, k, sizeof *by);
    turn            *turns = arena_new(a, (size_t)x->n_turn, sizeof *turns);
    respond_opts     opts = *ro;
    if (!text || !c || !by || !turns) return err_set(e, E_NOMEM, "rank: out of memory");
    memset(place, 0, RANK_MODES * sizeof *place);
    int got = rank_candidates(t, i, o, text, e);
    if (got == OK) got = prepare(r, text, o->k, a, c, e);
    for (int j = 0; j < x->n_turn && got == OK; j++) {
        got = respond_turn(r, x->turn[j], (x->n_turn - 1 - j) & 1, a, &turns[j], e);
        if (turns[j].n == 0) turns[j].hidden = 1;
    }
    if (got == OK && turns[x->n_turn - 1].hidden) got = err_set(e, E_ARG, "test item %d: the line to answer has no tokens", i + 1);
    opts.mode = responder_bwd(r) ? MODE_BIDI : MODE_FORWARD;
    if (got == OK) got = respond_score(r, turns, x->n_turn, c, o->k, &opts, e);
    for (int m = 0; m < RANK_MODES && got == OK; m++) {
        int chosen;
        if (m != RANK_FORWARD && !responder_bwd(r)) continue;
        memcpy(by, c, k * sizeof *c);
        opts.mode = mode[m];
        got       = respond_rank(by, o->k, &opts, &chosen, e);
        place[m]  = rank_place(by, o->k);
    }
    return got;
}

rank_scores rank_summary(const int *place, int n, int stride)
{
    rank_scores s = { 0 };
    for (int i = 0; i < n; i++) {
        int p = place[i * stride];
        s.hits1 += (p == 1) / (double)n;
        s.hits5 += (p <= 5) / (double)n;
        s.mrr += 1.0 / p / n;
    }
    return s;
}
