/* tally: what a store holds, counted.  One walk over exchanges; nothing is judged again and nothing is recomputed. */
#ifndef DUET_TALLY_H
#define DUET_TALLY_H

#include "dialog/history.h"
#include "eval/ruletable.h"

typedef struct {
    double *v;
    int     n, cap;
} tally_list; /* in the arena */

/* Exchanges by time: minutes, hours, days or months, whichever gives a picture; empty ones are there too. */
typedef struct {
    str    *name;    /* (n,) "2026-11-24", "11-24 15h", … */
    double *kind[3]; /* (n,) exchanges by REPLY_… */
    int     n, undated;
    const char *unit; /* "day" */
} tally_time;

/* Faults that can be seen without understanding, in the manner of CDial-GPT's hand count of 1000 replies (repetition, dirty words,
 * other). */
enum { TALLY_REPEATED, TALLY_DIRTY, TALLY_RULE, TALLY_ECHO, TALLY_CUT, TALLY_BROKEN, TALLY_FAULTS };
const char *tally_fault_name(int fault);
const char *tally_fault_what(int fault);
/* Does a text repeat itself: one character four times in a row, or a piece of 2 to 12 characters three times? */
int tally_repeats(str text);

/* What the exchanges were made with. */
typedef struct {
    const char *fwd, *bwd, *rules, *numerics; /* as in reply */
    int64_t     n;
} tally_setup;

typedef struct {
    int64_t n_turns, n_undone, n_forgotten, n_stale;
    int64_t kind[3];                /* exchanges by REPLY_… */
    int64_t line_action[5];         /* the users' lines by RULE_… */
    int64_t n_cand, fate[6];        /* candidates by CAND_… */
    int64_t cand_action[5];         /* candidates that were judged */
    int64_t of_shown[TALLY_FAULTS], n_shown; /* replies that a model gave */
    int64_t of_drawn[TALLY_FAULTS], n_drawn; /* all candidates but empty ones */
    int64_t n_ranked, n_moved;      /* exchanges with two usable candidates and more; in how many not the likeliest per token was chosen */
    rule_table rules;               /* n[0] lines, n[1] candidates, n[2] shown replies that it hit */
    tally_setup *setup; /* (n_setup,) in order of first use */
    int        n_setup;
    tally_time time;
    tally_list seconds;             /* of each reply */
    tally_list candidates;          /* of each exchange that drew any */
    /* Log-probs per token of usable candidates; of at most TALLY_SCORES exchanges, evenly chosen when there are more. */
    tally_list fwd, bwd, fwd_chosen, bwd_chosen; /* equal indices belong together; NaN where there is none */
    int        n_scored;            /* exchanges behind them */
} tally;
enum { TALLY_SCORES = 20000 };

/* Count the exchanges id (n,), oldest first.  rules: for names and categories, may be NULL.  Everything is in the arena. */
int tally_store(history *h, const int64_t *id, int n, const safety *rules, arena *a, tally *t, err *e);
/* The p-th quantile (0 to 1) of the finite numbers of a list: the smallest that has a share p at or below it.  NaN: none. */
double tally_quantile(const tally_list *l, double p);

#endif
