/* train: see train.h.  A batch is worked through in blocks of whole sequences (about BLOCK rows): forward, head, backward for one block while its
 * activations are near, then the next.  So the memory for activations does not grow with the batch.
 * Refuses: ids out of range, sequences longer than n_ctx, weights that are negative or sit at a start, no target at all, a loss or
 * gradient that is not finite, a checkpoint of another shape or without moments. */
#include "models/train.h"

#include "models/ops.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024 /* rows: enough for full speed of the matrix products */ };

/* What one layer keeps for the way back; R rows. */
typedef struct {
    float *x1;          /* (R, C) residual stream before attention */
    float *ln1, *mean1, *rstd1; /* (R, C), (R,), (R,) */
    float *qkv;         /* (R, 3C) */
    float *att, *stat;  /* (R, C), (R, n_head, 2) */
    float *x2;          /* (R, C) after attention */
    float *ln2, *mean2, *rstd2;
    float *f;           /* (R, F) argument of the activation; the backward pass leaves its result here */
} layer_acts;

/* Everything else that is not a parameter; sizes in floats where not said. */
typedef struct {
    layer_acts *h;             /* (n_layer,) */
    float      *x;             /* (R, C) behind the last layer */
    float      *xg, *xn, *mean, *rstd; /* rows that predict a target: gathered x, its final norm (R, C), (R,) */
    float      *dxg, *dxn;     /* (R, C) */
    float      *dx, *tmp;      /* (R, C) */
    float      *dqkv, *wide;   /* (R, 3C), (R, F) */
    float      *part;          /* partial sums */
    float      *logits, *xs;   /* (OPS_HEAD_ROWS, V), (OPS_HEAD_ROWS, C) */
    float      *scratch;       /* of attention, for each thread */
    float      *weight;        /* (R,) of the gathered rows */
    double     *nll;           /* (R,) */
    double     *sq;            /* partial sums of squares over the gradient */
    int        *row, *target;  /* (R,) the gathered rows and what they predict */
    int        *pos;           /* (R,) */
} workspace;

struct trainer {
    gpt2_config  c;
    train_opts   o;
    gpt2_tensor *tensor;
    int          n_tensors, max_tok, max_seq, threads;
    size_t       n_params;
    float       *param, *grad, *m, *v; /* one allocation, (n_params,) each, in this order */
    gpt2_params  w, d;                 /* named pointers into param and grad */
    void        *slab;                 /* the workspace */
    workspace    s;
    long         step;
    uint64_t     micro;                /* backward passes since the last update: part of the dropout key */
};

/* ---- options and schedules ------------------------------------------------------------------------------------- */

static const char *const sched_names[] = { "constant", "linear", "cosine", "noam" };

int train_sched_of_name(const char *name)
{
    for (int i = 0; name && i < 4; i++)
        if (strcmp(name, sched_names[i]) == 0) return i;
    return -1;
}

double train_lr(int sched, double lr, long step, long warmup, long total, double min_ratio, int n_embd)
{
    if (sched == SCHED_NOAM) {
        double s = (double)step + 1.0, w = warmup > 0 ? (double)warmup : 1.0;
        return lr * 1e4 / sqrt((double)n_embd) * fmin(1.0 / sqrt(s), s / (w * sqrt(w)));
    }
    if (step < warmup) return lr * (double)step / (double)warmup;
    if (sched == SCHED_CONSTANT) return lr;
    double left = step >= total ? 0.0 : (double)(total - step) / (double)(total - warmup); /* 1 .. 0 */
    if (sched == SCHED_COSINE) left = 0.5 * (1.0 - cos(3.14159265358979323846 * left));
    return lr * (min_ratio + (1.0 - min_ratio) * left);
}

train_opts train_defaults(void)
{
    return (train_opts){ .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .decay_all = 0, .clip = 1.0, .dropout = 0.0f, .seed = 1 };
}

