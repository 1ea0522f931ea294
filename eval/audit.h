/* audit: does the record hold?  The chain of every conversation, and the replay of single exchanges: the stored context, line,
 * options and seed go through respond() again, and what comes out must be what was stored, to the bit. */
#ifndef DUET_AUDIT_H
#define DUET_AUDIT_H

#include "dialog/history.h"

/* ---- the chain ---- */

typedef struct {
    int64_t conv, turn; /* conv 0: the fault is in the file, not in one conversation; turn as hist_verify's `bad` */
    str     what;
} audit_fault;
/* Check everything; the first fault of every conversation, or of the file when the conversations are in order.  *n_rows = rows
 * found good. */
int audit_verify(history *h, arena *a, audit_fault **fault, int *n, int64_t *n_rows, err *e);

/* The chain cannot show a tail that was cut off: later rows alone know of it.  `heads` is what "duet history head" printed at
 * another time and was kept elsewhere: lines of conversation, number of exchanges, hash.  A fault for every conversation that is
 * gone or in which no row has the hash; what was added since is none.  *n_heads = lines compared.  E_FORMAT: a line is no such thing. */
int audit_heads(history *h, str heads, arena *a, audit_fault **fault, int *n, int *n_heads, err *e);

/* ---- replay ---- */

/* What answers.  audit_machine_of makes it from a responder; tests bring their own. */
typedef struct {
    void *ctx;
    int (*respond)(void *ctx, const turn *hist, int n, str user, const respond_opts *o, arena *a, reply *out, err *e);
    /* respond_score: log-probs of given candidates after the turns, the line to answer last. */
    int (*score)(void *ctx, const turn *turns, int n, candidate *cand, int n_cand, const respond_opts *o, err *e);
    int (*redacts)(void *ctx, int rule);      /* does this rule alter the line? */
    const char *fwd, *bwd, *rules;            /* digests, as in reply */
    double      tolerance;                    /* of a log-prob, where only the arithmetic differs */
} audit_machine;
typedef struct {
    responder    *r;
    const safety *rules; /* NULL: none */
} audit_models;
audit_machine audit_machine_of(audit_models *m); /* *m must live as long */

enum {
    AUDIT_IDENTICAL,      /* everything is what was stored, to the bit */
    AUDIT_WITHIN,         /* other arithmetic: the stored tokens, scored again, have the stored log-probs within the tolerance */
    AUDIT_DIFFERENT,
    AUDIT_NOT_COMPARABLE, /* other models or rules, a stale or forgotten exchange, … */
    AUDIT_RESULTS
};
const char *audit_result_name(int result); /* "identical", "within tolerance", "different", "not comparable" */
typedef struct {
    int64_t turn, conv;
    int     n;
    int     result;
    char    what[240];  /* why it is not identical; "" when it is */
    double  max_dlogp;  /* AUDIT_WITHIN, or different by it: the largest |difference|; else NaN */
    int     n_compared; /* log-probs behind max_dlogp */
} audit_result;

/* Replay one exchange.  Compared: kind, prompt, texts, ids, chosen, and of every candidate text, ids, ended, fate, dup_of, fwd,
 * bwd, n_source, score (as bits) and the verdict; the verdict on the user's line unless a rule redacted it, for then the raw
 * line is not in the record.  Not compared: `evaluated`, which depends on what the cache held. */
int audit_replay(history *h, int64_t turn_id, const audit_machine *m, arena *a, audit_result *out, err *e);
/* The first difference between two records of one exchange, "" and 0 when there is none. */
int audit_compare(const reply *stored, const reply *again, int with_user_verdict, char *what, size_t n);

#endif
