/* prune: see prune.h. */
#include "models/prune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for pruning"); }

static size_t n_params(const gpt2_config *c)
{
    gpt2_tensor *list;
    size_t       n = 0;
    if (gpt2_tensors(c, &list, &n, NULL) < 0) return SIZE_MAX;
    free(list);
    return n;
}

/* ---- cutting --------------------------------------------------------------------------------------------------- */

static int *counted(int n, int lists) /* 0 … n-1, again and again */
{
    int *v = malloc((size_t)n * (size_t)lists * sizeof *v);
    for (size_t i = 0; v && i < (size_t)n * (size_t)lists; i++) v[i] = (int)(i % (size_t)n);
    return v;
}

int prune_cut_new(prune_cut *k, const gpt2_config *c, err *e)
{
    *k         = (prune_cut){ c->n_layer, c->n_head, c->n_inner, c->n_embd, c->n_vocab, NULL, NULL, NULL, NULL, NULL };
    k->layer   = counted(c->n_layer, 1);
    k->head    = counted(c->n_head, c->n_layer);
    k->column  = counted(c->n_inner, c->n_layer);
    k->channel = counted(c->n_embd, 1);
    k->token   = counted(c->n_vocab, 1);
    if (k->layer && k->head && k->column && k->channel && k->token) return OK;
    prune_cut_free(k);
    return no_memory(e);
}

void prune_cut_free(prune_cut *k)
{
    free(k->layer);
    free(k->head);
    free(k->column);
    free(k->channel);
    free(k->token);
    memset(k, 0, sizeof *k);
}

typedef struct {
    const int *i;
    int        n;
} picked;
static const int first_row[1] = { 0 };
static const picked one_row   = { first_row, 1 };

static void gather(float *to, const float *from, int cols, picked r, picked c)
{
    for (int i = 0; i < r.n; i++)
        for (int j = 0; j < c.n; j++) *to++ = from[(size_t)r.i[i] * (size_t)cols + (size_t)c.i[j]];
}

/* The rows of attn_qkv that belong to the heads (n,) of size D: three times them, and once the columns of attn_output. */
static void head_rows(const int *head, int n, int D, int C, int *qkv)
{
    for (int third = 0; third < 3; third++)
        for (int i = 0; i < n; i++)
            for (int d = 0; d < D; d++) *qkv++ = third * C + head[i] * D + d;
}

static void cut_layer(gpt2_layer *to, const gpt2_layer *from, const gpt2_config *c, picked qkv, picked channel, picked column)
{
    const int C = c->n_embd, F = c->n_inner;
    picked    att = { qkv.i, qkv.n / 3 }; /* its first third: the queries' places are the heads' outputs' */
    gather(to->ln_1_w, from->ln_1_w, C, one_row, channel);
    gather(to->ln_1_b, from->ln_1_b, C, one_row, channel);
    gather(to->c_attn_w, from->c_attn_w, C, qkv, channel);
    gather(to->c_attn_b, from->c_attn_b, 3 * C, one_row, qkv);
    gather(to->attn_proj_w, from->attn_proj_w, C, channel, att);
    gather(to->attn_proj_b, from->attn_proj_b, C, one_row, channel);
    gather(to->ln_2_w, from->ln_2_w, C, one_row, channel);
    gather(to->ln_2_b, from->ln_2_b, C, one_row, channel);
    gather(to->c_fc_w, from->c_fc_w, C, column, channel);
    gather(to->c_fc_b, from->c_fc_b, F, one_row, column);
    gather(to->mlp_proj_w, from->mlp_proj_w, F, channel, column);
    gather(to->mlp_proj_b, from->mlp_proj_b, C, one_row, channel);
}

/* scale_attn_by_layer divides by place + 1: what moves from `was` to `is` had more of that. */
static void keep_scale(gpt2_layer *l, int C_to, int C_from, int was, int is)
{
    float by = (float)(is + 1) / (float)(was + 1);
    for (size_t i = 0; i < (size_t)C_to * (size_t)C_from; i++) l->c_attn_w[i] *= by;
    for (int i = 0; i < C_to; i++) l->c_attn_b[i] *= by;
}