static int opts_check(const train_opts *o, err *e)
{
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return err_set(e, E_ARG, "AdamW betas are %g and %g, 0 <= beta < 1 wanted", o->beta1, o->beta2);
    if (!(o->eps > 0 && o->eps < 1)) return err_set(e, E_ARG, "AdamW eps is %g, 0 < eps < 1 wanted", o->eps);
    if (!(o->weight_decay >= 0 && o->weight_decay < 1e6)) return err_set(e, E_ARG, "weight decay is %g, 0 or more wanted", o->weight_decay);
    if (!(o->clip >= 0 && isfinite(o->clip))) return err_set(e, E_ARG, "gradient clip is %g, 0 (off) or more wanted", o->clip);
    if (!(o->dropout >= 0 && o->dropout < 1)) return err_set(e, E_ARG, "dropout is %g, 0 <= p < 1 wanted", (double)o->dropout);
    return OK;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Bump allocation over a slab, or only its sum when there is none. */
typedef struct {
    char  *base;
    size_t used;
} bump;
static void *take(bump *b, size_t n, size_t size)
{
    void *p = b->base ? b->base + b->used : NULL;
    b->used += (n * size + 63) / 64 * 64; /* sizes are bounded by gpt2_config_check: no overflow */
    return p;
}
static float *floats(bump *b, size_t rows, int cols) { return take(b, rows * (size_t)cols, sizeof(float)); }

static int block_rows(const gpt2_config *c, int max_tok)
{
    int r = c->n_ctx > BLOCK ? c->n_ctx : BLOCK;
    return max_tok < r ? max_tok : r;
}

static size_t workspace_map(workspace *s, const gpt2_config *c, size_t n_params, int max_tok, int threads, char *base)
{
    bump      b = { base, 0 };
    const int C = c->n_embd, F = c->n_inner, V = c->n_vocab, rows = block_rows(c, max_tok), head = OPS_HEAD_ROWS(V);
    size_t    R = (size_t)rows, widest = (size_t)(F > 3 * C ? F : 3 * C);
    s->h = take(&b, (size_t)c->n_layer, sizeof *s->h);
    for (int l = 0; l < c->n_layer; l++) {
        layer_acts a;
        a.x1 = floats(&b, R, C), a.ln1 = floats(&b, R, C), a.mean1 = floats(&b, R, 1), a.rstd1 = floats(&b, R, 1);
        a.qkv = floats(&b, R, 3 * C), a.att = floats(&b, R, C), a.stat = floats(&b, R, 2 * c->n_head);
        a.x2 = floats(&b, R, C), a.ln2 = floats(&b, R, C), a.mean2 = floats(&b, R, 1), a.rstd2 = floats(&b, R, 1);
        a.f = floats(&b, R, F);
        if (base) s->h[l] = a;
    }
    s->x  = floats(&b, R, C);
    s->xg = floats(&b, R, C), s->xn = floats(&b, R, C), s->mean = floats(&b, R, 1), s->rstd = floats(&b, R, 1);
    s->dxg = floats(&b, R, C), s->dxn = floats(&b, R, C), s->dx = floats(&b, R, C), s->tmp = floats(&b, R, C);
    s->dqkv = floats(&b, R, 3 * C), s->wide = floats(&b, R, F);
    s->part   = take(&b, OPS_PART(R) * widest, sizeof(float));
    s->logits = floats(&b, (size_t)head, V), s->xs = floats(&b, (size_t)head, C);
    s->scratch = take(&b, ops_attention_scratch(c->n_ctx < rows ? c->n_ctx : rows) * (size_t)threads, sizeof(float));
    s->weight  = floats(&b, R, 1);
    s->nll = take(&b, R, sizeof *s->nll), s->sq = take(&b, OPS_SQ_PART(n_params), sizeof *s->sq);
    s->row = take(&b, R, sizeof(int)), s->target = take(&b, R, sizeof(int)), s->pos = take(&b, R, sizeof(int));
    return b.used;
}

size_t trainer_bytes(const gpt2_config *c, int max_tok, int max_seq)
{
    (void)max_seq; /* sequences take no memory of their own */
    gpt2_tensor *list;
    size_t       n_params;
    workspace    s;
    if (gpt2_config_check(c, NULL) || max_tok < 1 || gpt2_tensors(c, &list, &n_params, NULL) < 0) return 0;
    free(list);
    return 4 * n_params * sizeof(float) + workspace_map(&s, c, n_params, max_tok, omp_get_max_threads(), NULL);
}

static void *zeroed(size_t n)
{
    void *p = NULL;
    if (n > SIZE_MAX / 2 || posix_memalign(&p, 64, n ? n : 64)) return NULL;
    return memset(p, 0, n);
}

int trainer_new(trainer **out, const gpt2_config *c, const train_opts *o, int max_tok, int max_seq, err *e)
{
    *out  = NULL;
    int r = gpt2_config_check(c, e);
    if (r == OK) r = opts_check(o, e);
    if (r != OK) return r;
    if (max_tok < 1 || max_seq < 1) return err_set(e, E_ARG, "a trainer for %d tokens in %d sequences: both must be positive", max_tok, max_seq);
    trainer *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, E_NOMEM, "out of memory for a trainer");
    t->c = *c, t->o = *o, t->max_tok = max_tok, t->max_seq = max_seq, t->threads = omp_get_max_threads();
    t->n_tensors = gpt2_tensors(c, &t->tensor, &t->n_params, e);
    if (t->n_tensors < 0) {
        r = t->n_tensors;
        trainer_free(t);
        return r;
    }
    size_t bytes = workspace_map(&t->s, c, t->n_params, max_tok, t->threads, NULL);
    t->param     = zeroed(4 * t->n_params * sizeof(float));
    t->slab      = zeroed(bytes);
    if (!t->param || !t->slab) {
        trainer_free(t);
        return err_set(e, E_NOMEM, "out of memory: training needs %zu MB", trainer_bytes(c, max_tok, max_seq) >> 20);
    }
    t->grad = t->param + t->n_params, t->m = t->grad + t->n_params, t->v = t->m + t->n_params;
    workspace_map(&t->s, c, t->n_params, max_tok, t->threads, t->slab);
    if ((r = gpt2_params_map(&t->w, c, t->param, e)) || (r = gpt2_params_map(&t->d, c, t->grad, e))) {
        trainer_free(t);
        return r;
    }
    *out = t;
    return OK;
}

