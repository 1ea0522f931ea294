/* workload: see workload.h. */
#include "eval/workload.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "models/sample.h"

/* ---- what it costs ----------------------------------------------------------------------------------------------- */

int subject_of(subject *s, const gpt2 *m, err *e)
{
    const gpt2_config *c = gpt2_cfg(m);
    double C = c->n_embd, F = c->n_inner, L = c->n_layer, small = 0;
    *s = (subject){ .m = m, .row = 2 * L * (4 * C * C + 2 * C * F), .head = 2.0 * c->n_vocab * C, .pair = 4 * L * C, .kv_bytes = 2 * L * C * sizeof(float) };
    gguf *g;
    int   r = gguf_open(&g, gpt2_path(m), e);
    if (r) return r;
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        int                head = str_eq(t->name, c->tied ? STR("token_embd.weight") : STR("output.weight"));
        if (t->n_dims != 2 || (!head && !str_starts(t->name, STR("blk.")))) continue;
        if (head) s->head_bytes += (double)t->n_bytes;
        else s->blocks_bytes += (double)t->n_bytes;
        if (t->type == GT_Q8_0 || t->type == GT_Q4_0) small += (double)t->n_bytes;
    }
    gguf_close(g);
    s->bytes_wide = 2 * small > s->head_bytes + s->blocks_bytes;
    return OK;
}

static double sum_to(double n) { return n * (n + 1) / 2; }

/* n rows at positions from..from+n, `logits` of them with logits, in one pass over the weights. */
static void add_rows(figure *f, const subject *s, int n, int from, int logits)
{
    f->ops += n * s->row + logits * s->head + (sum_to(from + n) - sum_to(from)) * s->pair;
    f->bytes += s->blocks_bytes + (logits ? s->head_bytes : 0) + (from + n) * s->kv_bytes;
}

/* `steps` times a row for each of `rows` sequences. */
static void add_steps(figure *f, const subject *s, const workload *w, int steps)
{
    for (int k = 0; k < steps; k++) {
        f->ops += w->rows * (s->row + s->head + (w->context + k + 1) * s->pair);
        f->bytes += s->blocks_bytes + s->head_bytes + (w->context + w->rows * (k + 1)) * s->kv_bytes; /* the shared prefix is read once */
    }
}

static void add_scores(figure *f, const subject *s, const workload *w)
{
    double n = w->steps + w->context;
    f->ops += w->rows * (n * s->row + w->context * s->head + sum_to(n) * s->pair);
    f->bytes += s->blocks_bytes + s->head_bytes;
}

/* ---- what is done ------------------------------------------------------------------------------------------------ */

typedef struct {
    const workload *w;
    const gpt2     *fwd, *bwd;
    gpt2_cache     *cache;  /* of fwd */
    int            *prefix; /* (context or rows,) */
    float          *logits; /* (rows, V) */
    gpt2_batch      batch;  /* (rows,) */
    int            *drawn;  /* (rows, steps + context): the candidates, each with its source behind it */
    double         *logp;   /* (rows,) */
    sample_space  **space;  /* (threads,) */
    int             threads;

} work;

static int token(const gpt2 *m, int i)
{
    int V = gpt2_cfg(m)->n_vocab;
    return (int)(((unsigned)i * 7919u + 13u) % (unsigned)(V < 50000 ? V : 50000));
}

static int prefill(void *ctx, stopwatch *s, err *e)
{
    work *x = ctx;
    gpt2_cache_free(x->cache); /* nothing may be reused from the repeat before */
    int n = x->w->kind == WORK_PREFILL ? x->w->rows : x->w->context;
    x->cache = gpt2_cache_new(x->fwd, n, 0, 0, n < 64 ? n : 64, e);
    if (!x->cache) return e->code;
    stopwatch_start(s);
    int r = gpt2_sync(x->fwd, x->cache, x->prefix, n, x->logits, NULL, e);
    stopwatch_stop(s);
    return r;
}

/* Row k of the batch: token `id` at step t of sequence k. */
static void set_row(work *x, int k, int id, int t)
{
    x->batch.id[k]  = id;
    x->batch.seq[k] = k;
    x->batch.pos[k] = x->w->context + t;
}

static int decode(void *ctx, stopwatch *s, err *e)
{
    work *x = ctx;
    int   r = gpt2_sync(x->fwd, x->cache, x->prefix, x->w->context, x->logits, NULL, e); /* clears the tails */
    stopwatch_start(s);
    for (int t = 0; t < x->w->steps && r == OK; t++) {
        for (int k = 0; k < x->w->rows; k++) set_row(x, k, token(x->fwd, k * 100 + t), t);
        r = gpt2_forward(x->fwd, x->cache, &x->batch, x->logits, e);
    }
    stopwatch_stop(s);
    return r;
}

