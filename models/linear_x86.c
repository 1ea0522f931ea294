/* linear_x86: the chains of linear.h on AVX-512 and AVX2 + FMA.  One register tile is M rows by NP panels of 16 outputs; M
 * and NP are constants of each instance, so that all accumulators live in registers.  An instance for every M and few NP;
 * the rest of the panels goes by halves. */
#include "models/linear_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
enum { F32, F16, BF16 };

/* Values ahead of the one in use that are fetched: the processor's own prefetching stops at each page, and a panel is only
 * some pages long. */
enum { AHEAD = 1024 };
INLINE void fetch(const void *w, size_t at, const int type)
{
    /* may lie behind the end, which is harmless */
    _mm_prefetch((const char *)((uintptr_t)w + (at + AHEAD) * (type == F32 ? 4 : 2)), _MM_HINT_T0);
}

/* ---- AVX-512: 32 registers ------------------------------------------------------------------------------------- */

#define T512 __attribute__((target("avx512f")))

INLINE T512 __m512 load512(const void *w, size_t at, const int type)
{
    if (type == F32) return _mm512_loadu_ps((const float *)w + at);
    __m256i h = _mm256_loadu_si256((const __m256i *)((const uint16_t *)w + at));
    if (type == F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Panels p … p+NP-1 of the job. */
INLINE T512 void tile512(const linear_job *j, int p, const int M, const int NP, const int type)
{
    __m512       acc[14][8];
    const float *x = j->x;
    size_t       at = (size_t)p * j->panel_step, o = (size_t)p * LINEAR_LANES;
#pragma GCC unroll 14
    for (int r = 0; r < M; r++)
#pragma GCC unroll 8
        for (int q = 0; q < NP; q++)
            acc[r][q] = j->init ? _mm512_loadu_ps(j->init + (size_t)r * j->init_step + o + 16 * (size_t)q) : _mm512_setzero_ps();
    for (int i = 0; i < j->k; i++, x += M, at += j->k_step) {
        __m512 w[8];
#pragma GCC unroll 8
        for (int q = 0; q < NP; q++) {
            w[q] = load512(j->w, at + (size_t)q * j->panel_step, type);
            fetch(j->w, at + (size_t)q * j->panel_step, type);
        }
#pragma GCC unroll 14
        for (int r = 0; r < M; r++) {
            __m512 b = _mm512_set1_ps(x[r]);
#pragma GCC unroll 8
            for (int q = 0; q < NP; q++) acc[r][q] = _mm512_fmadd_ps(b, w[q], acc[r][q]);
        }
    }
#pragma GCC unroll 14
    for (int r = 0; r < M; r++)
#pragma GCC unroll 8
        for (int q = 0; q < NP; q++) {
            int       left = j->n_out - (p + q) * LINEAR_LANES;
            __mmask16 some = left >= 16 ? 0xffff : (__mmask16)((1 << left) - 1);
            _mm512_mask_storeu_ps(j->y + (size_t)r * j->y_step + o + 16 * (size_t)q, some, acc[r][q]);
        }
}

/* All panels of a job with M rows, MOST at a time. */
#define ALL512(M, MOST)                                                     \
    case M:                                                                 \
        for (; p + MOST <= panels; p += MOST) tile512(j, p, M, MOST, type); \
        if (MOST > 4 && p + 4 <= panels) tile512(j, p, M, 4, type), p += 4; \
        if (MOST > 2 && p + 2 <= panels) tile512(j, p, M, 2, type), p += 2; \
        if (p < panels) tile512(j, p, M, 1, type);                          \
        break

INLINE T512 void run512(const linear_job *j, const int type)
{
    int panels = (j->n_out + LINEAR_LANES - 1) / LINEAR_LANES, p = 0;
    switch (j->m) {
        ALL512(1, 8);
        ALL512(2, 4);
        ALL512(3, 4);
        ALL512(4, 4);
        ALL512(5, 4);
        ALL512(6, 4);
        ALL512(7, 2);
        ALL512(8, 2);
        ALL512(9, 2);
        ALL512(10, 2);
        ALL512(11, 2);
        ALL512(12, 2);
        ALL512(13, 2);
        ALL512(14, 2);
    }
}
static T512 void f32_512(const linear_job *j) { run512(j, F32); }
static T512 void f16_512(const linear_job *j) { run512(j, F16); }
static T512 void bf16_512(const linear_job *j) { run512(j, BF16); }

const linear_path *linear_path_avx512(void)
{
    static const linear_path it = { "avx512", 14, f32_512, f16_512, bf16_512, 6, 1, block_avx2_q8, block_avx2_q4 };
    return __builtin_cpu_supports("avx512f") && linear_path_avx2() ? &it : NULL;
}
const linear_path *linear_path_vnni512(void)
{
    static const linear_path it = { "avx512-vnni", 14, f32_512, f16_512, bf16_512, 12, 0, block_vnni512_q8, block_vnni512_q4 };
    return linear_path_avx512() && __builtin_cpu_supports("avx512vnni") ? &it : NULL;
}

/* ---- AVX2 + FMA + F16C: 16 registers, a panel takes two ---------------------------------------------------------- */

#define T256 __attribute__((target("avx2,fma,f16c")))

INLINE T256 __m256 load256(const void *w, size_t at, const int type)
{
    if (type == F32) return _mm256_loadu_ps((const float *)w + at);
    __m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)w + at));
    if (type == F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE T256 void tile256(const linear_job *j, int p, const int M, const int NP, const int type)
{
    __m256       acc[6][8];
    const float *x = j->x;
    size_t       at = (size_t)p * j->panel_step, o = (size_t)p * LINEAR_LANES;
#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 8
        for (int q = 0; q < 2 * NP; q++)
            acc[r][q] = j->init ? _mm256_loadu_ps(j->init + (size_t)r * j->init_step + o + 8 * (size_t)q) : _mm256_setzero_ps();
    for (int i = 0; i < j->k; i++, x += M, at += j->k_step) {
        __m256 w[8];
#pragma GCC unroll 8
        for (int q = 0; q < 2 * NP; q++) {
            w[q] = load256(j->w, at + (size_t)(q / 2) * j->panel_step + 8 * (size_t)(q % 2), type);
            if (q % 2 == 0) fetch(j->w, at + (size_t)(q / 2) * j->panel_step, type);
        }
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) {
            __m256 b = _mm256_broadcast_ss(x + r);
#pragma GCC unroll 8
            for (int q = 0; q < 2 * NP; q++) acc[r][q] = _mm256_fmadd_ps(b, w[q], acc[r][q]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 8
        for (int q = 0; q < 2 * NP; q++) {
            int    left = j->n_out - p * LINEAR_LANES - q * 8;
            float *y    = j->y + (size_t)r * j->y_step + o + 8 * (size_t)q;
            if (left >= 8) {
                _mm256_storeu_ps(y, acc[r][q]);
            } else if (left > 0) {
                float part[8];
                _mm256_storeu_ps(part, acc[r][q]);
                for (int i = 0; i < left; i++) y[i] = part[i];
            }
        }
}

#define ALL256(M, MOST)                                                     \
    case M:                                                                 \
        for (; p + MOST <= panels; p += MOST) tile256(j, p, M, MOST, type); \
        if (MOST > 2 && p + 2 <= panels) tile256(j, p, M, 2, type), p += 2; \
        if (MOST > 1 && p < panels) tile256(j, p, M, 1, type);              \
        break

INLINE T256 void run256(const linear_job *j, const int type)
{
    int panels = (j->n_out + LINEAR_LANES - 1) / LINEAR_LANES, p = 0;
    switch (j->m) {
        ALL256(1, 4);
        ALL256(2, 2);
        ALL256(3, 2);
        ALL256(4, 1);
        ALL256(5, 1);
        ALL256(6, 1);
    }
}
static T256 void f32_256(const linear_job *j) { run256(j, F32); }
static T256 void f16_256(const linear_job *j) { run256(j, F16); }
static T256 void bf16_256(const linear_job *j) { run256(j, BF16); }

const linear_path *linear_path_avx2(void)
{
    static const linear_path it = { "avx2", 6, f32_256, f16_256, bf16_256, 6, 1, block_avx2_q8, block_avx2_q4 };
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") ? &it : NULL;
}
const linear_path *linear_path_avxvnni(void)
{
    static const linear_path it = { "avx-vnni", 6, f32_256, f16_256, bf16_256, 6, 0, block_avxvnni_q8, block_avxvnni_q4 };
    return linear_path_avx2() && __builtin_cpu_supports("avxvnni") ? &it : NULL;
}

#endif