void trainer_free(trainer *t)
{
    if (!t) return;
    gpt2_params_free(&t->w);
    gpt2_params_free(&t->d);
    free(t->tensor);
    free(t->param);
    free(t->slab);
    free(t);
}

float *trainer_params(trainer *t) { return t->param; }
float *trainer_grads(trainer *t) { return t->grad; }
size_t trainer_n_params(const trainer *t) { return t->n_params; }
long   trainer_step(const trainer *t) { return t->step; }

void trainer_zero_grad(trainer *t)
{
    memset(t->grad, 0, t->n_params * sizeof *t->grad);
    t->micro = 0;
}

/* Standard deviation of a tensor's start values; < 0: all ones. */
static double init_std(const gpt2_config *c, const gpt2_tensor *t)
{
    const char *dot = strrchr(t->hf, '.');
    if (t->vector) return dot && strcmp(dot, ".weight") == 0 ? -1.0 : 0.0; /* LayerNorm weights; every bias */
    if (strcmp(t->hf, "wpe.weight") == 0) return 0.01;
    if (strstr(t->hf, ".c_proj.")) return 0.02 / sqrt(2.0 * c->n_layer);
    return 0.02;
}

void trainer_init(trainer *t, uint64_t seed)
{
    for (int i = 0; i < t->n_tensors; i++) {
        float *p   = t->param + t->tensor[i].offset;
        size_t n   = (size_t)t->tensor[i].rows * (size_t)t->tensor[i].cols;
        double std = init_std(&t->c, &t->tensor[i]);
#pragma omp parallel for schedule(static) if (n > 4096)
        for (size_t k = 0; k < n; k++) p[k] = std < 0 ? 1.0f : std == 0 ? 0.0f : (float)(std * rng_normal(seed, (uint64_t)i, k));
    }
    memset(t->m, 0, 2 * t->n_params * sizeof *t->m);
    trainer_zero_grad(t);
    t->step = 0;
}

/* ---- the batch ------------------------------------------------------------------------------------------------- */

