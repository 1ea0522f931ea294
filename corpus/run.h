/* run: one training run.  Owns the loop: batches -> gradient -> update -> log -> held-out perplexity -> best model and checkpoint, and the resuming of all of it
 * to the bit.  Prints nothing; whoever watches is called after every update and may ask it to stop. */
#ifndef DUET_RUN_H
#define DUET_RUN_H

#include "corpus/loader.h"

enum { RUN_MAX_SHARDS = 64 };
typedef struct {
    int         accum;       /* batches to an update */
    int         sched;       /* SCHED_… */
    double      lr, min_ratio;
    long        warmup;      /* updates */
    long        steps;       /* updates of the whole run; 0: `minutes` decide */
    double      minutes;     /* > 0: the run ends after so much time in the loop, and the schedule follows the clock (not reproducible) */
    int         n_mix;       /* 0: by size; else the number of shards */
    double      mix[RUN_MAX_SHARDS], mix_end[RUN_MAX_SHARDS]; /* shares at the start and at the end, linear between */
    long        eval_every;  /* updates between two looks at the held-out part */
    uint64_t    eval_tokens; /* most held-out tokens of each shard looked at; 0 = all */
    int         judge;       /* k >= 1: the held-out part of shard k chooses the best model; 0: all of them, weighed by the last shares */
    int         patience;    /* stop after so many looks without a better one; 0 = never */
    const char *out;         /* the best model so far, always complete: an ordinary GGUF */
    int         keep_last;   /* 1: `out` is the model of the last look instead, better or not */
    const char *checkpoint;  /* everything needed to go on, written after each look and when stopped */
    const char *log;         /* NULL, or *.csv, else JSON lines */
} run_opts;

typedef struct {
    double nll, targets, chars; /* sums over the held-out part of one shard */
} run_held;

typedef struct {
    long            step, steps;  /* updates done; of (0: unknown) */
    double          fraction;     /* of the run, 0..1 */
    double          seconds;      /* in the loop, over all sittings */
    double          loss, norm, lr;
    double          tokens;       /* fed so far in this sitting */
    double          tokens_s;     /* of late */
    int             looked;       /* 1: `ppl` and `held` are of this step */
    double          ppl, best;    /* of the judge; INFINITY before the first look */
    long            best_step, stopped_early;
    int             n;            /* shards */
    const run_held *held;         /* (n,) */
    uint64_t        skipped;      /* updates refused because the gradient was not finite */
} run_status;
/* After every update and every look; not 0: finish, write the checkpoint, end with E_CANCEL. */
typedef int run_watch(void *ctx, const run_status *s);

typedef struct {
    trainer           *t;
    loader            *l;
    const shard *const *shards; /* (n,) */
    int                n;
    const gpt2_config *config;
    const train_opts  *opt; /* what the trainer was made with: a resumed run must have the same */
    const tokenizer   *tok;
    const gpt2_meta   *meta;
} run_parts;

/* resume: 1 takes up opts->checkpoint, which must come from the same shards and options.  Refuses an empty held-out part.  E_CANCEL: stopped by the watch, the
 * checkpoint is written. */
int run_train(const run_parts *p, const run_opts *o, int resume, run_watch *watch, void *ctx, run_status *last, err *e);

/* Held-out sums of shard k, at most limit_tok tokens (0 = all), as the trainer computes them: all in f32.  E_FORMAT when there is nothing to look at. */
int run_look(const run_parts *p, int k, uint64_t limit_tok, run_held *h, err *e);
/* The same by inference, the arithmetic of a talk: what a quantised model loses shows here.  `about` is shard k of the loader. */
int run_score(const gpt2 *m, loader *l, const shard *about, int k, uint64_t limit_tok, run_held *h, err *e);

#endif
