/* linear: a packed weight matrix and its product with rows, y = W x + b.  Row-invariant: nothing about the call but the row
 * itself enters a result (rows, tiles, threads, processor), so a row's result is the same bits alone, among others, in plain C,
 * on AVX2, AVX-VNNI, AVX-512 and NEON.  Speed comes from many outputs at once: 16 to a panel, panels and rows to a register
 * tile; threads share out panels and rows, never k.
 *
 * f32, f16, bf16: every output is one chain of fused multiply-adds,
 *   acc = b[o];  for k rising: acc = fma(x[k], W[o][k], acc).
 *
 * q8_0, q4_0: W stays as it is in the file, blocks of 32 columns with codes c and one scale d (c = q, or q - 8 for q4_0).  The
 * row is quantised too, once a product, block by block:
 *   m = max |x|;  s = m / 127;  q[k] = rint(x[k] * (127 / m)), ties to even
 * (m below 2^-118: s = 0, q = 0;  m of 2^80 or more, infinite or not a number: s = NaN 0x7fc00000, q = 0, so that all outputs
 * of the row are this NaN).  The sum of products of a block is an exact integer, and then
 *   acc = b[o];  for blocks rising: acc = fma((float)sum c[k] q[k], d * s, acc).
 * Against exact arithmetic on W and x an output is off by at most
 *   sum over blocks of s/2 * sum |W[o][k]|   (rounding x; to be taken 2^-20 larger for the roundings of s and 127 / m)
 *   + (blocks + 2) * 2^-24 * (|b[o]| + sum over blocks of |sum c[k] q[k]| |d s|)                     (the float steps). */
#ifndef DUET_LINEAR_H
#define DUET_LINEAR_H

#include "models/base.h"

enum { LINEAR_LANES = 16 };

typedef struct {
    int    rows, cols; /* out, in */
    int    type;       /* GT_…: as in the file */
    void  *panel;      /* ceil(rows / 16) of panel_bytes: panel p holds outputs 16p … 16p+15, missing ones are 0.
                          f32, f16, bf16: (cols, 16) values; the others: linear_impl.h */
    size_t panel_bytes;
    float *bias;       /* (ceil(rows / 16) * 16,); NULL = 0 */
} linear;

/* Pack `rows` rows of `cols` values of a GGUF type, as they lie in a file; no larger in memory than there (but for the last
 * panel).  bias (rows,) or NULL.
 * E_FORMAT when a number is not finite (the row is named), E_NOMEM. */
int  linear_pack(linear *w, int rows, int cols, int type, const void *src, const float *bias, err *e);
void linear_free(linear *w);
/* Outputs from … from + n of w as a matrix of its own, over the memory of w (not to be freed); from is a multiple of 16. */
linear linear_part(const linear *w, int from, int n);
/* Row r of W as floats, out (cols,). */
void linear_row(const linear *w, int r, float *out);

/* y (n, rows) = x (n, cols) W' + b.  scratch (n, cols) floats, not x, also when n is 1; y overlaps neither.  Runs on
 * omp_get_max_threads() threads when it is worth it. */
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

/* How it is computed.  The best is chosen at the first use; tests force others: E_ARG when this processor has it not. */
enum { LINEAR_C, LINEAR_AVX2, LINEAR_AVXVNNI, LINEAR_AVX512, LINEAR_VNNI512, LINEAR_NEON, LINEAR_PATHS, LINEAR_BEST = LINEAR_PATHS };
int         linear_force_path(int path);
const char *linear_path_name(void); /* "c", "avx2", "avx-vnni", "avx512", "avx512-vnni", "neon" */

#endif
