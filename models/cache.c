/* cache: see cache.h. */
#include "models/cache.h"

#include "models/linear.h"
#include "models/ops.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = LINEAR_LANES, GROUP = CHAIN_ROWS /* rows that read the prefix together */, PARALLEL_MIN = 1 << 15 };

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Hands out pieces of one block; with base NULL it only counts. */
typedef struct {
    char  *base;
    size_t used;
    int    overflow;
} carver;

static void *carve(carver *w, size_t a, size_t b, size_t size)
{
    size_t n, at = w->used;
    if (mul_size(a, b, &n) || mul_size(n, size, &n) || add_size(n, 63, &n) || add_size(at, n / 64 * 64, &w->used)) w->overflow = 1;
    return w->base ? w->base + at : NULL;
}

static void carve_store(carver *w, const gpt2_cache *c, kv_store *s, int cap)
{
    size_t heads = (size_t)c->n_layer * (size_t)c->n_head; /* at most 2^27 */
    s->k  = carve(w, heads * (size_t)cap, (size_t)c->head, sizeof(float));
    s->v  = carve(w, heads * (size_t)cap, (size_t)c->lanes, sizeof(float));
    s->id = carve(w, (size_t)cap, 1, sizeof(int));
}

static void carve_all(carver *w, gpt2_cache *c, int inner)
{
    size_t rows = (size_t)c->max_rows, C = (size_t)c->C, wide = (size_t)(c->C > inner ? c->C : inner);
    kv_store *prefix = carve(w, (size_t)c->n_prefix, 1, sizeof *prefix), *tail = carve(w, (size_t)c->n_seq, 1, sizeof *tail), none;
    c->prefix        = prefix;
    c->tail          = tail;
    for (int p = 0; p < c->n_prefix && !w->overflow; p++) carve_store(w, c, prefix ? &prefix[p] : &none, c->prefix_cap);
    for (int s = 0; s < c->n_seq && !w->overflow; s++) carve_store(w, c, tail ? &tail[s] : &none, c->tail_cap);
    c->next       = carve(w, (size_t)c->n_seq, 1, sizeof(int));
    c->fed        = carve(w, (size_t)c->n_prefix, 1, sizeof(int));
    c->base       = carve(w, (size_t)c->n_prefix, 1, sizeof(int));
    c->id         = carve(w, rows, 1, sizeof(int));
    c->seq        = carve(w, rows, 1, sizeof(int));
    c->pos        = carve(w, rows, 1, sizeof(int));
    c->want       = carve(w, rows, 1, 1);
    c->group      = carve(w, rows + 1, 1, sizeof(int));
    c->place      = carve(w, rows, 1, sizeof(size_t));
    c->x          = carve(w, rows, C, sizeof(float));
    c->ln         = carve(w, rows, C, sizeof(float));
    c->att        = carve(w, rows, C, sizeof(float));
    c->qkv        = carve(w, rows, 3 * C, sizeof(float));
    c->fc         = carve(w, rows, (size_t)inner, sizeof(float));
    c->scratch    = carve(w, rows, wide, sizeof(float));
    c->thread_mem = carve(w, (size_t)c->threads, c->per_thread, sizeof(float));
}

static int round_up(int n) { return (n + LANES - 1) / LANES * LANES; }

