/* why: why was this said and not that?  One stored exchange: its candidates as they were judged, what other ways to choose would
 * have said, and, by answering the line again under a watch, what the sampler saw at each step of one candidate.  What is
 * recomputed is compared with what is stored; the result of the comparison is part of the answer. */
#ifndef DUET_WHY_H
#define DUET_WHY_H

#include "eval/audit.h"

typedef struct {
    int    id;
    str    text;   /* as it reads; a special token as the vocabulary writes it */
    double before; /* probability of the model */
    double after;  /* probability the draw had: after penalty, temperature, bans, top-k and top-p; 0 = removed */
} why_token;
typedef struct {
    why_token  drawn;
    double     logp;      /* of the drawn token, unfiltered: the steps' sum is the candidate's fwd */
    int        rank;      /* the drawn token's place by `before`, 1… */
    int        kept;      /* tokens that the filters left */
    double     u;         /* the draw, in [0, 1) … */
    double     from, to;  /* … falls in the drawn token's part of the kept ones, likeliest first */
    why_token *top;       /* (n_top,) the likeliest by `before` */
    int        n_top;
} why_step;
typedef struct {
    int    id;
    str    text;
    double logp; /* under the reverse model, given the candidate and the source before it */
} why_source;
typedef struct {
    const char *name, *what; /* "forward", "the likeliest per token" */
    int         chosen;      /* candidate, -1 none usable */
    int         is_mode;     /* a mode of respond.h; 0: only a comparison */
} why_choice;
enum { WHY_CHOICES = 8 };

typedef struct {
    exchange     x;
    respond_opts o;
    turn        *before;     /* (n_before,) the conversation it answered to, oldest first; what was refused is hidden */
    int          n_before;
    audit_result again;      /* of the replay; AUDIT_NOT_COMPARABLE when it was not answered again */
    why_choice   by[WHY_CHOICES]; /* the mode of the exchange first */
    int          n_by;
    int          candidate;  /* whose steps; -1 none */
    why_step    *step;       /* (n_step,) in the arena; the closing separator is a step */
    int          n_step;
    int          agree;      /* steps drew the stored tokens, all of them; else the last step is the first that did not */
    int          withheld;   /* the candidate is stored redacted: its draws would say what was blanked out, so there are no steps */
    why_source  *source;     /* (n_source,) */
    int          n_source;
} why;

/* Everything about one exchange.  m NULL: from the record alone, nothing is answered again.  k: the candidate whose steps are
 * wanted, -1: the one that was chosen.  top: tokens a step lists.  E_ARG: no such exchange or candidate. */
int why_turn(history *h, int64_t id, audit_models *m, int k, int top, arena *a, why *w, err *e);
/* The choices among stored candidates alone; returns their number.  The first is the mode of o. */
int why_choices(const reply *r, const respond_opts *o, why_choice by[WHY_CHOICES], arena *a, err *e);

#endif
