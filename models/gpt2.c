/* gpt2: an open model and what it computes: the one inference forward, reuse of a cache, teacher-forced scores.  See gpt2.h;
 * files are gpt2_file.c's, the matrix product is linear.c's, keys, values and attention are cache.c's. */
#include "models/gpt2.h"

#include "models/cache.h"
#include "models/linear.h"
#include "models/ops.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    float *ln_1_w, *ln_1_b, *ln_2_w, *ln_2_b;   /* (C,) */
    linear c_attn, attn_proj, c_fc, mlp_proj;   /* (3C, C), (C, C), (F, C), (C, F) */
} block;

struct gpt2 {
    gpt2_config cfg;
    gpt2_meta   meta;
    tokenizer  *tok;
    gguf       *file;            /* stays mapped: the digest is that of the bytes that were opened */
    block      *h;               /* (n_layer,) */
    linear      lm_head;         /* (V, C); gives the embedding rows too when tied */
    linear      wte;             /* (V, C) when untied */
    float      *wpe;             /* (P, C) */
    float      *ln_f_w, *ln_f_b; /* (C,) */
    float      *vectors;         /* memory behind wpe and all LayerNorms */
    pthread_mutex_t lock;        /* of the digest */
    char        digest[65];
};

enum { DIGEST_STEP = 16 << 20 }; /* bytes of the file that are in memory while it is hashed */

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* Pages of the file that have been read need not stay in memory; they come back from the file when touched. */
static void let_go(const void *p, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)p + page - 1) / page * page, to = ((uintptr_t)p + n) / page * page;
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

/* Everything that opening needs at hand. */
typedef struct {
    gpt2        *m;
    gpt2_tensor *list;
    int          n;
    float       *next; /* free part of m->vectors */
    float       *bias; /* (max(3C, F),) */
} loader;

/* Tensor `name` ("attn.c_attn.weight") of a block, or of the model when layer is -1. */
static const gpt2_tensor *tensor(const loader *l, int layer, const char *name)
{
    for (int i = 0; i < l->n; i++) {
        const char *hf = l->list[i].hf;
        if (l->list[i].layer != layer) continue;
        if (layer >= 0) hf = strchr(hf + 2, '.') + 1; /* behind "h.N." */
        if (strcmp(hf, name) == 0) return &l->list[i];
    }
    return NULL; /* only for a name that is not in the table */
}

static int load_floats(loader *l, int layer, const char *name, float **to, err *e)
{
    const gpt2_tensor *t = tensor(l, layer, name);
    *to = l->next;
    l->next += (size_t)t->rows * (size_t)t->cols;
    return gpt2_tensor_decode(l->m->file, t, *to, e);
}

static int load_matrix(loader *l, int layer, const char *weight, const char *bias, linear *to, err *e)
{
    const gpt2_tensor *t = tensor(l, layer, weight);
    const gguf_tensor *f = gpt2_file_tensor(l->m->file, t, e);
    int                r;
    if (!f) return E_FORMAT;
    if (bias && (r = gpt2_tensor_decode(l->m->file, tensor(l, layer, bias), l->bias, e))) return r;
    if ((r = linear_pack(to, t->rows, t->cols, f->type, f->data, bias ? l->bias : NULL, e))) {
        err_prefix(e, "%s: tensor %s", gguf_path(l->m->file), t->gguf);
        return r;
    }
    let_go(f->data, f->n_bytes);
    return OK;
}

static int load_block(loader *l, int i, err *e)
{
    block *b = &l->m->h[i];
    int    r;
    if ((r = load_floats(l, i, "ln_1.weight", &b->ln_1_w, e)) || (r = load_floats(l, i, "ln_1.bias", &b->ln_1_b, e)) ||
        (r = load_matrix(l, i, "attn.c_attn.weight", "attn.c_attn.bias", &b->c_attn, e)) ||
        (r = load_matrix(l, i, "attn.c_proj.weight", "attn.c_proj.bias", &b->attn_proj, e)) ||
        (r = load_floats(l, i, "ln_2.weight", &b->ln_2_w, e)) || (r = load_floats(l, i, "ln_2.bias", &b->ln_2_b, e)) ||
        (r = load_matrix(l, i, "mlp.c_fc.weight", "mlp.c_fc.bias", &b->c_fc, e)) ||
        (r = load_matrix(l, i, "mlp.c_proj.weight", "mlp.c_proj.bias", &b->mlp_proj, e)))
        return r;
    return OK;
}

