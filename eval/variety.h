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

/* The n-grams of replies as node numbers of one trie, so that any weighting of the replies can be counted again quickly. */
typedef struct {
    int      n, nodes;
    size_t  *at[VARIETY_ENTROPY];   /* (n + 1,) */
    int     *node[VARIETY_ENTROPY]; /* the n-grams of reply i, in its order */
} variety_grams;
int  variety_grams_new(variety_grams *g, const word_lines *w, err *e);
void variety_grams_free(variety_grams *g);
/* times (n,): how often each reply counts; NULL: once.  count (nodes,): scratch, all 0 before and after. */
void variety_count(const variety_grams *g, const int *times, int *count, variety *v);

/* Is a reply one that loops: the same word three times in a row (DialoGPT's filter), or a sequence of three words twice? */
int  variety_repeats(const int *w, int n);
/* generic (n,): 1 for a reply that is, word for word in lower case, the reply of at least three lines and of at least one line in a hundred. */
int  variety_generic(const word_lines *w, const int *lower, unsigned char *generic, err *e);
/* self_bleu (n,): BLEU-4 (bleu_sentence) of each reply with all the others as references (Zhu et al. 2018, Texygen). */
int  variety_self_bleu(const word_lines *w, double *self_bleu, err *e);

#endif
