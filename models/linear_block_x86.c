/* linear_block_x86: products with q8_0 and q4_0 matrices on AVX2, AVX-VNNI and AVX-512 VNNI.  One register tile is M rows by
 * one panel; a panel is one stream of memory, so that nothing but its end stops the processor's own prefetching. */
#include "models/linear_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
enum { AHEAD = 2048 /* bytes fetched before they are used */ };

#define T256  __attribute__((target("avx2,fma,f16c")))
#define TVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))
#define T512  __attribute__((target("avx2,fma,f16c,avx512f,avx512vnni")))

INLINE void fetch(const unsigned char *w, const int bytes)
{
    for (int i = 0; i < bytes; i += 64) /* may lie behind the end, which is harmless */
        _mm_prefetch((const char *)((uintptr_t)w + AHEAD + (uintptr_t)i), _MM_HINT_T0);
}
INLINE int32_t int_at(const void *p)
{
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return x;
}
INLINE float float_at(const void *p)
{
    float x;
    __builtin_memcpy(&x, p, 4);
    return x;
}

/* Sums grow one product at a time, as written: regrouped, which the compiler is free to do with integers, they need more
 * registers than there are. */
#define IN_ORDER(x) __asm__("" : "+x"(x))

/* ---- 16 registers of 256 bits: a panel takes two ----------------------------------------------------------------- */

INLINE T256 __m256i load256(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE T256 void begin256(__m256 y[6][2], const block_job *j, int p, const int M)
{
#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) y[r][h] = j->bias ? _mm256_loadu_ps(j->bias + p * LINEAR_LANES + 8 * h) : _mm256_setzero_ps();
}

INLINE T256 void end256(__m256 y[6][2], const block_job *j, int p, const int M)
{
#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            int    left = j->n_out - p * LINEAR_LANES - 8 * h;
            float *to   = j->y + (size_t)r * j->y_step + (size_t)p * LINEAR_LANES + 8 * (size_t)h;
            if (left >= 8) {
                _mm256_storeu_ps(to, y[r][h]);
            } else if (left > 0) {
                float part[8];
                _mm256_storeu_ps(part, y[r][h]);
                for (int i = 0; i < left; i++) to[i] = part[i];
            }
        }
}

/* y = fma(sum, weight scale * row scale, y) */
INLINE T256 void scale256(__m256 y[6][2], __m256i sum[6][2], const unsigned char *w, const unsigned char *x, const int M)
{
    __m256 s[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) s[h] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + 16 * h)));
#pragma GCC unroll 6
    for (int r = 0; r < M; r++) {
        __m256 xs = _mm256_set1_ps(float_at(x + 4 * r));
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) y[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][h]), _mm256_mul_ps(s[h], xs), y[r][h]);
    }
}

/* Products of pairs in 16 bits: bytes of the panel without sign times int16 cannot saturate. */
INLINE T256 void q8_256(const block_job *j, int p, const int M)
{
    __m256               y[6][2];
    const unsigned char *w = (const unsigned char *)j->panel + (size_t)p * j->panel_step, *x = j->tile;
    const __m256i        low = _mm256_set1_epi16(255);
    begin256(y, j, p, M);
    for (int b = 0; b < j->blocks; b++, w += Q8_BYTES, x += M * WIDE) {
        __m256i sum[6][2];
        fetch(w, Q8_BYTES);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) sum[r][0] = sum[r][1] = _mm256_set1_epi32(int_at(x + 4 * (M + r)));
        const unsigned char *xq = x + 8 * M, *wq = w + SCALES;
#pragma GCC unroll 8
        for (int i = 0; i < QUADS; i++) {
            __m256i v[2];
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) v[h] = _mm256_and_si256(load256(wq + 64 * i + 32 * h), low);
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) {
                __m256i pair = _mm256_set1_epi32(int_at(xq + 2 * BLOCK * r + 4 * i));
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(v[h], pair));
                    IN_ORDER(sum[r][h]);
                }
            }
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) v[h] = _mm256_srli_epi16(load256(wq + 64 * i + 32 * h), 8);
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) {
                __m256i pair = _mm256_set1_epi32(int_at(xq + 2 * BLOCK * r + 4 * (QUADS + i)));
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(v[h], pair));
                    IN_ORDER(sum[r][h]);
                }
            }
        }
        scale256(y, sum, w, x, M);
    }
    end256(y, j, p, M);
}

