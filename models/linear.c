/* linear: see linear.h.  Packing, the split over threads, the choice of kernels, and the plain C chains that say what the
 * others compute. */
#include "models/linear_impl.h"

#include "models/gpt2.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Fewer multiply-adds than this are not worth waking the other threads for. */
enum { PARALLEL_MIN = 1 << 17 };
/* Fewer values of x than this are packed by one thread: cheaper than a barrier. */
enum { PACK_MIN = 1 << 15 };
/* Rows of x are taken in blocks of about this many bytes, so that a block stays in the second-level cache while panels
 * stream by. */
enum { BLOCK_BYTES = 512 << 10 };

const char *linear_numerics(void) { return "chain1 f32-fma, block1 int8x32-fma"; }

/* ---- the plain kernel ------------------------------------------------------------------------------------------ */

static float widen(const void *w, size_t i, int type)
{
    float x;
    gpt2_row_decode(type, (const unsigned char *)w + i * (type == GT_F32 ? 4 : 2), &x, 1);
    return x;
}

static void plain(const linear_job *j, int type)
{
    for (int r = 0; r < j->m; r++)
        for (int o = 0; o < j->n_out; o++) {
            size_t p = (size_t)o / LINEAR_LANES, lane = (size_t)o % LINEAR_LANES;
            float  acc = j->init ? j->init[(size_t)r * j->init_step + (size_t)o] : 0;
            for (int i = 0; i < j->k; i++)
                acc = fmaf(j->x[i * j->m + r], widen(j->w, p * j->panel_step + (size_t)i * j->k_step + lane, type), acc);
            j->y[(size_t)r * j->y_step + (size_t)o] = acc;
        }
}
static void plain_f32(const linear_job *j) { plain(j, GT_F32); }
static void plain_f16(const linear_job *j) { plain(j, GT_F16); }
static void plain_bf16(const linear_job *j) { plain(j, GT_BF16); }

static const linear_path plain_path = { "c", 4, plain_f32, plain_f16, plain_bf16, 4, 0, block_plain_q8, block_plain_q4 };

/* ---- the choice ------------------------------------------------------------------------------------------------ */

static const linear_path *chosen; /* NULL until the first use; every thread would choose the same */

static const linear_path *path_of(int which)
{
    switch (which) {
    case LINEAR_C: return &plain_path;
#if defined(__x86_64__)
    case LINEAR_AVX2: return linear_path_avx2();
    case LINEAR_AVXVNNI: return linear_path_avxvnni();
    case LINEAR_AVX512: return linear_path_avx512();
    case LINEAR_VNNI512: return linear_path_vnni512();
#elif defined(__aarch64__)
    case LINEAR_NEON: return linear_path_neon();
#endif
    }
    return NULL;
}

static const linear_path *best(void)
{
    static const int liked[] = { LINEAR_VNNI512, LINEAR_AVXVNNI, LINEAR_AVX512, LINEAR_AVX2, LINEAR_NEON };
    for (size_t i = 0; i < sizeof liked / sizeof *liked; i++)
        if (path_of(liked[i])) return path_of(liked[i]);
    return &plain_path;
}

static const linear_path *path(void)
{
    const linear_path *p = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (!p) {
        p = best();
        __atomic_store_n(&chosen, p, __ATOMIC_RELEASE);
    }
    return p;
}

int linear_force_path(int which)
{
    const linear_path *p = which == LINEAR_BEST ? best() : path_of(which);
    if (!p) return E_ARG;
    __atomic_store_n(&chosen, p, __ATOMIC_RELEASE);
    return OK;
}

const char *linear_path_name(void) { return path()->name; }
void        linear_chains(const linear_job *j) { path()->f32(j); }

/* ---- packing --------------------------------------------------------------------------------------------------- */