static int load_weights(gpt2 *m, err *e)
{
    const gpt2_config *c = &m->cfg;
    size_t C = (size_t)c->n_embd, n_params, floats = ((size_t)c->n_ctx + 4 * (size_t)c->n_layer + 2) * C;
    loader l = { .m = m };
    int    r = OK;
    if ((l.n = gpt2_tensors(c, &l.list, &n_params, e)) < 0) return l.n;
    m->h       = calloc((size_t)c->n_layer, sizeof *m->h);
    m->vectors = l.next = malloc(floats * sizeof *m->vectors);
    l.bias     = malloc((3 * C + (size_t)c->n_inner) * sizeof *l.bias);
    if (!m->h || !m->vectors || !l.bias) r = err_set(e, E_NOMEM, "%s: out of memory", gguf_path(m->file));
    if (r == OK) r = load_floats(&l, -1, "wpe.weight", &m->wpe, e);
    for (int i = 0; r == OK && i < c->n_layer; i++) r = load_block(&l, i, e);
    if (r == OK) r = load_floats(&l, -1, "ln_f.weight", &m->ln_f_w, e);
    if (r == OK) r = load_floats(&l, -1, "ln_f.bias", &m->ln_f_b, e);
    if (r == OK && !c->tied) r = load_matrix(&l, -1, "wte.weight", NULL, &m->wte, e);
    if (r == OK) r = load_matrix(&l, -1, c->tied ? "wte.weight" : "lm_head.weight", NULL, &m->lm_head, e);
    free(l.list);
    free(l.bias);
    return r;
}

static int load(gpt2 *m, err *e)
{
    int r;
    if ((r = gpt2_read_config(m->file, &m->cfg, e)) || (r = gpt2_check_tensors(m->file, &m->cfg, e)) ||
        (r = tokenizer_from_gguf(&m->tok, m->file, e)) || (r = gpt2_read_meta(m->file, m->tok, &m->meta, e)))
        return r; /* from here on the file holds what the config says: what is allocated is bounded by its size */
    if (m->tok && tokenizer_size(m->tok) != m->cfg.n_vocab)
        return err_set(e, E_FORMAT, "%s: the vocabulary has %d tokens, token_embd.weight %d rows", gguf_path(m->file),
                       tokenizer_size(m->tok), m->cfg.n_vocab);
    if (m->meta.fmt.kind && (m->meta.fmt.sep >= m->cfg.n_vocab || m->meta.fmt.bos >= m->cfg.n_vocab))
        return err_set(e, E_FORMAT, "%s: the separator is token %d of %d", gguf_path(m->file), m->meta.fmt.sep, m->cfg.n_vocab);
    return load_weights(m, e);
}

int gpt2_open(gpt2 **out, const char *path, err *e)
{
    *out    = NULL;
    gpt2 *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, E_NOMEM, "%s: out of memory", path);
    pthread_mutex_init(&m->lock, NULL);
    int r = gguf_open(&m->file, path, e);
    if (r == OK) r = load(m, e);
    if (r) {
        gpt2_close(m);
        return r;
    }
    *out = m;
    return OK;
}

