/* format: turns -> token ids, and which of them are targets.  The one place that knows how a dialogue is laid out, forward or
 * reversed; prep, train, chat, MMI and eval all call it, so that what is trained is what is served.
 *
 *   dialogpt : t1 eos t2 eos … tn eos             no BOS; training loss on every turn but the first (its eos included)
 *   cls_sep  : [CLS] t1 [SEP] t2 [SEP] … tn [SEP]  GPT2-chitchat
 *
 * Reversed: the order of the turns is turned round (newest first); the tokens inside a turn keep their order. */
#ifndef DUET_FORMAT_H
#define DUET_FORMAT_H

#include "models/base.h"

enum { FORMAT_DIALOGPT = 1, FORMAT_CLS_SEP = 2 };
typedef struct {
    int kind;
    int bos; /* id before the first turn; -1 = none (dialogpt) */
    int sep; /* id that closes every turn */
} format;

typedef struct {
    str           text;
    const int    *id; /* (n,) tokens of the text alone, no separators */
    int           n;
    int           speaker; /* 0 user, 1 bot; informative */
    float         weight;  /* loss weight of this turn in training; 1 = plain, 0 = context only */
    unsigned char hidden;  /* kept in the record, never shown to a model (blocked lines, refusals) */
} turn;

const char *format_name(int kind);        /* "dialogpt", "cls_sep"; NULL */
int         format_of_name(const char *s); /* 0 when unknown */

/* Prompt for a reply: all turns (oldest first, hidden ones skipped) closed by separators; oldest whole turns are dropped until
 * the ids fit `budget`; when the last turn alone does not fit, its oldest tokens are cut (and *cut counts them, may be NULL).
 * At most max_turns turns (0 = no limit).  Appends to ids.  *first (may be NULL) = index of the oldest turn kept.
 * E_ARG when there is no visible turn or the budget cannot hold bos + 1 token + sep. */
int format_prompt(const format *f, const turn *turns, int n, int max_turns, int budget, ivec *ids, int *first, int *cut, err *e);

/* Reverse scoring input: reply, then the last `n_source` visible turns of `turns`, newest first (0 = all), each closed by
 * sep. *from = index in ids of the first source token (predicted from the reply's separator).  Dropped to fit `budget`:
 * oldest source turns first, then the tail of what is left of the source, never the reply (a reply that leaves no room for
 * one source token is E_LIMIT). */
int format_reverse(const format *f, const turn *turns, int n, int n_source, const int *reply, int n_reply, int budget, ivec *ids,
                   int *from, err *e);

/* Training row: all visible turns, forward or reversed.  ids (T,) and weight (T,): weight[t] is the loss weight of
 * predicting ids[t] from ids[..t-1] (weight[0] = 0).  loss_all = 0: the first turn in the order given is context only
 * (DialoGPT); 1: every token after the first is a target (GPT2-chitchat).  The last separator is always in ids and is a
 * target.  A turn's own weight multiplies (its separator is part of it); when `reversed`, weights 0 become 1 (in reversed
 * order the sources are the targets) unless all turns weigh the same.  No cutting: the caller gives turns that fit. */
int format_train(const format *f, const turn *turns, int n, int reversed, int loss_all, ivec *ids, fvec *weight, err *e);
/* Tokens that format_train / format_prompt would give for these turns: bos + sum(n + 1). */
size_t format_length(const format *f, const turn *turns, int n);

#endif