static gpt2_config cut_config(const gpt2_config *from, const prune_cut *k)
{
    gpt2_config c = *from;
    c.n_layer = k->n_layer, c.n_head = k->n_head, c.n_inner = k->n_inner, c.n_embd = k->n_embd, c.n_vocab = k->n_vocab;
    return c;
}

int prune_apply(const gpt2_config *from, const float *slab, const prune_cut *k, gpt2_config *to, float **out, err *e)
{
    gpt2_params src = { 0 }, dst = { 0 };
    const int   C = from->n_embd, D = C / from->n_head;
    picked      channel = { k->channel, k->n_embd }, token = { k->token, k->n_vocab };
    *to          = cut_config(from, k);
    *out         = NULL;
    int *all_pos = counted(from->n_ctx, 1), *rows = malloc((size_t)k->n_head * (size_t)D * 3 * sizeof *rows);
    int  r       = gpt2_config_check(to, e);
    if (r == OK && !(*out = malloc(n_params(to) * sizeof **out))) r = no_memory(e);
    if (r == OK && (!all_pos || !rows)) r = no_memory(e);
    float *read_only = NULL;
    memcpy(&read_only, &slab, sizeof slab); /* gpt2_params has no const twin; src is only read */
    if (r == OK) r = gpt2_params_map(&src, from, read_only, e);
    if (r == OK) r = gpt2_params_map(&dst, to, *out, e);
    if (r == OK) {
        gather(dst.wte, src.wte, C, token, channel);
        gather(dst.wpe, src.wpe, C, (picked){ all_pos, from->n_ctx }, channel);
        gather(dst.ln_f_w, src.ln_f_w, C, one_row, channel);
        gather(dst.ln_f_b, src.ln_f_b, C, one_row, channel);
        if (!to->tied) gather(dst.lm_head, src.lm_head, C, token, channel);
    }
    for (int i = 0; r == OK && i < k->n_layer; i++) {
        head_rows(k->head + (size_t)i * (size_t)k->n_head, k->n_head, D, C, rows);
        cut_layer(&dst.h[i], &src.h[k->layer[i]], from, (picked){ rows, 3 * k->n_head * D }, channel,
                  (picked){ k->column + (size_t)i * (size_t)k->n_inner, k->n_inner });
        if (from->scale_attn_by_layer && k->layer[i] != i) keep_scale(&dst.h[i], k->n_embd, k->n_embd, k->layer[i], i);
    }
    gpt2_params_free(&src);
    gpt2_params_free(&dst);
    free(all_pos);
    free(rows);
    if (r) {
        free(*out);
        *out = NULL;
    }
    return r;
}

/* ---- measuring ------------------------------------------------------------------------------------------------- */

typedef struct {
    const gpt2_config *c;
    const float       *slab;
    const prune_data  *data;
    int                max_tok, max_seq, longest; /* of the sample's batches and sequences */
    int                n_vocab;                   /* that will stay */
} job;

static void sizes_of(job *j)
{
    for (int i = 0; i < j->data->n_sample; i++) {
        const train_batch *b = &j->data->sample[i];
        if (b->n_tok > j->max_tok) j->max_tok = b->n_tok;
        if (b->n_seq > j->max_seq) j->max_seq = b->n_seq;
        for (int s = 0; s < b->n_seq; s++)
            if (b->len[s] > j->longest) j->longest = b->len[s];
    }
}

static int trainer_over(trainer **t, const gpt2_config *c, const float *slab, int max_tok, int max_seq, err *e)
{
    train_opts o = train_defaults();
    int        r = trainer_new(t, c, &o, max_tok, max_seq, e);
    if (r == OK) memcpy(trainer_params(*t), slab, trainer_n_params(*t) * sizeof(float));
    return r;
}

