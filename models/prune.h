/* prune: a smaller GPT-2 from a larger one, as an ordinary file: whole layers, attention heads, FFN columns and vocabulary entries go.  What goes is measured on
 * dialogues that the caller brings; a fine-tune afterwards is `duet train --init`.
 *
 * What GGUF's "gpt2" permits (llama.cpp and we read it alike): one n_head and one n_inner for all layers, attn_output (n_embd, n_embd), and a head size that is
 * n_embd / n_head.  So
 *   layers   any may go.
 *   columns  as many from every layer, in each layer others.
 *   heads    as many from every layer, in each layer others, and with them head size * heads of the n_embd channels of the residual stream, the same in all
 *            layers: without that the matrices would keep their sizes and only hold zeros.  The channels left have another mean and variance, so
 *            this cut, unlike the others, also moves every LayerNorm.
 *   tokens   rows of the embedding (and of the head when untied); ids are renumbered, kept tokens have the logits they had.
 * Types of matrices are kept; one whose rows are no whole blocks any more becomes f16. */
#ifndef DUET_PRUNE_H
#define DUET_PRUNE_H

#include "models/train.h"

/* ---- taking out what is named ---- */

typedef struct { /* what stays; every list ascends, and those of a layer follow its place in `layer` */
    int  n_layer, n_head, n_inner, n_embd, n_vocab; /* n_embd / n_head is the head size of the model */
    int *layer;   /* (n_layer,) */
    int *head;    /* (n_layer, n_head) */
    int *column;  /* (n_layer, n_inner) */
    int *channel; /* (n_embd,) */
    int *token;   /* (n_vocab,) */
} prune_cut;
/* Everything stays; room for the lists is that of c. */
int  prune_cut_new(prune_cut *k, const gpt2_config *c, err *e);
void prune_cut_free(prune_cut *k);
/* The model that is left, its weights in a malloc'ed slab.  With scale_attn_by_layer the queries of a layer that moves are scaled, so that nothing else changes. */
int prune_apply(const gpt2_config *from, const float *slab, const prune_cut *k, gpt2_config *to, float **out, err *e);

/* ---- measuring what to take out ---- */

typedef struct {              /* how much goes of each kind: 0 nothing; below 1 that share, rounded to the nearest; from 1 on so many, a whole number */
    double layers;            /* of all layers */
    double heads, inner;      /* of a layer's heads, of a layer's columns.  A share of columns leaves a multiple of 32 where there was one: q8_0 and q4_0 want it */
    double share;             /* of all parameters of the file, vocabulary included: at least so many go.  Which of the three kinds is found by trying; excludes them */
} prune_want;
typedef struct {
    int    n_layer, n_head, n_inner, n_embd;
    size_t params;            /* with the vocabulary that stays */
    double nll;               /* of a target of the sample, before any fine-tune */
} prune_shape;
typedef void prune_watch(void *ctx, const prune_shape *tried, const int *layer /* (n_layer,) that stay */); /* as soon as its loss is known */
typedef struct {
    prune_shape from, to;     /* nll: NAN when nothing was measured */
    int         vocab_from, vocab_to;
    int        *layer;        /* (to.n_layer,) malloc'ed: the layers that stay, counted from 0 */
} prune_report;
void prune_report_free(prune_report *r);

/* IN -> OUT.
 *   layers   one after the other the one whose absence costs the least loss on the sample, measured, is taken out.
 *   heads, columns, channels: by the first-order Taylor score of a gate g = 1 before each (Michel et al. 2019; Molchanov et al. 2019): mean over the
 *            sequences of the sample of (dL/dg)^2, dL/dg = sum w dL/dw over attn_output's columns of the head, ffn_down's column, or weight and bias of the
 *            channel in each LayerNorm (squared, summed over the norms).
 *   share    for every number of layers and heads (up to half of them out) that needs it, the number of columns (down to a quarter) that meets the share
 *            is tried; the shape with the least loss on the sample is taken.
 * sample (n_sample,): batches with targets, ids of IN's vocabulary; not needed when only tokens go.  keep (n_vocab,): 1 = this token must stay (tokenizer_cut
 * adds what the others need), drop_characters as there; NULL: all stay.  E_ARG: a share or number that leaves nothing, or that cannot be reached. */
typedef struct {
    const train_batch   *sample;
    int                  n_sample;
    const unsigned char *keep;
    int                  drop_characters;
    prune_watch         *watch; /* may be NULL */
    void                *ctx;
} prune_data;
int prune_file(const char *in, const char *out, const prune_want *w, const prune_data *data, prune_report *r, err *e);

#endif
