/* metrics: all numbers of a set of replies, from texts.  Owns the list of metrics (keys, order, how they are shown), what is kept of each
 * line so that every number can be had again for any resampling of the lines, and the signature that says how to get the same numbers.
 * Reads no files. */
#ifndef DUET_METRICS_H
#define DUET_METRICS_H

#include "eval/overlap.h"
#include "eval/sentence.h"
#include "eval/variety.h"

enum {
    METRIC_BLEU1, METRIC_BLEU4 = METRIC_BLEU1 + 3,
    METRIC_NIST1, METRIC_NIST5 = METRIC_NIST1 + 4,
    METRIC_MTEVAL_BLEU1, METRIC_MTEVAL_BLEU4 = METRIC_MTEVAL_BLEU1 + 3,
    METRIC_METEOR, METRIC_METEOR_EXACT, METRIC_ROUGE_L, METRIC_ROUGE_L_F1, METRIC_F1,
    METRIC_WITH_REFERENCES, /* those before need references */
    METRIC_DISTINCT1 = METRIC_WITH_REFERENCES, METRIC_DISTINCT3 = METRIC_DISTINCT1 + 2,
    METRIC_ENTROPY1, METRIC_ENTROPY4 = METRIC_ENTROPY1 + 3,
    METRIC_AVG_LEN, METRIC_REPETITION, METRIC_GENERIC, METRIC_EMPTY, METRIC_SELF_BLEU,
    METRICS
};
/*   bleu1…4         plain corpus BLEU, case kept, no smoothing (sacrebleu with smooth none)
 *   nist1…5         NIST of mteval-v14, on the words of the tokenisation tokenised again by mteval, in lower case
 *   mteval_bleu1…4  BLEU of mteval-v14 with its smoothing, on the same
 *   meteor          NLTK 3.8's, exact and Porter stem; meteor_exact: exact alone
 *   rouge_l         pycocoevalcap's, beta 1.2; rouge_l_f1: F1 of the best reference
 *   f1              of the bags of words, best reference
 *   distinct1…3, entropy1…4, avg_len   over all replies
 *   repetition, generic, empty         share of the replies that loop, are everybody's, hold no word
 *   self_bleu       mean BLEU-4 of a reply against all others */
typedef struct {
    const char *key, *title; /* "bleu1", "BLEU-1" */
    int         percent;     /* shown times 100 */
    int         sums;        /* made of sums over lines, so that the bootstrap is right for it (variety is not) */
} metric_info;
extern const metric_info metric_list[METRICS];

typedef struct {
    int              n;        /* lines */
    int              has_refs;
    overlap         *plain, *mteval; /* (n,) */
    sentence_scores *sentence;       /* (n,) */
    int             *words;          /* (n,) of each reply */
    unsigned char   *repeats, *generic; /* (n,) */
    double          *self_bleu;      /* (n,) */
    variety_grams    grams;
    int              tokenise, refs_min, refs_max; /* references of a line */
} metric_rows;
/* What systems that are compared share: words and n-grams have the same numbers in all of them.  Zero-initialise. */
typedef struct {
    lexicon *words;
    ngrams  *grams;
} metric_space;
void metric_space_free(metric_space *s);
/* hyp (n,); ref: the references of line i are ref[ref_at[i]] … ref[ref_at[i + 1] - 1], at least one; ref_at NULL: there are none. */
int  metric_rows_new(metric_rows *m, metric_space *s, const str *hyp, int n, const str *ref, const int *ref_at, int tokenise, err *e);
/* The lines of a, then those of b, each with what it is in its own system (generic, self-BLEU); a and b are of one space and have the same
 * references. */
int  metric_rows_join(metric_rows *m, const metric_rows *a, const metric_rows *b, err *e);
void metric_rows_free(metric_rows *m);

enum { METRIC_SUMS = 1, METRIC_VARIETY = 2 }; /* which are wanted; the others become NaN */
/* out (METRICS,): the metrics of the lines, line i counted times[i] times (NULL: once).  NaN: not defined without references.  count
 * (m->grams.nodes,): scratch, all 0 before and after; calls with scratch of their own may run at once. */
void metric_rows_score(const metric_rows *m, const int *times, int which, int *count, double *out);
int *metric_rows_scratch(const metric_rows *m, err *e); /* such scratch, for free() */

/* One line: everything that must be the same for a number to be the same. */
int metric_signature(const metric_rows *m, buf *out);

#endif
