/* ops: the mathematics, forward and backward adjacent.  Two kinds of caller: inference (gpt2.c, which brings its own row-invariant
 * matrix product, linear.c) and training (train.c).  Functions of the first section are row-invariant and give the same bits on every CPU path and
 * for any number of threads: fixed lanes, fixed order of sums, no libm in the loop. */
#ifndef DUET_OPS_H
#define DUET_OPS_H

#include <stddef.h>
#include <stdint.h>

/* Names of config.json: gelu_new/gelu_pytorch_tanh/gelu_fast, gelu, relu, silu/swish, tanh, quick_gelu. */
enum { ACT_GELU_NEW = 0, ACT_GELU = 1, ACT_RELU = 2, ACT_SILU = 3, ACT_TANH = 4, ACT_QUICK_GELU = 5 };
int         ops_act_of_name(const char *name); /* -1 unknown */
const char *ops_act_name(int act);

/* ---- shared by inference and training; deterministic to the bit ---- */

/* Names the arithmetic of this section and of attention, for stored replies: the same text means the same bits.  2: sigmoid, softmax and the log of a sum
 * from e^x for x <= 0; attention's weights are divided by their sum in the end. */
#define OPS_NUMERICS "ops2"

/* out = (x - mean) * rstd * w + b over each row; biased variance.  x, out (n, C); mean, rstd (n,) may be NULL.  out may be x. */
void ops_layernorm(float *out, float *mean, float *rstd, const float *x, const float *w, const float *b, int n, int C, float eps);
/* out = act(x), n elements; out may be x. */
void ops_act(float *out, const float *x, size_t n, int act);
/* x += y */
void ops_add(float *x, const float *y, size_t n);
/* exp with relative error <= 2 ulp; exact 0 below -104, inf above 88.8. */
float ops_exp(float x);
/* Softmax of n logits in place; all -inf gives zeros. */
void ops_softmax(float *x, int n);
/* top[i] = the largest of x[B i .. B i + B), B = OPS_TOP_BLOCK, NaN skipped, -inf when there is none; top (ceil(n / B),).  Returns how many of x
 * are neither NaN nor -inf. */
enum { OPS_TOP_BLOCK = 32 };
int ops_tops(float *top, const float *x, int n);
/* x = exp(x - its maximum), n floats; returns 1 / their sum (0 when all are -inf): a softmax before its last step. */
float ops_exp_row(float *x, int n);
/* x *= by */
void ops_scale(float *x, float by, int n);
/* log(sum(exp(x))) of n floats: of each chunk of OPS_LSE_CHUNK floats the sum in float, in sixteen partial sums, against the chunk's own maximum; chunks
 * in double, in their order. */
double ops_logsumexp(const float *x, int n);
/* The same bits, a row coming in pieces: all but the last are whole chunks. */
enum { OPS_LSE_CHUNK = 512 };
typedef struct {
    float  max;
    double sum; /* of exp(x - max) */
} ops_lse;
#define OPS_LSE_NONE ((ops_lse){ -__builtin_inff(), 0.0 })
void   ops_lse_add(ops_lse *s, const float *x, int n);
double ops_lse_end(const ops_lse *s);

/* ---- training (ops_train.c): f32, matrix products by OpenBLAS, gradients of weights are added, never overwritten ----
 * All matrices are (rows, cols) without gaps, weights (out, in).  The same number of threads gives the same bits.  Scratch `part` is at
 * least OPS_PART(n) * width floats where a function asks for it: sums over rows are taken in pieces of 64 rows, then in order. */
#define OPS_PART(n) (((size_t)(n) + 63) / 64)

/* y = x w^T + b.  y (n, out), x (n, in), w (out, in), b (out,). */
void ops_linear(float *y, const float *x, const float *w, const float *b, int n, int in, int out);
/* y = r + x w^T + b: a branch and its residual r (n, out) in one; y is not r. */
void ops_linear_add(float *y, const float *r, const float *x, const float *w, const float *b, int n, int in, int out);
/* dx = dy w (dx (n, in)). */
void ops_linear_dx(float *dx, const float *dy, const float *w, int n, int in, int out);
/* dw += dy^T x. */
void ops_linear_dw(float *dw, const float *dy, const float *x, int n, int in, int out);
/* db += sum of the rows of dy (n, out).  part: out wide. */
void ops_bias_db(float *db, const float *dy, int n, int out, float *part);