static size_t n_panels(const linear *w) { return ((size_t)w->rows + LINEAR_LANES - 1) / LINEAR_LANES; }
static size_t value_bytes(const linear *w) { return w->type == GT_F32 ? 4 : 2; }
static int    in_blocks(const linear *w) { return w->type == GT_Q8_0 || w->type == GT_Q4_0; }
static void  *panel_at(const linear *w, size_t p) { return (char *)w->panel + p * w->panel_bytes; }

/* One panel of values from file rows; returns the first of its rows with a number that is not finite, or -1. */
static int pack_values(const linear *w, void *panel, const unsigned char *src, size_t row_bytes, int rows)
{
    enum { STEP = 32 }; /* values at a time */
    size_t size = value_bytes(w), cols = (size_t)w->cols;
    int    bad = -1;
    if (rows < LINEAR_LANES) memset(panel, 0, w->panel_bytes);
    for (size_t k = 0; k < cols; k += STEP) {
        size_t n = cols - k < STEP ? cols - k : STEP;
        for (int r = 0; r < rows; r++) {
            const unsigned char *from = src + (size_t)r * row_bytes + k * size;
            size_t               to   = k * LINEAR_LANES + (size_t)r;
            float                x[STEP], sum = 0;
            gpt2_row_decode(w->type, from, x, n);
            for (size_t i = 0; i < n; i++) sum += x[i] * 0; /* NaN as soon as one is not finite */
            if (sum != 0 && (bad < 0 || r < bad)) bad = r;
            if (size == 4)
                for (size_t i = 0; i < n; i++) ((float *)panel)[to + i * LINEAR_LANES] = x[i];
            else
                for (size_t i = 0; i < n; i++) memcpy((uint16_t *)panel + to + i * LINEAR_LANES, from + 2 * i, 2);
        }
    }
    return bad;
}

/* Panel p from the file; returns the first of its rows with a number that is not finite, or -1. */
static int pack_panel(const linear *w, size_t p, const unsigned char *src)
{
    size_t row_bytes = gguf_row_bytes(w->type, (uint64_t)w->cols), r0 = p * LINEAR_LANES;
    int    left = w->rows - (int)r0, rows = left < LINEAR_LANES ? left : LINEAR_LANES;
    src += r0 * row_bytes;
    int bad = in_blocks(w) ? block_pack_panel(panel_at(w, p), w->type, w->cols, src, row_bytes, rows)
                           : pack_values(w, panel_at(w, p), src, row_bytes, rows);
    return bad < 0 ? bad : bad + (int)r0;
}

/* Panels are read from end to end for every token: large ones ask for large pages. */
static void *panel_memory(size_t size)
{
    enum { LARGE_PAGE = 2 << 20 };
    void *p = NULL;
    if (posix_memalign(&p, size >= 2 * LARGE_PAGE ? LARGE_PAGE : 64, size)) return NULL;
#ifdef MADV_HUGEPAGE
    if (size >= 2 * LARGE_PAGE) madvise(p, size, MADV_HUGEPAGE);
#endif
    return p;
}

int linear_pack(linear *w, int rows, int cols, int type, const void *src, const float *bias, err *e)
{
    *w = (linear){ .rows = rows, .cols = cols, .type = type };
    size_t size, padded = n_panels(w) * LINEAR_LANES;
    int    bad = rows;
    if (rows < 1 || cols < 1 || !gguf_row_bytes(type, (uint64_t)cols))
        return err_set(e, E_ARG, "no matrix: %d rows of %d values of type %d", rows, cols, type);
    if ((in_blocks(w) ? mul_size((size_t)cols / BLOCK, block_bytes(type), &w->panel_bytes)
                      : mul_size((size_t)cols, LINEAR_LANES * value_bytes(w), &w->panel_bytes)) ||
        mul_size(w->panel_bytes, n_panels(w), &size))
        return err_set(e, E_LIMIT, "a matrix of %d rows of %d values is too large", rows, cols);
    w->panel = panel_memory(size);
    w->bias  = bias ? aligned_alloc(64, padded * sizeof *bias) : NULL;
    if (!w->panel || (bias && !w->bias)) {
        linear_free(w);
        return err_set(e, E_NOMEM, "out of memory for a matrix of %d rows of %d values", rows, cols);
    }
    if (bias) {
        memcpy(w->bias, bias, (size_t)rows * sizeof *bias);
        memset(w->bias + rows, 0, (padded - (size_t)rows) * sizeof *bias);
    }
#pragma omp parallel for schedule(static) reduction(min : bad) if (size > 1u << 18)
    for (size_t p = 0; p < n_panels(w); p++) {
        int r = pack_panel(w, p, src);
        if (r >= 0 && r < bad) bad = r;
    }
    if (bad == rows) return OK;
    linear_free(w);
    return err_set(e, E_FORMAT, "row %d holds a number that is not finite", bad);
}

