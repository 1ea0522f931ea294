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

/* ---- replay ---- */

/* What answers.  audit_machine_of makes it from a responder; tests bring their own. */
typedef struct {
    void *ctx;
    int (*respond)(void *ctx, const turn *hist, int n, str user, const respond_opts *o, arena *a, reply *out, err *e);
    /* respond_given: the same with the candidates' tokens given. */
    int (*given)(void *ctx, const turn *hist, int n, str user, const respond_opts *o, const candidate *cand, arena *a, reply *out, err *e);
    int (*redacts)(void *ctx, int rule);      /* does this rule alter the line? */
    const char *fwd, *bwd, *rules;            /* digests, as in reply */
    double      tolerance;                    /* of a score, where only the arithmetic differs */
} audit_machine;
typedef struct {
    responder    *r;
    const safety *rules; /* NULL: none */
} audit_models;
audit_machine audit_machine_of(audit_models *m); /* *m must live as long */

enum {
    AUDIT_IDENTICAL,      /* everything is what was stored, to the bit */
    AUDIT_WITHIN,         /* other arithmetic: the stored tokens, judged again, give the stored scores within the tolerance, and all else exactly */
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
 * line is not in the record.  Not compared: `evaluated`, which depends on what the cache held.
 *
 * When the arithmetic is another one (its name, stored with the reply, differs), other tokens may be drawn, so the stored ones are
 * given (teacher forcing).  Then fwd, bwd and score may differ by the tolerance; texts, verdicts, fates and all else may not; and the
 * stored scores must lead to the stored choice, which needs no model. */
int audit_replay(history *h, int64_t turn_id, const audit_machine *m, arena *a, audit_result *out, err *e);

/* What scores may differ by, and what they did. */
typedef struct {
    double tolerance; /* in */
    double max;       /* the largest |difference| of a score that both have */
    int    n;         /* scores compared */
} audit_slack;
/* The first difference between two records of one exchange, "" and 0 when there is none.  slack NULL: bits.  With slack, scores
 * that are not in `again` are passed over, differences are noted there and reported when too large, and what was chosen is compared
 * only where the choice is the same. */
int audit_compare(const reply *stored, const reply *again, int with_user_verdict, audit_slack *slack, char *what, size_t n);

#endif