void gpt2_close(gpt2 *m)
{
    if (!m) return;
    for (int i = 0; m->h && i < m->cfg.n_layer; i++) {
        linear_free(&m->h[i].c_attn);
        linear_free(&m->h[i].attn_proj);
        linear_free(&m->h[i].c_fc);
        linear_free(&m->h[i].mlp_proj);
    }
    linear_free(&m->lm_head);
    linear_free(&m->wte);
    free(m->h);
    free(m->vectors);
    tokenizer_close(m->tok);
    gguf_close(m->file);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

const gpt2_config *gpt2_cfg(const gpt2 *m) { return &m->cfg; }
const gpt2_meta   *gpt2_about(const gpt2 *m) { return &m->meta; }
const tokenizer   *gpt2_tokenizer(const gpt2 *m) { return m->tok; }
const char        *gpt2_path(const gpt2 *m) { return gguf_path(m->file); }

const char *gpt2_digest(gpt2 *m)
{
    pthread_mutex_lock(&m->lock);
    if (!m->digest[0]) {
        sha256        h;
        unsigned char sum[32];
        str           all = gguf_bytes(m->file);
        sha256_init(&h);
        for (size_t at = 0, n; at < all.n; at += n) {
            n = all.n - at < DIGEST_STEP ? all.n - at : DIGEST_STEP;
            sha256_add(&h, all.s + at, n);
            let_go(all.s + at, n);
        }
        sha256_end(&h, sum);
        sha256_hex(sum, m->digest);
    }
    pthread_mutex_unlock(&m->lock);
    return m->digest;
}

/* ---- the forward ----------------------------------------------------------------------------------------------- */

gpt2_cache *gpt2_caches_new(const gpt2 *m, int n_prefix, int prefix_max, int each, int tail_max, int max_rows, err *e)
{
    gpt2_cache *c;
    cache_new(&c, m, &m->cfg, n_prefix, prefix_max, each, tail_max, max_rows, e);
    return c;
}
gpt2_cache *gpt2_cache_new(const gpt2 *m, int prefix_max, int n_seq, int tail_max, int max_rows, err *e)
{
    return gpt2_caches_new(m, 1, prefix_max, n_seq, tail_max, max_rows, e);
}
void gpt2_cache_free(gpt2_cache *c) { cache_free(c); }
static void clear_tails(gpt2_cache *c, int p)
{
    for (int s = p * c->each; s < (p + 1) * c->each; s++) c->tail[s].n = 0;
}
void gpt2_cache_clear_tails(gpt2_cache *c)
{
    for (int p = 0; p < c->n_prefix; p++) clear_tails(c, p);
}
void gpt2_cache_copy_tail(gpt2_cache *c, int from, int to) { cache_copy(c, from, to); }

/* x = wte[id] + wpe[pos], (n, C) */
static void embed(const gpt2 *m, gpt2_cache *c, int n)
{
    size_t        C = (size_t)c->C;
    const linear *wte = m->cfg.tied ? &m->lm_head : &m->wte;
#pragma omp parallel for schedule(static) if (n >= 16)
    for (int r = 0; r < n; r++) {
        const float *wpe = m->wpe + (size_t)c->pos[r] * C;
        float       *x = c->x + (size_t)r * C;
        linear_row(wte, c->id[r], x);
        for (size_t i = 0; i < C; i++) x[i] += wpe[i];
    }
}

/* Keep only the wanted ones of n rows: after the last block's keys and values are stored, nothing else of the others matters. */
static int keep_wanted(gpt2_cache *c, int n)
{
    int    k = 0;
    size_t C = (size_t)c->C;
    for (int r = 0; r < n; r++) {
        if (!c->want[r]) continue;
        if (k < r) {
            memcpy(c->x + (size_t)k * C, c->x + (size_t)r * C, C * sizeof *c->x);
            memcpy(c->qkv + (size_t)k * 3 * C, c->qkv + (size_t)r * 3 * C, 3 * C * sizeof *c->qkv);
            c->seq[k] = c->seq[r];
            c->pos[k] = c->pos[r];
        }
        k++;
    }
    return k;
}

/* The token ids of the slice enter the cache's memory, and its lengths grow. */
static void remember(gpt2_cache *c, int n)
{
    for (int r = 0; r < n; r++) {
        kv_store *s = c->seq[r] < 0 ? &c->prefix[cache_prefix_of(c, c->seq[r])] : &c->tail[c->seq[r]];
        s->id[s->n++] = c->id[r];
    }
}

/* The slice in c->id, seq, pos, want (n rows, checked, prefix rows first) through all blocks.  The final LayerNorm of the
 * wanted rows is left in c->ln, (number returned, C). */
static int run_slice(const gpt2 *m, gpt2_cache *c, int n)
{
    const gpt2_config *cfg = &m->cfg;
    const int          C = cfg->n_embd, F = cfg->n_inner;
    remember(c, n);
    embed(m, c, n);
    for (int l = 0; l < cfg->n_layer; l++) {
        const block *w     = &m->h[l];
        float        scale = cfg->scale_attn ? 1 / sqrtf((float)(C / cfg->n_head)) : 1;
        if (cfg->scale_attn_by_layer) scale /= (float)(l + 1);
        ops_layernorm(c->ln, NULL, NULL, c->x, w->ln_1_w, w->ln_1_b, n, C, cfg->eps); /* (n, C) */
        linear_apply(c->qkv, c->ln, n, &w->c_attn, c->scratch);                       /* (n, 3C) */
        cache_put(c, l, n);
        if (l == cfg->n_layer - 1) n = keep_wanted(c, n);
        cache_attend(c, l, n, scale);                                                 /* (n, C) */
        linear_apply(c->ln, c->att, n, &w->attn_proj, c->scratch);
        ops_add(c->x, c->ln, (size_t)n * (size_t)C);
        ops_layernorm(c->ln, NULL, NULL, c->x, w->ln_2_w, w->ln_2_b, n, C, cfg->eps);
        linear_apply(c->fc, c->ln, n, &w->c_fc, c->scratch);                          /* (n, F) */
        ops_act(c->fc, c->fc, (size_t)n * (size_t)F, cfg->act);
        linear_apply(c->ln, c->fc, n, &w->mlp_proj, c->scratch);
        ops_add(c->x, c->ln, (size_t)n * (size_t)C);
    }
    ops_layernorm(c->ln, NULL, NULL, c->x, m->ln_f_w, m->ln_f_b, n, C, cfg->eps);
    return n;
}

/* Logits of rows r0..r0+n of c->ln, (n, V). */
static void head(const gpt2 *m, gpt2_cache *c, int r0, int n, float *logits)
{
    linear_apply(logits, c->ln + (size_t)r0 * (size_t)c->C, n, &m->lm_head, c->scratch);
}

static int check_cache(const gpt2 *m, const gpt2_cache *c, err *e)
{
    return c->model == m ? OK : err_set(e, E_ARG, "%s: the cache belongs to another model", gpt2_path(m));
}

/* Every row of a batch against the model and the cache; nothing is changed but the counters in c->next, fed, base. */
static int check_batch(const gpt2 *m, gpt2_cache *c, const gpt2_batch *b, const float *logits, err *e)
{
    int r = check_cache(m, c, e);
    if (r) return r;
    if (b->n < 0 || (b->n && (!b->id || !b->seq || !b->pos))) return err_set(e, E_ARG, "batch of %d rows without rows", b->n);
    for (int p = 0; p < c->n_prefix; p++) c->fed[p] = c->base[p] = c->prefix[p].n; /* base: when the batch's own rows are in */
    for (int i = 0; i < b->n; i++) {
        int s = b->seq[i];
        if (s < -c->n_prefix || s >= c->n_seq)
            return err_set(e, E_ARG, "batch row %d: sequence %d is not in %d..%d", i, s, -c->n_prefix, c->n_seq - 1);
        if (s < 0) c->base[cache_prefix_of(c, s)]++;
    }
    for (int s = 0; s < c->n_seq; s++) {
        int p = cache_prefix_of(c, s);
        if ((c->next[s] = c->tail[s].n) > 0 && c->base[p] > c->prefix[p].n)
            return err_set(e, E_ARG, "batch: %d rows for prefix %d while tails stand on it", c->base[p] - c->prefix[p].n, p);
    }
    for (int i = 0; i < b->n; i++) {
        int id = b->id[i], s = b->seq[i], pos = b->pos[i], p = cache_prefix_of(c, s), due = s < 0 ? c->fed[p] : c->base[p] + c->next[s];
        if (id < 0 || id >= m->cfg.n_vocab)
            return err_set(e, E_ARG, "batch row %d: token %d is not in 0..%d", i, id, m->cfg.n_vocab - 1);
        if (pos != due) return err_set(e, E_ARG, "batch row %d: sequence %d continues at position %d, not %d", i, s, due, pos);
        if (pos >= m->cfg.n_ctx)
            return err_set(e, E_LIMIT, "batch row %d: position %d is past the context of %d", i, pos, m->cfg.n_ctx);
        if (s < 0 ? c->fed[p]++ >= c->prefix_max : c->next[s]++ >= c->tail_max)
            return err_set(e, E_LIMIT, "batch row %d: the cache holds %d positions of %s", i, s < 0 ? c->prefix_max : c->tail_max,
                           s < 0 ? "a prefix" : "a tail");
        if (b->want && b->want[i] && !logits) return err_set(e, E_ARG, "batch row %d: logits wanted, no place given", i);
    }
    return OK;
}

static void set_row(gpt2_cache *c, int r, int id, int seq, int pos, int want)
{
    c->id[r]   = id;
    c->seq[r]  = seq;
    c->pos[r]  = pos;
    c->want[r] = (unsigned char)want;
}

/* One pass over a batch: its prefix rows or its other rows, in slices of max_rows.  A slice's logits go to their rows'
 * places; rows that stand side by side there are computed together. */
static void run_rows(const gpt2 *m, gpt2_cache *c, const gpt2_batch *b, int prefix, float *logits)
{
    size_t V = (size_t)m->cfg.n_vocab, wanted = 0; /* wanted rows of the batch before row i */
    int    n = 0;
    for (int i = 0; i < b->n; i++) {
        int want = b->want && b->want[i];
        if ((b->seq[i] < 0) == prefix) {
            set_row(c, n++, b->id[i], b->seq[i], b->pos[i], want);
            if (want) c->place[c->n_place++] = wanted;
        }
        wanted += (size_t)want;
        if (n && (n == c->max_rows || i == b->n - 1)) {
            run_slice(m, c, n);
            for (int r = 0, k; r < c->n_place; r += k) {
                for (k = 1; r + k < c->n_place && c->place[r + k] == c->place[r] + (size_t)k;) k++;
                head(m, c, r, k, logits + c->place[r] * V);
            }
            n = c->n_place = 0;
        }
    }
}

int gpt2_forward(const gpt2 *m, gpt2_cache *c, const gpt2_batch *b, float *logits, err *e)
{
    int r = check_batch(m, c, b, logits, e);
    if (r) return r;
    run_rows(m, c, b, 1, logits);
    run_rows(m, c, b, 0, logits);
    return OK;
}

static int check_ids(const gpt2 *m, const int *ids, int n, err *e)
{
    if (n > m->cfg.n_ctx) return err_set(e, E_LIMIT, "%d tokens are more than the context of %d", n, m->cfg.n_ctx);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->cfg.n_vocab)
            return err_set(e, E_ARG, "token %d of %d is %d, not in 0..%d", i, n, ids[i], m->cfg.n_vocab - 1);
    return OK;
}

