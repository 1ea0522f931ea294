/* The instructions of AVX-512 and AVX-VNNI that models/linear*_x86.c uses, as Intel's manual describes them, on a processor with AVX2: so that those kernels run,
 * and are compared bit for bit, where the processor has them not (make check-x86).  What it cannot show is that the compiler chose the right instruction. */
#ifndef DUET_CROSS_IMMINTRIN_H
#define DUET_CROSS_IMMINTRIN_H
#include_next <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct { __m256 h[2]; } emu_ps;
typedef struct { __m256i h[2]; } emu_si;
#define EMU static inline __attribute__((unused))

EMU emu_ps emu_loadu_ps(const float *p) { return (emu_ps){ { _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) } }; }
EMU emu_si emu_loadu_si(const void *p) { return (emu_si){ { _mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1) } }; }
EMU emu_ps emu_set1_ps(float x) { return (emu_ps){ { _mm256_set1_ps(x), _mm256_set1_ps(x) } }; }
EMU emu_si emu_set1_epi32(int x) { return (emu_si){ { _mm256_set1_epi32(x), _mm256_set1_epi32(x) } }; }
EMU emu_ps emu_mul_ps(emu_ps a, emu_ps b) { return (emu_ps){ { _mm256_mul_ps(a.h[0], b.h[0]), _mm256_mul_ps(a.h[1], b.h[1]) } }; }
EMU emu_ps emu_fmadd_ps(emu_ps a, emu_ps b, emu_ps c)
{
    return (emu_ps){ { _mm256_fmadd_ps(a.h[0], b.h[0], c.h[0]), _mm256_fmadd_ps(a.h[1], b.h[1], c.h[1]) } };
}
EMU emu_si emu_and(emu_si a, emu_si b) { return (emu_si){ { _mm256_and_si256(a.h[0], b.h[0]), _mm256_and_si256(a.h[1], b.h[1]) } }; }
EMU emu_si emu_srli_epi32(emu_si a, int n) { return (emu_si){ { _mm256_srli_epi32(a.h[0], n), _mm256_srli_epi32(a.h[1], n) } }; }
EMU emu_si emu_slli_epi32(emu_si a, int n) { return (emu_si){ { _mm256_slli_epi32(a.h[0], n), _mm256_slli_epi32(a.h[1], n) } }; }
EMU emu_ps emu_cvtepi32_ps(emu_si a) { return (emu_ps){ { _mm256_cvtepi32_ps(a.h[0]), _mm256_cvtepi32_ps(a.h[1]) } }; }
EMU emu_si emu_cvtepu16_epi32(__m256i a)
{
    return (emu_si){ { _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)) } };
}
EMU emu_ps emu_cvtph_ps(__m256i a)
{
    return (emu_ps){ { _mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)) } };
}
EMU emu_ps emu_castsi_ps(emu_si a) { return (emu_ps){ { _mm256_castsi256_ps(a.h[0]), _mm256_castsi256_ps(a.h[1]) } }; }
EMU void emu_mask_storeu_ps(float *p, unsigned mask, emu_ps a)
{
    float x[16];
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) p[i] = x[i];
}
/* VPDPBUSD: to each 32-bit lane four products of an unsigned byte of a with a signed byte of b, without saturation. */
EMU __m256i emu_dpbusd256(__m256i sum, __m256i a, __m256i b)
{
    int32_t s[8];
    uint8_t u[32];
    int8_t  v[32];
    memcpy(s, &sum, 32), memcpy(u, &a, 32), memcpy(v, &b, 32);
    for (int i = 0; i < 32; i++) s[i / 4] = (int32_t)((uint32_t)s[i / 4] + (uint32_t)(u[i] * v[i]));
    memcpy(&sum, s, 32);
    return sum;
}
EMU emu_si emu_dpbusd(emu_si sum, emu_si a, emu_si b)
{
    return (emu_si){ { emu_dpbusd256(sum.h[0], a.h[0], b.h[0]), emu_dpbusd256(sum.h[1], a.h[1], b.h[1]) } };
}

#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#define __m512                    emu_ps
#define __m512i                   emu_si
#define _mm512_loadu_ps           emu_loadu_ps
#define _mm512_loadu_si512        emu_loadu_si
#define _mm512_setzero_ps()       emu_set1_ps(0)
#define _mm512_set1_ps            emu_set1_ps
#define _mm512_set1_epi32         emu_set1_epi32
#define _mm512_mul_ps             emu_mul_ps
#define _mm512_fmadd_ps           emu_fmadd_ps
#define _mm512_and_si512          emu_and
#define _mm512_srli_epi32         emu_srli_epi32
#define _mm512_slli_epi32         emu_slli_epi32
#define _mm512_cvtepi32_ps        emu_cvtepi32_ps
#define _mm512_cvtepu16_epi32     emu_cvtepu16_epi32
#define _mm512_cvtph_ps           emu_cvtph_ps
#define _mm512_castsi512_ps       emu_castsi_ps
#define _mm512_mask_storeu_ps     emu_mask_storeu_ps
#define _mm512_dpbusd_epi32       emu_dpbusd
#define _mm256_dpbusd_avx_epi32   emu_dpbusd256
#define __builtin_cpu_supports(x) 1
#define target(x) /* no instruction beyond AVX2 may be made of this */

#endif
