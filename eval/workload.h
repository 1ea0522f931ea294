/* workload: pieces of work on one or two models, each with what it costs in theory, what it took, and a hash of what it computed.  The token ids are those
 * of the drivers that other engines are measured with: id(i) = (7919 i + 13) mod min(V, 50000). */
#ifndef DUET_WORKLOAD_H
#define DUET_WORKLOAD_H

#include "eval/stopwatch.h"
#include "models/gpt2.h"

/* The cost of a forward, from the sizes and the file: an implementation that wastes nothing. */
typedef struct {
    const gpt2 *m;
    double      row, head, pair; /* operations (a multiply-add is two): of a row through all blocks, of one row of logits, of a row and a position it sees */
    double      blocks_bytes, head_bytes; /* of the matrices in the file */
    double      kv_bytes;                 /* of a position: keys and values of all layers, f32 */
    int         bytes_wide;               /* most of the matrices are q8_0 or q4_0: the limit is that of integer arithmetic */
} subject;
int subject_of(subject *s, const gpt2 *m, err *e); /* reads the file's header again */

enum {
    WORK_PREFILL, /* `rows` tokens into an empty cache, logits of the last */
    WORK_DECODE,  /* `steps` tokens to each of `rows` sequences over one prefix of `context`, logits of every row; the prefix is not timed */
    WORK_SCORE,   /* log P of `context` tokens behind each of `rows` replies of `steps` tokens, by the reverse model */
    WORK_TURN     /* prefill `context`, then `rows` candidates of `steps` tokens are drawn (top-k 40, top-p 0.9), then WORK_SCORE of them */
};
typedef struct {
    int kind, rows, context, steps;
} workload;

typedef struct {
    timing time;        /* of a turn, .lap is the drawing and the rest is the scoring */
    double tokens;      /* that a repeat feeds (prefill, score) or draws (decode, turn) */
    double ops, bytes;  /* of a repeat, in theory */
    char   hash[17];    /* start of the SHA-256 of the logits (prefill, decode: of the last step), of the scores (score), of tokens and scores (turn) */
} figure;

/* Does the work fit the context of the models? */
int workload_fits(const workload *w, const gpt2 *fwd, const gpt2 *bwd);
/* Measure it.  Prefill and decode use fwd alone, score bwd alone.  E_ARG when it does not fit. */
int workload_run(const workload *w, const subject *fwd, const subject *bwd, int repeats, figure *f, err *e);
/* "prefill 64", "decode 16", "score 16x32+64", "turn 16x32+64" */
void workload_name(const workload *w, buf *out);

#endif