/* Token t of every candidate; before the first all share one row of logits. */
static void draw(work *x, int t)
{
    static const sample_opts o = { .temperature = 1, .top_k = 40, .top_p = 0.9f, .rep_penalty = 1, .sep = -1 };
    int    V = gpt2_cfg(x->fwd)->n_vocab;
    size_t width = (size_t)(x->w->steps + x->w->context);
#pragma omp parallel for schedule(static) num_threads(x->threads)
    for (int k = 0; k < x->w->rows; k++)
        x->drawn[(size_t)k * width + (size_t)t] = sample_draw(x->logits + (t ? (size_t)k * (size_t)V : 0), V, &o, NULL, 0, NULL, 0,
                                                              rng_unit(1, (uint64_t)k, (uint64_t)t), x->space[omp_get_thread_num()]);
}

static int score(work *x, err *e)
{
    int         n = x->w->rows, width = x->w->steps + x->w->context;
    const int **ids = malloc((size_t)n * sizeof *ids);
    int        *len = malloc((size_t)n * sizeof *len), *from = malloc((size_t)n * sizeof *from), r = E_NOMEM;
    for (int k = 0; ids && len && from && k < n; k++) {
        ids[k]  = x->drawn + (size_t)k * (size_t)width;
        len[k]  = width;
        from[k] = x->w->steps;
    }
    if (ids && len && from) r = gpt2_score(x->bwd, ids, len, from, n, x->logp, NULL, e);
    else err_set(e, E_NOMEM, "out of memory");
    free(ids);
    free(len);
    free(from);
    return r;
}

static int score_alone(void *ctx, stopwatch *s, err *e)
{
    stopwatch_start(s);
    int r = score(ctx, e);
    stopwatch_stop(s);
    return r;
}

/* The prefix is computed anew: a cache that holds other tokens is what the start of a conversation finds. */
static int whole_turn(void *ctx, stopwatch *s, err *e)
{
    work *x = ctx;
    int   other = (x->prefix[0] + 1) % gpt2_cfg(x->fwd)->n_vocab, r = gpt2_sync(x->fwd, x->cache, &other, 1, x->logits, NULL, e);
    if (r) return r;
    stopwatch_start(s);
    r = gpt2_sync(x->fwd, x->cache, x->prefix, x->w->context, x->logits, NULL, e);
    for (int t = 0; t < x->w->steps && r == OK; t++) {
        draw(x, t);
        if (t == x->w->steps - 1) break; /* nobody asks what would follow */
        for (int k = 0; k < x->w->rows; k++) set_row(x, k, x->drawn[(size_t)k * (size_t)(x->w->steps + x->w->context) + (size_t)t], t);
        r = gpt2_forward(x->fwd, x->cache, &x->batch, x->logits, e);
    }
    stopwatch_lap(s);
    if (r == OK) r = score(x, e);
    stopwatch_stop(s);
    return r;
}

/* ---- setting up -------------------------------------------------------------------------------------------------- */

static int work_new(work *x, err *e)
{
    const workload *w = x->w;
    size_t rows = (size_t)w->rows, n = (size_t)(w->kind == WORK_PREFILL ? w->rows : w->context), V = 1, width = (size_t)(w->steps + w->context);
    if (x->fwd) V = (size_t)gpt2_cfg(x->fwd)->n_vocab;
    x->threads    = omp_get_max_threads();
    x->prefix     = calloc(n, sizeof *x->prefix);
    x->logits     = calloc(w->kind == WORK_PREFILL ? V : rows * V, sizeof *x->logits);
    x->batch      = (gpt2_batch){ w->rows, calloc(rows, sizeof(int)), calloc(rows, sizeof(int)), calloc(rows, sizeof(int)), malloc(rows) };
    x->drawn      = calloc(rows * width + 1, sizeof *x->drawn);
    x->logp       = calloc(rows, sizeof *x->logp);
    x->space      = calloc((size_t)x->threads, sizeof *x->space);
    int ok = x->prefix && x->logits && x->batch.id && x->batch.seq && x->batch.pos && x->batch.want && x->drawn && x->logp && x->space;
    for (int i = 0; ok && w->kind == WORK_TURN && i < x->threads; i++) ok = (x->space[i] = sample_space_new((int)V)) != NULL;
    if (!ok) return err_set(e, E_NOMEM, "out of memory for %d rows", w->rows);
    memset(x->batch.want, 1, rows);
    const gpt2 *m = x->fwd ? x->fwd : x->bwd;
    for (size_t i = 0; i < n; i++) x->prefix[i] = token(m, (int)i);
    for (size_t k = 0; k < rows; k++) /* replies (drawn ones take their place), then the source */
        for (size_t i = 0; i < width; i++) x->drawn[k * width + i] = token(m, i < (size_t)w->steps ? (int)(k * 100 + i) : (int)i - w->steps);
    if (w->kind != WORK_DECODE && w->kind != WORK_TURN) return OK;
    x->cache = gpt2_cache_new(x->fwd, w->context, w->rows, w->steps, w->rows > 64 ? w->rows : 64, e);
    return x->cache ? OK : e->code;
}

