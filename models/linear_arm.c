/* linear_arm: the chains of linear.h on NEON, and products with q8_0 and q4_0 matrices by its dot product instructions
 * (FEAT_DotProd: every 64-bit core since 2018).  Codes regain their sign there, because both operands have one. */
#include "models/linear_impl.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>
#include <sys/auxv.h>

#define INLINE static inline __attribute__((always_inline))
enum { F32, F16, BF16, VECTORS = LINEAR_LANES / 4 /* of a panel */, HWCAP_DOTPROD = 1 << 20 };

/* ---- chains: a panel takes four of 32 registers ---------------------------------------------------------------- */

INLINE void load_values(float32x4_t v[VECTORS], const void *w, size_t at, const int type)
{
    for (int q = 0; q < VECTORS; q++) {
        if (type == F32) {
            v[q] = vld1q_f32((const float *)w + at + 4 * q);
        } else {
            uint16x4_t h = vld1_u16((const uint16_t *)w + at + 4 * q);
            v[q] = type == F16 ? vcvt_f32_f16(vreinterpret_f16_u16(h)) : vreinterpretq_f32_u32(vshll_n_u16(h, 16));
        }
    }
}

/* The first n of 16 outputs of a row. */
INLINE void store(float *to, const float32x4_t y[VECTORS], int n)
{
    float part[LINEAR_LANES];
    for (int q = 0; q < VECTORS; q++) vst1q_f32(n >= LINEAR_LANES ? to + 4 * q : part + 4 * q, y[q]);
    if (n < LINEAR_LANES) memcpy(to, part, (size_t)n * sizeof *to);
}

INLINE void chain_tile(const linear_job *j, int p, const int M, const int type)
{
    float32x4_t  acc[6][VECTORS];
    const float *x  = j->x;
    size_t       at = (size_t)p * j->panel_step, o = (size_t)p * LINEAR_LANES;
#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 4
        for (int q = 0; q < VECTORS; q++) acc[r][q] = j->init ? vld1q_f32(j->init + (size_t)r * j->init_step + o + 4 * (size_t)q) : vdupq_n_f32(0);
    for (int i = 0; i < j->k; i++, x += M, at += j->k_step) {
        float32x4_t w[VECTORS];
        load_values(w, j->w, at, type);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++)
#pragma GCC unroll 4
            for (int q = 0; q < VECTORS; q++) acc[r][q] = vfmaq_n_f32(acc[r][q], w[q], x[r]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < M; r++) store(j->y + (size_t)r * j->y_step + o, acc[r], j->n_out - p * LINEAR_LANES);
}

/* Every number of rows has its own instance, so that all sums live in registers. */
#define CASE(M, ...)                         \
    case M:                                  \
        for (; p < panels; p++) __VA_ARGS__; \
        break
#define EACH6(TILE, TYPE)                                             \
    int panels = (j->n_out + LINEAR_LANES - 1) / LINEAR_LANES, p = 0; \
    switch (j->m) {                                                   \
        CASE(1, TILE(j, p, 1, TYPE));                                 \
        CASE(2, TILE(j, p, 2, TYPE));                                 \
        CASE(3, TILE(j, p, 3, TYPE));                                 \
        CASE(4, TILE(j, p, 4, TYPE));                                 \
        CASE(5, TILE(j, p, 5, TYPE));                                 \
        CASE(6, TILE(j, p, 6, TYPE));                                 \
    }
static void chains_f32(const linear_job *j) { EACH6(chain_tile, F32) }
static void chains_f16(const linear_job *j) { EACH6(chain_tile, F16) }
static void chains_bf16(const linear_job *j) { EACH6(chain_tile, BF16) }

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

#define DOT __attribute__((target("arch=armv8.2-a+dotprod")))

/* Codes of four outputs from group i; half: which nibble.  q8_0 codes get their sign, so they start from 0; q4_0 codes start
 * from the row's -offset sum x like everywhere. */
INLINE DOT int8x16_t codes(const unsigned char *w, int i, int q, int half, const int type)
{
    uint8x16_t v = vld1q_u8(w + SCALES + 64 * i + 16 * q);
    if (type == GT_Q8_0) v = veorq_u8(v, vdupq_n_u8(Q8_OFFSET));
    else v = half ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
    return vreinterpretq_s8_u8(v);
}

INLINE DOT void block_tile_dot(const block_job *j, int p, const int M, const int type)
{
    float32x4_t          y[6][VECTORS];
    const int            groups = type == GT_Q8_0 ? QUADS : QUADS / 2;
    const unsigned char *w = (const unsigned char *)j->panel + (size_t)p * j->panel_step, *x = j->tile;
#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 4
        for (int q = 0; q < VECTORS; q++) y[r][q] = j->bias ? vld1q_f32(j->bias + p * LINEAR_LANES + 4 * q) : vdupq_n_f32(0);
    for (int b = 0; b < j->blocks; b++, w += block_bytes(type), x += M * NARROW) {
        int32x4_t     sum[6][VECTORS];
        int32_t       start[6];
        float         xs[6];
        const int8_t *xq = (const int8_t *)x + 8 * M;
        memcpy(xs, x, sizeof *xs * M);
        memcpy(start, x + 4 * M, sizeof *start * M);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++)
#pragma GCC unroll 4
            for (int q = 0; q < VECTORS; q++) sum[r][q] = vdupq_n_s32(type == GT_Q8_0 ? 0 : start[r]);
        for (int half = 0; half < QUADS / groups; half++)
            for (int i = 0; i < groups; i++)
#pragma GCC unroll 4
                for (int q = 0; q < VECTORS; q++) {
                    int8x16_t c = codes(w, i, q, half, type);
#pragma GCC unroll 6
                    for (int r = 0; r < M; r++) {
                        int32_t quad;
                        memcpy(&quad, xq + BLOCK * r + 4 * (groups * half + i), 4);
                        sum[r][q] = vdotq_s32(sum[r][q], c, vreinterpretq_s8_s32(vdupq_n_s32(quad)));
                    }
                }
#pragma GCC unroll 4
        for (int q = 0; q < VECTORS; q++) {
            float32x4_t s = vcvt_f32_f16(vld1_f16((const float16_t *)(const void *)(w + 8 * q)));
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) y[r][q] = vfmaq_f32(y[r][q], vcvtq_f32_s32(sum[r][q]), vmulq_n_f32(s, xs[r]));
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < M; r++) store(j->y + (size_t)r * j->y_step + (size_t)p * LINEAR_LANES, y[r], j->n_out - p * LINEAR_LANES);
}
DOT static void dot_q8(const block_job *j) { EACH6(block_tile_dot, GT_Q8_0) }
DOT static void dot_q4(const block_job *j) { EACH6(block_tile_dot, GT_Q4_0) }

const linear_path *linear_path_neon(void)
{
    static const linear_path it = { "neon", 6, chains_f32, chains_f16, chains_bf16, 6, 0, dot_q8, dot_q4 };
    return getauxval(AT_HWCAP) & HWCAP_DOTPROD ? &it : NULL;
}

#endif