/* Nibbles times bytes: 15 * 127 * 16 of them stay below 2^15, so a block is summed in 16 bits. */
INLINE T256 void q4_256(const block_job *j, int p, const int M)
{
    __m256               y[6][2];
    const unsigned char *w = (const unsigned char *)j->panel + (size_t)p * j->panel_step, *x = j->tile;
    const __m256i        low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    begin256(y, j, p, M);
    for (int b = 0; b < j->blocks; b++, w += Q4_BYTES, x += M * NARROW) {
        __m256i sum[6][2];
        fetch(w, Q4_BYTES);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
        const unsigned char *xq = x + 8 * M, *wq = w + SCALES;
#pragma GCC unroll 8
        for (int i = 0; i < QUADS / 2; i++) {
            __m256i v[2];
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) v[h] = _mm256_and_si256(load256(wq + 64 * i + 32 * h), low);
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) {
                __m256i quad = _mm256_set1_epi32(int_at(xq + BLOCK * r + 4 * i));
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    sum[r][h] = _mm256_add_epi16(sum[r][h], _mm256_maddubs_epi16(v[h], quad));
                    IN_ORDER(sum[r][h]);
                }
            }
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) v[h] = _mm256_and_si256(_mm256_srli_epi16(load256(wq + 64 * i + 32 * h), 4), low);
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) {
                __m256i quad = _mm256_set1_epi32(int_at(xq + BLOCK * r + 4 * (QUADS / 2 + i)));
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    sum[r][h] = _mm256_add_epi16(sum[r][h], _mm256_maddubs_epi16(v[h], quad));
                    IN_ORDER(sum[r][h]);
                }
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < M; r++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++)
                sum[r][h] = _mm256_add_epi32(_mm256_madd_epi16(sum[r][h], ones), _mm256_set1_epi32(int_at(x + 4 * (M + r))));
        scale256(y, sum, w, x, M);
    }
    end256(y, j, p, M);
}

/* AVX-VNNI: four products and their sum in one instruction, bytes without sign times bytes with. */
INLINE TVNNI void vnni256(const block_job *j, int p, const int M, const int type)
{
    __m256               y[6][2];
    const int            bytes = type == GT_Q8_0 ? Q8_BYTES : Q4_BYTES, groups = type == GT_Q8_0 ? QUADS : QUADS / 2;
    const unsigned char *w = (const unsigned char *)j->panel + (size_t)p * j->panel_step, *x = j->tile;
    const __m256i        low = _mm256_set1_epi8(15);
    begin256(y, j, p, M);
    for (int b = 0; b < j->blocks; b++, w += bytes, x += M * NARROW) {
        __m256i sum[6][2];
        fetch(w, bytes);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) sum[r][0] = sum[r][1] = _mm256_set1_epi32(int_at(x + 4 * (M + r)));
        const unsigned char *xq = x + 8 * M, *wq = w + SCALES;
#pragma GCC unroll 8
        for (int i = 0; i < groups; i++) {
            __m256i v[2];
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) v[h] = type == GT_Q8_0 ? load256(wq + 64 * i + 32 * h) : _mm256_and_si256(load256(wq + 64 * i + 32 * h), low);
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) {
                __m256i quad = _mm256_set1_epi32(int_at(xq + BLOCK * r + 4 * i));
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) sum[r][h] = _mm256_dpbusd_avx_epi32(sum[r][h], v[h], quad);
            }
            if (type == GT_Q8_0) continue;
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) v[h] = _mm256_and_si256(_mm256_srli_epi16(load256(wq + 64 * i + 32 * h), 4), low);
#pragma GCC unroll 6
            for (int r = 0; r < M; r++) {
                __m256i quad = _mm256_set1_epi32(int_at(xq + BLOCK * r + 4 * (QUADS / 2 + i)));
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) sum[r][h] = _mm256_dpbusd_avx_epi32(sum[r][h], v[h], quad);
            }
        }
        scale256(y, sum, w, x, M);
    }
    end256(y, j, p, M);
}

/* Every number of rows has its own instance, so that all sums live in registers. */
#define CASE(M, ...)                                    \
    case M:                                             \
        for (; p < panels; p++) __VA_ARGS__; \
        break