int cache_new(gpt2_cache **out, const gpt2 *model, const gpt2_config *cfg, int n_prefix, int prefix_max, int each, int tail_max,
              int max_rows, err *e)
{
    *out = NULL;
    if (n_prefix < 1 || prefix_max < 0 || each < 0 || tail_max < 0 || max_rows < 1 || n_prefix > 1 << 20 || prefix_max > 1 << 20 ||
        tail_max > 1 << 20 || each > (1 << 20) / n_prefix || max_rows > 1 << 20)
        return err_set(e, E_ARG, "cache: %d prefixes of %d, %d tails of %d on each, %d rows at a time: out of range", n_prefix,
                       prefix_max, each, tail_max, max_rows);
    gpt2_cache *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, E_NOMEM, "cache: out of memory");
    c->model      = model;
    c->n_ctx      = cfg->n_ctx;
    c->n_layer    = cfg->n_layer;
    c->n_head     = cfg->n_head;
    c->C          = cfg->n_embd;
    c->head       = cfg->n_embd / cfg->n_head;
    c->lanes      = round_up(c->head);
    c->n_prefix   = n_prefix;
    c->each       = each;
    c->prefix_max = prefix_max;
    c->n_seq      = n_prefix * each;
    c->tail_max   = tail_max;
    c->max_rows   = max_rows;
    c->prefix_cap = round_up(prefix_max);
    c->tail_cap   = round_up(tail_max);
    int see       = prefix_max + tail_max < cfg->n_ctx ? prefix_max + tail_max : cfg->n_ctx;
    c->score_max  = round_up(see);
    c->threads    = omp_get_max_threads() > omp_get_num_procs() ? omp_get_max_threads() : omp_get_num_procs();
    /* scores and their transpose (GROUP, score_max) each, queries twice (GROUP, head), output (GROUP, lanes); see attend_group */
    c->per_thread = (size_t)GROUP * (2 * (size_t)c->score_max + 3 * (size_t)c->lanes);
    carver w      = { NULL, 0, 0 };
    carve_all(&w, c, cfg->n_inner);
    int r = OK;
    if (w.overflow || w.used > SIZE_MAX - 64)
        r = err_set(e, E_LIMIT, "cache: %d prefixes of %d and %d tails of %d do not fit this machine's addresses", n_prefix, prefix_max,
                    c->n_seq, tail_max);
    else if (!(c->memory = calloc(1, w.used + 64))) /* zero pages: taken from the system only as they are used */
        r = err_set(e, E_NOMEM, "cache: out of memory for %zu MB", w.used >> 20);
    if (r) {
        cache_free(c);
        return r;
    }
    w = (carver){ (char *)c->memory + (64 - (uintptr_t)c->memory % 64) % 64, 0, 0 };
    carve_all(&w, c, cfg->n_inner);
    *out = c;
    return OK;
}

void cache_free(gpt2_cache *c)
{
    if (!c) return;
    free(c->memory);
    free(c);
}

/* ---- places ---------------------------------------------------------------------------------------------------- */

/* Keys of a head from block 0: (cap / 16, head, 16).  Values of a head: (cap, lanes). */
static float *keys(const gpt2_cache *c, const kv_store *s, int cap, int layer, int h)
{
    return s->k + ((size_t)(layer % c->n_layer) * (size_t)c->n_head + (size_t)h) * (size_t)cap * (size_t)c->head;
}
static float *values(const gpt2_cache *c, const kv_store *s, int cap, int layer, int h)
{
    return s->v + ((size_t)(layer % c->n_layer) * (size_t)c->n_head + (size_t)h) * (size_t)cap * (size_t)c->lanes;
}
static float *key_at(const gpt2_cache *c, float *head_keys, int i)
{
    return head_keys + (size_t)(i / LANES) * (size_t)c->head * LANES + (size_t)(i % LANES);
}

/* The store behind row r of the slice, its room, and the row's place in it. */
static kv_store *store_of(const gpt2_cache *c, int r, int *cap, int *at)
{
    int       own = c->seq[r] >= 0;
    kv_store *p   = &c->prefix[cache_prefix_of(c, c->seq[r])];
    *cap = own ? c->tail_cap : c->prefix_cap;
    *at  = own ? c->pos[r] - p->n : c->pos[r];
    return own ? &c->tail[c->seq[r]] : p;
}

/* Rows r0..r1, neighbours in one block of 16 positions, head h: keys are turned, values copied. */
static void put_rows(gpt2_cache *c, int layer, int h, int r0, int r1)
{
    int          cap, at, n = r1 - r0;
    size_t       C = (size_t)c->C, D = (size_t)c->head, lanes = (size_t)c->lanes;
    kv_store    *s = store_of(c, r0, &cap, &at);
    const float *k = c->qkv + (size_t)r0 * 3 * C + C + (size_t)h * D;
    float       *to = key_at(c, keys(c, s, cap, layer, h), at), *v = values(c, s, cap, layer, h) + (size_t)at * lanes;
    for (size_t d = 0; d < D; d++)
        for (int i = 0; i < n; i++) to[d * LANES + (size_t)i] = k[(size_t)i * 3 * C + d];
    for (int i = 0; i < n; i++) memcpy(v + (size_t)i * lanes, k + (size_t)i * 3 * C + C, D * sizeof *v);
}

/* Rows 0..n in groups that lie in one block of 16 positions of one store: c->group[g] … c->group[g + 1] - 1.  Returns how many. */
static int block_groups(gpt2_cache *c, int n)
{
    int groups = 0, cap, at;
    for (int r = 0; r < n; r++) {
        store_of(c, r, &cap, &at);
        if (groups && at % LANES && c->seq[r] == c->seq[r - 1] && c->pos[r] == c->pos[r - 1] + 1) continue;
        c->group[groups++] = r;
    }
    c->group[groups] = n;
    return groups;
}