static void work_free(work *x)
{
    gpt2_cache_free(x->cache);
    for (int i = 0; x->space && i < x->threads; i++) sample_space_free(x->space[i]);
    free(x->prefix);
    free(x->logits);
    free(x->batch.id);
    free(x->batch.seq);
    free(x->batch.pos);
    free(x->batch.want);
    free(x->drawn);
    free(x->logp);
    free(x->space);
}

static void hash_result(const work *x, char out[17])
{
    const workload *w = x->w;
    size_t          rows = (size_t)w->rows, V = x->fwd ? (size_t)gpt2_cfg(x->fwd)->n_vocab : 0;
    unsigned char   d[32];
    char            hex[65];
    sha256          h;
    sha256_init(&h);
    if (w->kind == WORK_PREFILL || w->kind == WORK_DECODE) sha256_add(&h, x->logits, (w->kind == WORK_PREFILL ? 1 : rows) * V * sizeof *x->logits);
    if (w->kind == WORK_TURN) sha256_add(&h, x->drawn, rows * (size_t)(w->steps + w->context) * sizeof *x->drawn);
    if (w->kind == WORK_TURN || w->kind == WORK_SCORE) sha256_add(&h, x->logp, rows * sizeof *x->logp);
    sha256_end(&h, d);
    sha256_hex(d, hex);
    memcpy(out, hex, 16);
    out[16] = 0;
}

int workload_fits(const workload *w, const gpt2 *fwd, const gpt2 *bwd)
{
    int n = w->kind == WORK_PREFILL ? w->rows : w->context + w->steps;
    if (w->kind != WORK_SCORE && (!fwd || n > gpt2_cfg(fwd)->n_ctx)) return 0;
    return (w->kind != WORK_SCORE && w->kind != WORK_TURN) || (bwd && n <= gpt2_cfg(bwd)->n_ctx);
}

void workload_name(const workload *w, buf *out)
{
    static const char *const names[] = { "prefill", "decode", "score", "turn" };
    buf_fmt(out, "%s %d", names[w->kind], w->rows);
    if (w->kind == WORK_SCORE || w->kind == WORK_TURN) buf_fmt(out, "x%d+%d", w->steps, w->context);
}

int workload_run(const workload *w, const subject *fwd, const subject *bwd, int repeats, figure *f, err *e)
{
    static timed *const runs[] = { prefill, decode, score_alone, whole_turn };
    work x = { .w = w, .fwd = fwd && w->kind != WORK_SCORE ? fwd->m : NULL, .bwd = bwd ? bwd->m : NULL };
    int  r = OK;
    *f     = (figure){ 0 };
    if (w->rows < 1 || (w->kind != WORK_PREFILL && (w->context < 1 || w->steps < 1)) || !workload_fits(w, x.fwd, x.bwd))
        r = err_set(e, E_ARG, "%d rows, a context of %d and %d steps do not fit the model", w->rows, w->context, w->steps);
    if (r == OK) r = work_new(&x, e);
    if (r == OK) r = stopwatch_repeat(runs[w->kind], &x, repeats, &f->time, e);
    if (r == OK) hash_result(&x, f->hash);
    work_free(&x);
    if (r) return r;
    switch (w->kind) {
    case WORK_PREFILL: add_rows(f, fwd, w->rows, 0, 1), f->tokens = w->rows; break;
    case WORK_DECODE: add_steps(f, fwd, w, w->steps), f->tokens = (double)w->rows * w->steps; break;
    case WORK_SCORE: add_scores(f, bwd, w), f->tokens = (double)w->rows * (w->steps + w->context); break;
    default:
        add_rows(f, fwd, w->context, 0, 1);
        add_steps(f, fwd, w, w->steps - 1);
        add_scores(f, bwd, w);
        f->tokens = (double)w->rows * w->steps;
    }
    return OK;
}