static int batch_check(const trainer *t, const train_batch *b, int need_target, err *e)
{
    if (b->n_tok < 1 || b->n_seq < 1) return err_set(e, E_ARG, "training batch: empty (%d tokens in %d sequences)", b->n_tok, b->n_seq);
    if (b->n_tok > t->max_tok || b->n_seq > t->max_seq)
        return err_set(e, E_LIMIT, "training batch: %d tokens in %d sequences, the trainer was made for %d in %d", b->n_tok, b->n_seq,
                       t->max_tok, t->max_seq);
    int at = 0, targets = 0;
    for (int s = 0; s < b->n_seq; s++) {
        int n = b->len[s];
        if (n < 1 || n > b->n_tok - at)
            return err_set(e, E_ARG, "training batch: sequence %d has length %d, %d tokens are left", s, n, b->n_tok - at);
        if (n > t->c.n_ctx) return err_set(e, E_LIMIT, "training batch: sequence %d has %d tokens, n_ctx is %d", s, n, t->c.n_ctx);
        if (b->weight[at] != 0.0f)
            return err_set(e, E_ARG, "training batch: sequence %d: its first token has weight %g, nothing precedes it", s, (double)b->weight[at]);
        for (int i = at; i < at + n; i++) {
            if (b->id[i] < 0 || b->id[i] >= t->c.n_vocab)
                return err_set(e, E_ARG, "training batch: sequence %d, token %d: id %d is out of range, n_vocab is %d", s, i - at, b->id[i],
                               t->c.n_vocab);
            if (!(b->weight[i] >= 0.0f) || !isfinite(b->weight[i]))
                return err_set(e, E_ARG, "training batch: sequence %d, token %d: weight %g, 0 or more wanted", s, i - at, (double)b->weight[i]);
            targets += b->weight[i] > 0.0f;
        }
        at += n;
    }
    if (at != b->n_tok) return err_set(e, E_ARG, "training batch: sequences hold %d tokens, the batch %d", at, b->n_tok);
    if (need_target && !targets) return err_set(e, E_ARG, "training batch: no target: every token has weight 0");
    return OK;
}

/* Whole sequences that fit the block. */
typedef struct {
    int s0, n_seq; /* first sequence, how many */
    int t0, n;     /* first token, how many */
} block;

