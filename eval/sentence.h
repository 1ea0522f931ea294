/* sentence: scores of one reply against one or several references that are means over sentences: METEOR, ROUGE-L, word F1.  Pure: numbers
 * from arrays of word ids. */
#ifndef DUET_SENTENCE_H
#define DUET_SENTENCE_H

#include "eval/words.h"

/* METEOR as NLTK 3.8 computes it (Lavie & Agarwal 2007: alpha 0.9, beta 3, gamma 0.5), stages exact and, when `stem` is given, Porter
 * stem; no synonyms and no paraphrases, so this is not METEOR 1.5.  A stage goes from the last free word of the hypothesis to the
 * first and takes the last free equal word of the reference.  lower, stem: maps of ids (lexicon_forms).  0 when nothing matches. */
int meteor_score(const int *h, int nh, const int *r, int nr, const int *lower, const int *stem, double *score, err *e);

/* Length of the longest common subsequence. */
int lcs_length(const int *a, int na, const int *b, int nb, int *n, err *e);
/* ROUGE-L (Lin 2004) from lengths of common subsequences.
 *   f1:   2PR / (P + R), of one pair; the best reference counts (google-research's rouge_score)
 *   coco: (1 + b^2) P R / (R + b^2 P), b = 1.2, with P and R the largest over all references, which need not be the same one
 *         (pycocoevalcap, which DialoGPT ships); an empty text counts as one empty word */
double rouge_l_f1(int lcs, int nh, int nr);
double rouge_l_coco(double p, double r);
/* F1 of two bags of words (as ParlAI's, here on the words of the tokenisation in lower case, articles and punctuation kept). */
int word_f1(const int *h, int nh, const int *r, int nr, const int *lower, double *score, err *e);

/* All of these for line i of hyp against the references from … to - 1: the best over the references (coco as above). */
typedef struct {
    double meteor, meteor_exact, rouge_l, rouge_l_f1, f1;
} sentence_scores;
int sentence_score(const word_lines *hyp, int i, const word_lines *ref, int from, int to, const int *lower, const int *stem, sentence_scores *s, err *e);

#endif