/* Loss of a target of the sample. */
static int loss_of(const job *j, const gpt2_config *c, const float *slab, double *nll, err *e)
{
    trainer *t   = NULL;
    double   sum = 0, targets = 0, x, n;
    int      r   = trainer_over(&t, c, slab, j->max_tok, j->max_seq, e);
    for (int i = 0; r == OK && i < j->data->n_sample; i++) {
        r = trainer_eval(t, &j->data->sample[i], &x, &n, NULL, NULL, e);
        sum += x;
        targets += n;
    }
    trainer_free(t);
    if (r == OK && !(targets > 0)) r = err_set(e, E_ARG, "the dialogues to measure on have no targets");
    *nll = sum / targets;
    return r;
}

static prune_shape shape_of(const job *j, const gpt2_config *c, double nll)
{
    gpt2_config with = *c;
    with.n_vocab     = j->n_vocab;
    return (prune_shape){ c->n_layer, c->n_head, c->n_inner, c->n_embd, n_params(&with), nll };
}

/* The loss of what a cut leaves. */
static int loss_after(const job *j, const prune_cut *k, double *nll, err *e)
{
    gpt2_config c;
    float      *slab;
    int         r = prune_apply(j->c, j->slab, k, &c, &slab, e);
    if (r == OK) r = loss_of(j, &c, slab, nll, e);
    free(slab);
    return r;
}

/* The same, told to the watch. */
static int try_cut(const job *j, const prune_cut *k, double *nll, err *e)
{
    int r = loss_after(j, k, nll, e);
    if (r || !j->data->watch) return r;
    gpt2_config c = cut_config(j->c, k);
    prune_shape s = shape_of(j, &c, *nll);
    j->data->watch(j->data->ctx, &s, k->layer);
    return OK;
}

/* ---- scores ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int     n_layer, n_head, n_inner, n_embd;
    double *head;    /* (n_layer, n_head) */
    double *column;  /* (n_layer, n_inner) */
    double *channel; /* (n_embd,) */
    double *gate;    /* (max of n_embd, n_inner) room to work */
} scores;

static void scores_free(scores *s)
{
    free(s->head);
    free(s->column);
    free(s->channel);
    free(s->gate);
}

static int scores_new(scores *s, const gpt2_config *c, err *e)
{
    size_t L = (size_t)c->n_layer, C = (size_t)c->n_embd, F = (size_t)c->n_inner;
    *s       = (scores){ c->n_layer, c->n_head, c->n_inner, c->n_embd, NULL, NULL, NULL, NULL };
    s->head    = calloc(L * (size_t)c->n_head, sizeof(double));
    s->column  = calloc(L * F, sizeof(double));
    s->channel = calloc(C, sizeof(double));
    s->gate    = calloc(C > F ? C : F, sizeof(double));
    if (s->head && s->column && s->channel && s->gate) return OK;
    scores_free(s);
    return no_memory(e);
}

/* gate (cols,) = sum over the rows of w * d: the gradient of a factor before each column. */
static void gates(double *gate, const float *w, const float *d, int rows, int cols)
{
    memset(gate, 0, (size_t)cols * sizeof *gate);
    for (int i = 0; i < rows; i++, w += cols, d += cols)
        for (int j = 0; j < cols; j++) gate[j] += (double)w[j] * (double)d[j];
}

static void add_norm(scores *s, const float *w, const float *dw, const float *b, const float *db)
{
    for (int j = 0; j < s->n_embd; j++) {
        double g = (double)w[j] * (double)dw[j] + (double)b[j] * (double)db[j];
        s->channel[j] += g * g;
    }
}

