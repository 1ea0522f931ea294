/* linear: a packed weight matrix and its product with rows, y = W x + b. Row-invariant: every output is one chain of fused
 * multiply-adds, acc = b[o]; for k rising: acc = fma(x[k], W[o][k], acc).  Nothing else about the call (rows, tiles,
 * threads, processor) enters, so a row's result is the same bits alone, among others, on AVX-512, AVX2+FMA and plain C.
 * Speed comes from many chains at once: 16 outputs to a panel, several panels and rows to a register tile; threads share out
 * panels and rows, never k. Private to gpt2.c, cache.c and tests,
 * but for linear_numerics. */
#ifndef DUET_LINEAR_H
#define DUET_LINEAR_H

#include "models/base.h"

enum { LINEAR_LANES = 16 };

typedef struct {
    int    rows, cols; /* out, in */
    int    type;       /* of the values in the panels: GT_F32, GT_F16 or GT_BF16 (widened in the kernel, exactly) */
    void  *panel;      /* (ceil(rows / 16), cols, 16): panel p holds outputs 16p … 16p+15, missing ones are 0 */
    float *bias;       /* (ceil(rows / 16) * 16,); NULL = 0 */
} linear;

/* Pack `rows` rows of `cols` values of a GGUF type, as they lie in a file (q8_0 and q4_0 become f32).  bias (rows,) or NULL.
 * E_FORMAT when a number is not finite (the row is named), E_NOMEM. */
int  linear_pack(linear *w, int rows, int cols, int type, const void *src, const float *bias, err *e);
void linear_free(linear *w);
/* Outputs from … from + n of w as a matrix of its own, over the memory of w (not to be freed); from is a multiple of 16. */
linear linear_part(const linear *w, int from, int n);
/* Row r of W as floats, out (cols,). */
void linear_row(const linear *w, int r, float *out);

/* y (n, rows) = x (n, cols) W' + b.  scratch (n, cols), not x; y overlaps neither.  Runs on omp_get_max_threads() threads
 * when it is worth it. */
void linear_apply(float *y, const float *x, int n, const linear *w, float *scratch);

/* The same chains over anything laid out in 16 lanes, on the calling thread: for m rows and n_out outputs,
 *   y[r*y_step + 16p + lane] = init[r*init_step + 16p + lane] (0 when init is NULL)
 *                              + sum over i < k of x[i*m + r] * w[p*panel_step + i*k_step + lane]
 * init is read in whole panels and may be y; just n_out outputs of each row are written.  m <= CHAIN_ROWS. */
typedef struct {
    const float *x; /* (k, m) */
    int          m, k, n_out;
    const void  *w;
    size_t       k_step, panel_step; /* in values */
    const float *init;
    size_t       init_step;
    float       *y;
    size_t       y_step;
} linear_job;
enum { CHAIN_ROWS = 4 };
void linear_chains(const linear_job *j); /* w is f32 */

/* What a stored reply names as the arithmetic behind it: the same text means the same bits. */
const char *linear_numerics(void);

/* How the chains are computed.  The best is chosen at the first use; tests force others: E_ARG when this processor has it not. */
enum { LINEAR_C, LINEAR_AVX2, LINEAR_AVX512, LINEAR_BEST };
int         linear_force_path(int path);
const char *linear_path_name(void); /* "avx512", "avx2", "c" */

/* ---- between linear.c and the files of a processor ---- */

typedef void linear_kernel(const linear_job *j);
typedef struct {
    const char    *name;
    int            tile;       /* rows of a full register tile, CHAIN_ROWS or more */
    linear_kernel *f32, *f16, *bf16;
} linear_path;
const linear_path *linear_path_avx512(void); /* NULL when this processor has it not */
const linear_path *linear_path_avx2(void);

#endif
