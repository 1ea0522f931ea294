/* cache: keys and values of shared prefixes and of private tails behind each, the ids they stand for, the workspace of a
 * forward, and attention over all that.  Private to gpt2.c and tests.
 *
 * Keys lie so that 16 positions are neighbours, values so that the channels of a head are: scores and weighted sums are then
 * both chains of linear.h,
 *   score[j] = chain over d of q[d] * scale * k[j][d],   out[d] = 1/sum(e) * chain over j (rising position) of e[j] * v[j][d],   e = exp(score - max),
 * and it makes no difference to the bits whether a position lies in the prefix or in a tail, nor which rows are computed
 * together. */
#ifndef DUET_CACHE_H
#define DUET_CACHE_H

#include "models/gpt2.h"

typedef struct { /* positions of one sequence (the prefix or a tail), all layers and heads */
    float *k; /* (layer, head, cap / 16, D, 16) */
    float *v; /* (layer, head, cap, lanes) */
    int   *id; /* (cap,) the token behind each position */
    int    n;
} kv_store;

struct gpt2_cache {
    const gpt2 *model; /* the only model it may be used with */
    int   n_ctx, n_head, head, C;          /* head = C / n_head */
    int   n_layer;                         /* whose keys and values are kept; of a model with more, each layer takes the place of the one before: enough
                                              when all rows that see one another come in one slice */
    int   lanes;                           /* head rounded up to 16 */
    int   n_prefix, each;                  /* tails each * p … each * p + each - 1 stand on prefix p */
    int   prefix_max, n_seq, tail_max, max_rows; /* n_seq = n_prefix * each */
    int   prefix_cap, tail_cap;            /* the maxima rounded up to 16 */
    kv_store *prefix, *tail;               /* (n_prefix,), (n_seq,) */
    int      *next, *fed, *base;           /* (n_seq,), (n_prefix,) both: counters while a batch is checked */

    /* rows of the slice in work */
    int *id, *seq, *pos; /* (max_rows,) */
    unsigned char *want; /* (max_rows,) */
    int    *group;       /* (max_rows + 1,) first rows of the groups in work */
    size_t *place;       /* (max_rows,) where the logits of each wanted row go */
    int     n_place;
    float *x, *ln, *att; /* (max_rows, C) */
    float *qkv;          /* (max_rows, 3C) */
    float *fc;           /* (max_rows, n_inner) */
    float *scratch;      /* (max_rows, max(C, n_inner)) for linear_apply */

    /* attention's scratch, one for each thread */
    int    threads, score_max; /* score_max: positions a row can see, rounded up */
    size_t per_thread;         /* floats */
    float *thread_mem;         /* (threads, per_thread) */
    void  *memory;             /* all of the above */
};

/* All memory for a model of this config; E_ARG, E_LIMIT, E_NOMEM. */
int  cache_new(gpt2_cache **c, const gpt2 *model, const gpt2_config *cfg, int n_prefix, int prefix_max, int each, int tail_max, int max_rows,
               err *e);
void cache_free(gpt2_cache *c);

/* The prefix behind a row's seq: -1 - p is prefix p itself, others are tails that stand on one. */
static inline int cache_prefix_of(const gpt2_cache *c, int seq) { return seq < 0 ? -1 - seq : seq / c->each; }

/* Keys and values of rows 0..n of the slice, from c->qkv, to their places: those of a prefix at pos, others to their tail at
 * pos - n of its prefix, which must already count the slice's prefix rows. */
void cache_put(gpt2_cache *c, int layer, int n);
/* c->att (n, C) from the queries in c->qkv.  A prefix row sees the prefix up to its own pos, a tail row the whole prefix and
 * its tail up to its own pos. */
void cache_attend(gpt2_cache *c, int layer, int n, float scale);
/* Append the first n positions of tail s to its prefix. */
void cache_adopt(gpt2_cache *c, int s, int n);
/* Tail `to` becomes what tail `from` of the same prefix is. */
void cache_copy(gpt2_cache *c, int from, int to);

#endif