/* One sequence's gradients into the scores. */
static void add_scores(scores *s, const gpt2_params *w, const gpt2_params *d)
{
    const int C = s->n_embd, F = s->n_inner, H = s->n_head, D = C / H;
    for (int l = 0; l < s->n_layer; l++) {
        const gpt2_layer *p = &w->h[l], *g = &d->h[l];
        gates(s->gate, p->attn_proj_w, g->attn_proj_w, C, C);
        for (int h = 0; h < H; h++) {
            double sum = 0;
            for (int i = 0; i < D; i++) sum += s->gate[h * D + i];
            s->head[l * H + h] += sum * sum;
        }
        gates(s->gate, p->mlp_proj_w, g->mlp_proj_w, C, F);
        for (int f = 0; f < F; f++) s->column[(size_t)l * (size_t)F + (size_t)f] += s->gate[f] * s->gate[f];
        add_norm(s, p->ln_1_w, g->ln_1_w, p->ln_1_b, g->ln_1_b);
        add_norm(s, p->ln_2_w, g->ln_2_w, p->ln_2_b, g->ln_2_b);
    }
    add_norm(s, w->ln_f_w, d->ln_f_w, w->ln_f_b, d->ln_f_b);
}

static int score_batch(trainer *t, const train_batch *b, scores *s, const gpt2_params *w, const gpt2_params *d, err *e)
{
    int r = OK;
    for (int q = 0, at = 0; r == OK && q < b->n_seq; at += b->len[q++]) {
        double x, n, weight = 0;
        for (int i = 0; i < b->len[q]; i++) weight += (double)b->weight[at + i];
        if (weight == 0) continue; /* nothing to predict, nothing to learn */
        train_batch one = { b->len[q], 1, b->id + at, b->len + q, b->weight + at };
        trainer_zero_grad(t);
        r = trainer_backward(t, &one, 1, &x, &n, e);
        if (r == OK) add_scores(s, w, d);
    }
    return r;
}

/* The scores in the model that a cut leaves (of layers only: k holds all heads, columns and channels). */
static int score(const job *j, const prune_cut *k, scores *s, err *e)
{
    gpt2_config c;
    gpt2_params w = { 0 }, d = { 0 };
    trainer    *t = NULL;
    float      *slab;
    int         r = prune_apply(j->c, j->slab, k, &c, &slab, e);
    if (r == OK) r = trainer_over(&t, &c, slab, j->longest, 1, e);
    free(slab);
    if (r == OK) r = gpt2_params_map(&w, &c, trainer_params(t), e);
    if (r == OK) r = gpt2_params_map(&d, &c, trainer_grads(t), e);
    if (r == OK) r = scores_new(s, &c, e);
    for (int i = 0; r == OK && i < j->data->n_sample; i++)
        if ((r = score_batch(t, &j->data->sample[i], s, &w, &d, e)) != OK) scores_free(s);
    gpt2_params_free(&w);
    gpt2_params_free(&d);
    trainer_free(t);
    return r;
}

