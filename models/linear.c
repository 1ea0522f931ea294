/* linear: see linear.h.  Packing, the split over threads, the choice of kernels, and the plain C kernel that says what the
 * others compute. */
#include "models/linear.h"

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

const char *linear_numerics(void) { return "chain1 f32-fma"; }

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

static const linear_path plain_path = { "c", 4, plain_f32, plain_f16, plain_bf16 };

/* ---- the choice ------------------------------------------------------------------------------------------------ */

static const linear_path *chosen; /* NULL until the first use; every thread would choose the same */

static const linear_path *best(void)
{
    const linear_path *p = linear_path_avx512();
    if (!p) p = linear_path_avx2();
    return p ? p : &plain_path;
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
    const linear_path *p = which == LINEAR_C ? &plain_path
                         : which == LINEAR_AVX2 ? linear_path_avx2()
                         : which == LINEAR_AVX512 ? linear_path_avx512() : best();
    if (!p) return E_ARG;
    __atomic_store_n(&chosen, p, __ATOMIC_RELEASE);
    return OK;
}

const char *linear_path_name(void) { return path()->name; }
void        linear_chains(const linear_job *j) { path()->f32(j); }

/* ---- packing --------------------------------------------------------------------------------------------------- */

static size_t n_panels(const linear *w) { return ((size_t)w->rows + LINEAR_LANES - 1) / LINEAR_LANES; }
static size_t value_bytes(const linear *w) { return w->type == GT_F32 ? 4 : 2; }

