/* linear_impl: what the files of linear share: linear.c (packing, the split over threads, the choice), linear_block.c (blocks
 * of the quantised types, and their plain kernel), linear_x86.c and linear_block_x86.c, linear_arm.c (the processors).
 * Nobody else includes this.
 *
 * A panel of a quantised matrix is, for each block of 32 columns,
 *   16 scales (binary16), one an output, then the codes of 16 outputs: groups of 16 times 4 bytes.
 * The four bytes of output o in group i are its "quad" i, columns i, i + 16, i + 8, i + 24 of the block: any order gives the
 * same integer sum, and this one costs nothing to make, on either side.
 *   q8_0: 8 groups, a byte is the code + 128.   q4_0: 4 groups, the low nibbles are quad i, the high ones quad i + 4, each code + 8.
 * So codes have no sign, and sum (code + offset) x = sum code x + offset sum x is put right by starting at -offset sum x, which
 * belongs to the row alone.
 *
 * A tile of m rows of activations is, for each block, m scales (f32), m starts (int32, -offset sum x), then row by row
 *   narrow: 8 quads of 4 bytes;   wide: bytes 0 and 2 of 8 quads as int16, then bytes 1 and 3. */
#ifndef DUET_LINEAR_IMPL_H
#define DUET_LINEAR_IMPL_H

#include "models/gguf.h"
#include "models/linear.h"

/* ---- linear_block.c -------------------------------------------------------------------------------------------- */

enum {
    BLOCK      = 32,                     /* columns */
    QUADS      = BLOCK / 4,
    SCALES     = LINEAR_LANES * 2,       /* bytes of a block's scales in a panel */
    Q8_BYTES   = SCALES + LINEAR_LANES * BLOCK,
    Q4_BYTES   = SCALES + LINEAR_LANES * BLOCK / 2, /* of a block in a panel */
    Q8_OFFSET  = 128,
    Q4_OFFSET  = 8,
    NARROW     = 8 + BLOCK,              /* bytes of a block in a tile, for each row */
    WIDE       = 8 + 2 * BLOCK
};
static inline size_t block_bytes(int type) { return type == GT_Q4_0 ? Q4_BYTES : Q8_BYTES; }

/* One panel from its file rows (1..16 of them, row_bytes apart; missing outputs become scale 0).  Returns the first row with a
 * scale that is not finite, or -1. */
int  block_pack_panel(void *panel, int type, int cols, const unsigned char *src, size_t row_bytes, int rows);
/* Row `lane` of a panel as floats. */
void block_row(const void *panel, int type, int cols, int lane, float *out);
/* Rows of x (m, cols) become a tile, as linear.h says. */
void block_tile(void *tile, const float *x, int m, int cols, int wide, int offset);

/* For m rows of a tile and n_out outputs from a panel's beginning on, y[r*y_step + o] as linear.h says. */
typedef struct {
    const void  *tile, *panel;
    int          m, blocks, n_out;
    size_t       panel_step; /* bytes */
    const float *bias;       /* read in whole panels; NULL = 0 */
    float       *y;
    size_t       y_step;
} block_job;
void block_plain_q8(const block_job *j); /* narrow tiles */
void block_plain_q4(const block_job *j);

/* ---- the processors -------------------------------------------------------------------------------------------- */

typedef void linear_kernel(const linear_job *j);
typedef void block_kernel(const block_job *j);
typedef struct {
    const char    *name;
    int            tile;       /* rows of a full register tile of the chains, CHAIN_ROWS or more */
    linear_kernel *f32, *f16, *bf16;
    int            block_tile; /* rows of a full register tile of the blocks */
    int            q8_wide;    /* the kernel of q8_0 reads wide tiles */
    block_kernel  *q8, *q4;
} linear_path;

/* NULL when this processor has it not. */
const linear_path *linear_path_avx2(void);
const linear_path *linear_path_avxvnni(void);
const linear_path *linear_path_avx512(void);
const linear_path *linear_path_vnni512(void);
const linear_path *linear_path_neon(void);

/* linear_block_x86.c */
block_kernel block_avx2_q8, block_avx2_q4, block_avxvnni_q8, block_avxvnni_q4, block_vnni512_q8, block_vnni512_q4;

#endif