typedef struct {
    double score;
    int    i;
} ranked;
static int best_first(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score ? 1 : x->i - y->i;
}
static int rising(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* The k highest of n scores, in rising order of place. */
static int pick(const double *v, int n, int k, int *out, err *e)
{
    ranked *r = malloc((size_t)n * sizeof *r);
    if (!r) return no_memory(e);
    for (int i = 0; i < n; i++) r[i] = (ranked){ v[i], i };
    qsort(r, (size_t)n, sizeof *r, best_first);
    for (int i = 0; i < k; i++) out[i] = r[i].i;
    qsort(out, (size_t)k, sizeof *out, rising);
    free(r);
    return OK;
}

/* From a cut of layers to one of heads and columns too, by the scores. */
static int narrow(prune_cut *k, const scores *s, int n_head, int n_inner, err *e)
{
    int r = OK, D = s->n_embd / s->n_head;
    k->n_head = n_head, k->n_inner = n_inner, k->n_embd = n_head * D;
    for (int l = 0; r == OK && l < k->n_layer; l++) {
        r = pick(s->head + (size_t)l * (size_t)s->n_head, s->n_head, n_head, k->head + (size_t)l * (size_t)n_head, e);
        if (r == OK) r = pick(s->column + (size_t)l * (size_t)s->n_inner, s->n_inner, n_inner, k->column + (size_t)l * (size_t)n_inner, e);
    }
    return r ? r : pick(s->channel, s->n_embd, k->n_embd, k->channel, e);
}

/* ---- choosing -------------------------------------------------------------------------------------------------- */

static void drop_layer(prune_cut *k, int i)
{
    memmove(k->layer + i, k->layer + i + 1, (size_t)(k->n_layer - i - 1) * sizeof *k->layer);
    k->n_layer--;
}

/* One layer fewer: the one whose absence costs least. */
static int worst_layer(const job *j, prune_cut *k, err *e)
{
    double least = INFINITY;
    int    who   = -1, r = OK, kept[1];
    for (int i = 0; r == OK && i < k->n_layer; i++) {
        double nll;
        kept[0] = k->layer[i];
        drop_layer(k, i);
        r = try_cut(j, k, &nll, e);
        memmove(k->layer + i + 1, k->layer + i, (size_t)(k->n_layer - i) * sizeof *k->layer); /* and back */
        k->layer[i] = kept[0];
        k->n_layer++;
        if (r == OK && (who < 0 || nll < least)) least = nll, who = i;
    }
    if (r == OK) drop_layer(k, who);
    return r;
}

/* How many of n stay when `want` go; step: what stays is a multiple of it where only a share was said. */
static int left_of(double want, int n, int step, const char *name, int *left, err *e)
{
    if (want == 0) return *left = n, OK;
    if (!(want > 0) || (want >= 1 && want != floor(want)))
        return err_set(e, E_ARG, "%s %g: a share below 1 or a whole number that go wanted", name, want);
    if (want >= n) return err_set(e, E_ARG, "%s %g: there are %d, and one must stay", name, want, n);
    *left = want >= 1 ? n - (int)want : (int)lround((1 - want) * n / step) * step;
    if (*left < 1 || *left >= n)
        return err_set(e, E_ARG, "%s %g: that share of %d is %s", name, want, n, *left < 1 ? "all" : step > 1 ? "less than one block of 32" : "less than one");
    return OK;
}

static int inner_step(int n_inner) { return n_inner % 32 == 0 ? 32 : 1; }

static int by_kind(const job *j, const prune_want *w, prune_cut *k, err *e)
{
    int    layers, heads, inner;
    scores s;
    int    r = left_of(w->layers, k->n_layer, 1, "layers", &layers, e);
    if (r == OK) r = left_of(w->heads, k->n_head, 1, "heads", &heads, e);
    if (r == OK) r = left_of(w->inner, k->n_inner, inner_step(k->n_inner), "inner", &inner, e);
    while (r == OK && k->n_layer > layers) r = worst_layer(j, k, e);
    if (r || (heads == k->n_head && inner == k->n_inner)) return r;
    if ((r = score(j, k, &s, e)) != OK) return r;
    r = narrow(k, &s, heads, inner, e);
    scores_free(&s);
    return r;
}

/* The most columns with which a model of this many layers and heads has at most `most` parameters; 0: none.  Parameters grow evenly with columns. */
static int inner_for(const job *j, int n_layer, int n_head, size_t most)
{
    gpt2_config c = *j->c;
    const int   F = c.n_inner, step = inner_step(F);
    c.n_layer = n_layer, c.n_head = n_head, c.n_vocab = j->n_vocab;
    c.n_embd    = j->c->n_embd / j->c->n_head * n_head;
    size_t full = n_params(&c);
    if (full <= most) return F;
    c.n_inner    = F - step;
    size_t block = full - n_params(&c), over = (full - most + block - 1) / block;
    return F > step && over * (size_t)step < (size_t)F ? F - (int)over * step : 0;
}

static int copy_cut(prune_cut *to, const prune_cut *from, const gpt2_config *c, err *e)
{
    int r = prune_cut_new(to, c, e);
    if (r) return r;
    memcpy(to->layer, from->layer, (size_t)from->n_layer * sizeof *to->layer);
    to->n_layer = from->n_layer;
    return OK;
}

/* Every number of heads with these layers; the best so far in *best. */
static int try_heads(const job *j, const prune_cut *layers, size_t most, prune_cut *best, double *least, err *e)
{
    const int full = j->c->n_inner;
    scores    s;
    int       r = OK, have = 0;
    for (int h = j->c->n_head; r == OK && 2 * h >= j->c->n_head; h--) {
        int       inner = inner_for(j, layers->n_layer, h, most);
        double    nll;
        prune_cut k;
        if (inner * 4 < full) continue;
        if (!have && (r = score(j, layers, &s, e)) != OK) return r;
        have = 1;
        if ((r = copy_cut(&k, layers, j->c, e)) != OK) break;
        r = narrow(&k, &s, h, inner, e);
        if (r == OK) r = try_cut(j, &k, &nll, e);
        if (r == OK && (!best->layer || nll < *least)) {
            prune_cut swap = *best;
            *best = k, k = swap, *least = nll;
        }
        prune_cut_free(&k);
        if (inner == full) break; /* fewer heads would only cost more */
    }
    if (have) scores_free(&s);
    return r;
}

static int by_share(const job *j, double share, prune_cut *k, err *e)
{
    if (!(share > 0 && share < 1)) return err_set(e, E_ARG, "share %g: more than 0 and less than 1 wanted", share);
    const size_t all  = n_params(j->c), most = (size_t)((1 - share) * (double)all);
    prune_cut    best = { 0 };
    double       least = INFINITY;
    int          r = try_heads(j, k, most, &best, &least, e);
    while (r == OK && 2 * (k->n_layer - 1) >= j->c->n_layer && inner_for(j, k->n_layer, k->n_head, most) != j->c->n_inner) {
        r = worst_layer(j, k, e);
        if (r == OK) r = try_heads(j, k, most, &best, &least, e);
    }
    if (r == OK && !best.layer)
        r = err_set(e, E_ARG, "share %g: half of the layers and heads and three quarters of the columns are not so much of %zu parameters", share, all);
    if (r) return prune_cut_free(&best), r;
    prune_cut swap = *k; /* the caller's has its list of tokens */
    *k             = best;
    prune_cut_free(&swap);
    return OK;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

/* Types as they were, where the rows allow. */
static int types_for(const gguf *g, const gpt2_config *to, const prune_cut *k, int **types, err *e)
{
    gpt2_tensor *list;
    size_t       params;
    int          n = gpt2_tensors(to, &list, &params, e);
    if (n < 0) return n;
    *types = malloc((size_t)n * sizeof **types);
    for (int i = 0; *types && i < n; i++) {
        char        name[64];
        const char *rest = list[i].layer < 0 ? NULL : strchr(strchr(list[i].gguf, '.') + 1, '.');
        if (rest) snprintf(name, sizeof name, "blk.%d%s", k->layer[list[i].layer], rest);
        else snprintf(name, sizeof name, "%s", list[i].gguf);
        int plain  = list[i].vector || strcmp(list[i].gguf, "position_embd.weight") == 0;
        int type   = plain ? GT_F32 : gguf_find(g, name)->type;
        (*types)[i] = gguf_row_bytes(type, (uint64_t)list[i].cols) ? type : GT_F16;
    }
    free(list);
    return *types ? OK : no_memory(e);
}

/* What stays of layers, heads, columns and channels, into k; both losses. */
static int choose(job *j, const prune_want *w, prune_cut *k, prune_report *report, err *e)
{
    int kinds = w->layers != 0 || w->heads != 0 || w->inner != 0;
    report->from.nll = report->to.nll = NAN;
    if (w->share == 0 && !kinds) return OK;
    if (w->share != 0 && kinds) return err_set(e, E_ARG, "share finds out itself how many layers, heads and columns go: not together");
    if (!j->data->n_sample) return err_set(e, E_ARG, "no dialogues to measure on");
    sizes_of(j);
    int r = loss_of(j, j->c, j->slab, &report->from.nll, e);
    if (r == OK) r = w->share != 0 ? by_share(j, w->share, k, e) : by_kind(j, w, k, e);
    return r ? r : loss_after(j, k, &report->to.nll, e);
}

static int write_cut(const gguf *g, const char *out, const job *j, const prune_cut *k, const tokenizer *tok, const gpt2_meta *meta, gpt2_config *to, err *e)
{
    float *slab  = NULL;
    int   *types = NULL;
    int    r     = prune_apply(j->c, j->slab, k, to, &slab, e);
    if (r == OK) r = types_for(g, to, k, &types, e);
    if (r == OK) r = gpt2_save(out, to, slab, tok, meta, types, e);
    free(types);
    free(slab);
    return r;
}

static int cut_tokens(const gguf *g, job *j, const tokenizer *tok, tokenizer **fewer, ivec *ids, err *e)
{
    if (!tok) return err_set(e, E_ARG, "%s: the model has no vocabulary to prune", gguf_path(g));
    if (tokenizer_size(tok) != j->c->n_vocab)
        return err_set(e, E_FORMAT, "%s: %d entries in the vocabulary, %d in the model", gguf_path(g), tokenizer_size(tok), j->c->n_vocab);
    int r = tokenizer_cut(fewer, tok, j->data->keep, j->data->drop_characters, ids, e);
    if (r == OK) j->n_vocab = tokenizer_size(*fewer);
    return r;
}

/* Measure, choose, cut, write. */
static int prune(const gguf *g, const char *out, const prune_want *w, job *j, const tokenizer *tok, prune_report *report, err *e)
{
    gpt2_meta   meta;
    tokenizer  *fewer = NULL;
    prune_cut   k     = { 0 };
    ivec        ids   = { 0 };
    gpt2_config to;
    int         r = gpt2_read_meta(g, tok, &meta, e);
    if (r == OK && j->data->keep) r = cut_tokens(g, j, tok, &fewer, &ids, e);
    if (r == OK) r = prune_cut_new(&k, j->c, e);
    if (r == OK) r = choose(j, w, &k, report, e);
    if (r == OK && fewer) {
        memcpy(k.token, ids.v, ids.n * sizeof *k.token);
        k.n_vocab = j->n_vocab;
    }
    if (r == OK) r = write_cut(g, out, j, &k, fewer ? fewer : tok, &meta, &to, e);
    if (r == OK) {
        report->to          = shape_of(j, &to, report->to.nll);
        j->n_vocab          = j->c->n_vocab;
        report->from        = shape_of(j, j->c, report->from.nll);
        report->vocab_from  = j->c->n_vocab;
        report->vocab_to    = to.n_vocab;
        report->layer       = k.layer;
        k.layer             = NULL;
    }
    ivec_free(&ids);
    prune_cut_free(&k);
    tokenizer_close(fewer);
    return r;
}

void prune_report_free(prune_report *r)
{
    free(r->layer);
    memset(r, 0, sizeof *r);
}

int prune_file(const char *in, const char *out, const prune_want *w, const prune_data *data, prune_report *report, err *e)
{
    gguf       *g    = NULL;
    tokenizer  *tok  = NULL;
    gpt2_config c;
    float      *slab = NULL;
    memset(report, 0, sizeof *report);
    int r = gguf_open(&g, in, e);
    if (r == OK) r = gpt2_read_config(g, &c, e);
    if (r == OK) r = gpt2_check_tensors(g, &c, e);
    if (r == OK) r = tokenizer_from_gguf(&tok, g, e);
    if (r == OK && !(slab = malloc(n_params(&c) * sizeof *slab))) r = no_memory(e);
    if (r == OK) r = gpt2_read_slab(g, &c, slab, e);
    job j = { .c = &c, .slab = slab, .data = data, .n_vocab = r == OK ? c.n_vocab : 0 };
    if (r == OK) r = prune(g, out, w, &j, tok, report, e);
    free(slab);
    tokenizer_close(tok);
    gguf_close(g);
    return r;
}