void cache_put(gpt2_cache *c, int layer, int n)
{
    int heads = c->n_head, items = block_groups(c, n) * heads;
#pragma omp parallel for schedule(static) if ((size_t)n * (size_t)c->C > PARALLEL_MIN)
    for (int i = 0; i < items; i++) put_rows(c, layer, i % heads, c->group[i / heads], c->group[i / heads + 1]);
}

void cache_adopt(gpt2_cache *c, int s, int n)
{
    kv_store *from = &c->tail[s], *to = &c->prefix[cache_prefix_of(c, s)];
    size_t    lanes = (size_t)c->lanes;
    for (int layer = 0; layer < c->n_layer; layer++)
        for (int h = 0; h < c->n_head; h++) {
            float *k_from = keys(c, from, c->tail_cap, layer, h), *k_to = keys(c, to, c->prefix_cap, layer, h);
            for (int i = 0; i < n; i++) {
                const float *a = key_at(c, k_from, i);
                float       *b = key_at(c, k_to, to->n + i);
                for (int d = 0; d < c->head * LANES; d += LANES) b[d] = a[d];
            }
            memcpy(values(c, to, c->prefix_cap, layer, h) + (size_t)to->n * lanes, values(c, from, c->tail_cap, layer, h),
                   (size_t)n * lanes * sizeof(float));
        }
    memcpy(to->id + to->n, from->id, (size_t)n * sizeof *to->id);
    to->n += n;
}

