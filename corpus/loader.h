/* loader: shards -> training batches.  Seeded, resumable: the state is a line of text; nothing but the place in each shard is remembered, since
 * the order of an epoch is a permutation computed from (seed, shard, epoch).
 *
 * A dialogue becomes one or more rows of whole turns, each at most n_ctx tokens long.  When it does not fit one row, the next row starts with the last
 * turn of the one before, as context that is not a target again.  Two neighbours too long for one row are parted; a turn that alone is too long is left
 * out (counted).  Rows without a target give nothing and are skipped.  Layout and direction are format_train's. */
#ifndef DUET_LOADER_H
#define DUET_LOADER_H

#include "corpus/shard.h"
#include "models/train.h"

typedef struct {
    format   fmt;
    int      reversed, loss_all; /* as format_train */
    int      n_ctx;              /* longest row */
    int      max_tok, max_seq;   /* of a batch */
    double   join;               /* share of dialogues (held-out ones too) that go on in the row of the one before, where both fit */
    uint64_t seed;
} loader_opts;

typedef struct { /* zero-initialise; reused from call to call */
    ivec        id, len;
    fvec        weight;
    train_batch b;        /* views of the three */
    double      n_target; /* sum of the weights */
    double      chars;    /* characters of the turns that are targets, their ends counting one each */
} batch;
void batch_free(batch *b);

typedef struct loader loader;
/* The shards stay the caller's.  Refuses shards with different tokenizers, and shards without training data or without any target in this direction. */
int  loader_new(loader **l, const shard *const *shards, int n, const loader_opts *o, err *e);
void loader_free(loader *l);
/* Shares of the tokens that come from each shard (n,), not negative, not all 0; may be changed between batches.  At first: by training tokens. */
int  loader_mix(loader *l, const double *share, err *e);
/* The next rows, about max_tok tokens.  Never ends. */
int  loader_next(loader *l, batch *b, err *e);
/* Epochs of shard k done, with the part of the present one: 2.25. */
double   loader_epochs(const loader *l, int k);
uint64_t loader_left_out(const loader *l); /* turns longer than a row so far */

/* The held-out part of shard k: batch after batch, in a fixed scattered order that does not depend on the seed, until *place (start with zeros) passes the end.
 * 1 a batch, 0 the end.  limit_tok > 0 ends after that many tokens. */
typedef struct {
    uint64_t pos, tokens;
    int      turn, context;
} loader_place;
int loader_held(loader *l, int k, loader_place *place, uint64_t limit_tok, batch *b, err *e);

/* The state as one line of text without newline; restoring refuses a state of other shards or options. */
int loader_state(const loader *l, buf *out, err *e);
int loader_restore(loader *l, str state, err *e);

/* Element i of a permutation of [0, n) chosen by (seed, stream): a Feistel network over the next power of four, walked until it lands inside. */
uint64_t shuffled(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i);

#endif