static int common(const int *a, int na, const int *b, int nb)
{
    int n = 0;
    while (n < na && n < nb && a[n] == b[n]) n++;
    return n;
}

int gpt2_sync_at(const gpt2 *m, gpt2_cache *c, int p, const int *ids, int n, float *logits, int *evaluated, err *e)
{
    int r = check_cache(m, c, e);
    if (r) return r;
    if (p < 0 || p >= c->n_prefix) return err_set(e, E_ARG, "prefix %d is not in 0..%d", p, c->n_prefix - 1);
    if (n < 1 || !ids || !logits) return err_set(e, E_ARG, "a prefix of %d tokens, or no place for its logits", n);
    if (n > c->prefix_max) return err_set(e, E_LIMIT, "%d tokens are more than the cache's prefix of %d", n, c->prefix_max);
    if ((r = check_ids(m, ids, n, e))) return r;
    kv_store *prefix = &c->prefix[p];
    int       keep = common(prefix->id, prefix->n, ids, n);
    if (keep == prefix->n) { /* whole: perhaps a tail, the reply that was chosen, goes on as ids do */
        int best = 0, tail = -1;
        for (int s = p * c->each; s < (p + 1) * c->each; s++) {
            int k = common(c->tail[s].id, c->tail[s].n, ids + keep, n - keep);
            if (k > best) best = k, tail = s;
        }
        if (tail >= 0) cache_adopt(c, tail, best);
        keep += best;
    }
    if (keep == n) keep = n - 1; /* the last token again: its logits are wanted */
    prefix->n = keep;
    clear_tails(c, p);
    for (int i = keep, rows = 0; i < n; i++) {
        set_row(c, rows++, ids[i], -1 - p, i, i == n - 1);
        if (rows == c->max_rows || i == n - 1) run_slice(m, c, rows), rows = 0;
    }
    head(m, c, 0, 1, logits);
    if (evaluated) *evaluated = n - keep;
    return OK;
}