void linear_free(linear *w)
{
    free(w->panel);
    free(w->bias);
    memset(w, 0, sizeof *w);
}

linear linear_part(const linear *w, int from, int n)
{
    linear part = *w;
    part.rows   = n;
    part.panel  = (char *)w->panel + (size_t)(from / LINEAR_LANES) * w->panel_bytes;
    part.bias   = w->bias ? w->bias + from : NULL;
    return part;
}

void linear_row(const linear *w, int r, float *out)
{
    const void *panel = panel_at(w, (size_t)(r / LINEAR_LANES));
    int         lane  = r % LINEAR_LANES;
    if (in_blocks(w)) block_row(panel, w->type, w->cols, lane, out);
    else
        for (int i = 0; i < w->cols; i++) out[i] = widen(panel, (size_t)i * LINEAR_LANES + (size_t)lane, w->type);
}

/* ---- the product ----------------------------------------------------------------------------------------------- */

typedef struct {
    const linear      *w;
    const linear_path *path;
    const float       *x;      /* (n, cols) */
    float             *y;      /* (n, rows) */
    char              *packed; /* tiles, row_bytes for each row */
    size_t             row_bytes;
    int                n, tiles;
    int                wide, offset; /* blocks only */
} product;

/* Rows are shared out evenly over tiles: tile t has rows first_row(t) … first_row(t + 1). */
static int   first_row(const product *q, int t) { return (int)((int64_t)q->n * t / q->tiles); }
static char *tile_at(const product *q, int t) { return q->packed + (size_t)first_row(q, t) * q->row_bytes; }

/* Tile t of x with its rows side by side, so that the kernel reads it in one stream. */
static void pack_tile(const product *q, int t)
{
    int          r0 = first_row(q, t), m = first_row(q, t + 1) - r0;
    size_t       cols = (size_t)q->w->cols;
    const float *from = q->x + (size_t)r0 * cols;
    if (in_blocks(q->w)) {
        block_tile(tile_at(q, t), from, m, q->w->cols, q->wide, q->offset);
        return;
    }
    float *to = (float *)tile_at(q, t);
    for (int r = 0; r < m; r++, from += cols)
        for (size_t i = 0; i < cols; i++) to[i * (size_t)m + (size_t)r] = from[i];
}

/* Tile t times n_out outputs from panel p on. */
static void multiply_tile(const product *q, int t, size_t p, int n_out)
{
    const linear      *w    = q->w;
    const linear_path *path = q->path;
    int                r0 = first_row(q, t), m = first_row(q, t + 1) - r0;
    const float       *bias = w->bias ? w->bias + p * LINEAR_LANES : NULL;
    float             *y = q->y + (size_t)r0 * (size_t)w->rows + p * LINEAR_LANES;
    if (in_blocks(w)) {
        block_job j = { .tile = tile_at(q, t), .panel = panel_at(w, p), .m = m, .blocks = w->cols / BLOCK, .n_out = n_out,
                        .panel_step = w->panel_bytes, .bias = bias, .y = y, .y_step = (size_t)w->rows };
        (w->type == GT_Q8_0 ? path->q8 : path->q4)(&j);
    } else {
        linear_job j = { .x = (const float *)tile_at(q, t), .m = m, .k = w->cols, .n_out = n_out, .w = panel_at(w, p),
                         .k_step = LINEAR_LANES, .panel_step = (size_t)w->cols * LINEAR_LANES, .init = bias, .y = y,
                         .y_step = (size_t)w->rows };
        (w->type == GT_F32 ? path->f32 : w->type == GT_F16 ? path->f16 : path->bf16)(&j);
    }
}