static int next_block(const train_batch *b, int rows, block *k)
{
    k->s0 += k->n_seq, k->t0 += k->n;
    k->n_seq = k->n = 0;
    while (k->s0 + k->n_seq < b->n_seq && b->len[k->s0 + k->n_seq] <= rows - k->n) k->n += b->len[k->s0 + k->n_seq++];
    return k->n > 0;
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

enum { DROP_ATT, DROP_PROJ, DROP_MLP, DROP_SITES };

/* A mask's key: site within the net, step, and which backward pass since the last update. */
static ops_drop drop_at(const trainer *t, float p, int layer, int site)
{
    uint64_t sites = (uint64_t)(t->c.n_layer + 1) * DROP_SITES; /* layer -1 stands for the embedding */
    ops_drop d     = { 0, p };
    if (p > 0) d.key = rng_u64(t->o.seed, (uint64_t)t->step | 1ull << 63, t->micro * sites + (uint64_t)((layer + 1) * DROP_SITES + site));
    return d;
}

static ops_attn attn_of(const trainer *t, const train_batch *b, const block *k, int layer, float p)
{
    double scale = t->c.scale_attn ? 1.0 / sqrt((double)(t->c.n_embd / t->c.n_head)) : 1.0;
    if (t->c.scale_attn_by_layer) scale /= layer + 1;
    return (ops_attn){ .n_seq = k->n_seq, .n_head = t->c.n_head, .C = t->c.n_embd, .len = b->len + k->s0, .scale = (float)scale,
                       .drop = drop_at(t, p, layer, DROP_ATT), .row0 = (uint64_t)k->t0, .threads = t->threads, .scratch = t->s.scratch };
}

/* y = r + dropout(x w^T + b) */
static void branch(const trainer *t, float *y, const float *r, const float *x, const float *w, const float *bias, int n, int in, ops_drop d, int t0)
{
    const int C = t->c.n_embd;
    if (d.p > 0) {
        ops_linear(t->s.tmp, x, w, bias, n, in, C);
        ops_dropout_add(y, r, t->s.tmp, n, C, d, (uint64_t)t0);
    } else {
        ops_linear_add(y, r, x, w, bias, n, in, C);
    }
}

static void forward(trainer *t, const train_batch *b, const block *k, float p)
{
    const gpt2_config *c = &t->c;
    const int          C = c->n_embd, F = c->n_inner, n = k->n;
    const int         *id = b->id + k->t0;
    workspace         *s = &t->s;
    for (int q = 0, i = 0; q < k->n_seq; q++)
        for (int j = 0; j < b->len[k->s0 + q]; j++) s->pos[i++] = j;
    ops_embed(s->h[0].x1, t->w.wte, t->w.wpe, id, s->pos, n, C);
    if (p > 0) ops_dropout(s->h[0].x1, s->h[0].x1, n, C, drop_at(t, p, -1, 0), (uint64_t)k->t0);
    for (int l = 0; l < c->n_layer; l++) {
        const gpt2_layer *w = &t->w.h[l];
        layer_acts       *a = &s->h[l];
        float            *next = l + 1 < c->n_layer ? s->h[l + 1].x1 : s->x;
        ops_attn          at = attn_of(t, b, k, l, p);
        ops_layernorm(a->ln1, a->mean1, a->rstd1, a->x1, w->ln_1_w, w->ln_1_b, n, C, c->eps);
        ops_linear(a->qkv, a->ln1, w->c_attn_w, w->c_attn_b, n, C, 3 * C);
        ops_attention(a->att, a->stat, a->qkv, &at);
        branch(t, a->x2, a->x1, a->att, w->attn_proj_w, w->attn_proj_b, n, C, drop_at(t, p, l, DROP_PROJ), k->t0);
        ops_layernorm(a->ln2, a->mean2, a->rstd2, a->x2, w->ln_2_w, w->ln_2_b, n, C, c->eps);
        ops_linear(a->f, a->ln2, w->c_fc_w, w->c_fc_b, n, C, F);
        ops_act(s->wide, a->f, (size_t)n * (size_t)F, c->act);
        branch(t, next, a->x2, s->wide, w->mlp_proj_w, w->mlp_proj_b, n, F, drop_at(t, p, l, DROP_MLP), k->t0);
    }
}

/* The rows that predict a target, gathered, through the final norm and the head; with `back` also dx (n, C) behind the last layer and the
 * gradients of head and final norm.  Rows without a target cost nothing here.  Returns their number; nll in s->nll. */
static int head(trainer *t, const train_batch *b, const block *k, int back, double scale)
{
    const int  C = t->c.n_embd, V = t->c.n_vocab;
    workspace *s = &t->s;
    int        n = 0;
    for (int i = 1; i < k->n; i++) {
        if (b->weight[k->t0 + i] == 0.0f) continue;
        s->row[n] = i - 1, s->target[n] = b->id[k->t0 + i], s->weight[n] = b->weight[k->t0 + i];
        memcpy(s->xg + (size_t)n++ * (size_t)C, s->x + (size_t)(i - 1) * (size_t)C, (size_t)C * sizeof *s->x);
    }
    ops_layernorm(s->xn, s->mean, s->rstd, s->xg, t->w.ln_f_w, t->w.ln_f_b, n, C, t->c.eps);
    ops_head(s->nll, s->dxn, back ? t->d.lm_head : NULL, s->xn, t->w.lm_head, s->target, s->weight, scale, n, C, V, s->logits, s->xs);
    if (!back) return n;
    memset(s->dxg, 0, (size_t)n * (size_t)C * sizeof *s->dxg);
    ops_layernorm_dx(s->dxg, t->d.ln_f_w, t->d.ln_f_b, s->dxn, s->xg, t->w.ln_f_w, s->mean, s->rstd, n, C, s->part);
    memset(s->dx, 0, (size_t)k->n * (size_t)C * sizeof *s->dx);
    for (int i = 0; i < n; i++) memcpy(s->dx + (size_t)s->row[i] * (size_t)C, s->dxg + (size_t)i * (size_t)C, (size_t)C * sizeof *s->dx);
    return n;
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* s->dx comes in as the gradient behind the last layer; the mirror of forward(). */
static void backward(trainer *t, const train_batch *b, const block *k, float p)
{
    const gpt2_config *c = &t->c;
    const int          C = c->n_embd, F = c->n_inner, n = k->n;
    workspace         *s = &t->s;
    float             *dx = s->dx;
    for (int l = c->n_layer - 1; l >= 0; l--) {
        const gpt2_layer *w = &t->w.h[l];
        gpt2_layer       *d = &t->d.h[l];
        layer_acts       *a = &s->h[l];
        ops_attn          at = attn_of(t, b, k, l, p);
        const float      *dy = dx; /* gradient at a branch's end */
        if (p > 0) ops_dropout(s->tmp, dx, n, C, drop_at(t, p, l, DROP_MLP), (uint64_t)k->t0), dy = s->tmp;
        ops_bias_db(d->mlp_proj_b, dy, n, C, s->part);
        ops_linear_dx(s->wide, dy, w->mlp_proj_w, n, F, C);
        ops_act_dx(a->f, s->wide, d->c_fc_b, n, F, c->act, s->part);
        ops_linear_dw(d->mlp_proj_w, dy, a->f, n, F, C);
        ops_linear_dw(d->c_fc_w, s->wide, a->ln2, n, C, F);
        ops_linear_dx(s->dxn, s->wide, w->c_fc_w, n, C, F);
        ops_layernorm_dx(dx, d->ln_2_w, d->ln_2_b, s->dxn, a->x2, w->ln_2_w, a->mean2, a->rstd2, n, C, s->part);

        dy = dx;
        if (p > 0) ops_dropout(s->tmp, dx, n, C, drop_at(t, p, l, DROP_PROJ), (uint64_t)k->t0), dy = s->tmp;
        ops_bias_db(d->attn_proj_b, dy, n, C, s->part);
        ops_linear_dw(d->attn_proj_w, dy, a->att, n, C, C);
        ops_linear_dx(s->dxn, dy, w->attn_proj_w, n, C, C);
        ops_attention_dx(s->dqkv, s->dxn, a->att, a->stat, a->qkv, &at);
        ops_bias_db(d->c_attn_b, s->dqkv, n, 3 * C, s->part);
        ops_linear_dw(d->c_attn_w, s->dqkv, a->ln1, n, C, 3 * C);
        ops_linear_dx(s->dxn, s->dqkv, w->c_attn_w, n, C, 3 * C);
        ops_layernorm_dx(dx, d->ln_1_w, d->ln_1_b, s->dxn, a->x1, w->ln_1_w, a->mean1, a->rstd1, n, C, s->part);
    }
    if (p > 0) ops_dropout(dx, dx, n, C, drop_at(t, p, -1, 0), (uint64_t)k->t0);
    ops_embed_dw(t->d.wte, t->d.wpe, dx, b->id + k->t0, s->pos, n, C);
}

/* ---- one pass over a batch ------------------------------------------------------------------------------------- */

/* Adds a block's losses up, in order; E_ARG when one is not finite. */
static int tally(const trainer *t, const train_batch *b, const block *k, int n, double *nll, double *n_target, double *seq_nll, double *seq_n, err *e)
{
    const workspace *s = &t->s;
    int              seq = k->s0, end = b->len[k->s0];
    for (int i = 0; i < n; i++) {
        while (s->row[i] + 1 >= end) end += b->len[++seq];
        if (!isfinite(s->nll[i]))
            return err_set(e, E_ARG, "training step %ld: the loss is not finite (sequence %d, predicting id %d)", t->step, seq, s->target[i]);
        double w = (double)s->weight[i];
        *nll += w * s->nll[i];
        *n_target += w;
        if (seq_nll) seq_nll[seq] += w * s->nll[i];
        if (seq_n) seq_n[seq] += w;
    }
    return OK;
}

int trainer_backward(trainer *t, const train_batch *b, double scale, double *nll, double *n_target, err *e)
{
    int   r = batch_check(t, b, 1, e);
    block k = { 0, 0, 0, 0 };
    *nll = *n_target = 0.0;
    if (r != OK) return r;
    if (!isfinite(scale)) return err_set(e, E_ARG, "loss scale is %g, a finite number wanted", scale);
    for (int rows = block_rows(&t->c, t->max_tok); next_block(b, rows, &k);) {
        forward(t, b, &k, t->o.dropout);
        int n = head(t, b, &k, 1, scale);
        if ((r = tally(t, b, &k, n, nll, n_target, NULL, NULL, e)) != OK) {
            trainer_zero_grad(t); /* what the earlier blocks added is of no use */
            return r;
        }
        if (n > 0) backward(t, b, &k, t->o.dropout);
    }
    t->micro++;
    return OK;
}

int trainer_eval(trainer *t, const train_batch *b, double *nll, double *n_target, double *seq_nll, double *seq_n, err *e)
{
    int   r = batch_check(t, b, 0, e);
    block k = { 0, 0, 0, 0 };
    *nll = *n_target = 0.0;
    if (r != OK) return r;
    for (int s = 0; s < b->n_seq; s++) {
        if (seq_nll) seq_nll[s] = 0.0;
        if (seq_n) seq_n[s] = 0.0;
    }
    for (int rows = block_rows(&t->c, t->max_tok); r == OK && next_block(b, rows, &k);) {
        forward(t, b, &k, 0.0f);
        r = tally(t, b, &k, head(t, b, &k, 0, 0.0), nll, n_target, seq_nll, seq_n, e);
    }
    return r;
}

int trainer_update(trainer *t, double lr, double *norm, err *e)
{
    const train_opts *o  = &t->o;
    double            sq = ops_sumsq(t->grad, t->n_params, t->s.sq);
    *norm                = sqrt(sq);
    if (!isfinite(lr) || lr < 0) return err_set(e, E_ARG, "learning rate is %g, 0 or more wanted", lr);
    if (!isfinite(sq)) {
        const char *name = "";
        for (int i = 0; i < t->n_tensors && !*name; i++) {
            const gpt2_tensor *q = &t->tensor[i];
            if (!isfinite(ops_sumsq(t->grad + q->offset, (size_t)q->rows * (size_t)q->cols, t->s.sq))) name = q->hf;
        }
        trainer_zero_grad(t);
        return err_set(e, E_ARG, "training step %ld: the gradient of %s is not finite; the step is not taken", t->step, name);
    }
    double   n = (double)(t->step + 1);
    ops_adam a = { .lr = lr, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .coef = 1.0,
                   .c1 = 1.0 - pow(o->beta1, n), .c2 = 1.0 - pow(o->beta2, n) };
    if (o->clip > 0) a.coef = fmin(1.0, o->clip / (*norm + 1e-6));
    for (int i = 0; i < t->n_tensors; i++) {
        const gpt2_tensor *q = &t->tensor[i];
        a.decay              = o->decay_all || (q->flags & T_DECAY) ? o->weight_decay : 0.0;
        ops_adamw(t->param + q->offset, t->grad + q->offset, t->m + q->offset, t->v + q->offset, (size_t)q->rows * (size_t)q->cols, &a);
    }
    t->step++;
    t->micro = 0;
    return OK;
}

/* ---- checkpoints ----------------------------------------------------------------------------------------------- */

static const char *const moment[2] = { "m", "v" };

static void moment_name(char out[80], int k, const gpt2_tensor *q) { snprintf(out, 80, "opt.%s.%s", moment[k], q->gguf); }

int trainer_save(const trainer *t, const char *path, const tokenizer *tok, const gpt2_meta *m, str state, int slim, err *e)
{
    gguf_writer *w;
    char         name[80], opts[256];
    int          r = gguf_create(&w, path, e);
    if (r != OK) return r;
    gpt2_write_keys(w, &t->c, tok, m, NULL);
    if (!slim) {
        const train_opts *o = &t->o;
        snprintf(opts, sizeof opts, "beta1=%.9g beta2=%.9g eps=%.9g weight_decay=%.9g decay_all=%d clip=%.9g dropout=%.9g seed=%llu",
                 o->beta1, o->beta2, o->eps, o->weight_decay, o->decay_all, o->clip, (double)o->dropout, (unsigned long long)o->seed);
        gguf_put_u64(w, "duet.train.step", (uint64_t)t->step);
        gguf_put_str(w, "duet.train.adamw", str_of(opts));
        gguf_put_str(w, "duet.train.state", state);
    }
    gpt2_write_declare(w, &t->c, NULL);
    for (int k = 0; k < 2 && !slim; k++)
        for (int i = 0; i < t->n_tensors; i++) {
            const gpt2_tensor *q = &t->tensor[i];
            moment_name(name, k, q);
            gguf_declare(w, name, GT_F32, q->vector ? 1 : 2, (uint64_t[]){ (uint64_t)q->cols, (uint64_t)q->rows });
        }
    r = gpt2_write_data(w, &t->c, t->param, NULL, e);
    for (int k = 0; k < 2 && !slim && r == OK; k++)
        for (int i = 0; i < t->n_tensors && r == OK; i++) {
            const gpt2_tensor *q = &t->tensor[i];
            r = gguf_data(w, (k ? t->v : t->m) + q->offset, (size_t)q->rows * (size_t)q->cols * sizeof(float), e);
        }
    if (r == OK) r = gguf_finish(w, e);
    if (r != OK) gguf_discard(w);
    return r;
}

/* The moment tensor k (0 m, 1 v) of a parameter tensor, checked: f32, same shape, finite, v not negative. */
static const gguf_tensor *moment_of(const gguf *g, int k, const gpt2_tensor *q, err *e)
{
    char name[80];
    moment_name(name, k, q);
    const gguf_tensor *f = gguf_find(g, name);
    if (!f) {
        err_set(e, E_FORMAT, "%s: tensor %s is missing: not a checkpoint, or its optimizer state was stripped", gguf_path(g), name);
        return NULL;
    }
    size_t n = (size_t)q->rows * (size_t)q->cols;
    if (f->type != GT_F32 || f->ne[0] != (uint64_t)q->cols || f->n_dims != (q->vector ? 1 : 2) || (!q->vector && f->ne[1] != (uint64_t)q->rows) ||
        f->n_bytes != n * sizeof(float)) {
        err_set(e, E_FORMAT, "%s: tensor %s is not f32 of shape (%d, %d)", gguf_path(g), name, q->rows, q->cols);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, f->data + i * sizeof x, sizeof x);
        if (!isfinite(x) || (k && x < 0)) {
            err_set(e, E_FORMAT, "%s: tensor %s element %zu is %g", gguf_path(g), name, i, (double)x);
            return NULL;
        }
    }
    return f;
}

static int same_config(const gpt2_config *a, const gpt2_config *b)
{
    return a->n_vocab == b->n_vocab && a->n_ctx == b->n_ctx && a->n_embd == b->n_embd && a->n_head == b->n_head && a->n_layer == b->n_layer &&
           a->n_inner == b->n_inner && a->eps == b->eps && a->act == b->act && a->scale_attn == b->scale_attn &&
           a->scale_attn_by_layer == b->scale_attn_by_layer && a->tied == b->tied;
}

/* The moments are checked before anything is changed and the weights go through the gradient slab: a bad file leaves the trainer as it
 * was, but for the gradients, which are zero then. */
static int resume(trainer *t, const gguf *g, buf *state, err *e)
{
    gpt2_config c;
    uint64_t    step;
    str         kept = { NULL, 0 };
    int         r = gpt2_read_config(g, &c, e);
    if (r != OK) return r;
    if (!same_config(&c, &t->c))
        return err_set(e, E_ARG, "%s: another model: V=%d P=%d C=%d H=%d L=%d F=%d, the trainer has V=%d P=%d C=%d H=%d L=%d F=%d"
                       " (or eps, activation, flags differ)", gguf_path(g), c.n_vocab, c.n_ctx, c.n_embd, c.n_head, c.n_layer, c.n_inner, t->c.n_vocab, t->c.n_ctx, t->c.n_embd, t->c.n_head,
                       t->c.n_layer, t->c.n_inner);
    if ((r = gguf_get_u64(g, "duet.train.step", &step, e)) < 0) return r;
    if (r == 0 || step > 1ull << 40) return err_set(e, E_FORMAT, "%s: no usable key duet.train.step: not a checkpoint", gguf_path(g));
    if ((r = gguf_get_str(g, "duet.train.state", &kept, e)) < 0) return r;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < t->n_tensors; i++)
            if (!moment_of(g, k, &t->tensor[i], e)) return E_FORMAT;
    r = gpt2_read_slab(g, &t->c, t->grad, e);
    if (r == OK) {
        memcpy(t->param, t->grad, t->n_params * sizeof *t->param);
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < t->n_tensors; i++) {
                const gguf_tensor *f = moment_of(g, k, &t->tensor[i], e);
                memcpy((k ? t->v : t->m) + t->tensor[i].offset, f->data, f->n_bytes);
            }
        t->step = (long)step;
        if (state) buf_reset(state), buf_str(state, kept);
        if (state && state->oom) r = err_set(e, E_NOMEM, "%s: out of memory for the saved state", gguf_path(g));
    }
    trainer_zero_grad(t);
    return r;
}

int trainer_resume(trainer *t, const char *path, buf *state, err *e)
{
    gguf *g;
    int   r = gguf_open(&g, path, e);
    if (r != OK) return r;
    r = resume(t, g, state, e);
    gguf_close(g);
    return r;
}
