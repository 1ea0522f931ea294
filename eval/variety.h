/* variety: what a set of replies looks like by itself, without references: Distinct-n, Entropy-n, length, repetition, generic replies,
 * self-BLEU.  Pure: numbers from arrays of word ids. */
#ifndef DUET_VARIETY_H
#define DUET_VARIETY_H

#include "eval/words.h"

enum { VARIETY_DISTINCT = 3, VARIETY_ENTROPY = 4 };
typedef struct {
    double distinct[VARIETY_DISTINCT]; /* n-grams that differ / n-grams, over all replies (Li et al. 2016; DialoGPT's dstc/metrics.py) */
    double entropy[VARIETY_ENTROPY];   /* -sum p ln p over all n-grams of all replies, nats (Zhang et al. 2018) */
    double tokens;                     /* words */
} variety;

/* The n-grams of replies as node numbers of a trie, so that any weighting of the replies can be counted again quickly.  Systems that are to be
 * mixed (approximate randomization) share lexicon and trie. */
typedef struct {
    int      n, nodes;
    size_t  *at[VARIETY_ENTROPY];   /* (n + 1,) */
    int     *node[VARIETY_ENTROPY]; /* the n-grams of reply i, in its order */
    /* the same split in two for counting: n-grams that occur once in all, and the others */
    int     *single[VARIETY_ENTROPY]; /* (n,) how many of reply i */
    size_t  *more_at[VARIETY_ENTROPY];
    int     *more[VARIETY_ENTROPY];   /* numbered anew from 0 for each order */
    int      kinds[VARIETY_ENTROPY];  /* of them */
    double   c_ln_c[128];           /* c ln c */
} variety_grams;
int  variety_grams_new(variety_grams *g, const word_lines *w, ngrams *t, err *e);
/* The lines of a, then those of b. */
int  variety_grams_join(variety_grams *g, const variety_grams *a, const variety_grams *b, err *e);
void variety_grams_free(variety_grams *g);
/* times (n,): how often each reply counts; NULL: once.  count (nodes,): scratch, all 0 before and after. */
void variety_count(const variety_grams *g, const int *times, int *count, variety *v);
/* n-grams of order n (1..VARIETY_ENTROPY) of all replies. */
double variety_total(const variety_grams *g, int n);
/* Distinct-n at equal size: what it would be on the average if only `tokens` of its n-grams were there, drawn without replacement
 * (rarefaction: Hurlbert, "The nonconcept of species diversity", Ecology 52, 1971).  tokens >= the total: the plain figure. */
double variety_rarefied(const variety_grams *g, int n, double tokens, int *count);

/* Is a reply one that loops: the same word three times in a row (DialoGPT's filter), or a sequence of three words twice? */
int  variety_repeats(const int *w, int n);
/* generic (n,): 1 for a reply that is, word for word in lower case, the reply of at least three lines and of at least one line in a hundred. */
int  variety_generic(const word_lines *w, const int *lower, unsigned char *generic, err *e);
/* self_bleu (n,): BLEU-4 (bleu_sentence) of each reply with all the others as references (Zhu et al. 2018, Texygen). */
int  variety_self_bleu(const word_lines *w, double *self_bleu, err *e);

#endif