/* Tiles t0..t1 times panels p0..p1: few panels at a time against all of the tiles, so that those are still in the cache for
 * the next tile; one tile alone takes as many as a kernel likes. */
static void multiply(const product *q, int t0, int t1, size_t p0, size_t p1)
{
    size_t step = t1 - t0 > 1 ? (in_blocks(q->w) ? 1 : 2) : 8;
    for (size_t p = p0; p < p1; p += step) {
        size_t o0 = p * LINEAR_LANES, o1 = (p + step < p1 ? p + step : p1) * LINEAR_LANES;
        if (o1 > (size_t)q->w->rows) o1 = (size_t)q->w->rows;
        for (int t = t0; t < t1; t++) multiply_tile(q, t, p, (int)(o1 - o0));
    }
}

/* One block of rows on `threads` threads, laid out as a grid: columns of the grid share out panels, its rows share out tiles. */
static void product_run(product *q, int threads)
{
    size_t panels = n_panels(q->w);
    int    down = 1; /* rows of the grid: more than one only when there are too few panels for all threads */
    while (panels < 2 * (size_t)(threads / down) && down * 2 <= threads && down * 2 <= q->tiles) down *= 2;
    int across = threads / down;
    int packing = q->packed != (const char *)q->x, share = packing && (size_t)q->n * (size_t)q->w->cols > PACK_MIN && q->tiles > 1;
    for (int t = 0; packing && !share && t < q->tiles; t++) pack_tile(q, t);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int have = omp_get_num_threads(), me = omp_get_thread_num();
        if (share) {
            for (int t = me; t < q->tiles; t += have) pack_tile(q, t);
#pragma omp barrier
        }
        for (int cell = me; cell < across * down; cell += have) { /* fewer threads than asked for may have come */
            size_t a = (size_t)(cell % across);
            int    d = cell / across;
            multiply(q, (int)((int64_t)q->tiles * d / down), (int)((int64_t)q->tiles * (d + 1) / down), panels * a / (size_t)across,
                     panels * (a + 1) / (size_t)across);
        }
    }
}

void linear_apply(float *y, const float *x, int n, const linear *w, float *scratch)
{
    const linear_path *p = path();
    int    blocked = in_blocks(w), wide = blocked && w->type == GT_Q8_0 && p->q8_wide, tile = blocked ? p->block_tile : p->tile;
    size_t cols = (size_t)w->cols, row_bytes = blocked ? cols / BLOCK * (wide ? WIDE : NARROW) : cols * sizeof(float);
    size_t room = BLOCK_BYTES / row_bytes;
    int    block = room > 256 ? 256 : room < (size_t)tile * 2 ? tile * 2 : (int)room;
    int    blocks = (n + block - 1) / block;
    for (int i = 0; i < blocks; i++) {
        int     r0 = (int)((int64_t)n * i / blocks), rows = (int)((int64_t)n * (i + 1) / blocks) - r0;
        product q = { .w = w, .path = p, .x = x + (size_t)r0 * cols, .y = y + (size_t)r0 * (size_t)w->rows, .row_bytes = row_bytes,
                      .n = rows, .tiles = (rows + tile - 1) / tile, .wide = wide, .offset = w->type == GT_Q8_0 ? Q8_OFFSET : Q4_OFFSET };
        q.packed = blocked || rows > 1 ? (char *)scratch : (char *)(uintptr_t)q.x; /* one row of floats is its own tile: only read then */
        product_run(&q, (double)rows * w->rows * w->cols < PARALLEL_MIN ? 1 : omp_get_max_threads());
    }
}