/* dx += gradient through ops_layernorm; dw, db (C,) += .  dy, x, dx (n, C).  part: 2 C wide. */
void ops_layernorm_dx(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, const float *mean, const float *rstd,
                      int n, int C, float *part);
/* Given f (n, F), the argument of the activation, and d (n, F), the gradient at its result: d becomes the gradient at f, f becomes act(f), and
 * db (F,) += column sums of d.  part: F wide. */
void ops_act_dx(float *f, float *d, float *db, int n, int F, int act, float *part);

/* Dropout by counter: element (row, col) of the mask is a hash of (key, row, col) alone. */
typedef struct {
    uint64_t key;
    float    p; /* probability of zero; 0 = off */
} ops_drop;
/* y = x * mask / (1 - p); rows row0 .. row0 + n of the mask.  x, y (n, C); y may be x. */
void ops_dropout(float *y, const float *x, int n, int C, ops_drop d, uint64_t row0);
/* y = r + x * mask / (1 - p). */
void ops_dropout_add(float *y, const float *r, const float *x, int n, int C, ops_drop d, uint64_t row0);

/* Causal self-attention over packed sequences.  qkv (n, 3C) rows q|k|v; len (n_seq,) sums to n; out (n, C).
 * stat (n, n_head, 2) keeps each row's maximum and 1 / sum for the way back.  The probabilities are dropped out with mask row
 * (row0 + query) * n_head + head and column key.  scratch: ops_attention_scratch(longest sequence) floats for each thread. */
typedef struct {
    int        n_seq, n_head, C;
    const int *len;
    float      scale; /* of q.k */
    ops_drop   drop;
    uint64_t   row0;
    int        threads;
    float     *scratch;
} ops_attn;
size_t ops_attention_scratch(int max_len);
void   ops_attention(float *out, float *stat, const float *qkv, const ops_attn *a);
/* dqkv (n, 3C) = gradient at qkv, given dout and what the forward pass left. */
void   ops_attention_dx(float *dqkv, const float *dout, const float *out, const float *stat, const float *qkv, const ops_attn *a);

/* x[t] = wte[id[t]] + wpe[pos[t]]; and back: dwte, dwpe += dx. */
void ops_embed(float *x, const float *wte, const float *wpe, const int *id, const int *pos, int n, int C);
void ops_embed_dw(float *dwte, float *dwpe, const float *dx, const int *id, const int *pos, int n, int C);

/* Head and cross-entropy.  x (n, C) are normalised rows, w (V, C), target (n,), weight (n,).  nll (n,) = -log softmax(x w^T)[target], unweighted.
 * With dw not NULL also the gradients of scale * sum weight * nll: dx (n, C) is set, dw (V, C) is added to.
 * logits: OPS_HEAD_ROWS(V) * V floats, xs: OPS_HEAD_ROWS(V) * C floats of scratch. */
#define OPS_HEAD_ROWS(V) ((1 << 20) / (V) < 128 ? 128 : (1 << 20) / (V) > 512 ? 512 : (1 << 20) / (V))
void ops_head(double *nll, float *dx, float *dw, const float *x, const float *w, const int *target, const float *weight, double scale, int n, int C,
              int V, float *logits, float *xs);

/* sum of squares in double; part: OPS_SQ_PART(n) doubles. */
#define OPS_SQ_PART(n) (((size_t)(n) + 16383) / 16384)
double ops_sumsq(const float *x, size_t n, double *part);
/* One AdamW step over n parameters (Loshchilov & Hutter 2019, as torch.optim.AdamW): g is scaled by `coef`, used and zeroed.
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = p (1 - lr decay) - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps) */
typedef struct {
    double lr, beta1, beta2, eps, decay, c1, c2, coef; /* c1 = 1 - beta1^t, c2 = 1 - beta2^t */
} ops_adam;
void ops_adamw(float *p, float *g, float *m, float *v, size_t n, const ops_adam *a);

#endif
