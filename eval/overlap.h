/* overlap: what BLEU and NIST count, and the scores that are made of it.  The counts of a corpus are the sums of those of its segments,
 * which is what the bootstrap of doubt.h lives on.  Pure: numbers from arrays.
 *
 * Papineni et al. 2002 (BLEU), Doddington 2002 (NIST), as NIST's mteval-v14.pl computes them.  A hypothesis's n-gram matches at most as often
 * as it stands in that reference which has it most often. */
#ifndef DUET_OVERLAP_H
#define DUET_OVERLAP_H

#include "eval/words.h"

enum { OVERLAP_MAX = 9 };
typedef struct { /* of a segment, or summed over segments; index n - 1 holds order n */
    double words;    /* of the hypothesis */
    double closest;  /* of the reference nearest in length, the shorter of two as near */
    double average;  /* mean over the references */
    double match[OVERLAP_MAX], total[OVERLAP_MAX]; /* clipped matches; n-grams of the hypothesis */
    double info[OVERLAP_MAX];                      /* sum of the information of the matches, bits */
} overlap;

/* out (hyp->n,): segment i against the references ref_at[i] … ref_at[i + 1] - 1 of `ref`, orders 1..orders.  The information of an n-gram is
 * log2(count of its first n - 1 words / its count) over all references; for a single word over all words of the references.
 * `zero`: the id of the word "0" or -1: mteval's Perl takes a prefix that is "0" for none and uses all words instead; so do we. */
int  overlap_count(const word_lines *hyp, const word_lines *ref, const int *ref_at, int orders, int zero, overlap *out, err *e);
void overlap_add(overlap *sum, const overlap *x, double times);

/* Cumulative scores of order n (1..OVERLAP_MAX, orders were counted), 0..1.  No score is ever not a number: where a definition divides by
 * zero the score is 0. */
double bleu_plain(const overlap *o, int n);    /* an order without a match makes it 0 */
double bleu_mteval(const overlap *o, int n);   /* the k-th order without a match counts 1/2^k of one; an order without n-grams counts as precision 1 */
double bleu_sentence(const overlap *o, int n); /* NLTK's sentence_bleu with smoothing method1: 0.1 of a match, totals at least 1; 0 without a common word */
double nist_score(const overlap *o, int n);    /* bits, with the penalty for hypotheses shorter than the average reference */

#endif