/* Fill one panel from file rows; returns the first of its rows with a number that is not finite, or -1. */
static int pack_panel(const linear *w, size_t p, int type, const unsigned char *src, size_t row_bytes)
{
    enum { STEP = 32 }; /* values at a time; a block of the quantised types */
    size_t cols = (size_t)w->cols, rows = (size_t)w->rows, r0 = p * LINEAR_LANES;
    size_t r1 = r0 + LINEAR_LANES < rows ? r0 + LINEAR_LANES : rows;
    size_t at = p * cols * LINEAR_LANES;
    int    bad = -1;
    for (size_t k = 0; k < cols; k += STEP) {
        size_t n = cols - k < STEP ? cols - k : STEP;
        for (size_t r = r0; r < r1; r++) {
            const unsigned char *from = src + r * row_bytes + gguf_row_bytes(type, k);
            size_t               to   = at + k * LINEAR_LANES + (r - r0);
            float                x[STEP], sum = 0;
            gpt2_row_decode(type, from, x, n);
            for (size_t i = 0; i < n; i++) sum += x[i] * 0; /* NaN as soon as one is not finite */
            if (sum != 0 && (bad < 0 || (int)r < bad)) bad = (int)r;
            if (w->type == GT_F32)
                for (size_t i = 0; i < n; i++) ((float *)w->panel)[to + i * LINEAR_LANES] = x[i];
            else
                for (size_t i = 0; i < n; i++) memcpy((uint16_t *)w->panel + to + i * LINEAR_LANES, from + 2 * i, 2);
        }
    }
    return bad;
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
    *w = (linear){ .rows = rows, .cols = cols, .type = type == GT_F16 || type == GT_BF16 ? type : GT_F32 };
    size_t size, padded = n_panels(w) * LINEAR_LANES, row_bytes = gguf_row_bytes(type, (uint64_t)cols);
    int    bad = rows;
    if (rows < 1 || cols < 1 || !row_bytes) return err_set(e, E_ARG, "no matrix: %d rows of %d values of type %d", rows, cols, type);
    if (mul_size(padded, (size_t)cols, &size) || mul_size(size, value_bytes(w), &size))
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
    if ((size_t)rows < padded) memset((char *)w->panel + (size / n_panels(w)) * (n_panels(w) - 1), 0, size / n_panels(w));
#pragma omp parallel for schedule(static) reduction(min : bad) if (size > 1u << 20)
    for (size_t p = 0; p < n_panels(w); p++) {
        int r = pack_panel(w, p, type, src, row_bytes);
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
    part.panel  = (char *)w->panel + (size_t)from * (size_t)w->cols * value_bytes(w);
    part.bias   = w->bias ? w->bias + from : NULL;
    return part;
}

void linear_row(const linear *w, int r, float *out)
{
    size_t at = (size_t)(r / LINEAR_LANES) * (size_t)w->cols * LINEAR_LANES + (size_t)(r % LINEAR_LANES);
    if (w->type == GT_F32)
        for (size_t i = 0; i < (size_t)w->cols; i++) out[i] = ((const float *)w->panel)[at + i * LINEAR_LANES];
    else
        for (size_t i = 0; i < (size_t)w->cols; i++) out[i] = widen(w->panel, at + i * LINEAR_LANES, w->type);
}

/* ---- the product ----------------------------------------------------------------------------------------------- */

typedef struct {
    const linear      *w;
    const linear_path *path;
    const float       *x;       /* (n, cols) */
    float             *y, *packed; /* (n, rows); tiles of (cols, rows of the tile) */
    int                n, tiles;
} product;

/* Rows are shared out evenly over tiles: tile t has rows first_row(t) … first_row(t + 1). */
static int first_row(const product *q, int t) { return (int)((int64_t)q->n * t / q->tiles); }

/* Tile t of x with its rows side by side, so that the kernel reads it in one stream. */
static void pack_tile(const product *q, int t)
{
    int    r0 = first_row(q, t), m = first_row(q, t + 1) - r0;
    size_t cols = (size_t)q->w->cols;
    float *to = q->packed + (size_t)r0 * cols;
    for (int r = 0; r < m; r++) {
        const float *from = q->x + (size_t)(r0 + r) * cols;
        for (size_t i = 0; i < cols; i++) to[i * (size_t)m + (size_t)r] = from[i];
    }
}

/* Tiles t0..t1 times panels p0..p1: few panels at a time against all of the tiles, so that those are still in the cache for
 * the next tile; one tile alone takes as many as a kernel likes. */
static void multiply(const product *q, int t0, int t1, size_t p0, size_t p1)
{
    const linear  *w      = q->w;
    linear_kernel *kernel = w->type == GT_F32 ? q->path->f32 : w->type == GT_F16 ? q->path->f16 : q->path->bf16;
    size_t         cols = (size_t)w->cols, panel = cols * LINEAR_LANES, step = t1 - t0 > 1 ? 2 : 8;
    for (size_t p = p0; p < p1; p += step) {
        size_t o0 = p * LINEAR_LANES, o1 = (p + step < p1 ? p + step : p1) * LINEAR_LANES;
        if (o1 > (size_t)w->rows) o1 = (size_t)w->rows;
        for (int t = t0; t < t1; t++) {
            int r0 = first_row(q, t);
            kernel(&(linear_job){ .x = q->packed + (size_t)r0 * cols, .m = first_row(q, t + 1) - r0, .k = w->cols,
                                  .n_out = (int)(o1 - o0), .w = (const char *)w->panel + p * panel * value_bytes(w),
                                  .k_step = LINEAR_LANES, .panel_step = panel,
                                  .init = w->bias ? w->bias + o0 : NULL, .init_step = 0,
                                  .y = q->y + (size_t)r0 * (size_t)w->rows + o0, .y_step = (size_t)w->rows });
        }
    }
}

/* One block of rows on `threads` threads, laid out as a grid: columns of the grid share out panels, its rows share out tiles. */
static void product_run(product *q, int threads)
{
    size_t panels = n_panels(q->w);
    int    down = 1; /* rows of the grid: more than one only when there are too few panels for all threads */
    while (panels < 2 * (size_t)(threads / down) && down * 2 <= threads && down * 2 <= q->tiles) down *= 2;
    int across = threads / down;
    int packing = q->n > 1, share = packing && (size_t)q->n * (size_t)q->w->cols > PACK_MIN; /* one row is its own tile */
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
    size_t cols = (size_t)w->cols, room = BLOCK_BYTES / (cols * sizeof(float));
    int    block = room > 256 ? 256 : room < (size_t)p->tile * 2 ? p->tile * 2 : (int)room;
    int    blocks = (n + block - 1) / block;
    for (int i = 0; i < blocks; i++) {
        int     r0 = (int)((int64_t)n * i / blocks), rows = (int)((int64_t)n * (i + 1) / blocks) - r0;
        product q = { .w = w, .path = p, .x = x + (size_t)r0 * cols, .y = y + (size_t)r0 * (size_t)w->rows, .n = rows,
                      .tiles = (rows + p->tile - 1) / p->tile };
        q.packed = rows > 1 ? scratch : (float *)q.x; /* only read then */
        product_run(&q, (double)rows * w->rows * w->cols < PARALLEL_MIN ? 1 : omp_get_max_threads());
    }
}
