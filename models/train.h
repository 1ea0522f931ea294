/* train: forward that keeps activations, backward, clipping, AdamW, schedules, save and resume.  Four slabs of the same layout (param, grad, m, v)
 * laid out by gpt2_tensors().  f32 through OpenBLAS.  The number of threads is the one set when trainer_new is called; for one number the bits
 * are the same.  Rows are packed: no padding, attention never crosses sequences, positions restart. */
#ifndef DUET_TRAIN_H
#define DUET_TRAIN_H

#include "models/gpt2.h"

typedef struct { /* n_seq sequences laid end to end */
    int          n_tok, n_seq;
    const int   *id;     /* (n_tok,) */
    const int   *len;    /* (n_seq,), sums to n_tok, each <= n_ctx */
    const float *weight; /* (n_tok,) loss weight of predicting id[t] from what precedes it in its sequence; 0 = no target; 0 at each start */
} train_batch;

enum { SCHED_CONSTANT = 0, SCHED_LINEAR = 1, SCHED_COSINE = 2, SCHED_NOAM = 3 };
int         train_sched_of_name(const char *name); /* "constant", "linear", "cosine", "noam"; -1 */
/* Learning rate at a step (0-based): linear warm-up lr*step/warmup, then the schedule down to lr*min_ratio at `total`.
 * noam: lr * 1e4 * n_embd^-0.5 * min(s^-0.5, s*warmup^-1.5), s = step + 1, as DialoGPT. */
double train_lr(int sched, double lr, long step, long warmup, long total, double min_ratio, int n_embd);

typedef struct {
    double beta1, beta2, eps, weight_decay;
    int    decay_all;   /* 1: decay every tensor; 0: only T_DECAY ones (matrices and embeddings) */
    double clip;        /* global gradient norm; 0 = off.  coef = clip / (norm + 1e-6), capped at 1 */
    float  dropout;     /* embedding, attention and residual; drawn from (seed, step), so resume repeats it */
    uint64_t seed;
} train_opts;
train_opts train_defaults(void); /* 0.9 0.999 1e-8 0.01, decay mask, clip 1.0, dropout 0, seed 1 */

typedef struct trainer trainer;
/* max_tok, max_seq: the largest batch that will come (activation memory is sized once). */
int    trainer_new(trainer **t, const gpt2_config *c, const train_opts *o, int max_tok, int max_seq, err *e);
void   trainer_free(trainer *t);
void   trainer_init(trainer *t, uint64_t seed); /* GPT-2's: N(0, 0.02), wpe N(0, 0.01), residual projections / sqrt(2 n_layer), LN 1, biases 0 */
float *trainer_params(trainer *t);              /* (n_params,) to fill with gpt2_read_slab */
float *trainer_grads(trainer *t);               /* (n_params,) */
size_t trainer_n_params(const trainer *t);
size_t trainer_bytes(const gpt2_config *c, int max_tok, int max_seq); /* memory trainer_new will take */
long   trainer_step(const trainer *t);          /* updates done */

/* Forward and backward of one micro-batch; gradients are added to the grad slab.  The loss that is differentiated is
 * scale * sum_t weight[t] * -log P(id[t]); *nll = sum weight*-logP (unscaled), *n_target = sum of weights.
 * Refuses, with nothing changed: an id out of range, a sequence longer than n_ctx, a weight that is negative or on a first token, a batch without any
 * target.  A loss that is not finite is E_ARG, and the gradients are zeroed. */
int trainer_backward(trainer *t, const train_batch *b, double scale, double *nll, double *n_target, err *e);
/* Forward only, no dropout: per-sequence sums when seq_nll/seq_n are not NULL (n_seq,).  No target at all is fine here (*n_target = 0). */
int trainer_eval(trainer *t, const train_batch *b, double *nll, double *n_target, double *seq_nll, double *seq_n, err *e);
/* Clip, AdamW with bias correction and decoupled decay, zero the gradients, step + 1.  *norm = gradient norm before clipping. Refuses
 * (E_ARG, nothing changed but the gradients zeroed) a gradient that is not finite. */
int trainer_update(trainer *t, double lr, double *norm, err *e);
void trainer_zero_grad(trainer *t);

/* Checkpoint: the model GGUF + tensors opt.m.*, opt.v.* + keys duet.train.*; `state` (state_n bytes) is the caller's (loader cursor, best
 * perplexity…), stored as a string key and handed back.  slim = 1 leaves optimizer and state out: an ordinary model. */
int trainer_save(const trainer *t, const char *path, const tokenizer *tok, const gpt2_meta *m, str state, int slim, err *e);
/* Load weights, moments and step; the config must be the trainer's.  state (may be NULL) gets the caller's bytes.  The options are the caller's again:
 * with the same ones the run goes on bit for bit as if it had not stopped.  On failure nothing is changed but the gradients, which are zeroed. */
int trainer_resume(trainer *t, const char *path, buf *state, err *e);

#endif
