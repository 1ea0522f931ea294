/* rank: can the models tell the true reply from random ones?  DialogRPT's protocol (Gao et al. 2020): the reply that was given among k - 1
 * replies to other contexts, all scored by respond_score(). */
#ifndef DUET_RANK_H
#define DUET_RANK_H

#include "dialog/respond.h"
#include "eval/testset.h"

typedef struct {
    int      k;    /* candidates */
    uint64_t seed; /* item i's random replies are those of items rng_below(seed, i, 0…, n), equal texts passed over */
} rank_opts;

/* The texts that item i is ranked among: text[0] is the true one; E_ARG when the set has fewer than k different replies. */
int rank_candidates(const testset *t, int i, const rank_opts *o, str *text /* (k,) */, err *e);
/* Place of candidate 0 (1 = best) by score; one that is as good stands before it: a model that says nothing wins nothing. */
int rank_place(const candidate *c, int k);

enum { RANK_FORWARD, RANK_MMI, RANK_BIDI, RANK_MODES };
/* Score item i once and rank it by forward, mmi and bidi (o->lambda); without a backward model by forward alone (the others 0).  Candidates longer
 * than half of a context are cut. */
int rank_item(responder *r, const testset *t, int i, const rank_opts *o, const respond_opts *ro, arena *a, int place[RANK_MODES], err *e);

typedef struct {
    double hits1, hits5, mrr;
} rank_scores;
rank_scores rank_summary(const int *place, int n, int stride);

#endif