int gpt2_sync(const gpt2 *m, gpt2_cache *c, const int *ids, int n, float *logits, int *evaluated, err *e)
{
    return gpt2_sync_at(m, c, 0, ids, n, logits, evaluated, e);
}

/* ---- scores ---------------------------------------------------------------------------------------------------- */

enum { SCORE_ROWS = 384 /* in a slice */, SCORE_BYTES = 4 << 20 /* of logits at a time */, SHARED_AGAIN = 16 };

typedef struct { /* token ids[k][t], whose logit in row `row` is wanted */
    int   row, k, t, id;
    float logit;
} target;

typedef struct {
    const int *const *ids;
    const int        *n, *from;
    int               n_seq, shared; /* shared: tokens that all begin with and that are fed once, or once a slice */
    double           *logp, *const *tok;
    float            *logits; /* (rows, step): a part of the vocabulary */
    int               step;
    ops_lse          *lse;    /* (rows,) */
    target           *target; /* of the slice in work, rows rising */
    int               n_target;
} scoring;

/* Token t of sequence k is asked for. */
static int is_target(const scoring *s, int k, int t) { return t >= s->from[k] && t < s->n[k]; }

static void add_target(scoring *s, int row, int k, int t)
{
    if (is_target(s, k, t)) s->target[s->n_target++] = (target){ .row = row, .k = k, .t = t, .id = s->ids[k][t] };
}

