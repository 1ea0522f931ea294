/* sample: one draw from one row of logits.  Pure: the result depends on the arguments alone.
 * Order: repetition penalty -> temperature -> bans (banned ids, minimum length, no-repeat n-gram) -> top-k -> top-p -> draw.
 * (Hugging Face's warper order; GPT2-chitchat's is the same with plain division and top-p's rule on the mass before.) */
#ifndef DUET_SAMPLE_H
#define DUET_SAMPLE_H

#include "models/base.h"

enum { PENALTY_SIGNED = 0 /* s<0 ? s*p : s/p */, PENALTY_DIVIDE = 1 /* GPT2-chitchat: s/p whatever the sign */ };
/* Which tokens top-p keeps, in descending order of probability.  TOP_P_SMALLEST (Hugging Face): the smallest set whose
 * mass is >= top_p. TOP_P_BEFORE (GPT2-chitchat): every token before which the mass is <= top_p.  They differ only where a
 * sum meets top_p exactly. */
enum { TOP_P_SMALLEST = 0, TOP_P_BEFORE = 1 };
enum { PENALTY_SCOPE_ALL = 0 /* prompt + reply */, PENALTY_SCOPE_REPLY = 1 };

typedef struct {
    float      temperature; /* 0 = greedy: argmax after penalty and bans, lowest id on ties */
    int        top_k;       /* 0 = off; ties with the k-th logit survive */
    float      top_p;       /* >= 1 or <= 0 = off; on what top-k left, renormalised; the likeliest token always stays */
    int        top_p_rule;  /* TOP_P_… */
    float      rep_penalty; /* 1 = off */
    int        rep_rule;    /* PENALTY_… */
    int        no_repeat;   /* n > 0: no n-gram of reply tokens twice */
    int        min_new;     /* the separator is banned while fewer tokens were drawn */
    int        sep;         /* id that ends a reply; -1 none */
    const int *ban;         /* (n_ban,) ids never drawn */
    int        n_ban;
} sample_opts;

typedef struct sample_space sample_space; /* scratch for one vocabulary size; one per thread */
sample_space *sample_space_new(int n_vocab); /* NULL when memory is out */
void          sample_space_free(sample_space *s);

/* One row -> one id.  All probabilities are doubles and no function of libm that may round differently elsewhere is used:
 * the same logits give the same id on every machine.  The draw walks the kept tokens in the total order (logit after
 * penalty desc, id asc).
 *
 * logits (V,) are not changed.  seen (n_seen,) = ids the repetition penalty covers (each counts once).  reply (n_reply,) =
 * ids drawn so far.  u in [0,1) is the draw.  When every id is banned, bans are lifted in the order n-gram, minimum
 * length, list; NaN and -inf logits are never drawn unless nothing else is left (then the lowest id).  Returns the id. */
int sample_draw(const float *logits, int n_vocab, const sample_opts *o, const int *seen, int n_seen, const int *reply,
                int n_reply, double u, sample_space *s);

/* The filtered distribution that sample_draw draws from, for audit and tests: probs (V,) doubles, 0 for removed ids. */
void sample_probs(const float *logits, int n_vocab, const sample_opts *o, const int *seen, int n_seen, const int *reply,
                  int n_reply, double *probs, sample_space *s);
/* log P(id) of the unfiltered distribution: logits[id] - logsumexp(logits), in double, fixed order. */
double sample_logprob(const float *logits, int n_vocab, int id);

#endif