void cache_copy(gpt2_cache *c, int from, int to)
{
    kv_store *a = &c->tail[from], *b = &c->tail[to];
    size_t    n = (size_t)a->n, blocks = (n + LANES - 1) / LANES * LANES; /* keys lie in blocks of 16 positions */
    for (int layer = 0; layer < c->n_layer; layer++)
        for (int h = 0; h < c->n_head; h++) {
            memcpy(keys(c, b, c->tail_cap, layer, h), keys(c, a, c->tail_cap, layer, h), blocks * (size_t)c->head * sizeof(float));
            memcpy(values(c, b, c->tail_cap, layer, h), values(c, a, c->tail_cap, layer, h), n * (size_t)c->lanes * sizeof(float));
        }
    memcpy(b->id, a->id, n * sizeof *b->id);
    b->n = a->n;
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* score (m, score_max): keys 0..n against m queries q (head, m). */
static void scores(const gpt2_cache *c, float *score, const float *k, const float *q, int m, int n)
{
    linear_chains(&(linear_job){ .x = q, .m = m, .k = c->head, .n_out = n, .w = k, .k_step = LANES,
                                 .panel_step = (size_t)c->head * LANES, .y = score, .y_step = (size_t)c->score_max });
}

/* out (m, lanes) += weights p (n, m) times values 0..n. */
static void weigh(const gpt2_cache *c, float *out, const float *v, const float *p, int m, int n)
{
    size_t lanes = (size_t)c->lanes;
    linear_chains(&(linear_job){ .x = p, .m = m, .k = n, .n_out = c->lanes, .w = v, .k_step = lanes, .panel_step = LANES, .init = out,
                                 .init_step = lanes, .y = out, .y_step = lanes });
}

/* out (m, lanes) += weights times values; row r sees the first see[r] of them (rising) and has its weights at p + r * score_max.  What all see is read once
 * for all. */
static void weigh_seen(const gpt2_cache *c, float *out, const float *v, const int *see, const float *p, float *turned, int m)
{
    size_t S = (size_t)c->score_max, lanes = (size_t)c->lanes, all = (size_t)see[0];
    for (size_t i = 0; i < all; i++)
        for (int r = 0; r < m; r++) turned[i * (size_t)m + (size_t)r] = p[(size_t)r * S + i];
    weigh(c, out, v, turned, m, see[0]);
    for (int r = 1; r < m; r++)
        if (see[r] > see[0]) weigh(c, out + (size_t)r * lanes, v + all * lanes, p + (size_t)r * S + all, 1, see[r] - see[0]);
}

/* Rows r0..r0+m of the slice (m <= GROUP), head h: neighbours in one sequence, or rows of tails of one prefix that differ from neighbour to neighbour.  What they see in
 * common is read once for all: scores are made for what the last row sees, and those that an earlier row does not see are left out of its sum. */
static void attend_group(const gpt2_cache *c, int layer, int h, int r0, int m, float scale, float *mem)
{
    size_t C = (size_t)c->C, D = (size_t)c->head, lanes = (size_t)c->lanes, S = (size_t)c->score_max;
    const kv_store *prefix = &c->prefix[cache_prefix_of(c, c->seq[r0])];
    size_t P = (size_t)prefix->n;
    float *score = mem, *turned = score + GROUP * S, *q = turned + GROUP * S, *q_turned = q + GROUP * lanes;
    float *out = q_turned + GROUP * lanes, inverse[GROUP];
    const float *k = keys(c, prefix, c->prefix_cap, layer, h), *v = values(c, prefix, c->prefix_cap, layer, h);
    const float *tail_k[GROUP] = { NULL }, *tail_v[GROUP] = { NULL };
    int    shared[GROUP], own[GROUP], tails = c->seq[r0] >= 0, one = m == 1 || c->seq[r0] == c->seq[r0 + 1]; /* positions row r sees in the prefix, in its tail */
    for (int r = 0; r < m; r++) {
        const float *from = c->qkv + (size_t)(r0 + r) * 3 * C + (size_t)h * D;
        for (size_t d = 0; d < D; d++) q_turned[d * (size_t)m + (size_t)r] = q[(size_t)r * lanes + d] = from[d] * scale;
        shared[r] = tails ? (int)P : c->pos[r0 + r] + 1;
        own[r]    = c->pos[r0 + r] + 1 - shared[r];
        if (tails) tail_k[r] = keys(c, &c->tail[c->seq[r0 + r]], c->tail_cap, layer, h);
        if (tails) tail_v[r] = values(c, &c->tail[c->seq[r0 + r]], c->tail_cap, layer, h);
    }
    scores(c, score, k, q_turned, m, shared[m - 1]);
    if (tails && one) scores(c, score + P, tail_k[0], q_turned, m, own[m - 1]);
    for (int r = 0; tails && !one && r < m; r++) scores(c, score + (size_t)r * S + P, tail_k[r], q + (size_t)r * lanes, 1, own[r]);
    for (int r = 0; r < m; r++) inverse[r] = ops_exp_row(score + (size_t)r * S, c->pos[r0 + r] + 1);
    memset(out, 0, (size_t)m * lanes * sizeof *out);
    weigh_seen(c, out, v, shared, score, turned, m);
    if (tails && one) weigh_seen(c, out, tail_v[0], own, score + P, turned, m);
    for (int r = 0; tails && !one && r < m; r++) weigh(c, out + (size_t)r * lanes, tail_v[r], score + (size_t)r * S + P, 1, own[r]);
    for (int r = 0; r < m; r++)
        for (size_t d = 0; d < D; d++) c->att[(size_t)(r0 + r) * C + (size_t)h * D + d] = out[(size_t)r * lanes + d] * inverse[r];
}

/* Rows of the slice from r on, below n, that are neighbours in one sequence. */
static int run_of(const gpt2_cache *c, int r, int n)
{
    int k = 1;
    while (k < GROUP && r + k < n && c->seq[r + k] == c->seq[r]) k++;
    return k;
}

/* Rows 0..n in groups for attend_group: c->group[g] … c->group[g + 1] - 1.  Rows of one sequence together; single rows of tails, as decoding has them, with
 * other such of the same prefix.  Returns how many. */
static int attend_groups(gpt2_cache *c, int n)
{
    int groups = 0;
    for (int r = 0, k; r < n; r += k) {
        k = run_of(c, r, n);
        if (k == 1 && c->seq[r] >= 0)
            while (k < GROUP && r + k < n && run_of(c, r + k, n) == 1 && cache_prefix_of(c, c->seq[r + k]) == cache_prefix_of(c, c->seq[r])) k++;
        c->group[groups++] = r;
    }
    c->group[groups] = n;
    return groups;
}

void cache_attend(gpt2_cache *c, int layer, int n, float scale)
{
    int     threads = omp_get_max_threads();
    int64_t heads = c->n_head, items = (int64_t)attend_groups(c, n) * heads;
    size_t  work = 0;
    for (int r = 0; r < n; r++) work += (size_t)c->pos[r] * (size_t)c->C;
    if (threads > c->threads) threads = c->threads;
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (work > PARALLEL_MIN)
    for (int64_t i = 0; i < items; i++) { /* heads of one group lie beside each other: rows at the end of a prefill are the dearest */
        const int *g = c->group + i / heads;
        attend_group(c, layer, (int)(i % heads), g[0], g[1] - g[0], scale, c->thread_mem + (size_t)omp_get_thread_num() * c->per_thread);
    }
}