/* Targets, and for each row the log of the sum over the vocabulary: logits are made part by part for all n rows, and used while they are in the cache. */
static void score_rows(const gpt2 *m, gpt2_cache *c, scoring *s, int n)
{
    int V = m->cfg.n_vocab;
    for (int r = 0; r < n; r++) s->lse[r] = OPS_LSE_NONE;
    for (int o = 0; o < V && n; o += s->step) {
        int    wide = V - o < s->step ? V - o : s->step;
        linear part = linear_part(&m->lm_head, o, wide);
        linear_apply(s->logits, c->ln, n, &part, c->scratch);
#pragma omp parallel for schedule(static) if ((size_t)n * (size_t)wide > 1u << 14)
        for (int r = 0; r < n; r++) ops_lse_add(&s->lse[r], s->logits + (size_t)r * (size_t)wide, wide);
        for (target *x = s->target; x < s->target + s->n_target; x++)
            if (x->id >= o && x->id - o < wide) x->logit = s->logits[(size_t)x->row * (size_t)wide + (size_t)(x->id - o)];
    }
    for (const target *x = s->target; x < s->target + s->n_target; x++) {
        double logp = (double)x->logit - ops_lse_end(&s->lse[x->row]);
        s->logp[x->k] += logp;
        if (s->tok && s->tok[x->k]) s->tok[x->k][x->t] = logp;
    }
}

/* Run the slice of n rows and add what its wanted rows say of the tokens behind them.  Slot i of the cache holds sequence
 * first + i. */
static void score_slice(const gpt2 *m, gpt2_cache *c, scoring *s, int first, int n)
{
    n           = run_slice(m, c, n);
    s->n_target = 0;
    for (int r = 0; r < n; r++) {
        int slot = c->seq[r], t = c->pos[r] + 1;
        if (slot >= 0) add_target(s, r, first + slot, t);
        for (int k = 0; slot < 0 && k < s->n_seq; k++) add_target(s, r, k, t);
    }
    score_rows(m, c, s, n);
}

/* Rows of sequence k behind the shared ones: its last token is never fed, and nothing when nothing is asked. */
static int rows_of(const scoring *s, int k) { return s->from[k] < s->n[k] ? s->n[k] - 1 - s->shared : 0; }

static int put_shared(gpt2_cache *c, const scoring *s, int row, int i, int first)
{
    int want = 0;
    for (int k = 0; k < s->n_seq && !want && first; k++) want = is_target(s, k, i + 1);
    set_row(c, row, s->ids[0][i], -1, i, want);
    return row + 1;
}

/* The shared tokens once, then the rest of the sequences, as many at a time as the cache has tails. */
static void score_long(const gpt2 *m, gpt2_cache *c, scoring *s)
{
    int rows = 0;
    for (int i = 0; i < s->shared; i++) {
        rows = put_shared(c, s, rows, i, 1);
        if (rows == c->max_rows || i == s->shared - 1) score_slice(m, c, s, 0, rows), rows = 0;
    }
    for (int first = 0; c->n_seq && first < s->n_seq; first += c->n_seq) {
        for (int k = first; k < s->n_seq && k < first + c->n_seq; k++)
            for (int i = s->shared; i < s->shared + rows_of(s, k); i++) {
                set_row(c, rows++, s->ids[k][i], k - first, i, is_target(s, k, i + 1));
                if (rows == c->max_rows) score_slice(m, c, s, first, rows), rows = 0;
            }
        if (rows) score_slice(m, c, s, first, rows), rows = 0;
        gpt2_cache_clear_tails(c);
    }
}

/* Sequences first … < next that fill a slice of about `goal` rows, no more than fit the cache. */
static int slice_end(const gpt2_cache *c, const scoring *s, int first, int goal)
{
    int next = first, rows = s->shared;
    for (; next < s->n_seq && next - first < c->n_seq; rows += rows_of(s, next++))
        if (next > first && (rows + rows_of(s, next) > c->max_rows || rows + rows_of(s, next) / 2 > goal)) break;
    return next;
}

