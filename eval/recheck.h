/* recheck: would other rules have judged otherwise?  The stored texts (the users' lines, and every candidate once) before another
 * set of rules, and how its verdicts differ from the stored ones. */
#ifndef DUET_RECHECK_H
#define DUET_RECHECK_H

#include "dialog/history.h"
#include "eval/ruletable.h"

enum {
    RECHECK_SAME,
    RECHECK_BLOCKED, /* newly blocked */
    RECHECK_ALLOWED, /* newly allowed: blocked then, not blocked now */
    RECHECK_ACTION,  /* another action, neither side of it block */
    RECHECK_RULE,    /* the same action by another rule, where both have names; not counted as a difference of behaviour */
    RECHECK_PARTLY,  /* a text that was redacted before it was stored: what is gone cannot be judged again */
    RECHECK_KINDS
};
const char *recheck_name(int kind); /* "same", "newly blocked", "newly allowed", "other action", "other rule", "not judged whole" */

typedef struct {
    int64_t     turn, conv;
    int         n;         /* row of the conversation */
    int         k;         /* candidate, -1 the user's line */
    int         shown;     /* it was the reply, or the user's line */
    int         kind;
    str         text;
    int         was, is;   /* RULE_NONE … RULE_BLOCK */
    const char *was_rule, *is_rule; /* ids, "-" none; a rule of rules that are not at hand: "rule 7 of 1a2b3c4d5e6f" */
} recheck_item;

typedef struct {
    int64_t       n_lines, n_candidates; /* judged */
    int64_t       n_forgotten;           /* exchanges without words */
    int64_t       kind[RECHECK_KINDS];
    int64_t       replies_blocked;       /* replies that were shown and would be dropped now */
    rule_table    rules;                 /* by name: n[0] verdicts it gave then, n[1] now, to texts that could be judged whole; in the arena */
} recheck_sum;
/* Do they differ in what is done? */
int recheck_differs(const recheck_sum *s);

/* Judge the exchanges id (n,) again by `now`.  was: rules whose digest the record may name, for the names of its rules; NULL:
 * none at hand.  Calls back for every text that is not RECHECK_SAME, in order; non-zero from `f` stops with E_CANCEL.  Empty and
 * duplicate candidates are left out. */
int recheck(history *h, const int64_t *id, int n, const safety *was, const safety *now, int (*f)(void *ctx, const recheck_item *x), void *ctx,
            arena *a, recheck_sum *sum, err *e);

#endif