#define EACH6(TILE, ...)                                                                            \
    int panels = (j->n_out + LINEAR_LANES - 1) / LINEAR_LANES, p = 0;                               \
    switch (j->m) {                                                                                 \
        CASE(1, TILE(j, p, 1, ##__VA_ARGS__));                                                      \
        CASE(2, TILE(j, p, 2, ##__VA_ARGS__));                                                      \
        CASE(3, TILE(j, p, 3, ##__VA_ARGS__));                                                      \
        CASE(4, TILE(j, p, 4, ##__VA_ARGS__));                                                      \
        CASE(5, TILE(j, p, 5, ##__VA_ARGS__));                                                      \
        CASE(6, TILE(j, p, 6, ##__VA_ARGS__));                                                      \
    }
T256 void  block_avx2_q8(const block_job *j) { EACH6(q8_256) }
T256 void  block_avx2_q4(const block_job *j) { EACH6(q4_256) }
TVNNI void block_avxvnni_q8(const block_job *j) { EACH6(vnni256, GT_Q8_0) }
TVNNI void block_avxvnni_q4(const block_job *j) { EACH6(vnni256, GT_Q4_0) }

/* ---- 32 registers of 512 bits: a panel takes one ----------------------------------------------------------------- */

INLINE T512 void vnni512(const block_job *j, int p, const int M, const int type)
{
    __m512               y[12];
    const int            bytes = type == GT_Q8_0 ? Q8_BYTES : Q4_BYTES, groups = type == GT_Q8_0 ? QUADS : QUADS / 2;
    const unsigned char *w = (const unsigned char *)j->panel + (size_t)p * j->panel_step, *x = j->tile;
    const __m512i        low = _mm512_set1_epi32(0x0f0f0f0f);
#pragma GCC unroll 12
    for (int r = 0; r < M; r++) y[r] = j->bias ? _mm512_loadu_ps(j->bias + p * LINEAR_LANES) : _mm512_setzero_ps();
    for (int b = 0; b < j->blocks; b++, w += bytes, x += M * NARROW) {
        __m512i sum[12];
        fetch(w, bytes);
#pragma GCC unroll 12
        for (int r = 0; r < M; r++) sum[r] = _mm512_set1_epi32(int_at(x + 4 * (M + r)));
        const unsigned char *xq = x + 8 * M, *wq = w + SCALES;
#pragma GCC unroll 8
        for (int i = 0; i < groups; i++) {
            __m512i v = _mm512_loadu_si512(wq + 64 * i), first = type == GT_Q8_0 ? v : _mm512_and_si512(v, low);
#pragma GCC unroll 12
            for (int r = 0; r < M; r++) sum[r] = _mm512_dpbusd_epi32(sum[r], first, _mm512_set1_epi32(int_at(xq + BLOCK * r + 4 * i)));
            if (type == GT_Q8_0) continue;
            v = _mm512_and_si512(_mm512_srli_epi32(v, 4), low);
#pragma GCC unroll 12
            for (int r = 0; r < M; r++)
                sum[r] = _mm512_dpbusd_epi32(sum[r], v, _mm512_set1_epi32(int_at(xq + BLOCK * r + 4 * (QUADS / 2 + i))));
        }
        __m512 s = _mm512_cvtph_ps(load256(w));
#pragma GCC unroll 12
        for (int r = 0; r < M; r++) {
            __m512 xs = _mm512_set1_ps(float_at(x + 4 * r));
            y[r]      = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), _mm512_mul_ps(s, xs), y[r]);
        }
    }
    int       left = j->n_out - p * LINEAR_LANES;
    __mmask16 some = left >= 16 ? 0xffff : (__mmask16)((1 << left) - 1);
#pragma GCC unroll 12
    for (int r = 0; r < M; r++) _mm512_mask_storeu_ps(j->y + (size_t)r * j->y_step + (size_t)p * LINEAR_LANES, some, y[r]);
}

INLINE T512 void run512(const block_job *j, const int type)
{
    EACH6(vnni512, type)
    switch (j->m) {
        CASE(7, vnni512(j, p, 7, type));
        CASE(8, vnni512(j, p, 8, type));
        CASE(9, vnni512(j, p, 9, type));
        CASE(10, vnni512(j, p, 10, type));
        CASE(11, vnni512(j, p, 11, type));
        CASE(12, vnni512(j, p, 12, type));
    }
}
T512 void block_vnni512_q8(const block_job *j) { run512(j, GT_Q8_0); }
T512 void block_vnni512_q4(const block_job *j) { run512(j, GT_Q4_0); }

#endif