/* Whole sequences at a time, with the few shared tokens again in each slice: the cache keeps one layer. */
static void score_short(const gpt2 *m, gpt2_cache *c, scoring *s, int goal)
{
    for (int first = 0, next; first < s->n_seq; first = next) {
        int rows = 0;
        next     = slice_end(c, s, first, goal);
        c->prefix[0].n = 0;
        gpt2_cache_clear_tails(c);
        for (int i = 0; i < s->shared; i++) rows = put_shared(c, s, rows, i, first == 0);
        for (int k = first; k < next; k++)
            for (int i = s->shared; i < s->shared + rows_of(s, k); i++) set_row(c, rows++, s->ids[k][i], k - first, i, is_target(s, k, i + 1));
        if (rows) score_slice(m, c, s, first, rows);
    }
}

/* Memory for slices of `rows` rows, and the work.  total: rows of all sequences. */
static int score_with(const gpt2 *m, scoring *s, int longest, int total, err *e)
{
    int         tail = longest - 1 - s->shared, small = tail > 0 && s->shared <= SHARED_AGAIN && longest - 1 <= SCORE_ROWS, V = m->cfg.n_vocab;
    int         slots = !tail ? 0 : small ? s->n_seq : SCORE_ROWS / tail < 1 ? 1 : SCORE_ROWS / tail; /* tails: as many as fill a slice */
    gpt2_config cfg = m->cfg;
    gpt2_cache *c;
    if (slots > s->n_seq) slots = s->n_seq;
    if (slots > SCORE_ROWS) slots = SCORE_ROWS;
    int rows = small ? s->shared + total : slots * tail > s->shared ? slots * tail : s->shared, parts = (total + SCORE_ROWS - 1) / SCORE_ROWS;
    if (rows < 1) return OK; /* sequences of one token have no targets */
    if (rows > SCORE_ROWS) rows = SCORE_ROWS;
    if (small) cfg.n_layer = 1;
    int r = cache_new(&c, m, &cfg, 1, s->shared, slots, tail, rows, e);
    if (r) return r;
    int most  = SCORE_BYTES / (int)sizeof(float) / rows / OPS_LSE_CHUNK * OPS_LSE_CHUNK, targets = rows;
    s->step   = most < OPS_LSE_CHUNK ? OPS_LSE_CHUNK : most > V ? (V + LINEAR_LANES - 1) / LINEAR_LANES * LINEAR_LANES : most;
    if (s->shared) targets += (s->shared < rows ? s->shared : rows) * s->n_seq;
    s->logits = malloc((size_t)rows * (size_t)s->step * sizeof *s->logits);
    s->lse    = malloc((size_t)rows * sizeof *s->lse);
    s->target = malloc((size_t)targets * sizeof *s->target);
    if (!s->logits || !s->lse || !s->target) r = err_set(e, E_NOMEM, "out of memory for %d rows of logits", rows);
    else if (small) score_short(m, c, s, parts ? total / parts : 0);
    else score_long(m, c, s);
    free(s->logits);
    free(s->lse);
    free(s->target);
    cache_free(c);
    return r;
}

int gpt2_score(const gpt2 *m, const int *const *ids, const int *n, const int *from, int n_seq, double *logp, double *const *tok, err *e)
{
    scoring s = { .ids = ids, .n = n, .from = from, .n_seq = n_seq, .logp = logp, .tok = tok };
    int     r = OK, longest = 1, total = 0;
    for (int k = 0; r == OK && k < n_seq; k++) {
        if (n[k] < 1 || from[k] < 1 || from[k] > n[k])
            r = err_set(e, E_ARG, "targets from token %d on, of %d tokens", from[k], n[k]);
        else
            r = check_ids(m, ids[k], n[k], e);
        if (r) err_prefix(e, "sequence %d", k);
        s.shared = k == 0 ? n[0] - 1 : common(ids[0], s.shared, ids[k], n[k] - 1);
        longest  = n[k] > longest ? n[k] : longest;
        logp[k]  = 0;
    }
    if (r || n_seq < 1) return r;
    for (int k = 0; k < n_seq && total <= INT_MAX / 2; k++) total += rows_of(&s, k);
    return score_with(m, &s, longest, total, e);
}
