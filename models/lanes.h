/* lanes: eight floats at a time, for ops.c and ops_train.c only.  GCC vector types, so that one source gives the same bits compiled for
 * AVX2 or SSE2: every operation is a single IEEE operation per lane, products and sums are never contracted (the build says
 * -ffp-contract=off), sums over a row always use the same sixteen partial sums, folded in the same order.
 * exp, tanh and erf are polynomials of our own (Chebyshev fits, coefficients beside them); libm is not called. */
#ifndef DUET_LANES_H
#define DUET_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Put before a function: it is compiled for AVX2 and for the baseline, and CPUID chooses when the program is loaded.  (Eight lanes gain nothing from
 * AVX-512.)  A test defines it empty to get the baseline alone. */
#ifndef CLONES
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif
#endif
#define LANE static inline __attribute__((always_inline, unused))

typedef float   v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef float   v8u __attribute__((vector_size(32), aligned(4), may_alias));
typedef float   v4 __attribute__((vector_size(16)));
typedef double  v4d __attribute__((vector_size(32)));

LANE v8 v8_set(float x) { return (v8){ x, x, x, x, x, x, x, x }; }
LANE v8 v8_load(const float *p) { return *(const v8u *)p; }
LANE void v8_store(float *p, v8 x) { *(v8u *)p = x; }
/* The first n < 8 floats; the other lanes hold `fill`. */
LANE v8 v8_load_part(const float *p, size_t n, float fill)
{
    float t[8];
    for (size_t j = 0; j < 8; j++) t[j] = j < n ? p[j] : fill;
    return v8_load(t);
}
LANE void v8_store_part(float *p, v8 x, size_t n)
{
    float t[8];
    v8_store(t, x);
    for (size_t j = 0; j < n && j < 8; j++) p[j] = t[j];
}
LANE v8i v8_bits(v8 x) { return (v8i)x; }
LANE v8 v8_of_bits(v8i x) { return (v8)x; }
LANE v8 v8_select(v8i m, v8 a, v8 b) { return (v8)((m & (v8i)a) | (~m & (v8i)b)); } /* m ? a : b */
LANE v8 v8_max(v8 a, v8 b) { return v8_select(a < b, b, a); }
LANE v8 v8_abs(v8 x) { return v8_of_bits(v8_bits(x) & 0x7fffffff); }
LANE v8 v8_sign_of(v8 mag, v8 x) { return v8_of_bits(v8_bits(mag) | (v8_bits(x) & (int32_t)0x80000000)); }

/* ((0+4)+(2+6)) + ((1+5)+(3+7)): the one order in which lanes are folded. */
LANE float v8_sum(v8 a)
{
    float t[8];
    v8_store(t, a);
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}
LANE float v8_max_of(v8 a)
{
    float t[8], m;
    v8_store(t, a);
    m = t[0];
    for (int j = 1; j < 8; j++) m = m < t[j] ? t[j] : m;
    return m;
}

/* e^x, relative error below 2 ulp; 0 below -104 (denormals are delivered), inf above 88.73, NaN stays NaN.
 * x = n ln 2 + r with n from adding 1.5 * 2^23; ln 2 in two parts, the first with 9 bits so that n times it is exact. */
LANE v8 v8_exp(v8 x)
{
    v8  c = v8_select(x < -105.0f, v8_set(-105.0f), x);
    c     = v8_select(c > 90.0f, v8_set(90.0f), c);
    v8  t = c * 1.44269504f + 12582912.0f;
    v8  n = t - 12582912.0f;
    v8  r = (c - n * 0.693359375f) - n * -2.12194440e-4f;
    v8  p = r * 0.00139263919f + 0.00836334581f;
    p     = p * r + 0.0416665534f;
    p     = p * r + 0.16666576f;
    p     = p * r + 0.5f;
    p     = (p * (r * r) + r) + 1.0f;
    v8i i = v8_bits(t) - 0x4b400000, h = i >> 1, l = i - h; /* two factors: 2^i itself may not be a normal number */
    return p * v8_of_bits((h + 127) << 23) * v8_of_bits((l + 127) << 23);
}

/* e^x for x <= 0, relative error below 2 ulp; 0 below -87 (nothing that is added to 1 misses it), NaN stays NaN.  As v8_exp, but one factor is enough, and
 * the range needs no clamp: what is out of it is masked in the end. */
LANE v8 v8_exp_down(v8 x)
{
    v8 t = x * 1.44269504f + 12582912.0f;
    v8 n = t - 12582912.0f;
    v8 r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    v8 p = r * 0.00139263919f + 0.00836334581f;
    p    = p * r + 0.0416665534f;
    p    = p * r + 0.16666576f;
    p    = p * r + 0.5f;
    p    = ((p * (r * r) + r) + 1.0f) * v8_of_bits((v8_bits(t) << 23) + 0x3f800000);
    return v8_of_bits(v8_bits(p) & ~(x < -87.0f));
}

/* 1 / (1 + e^-x) = e^x / (1 + e^x), by whichever power is below 1. */
LANE v8 v8_sigmoid(v8 x)
{
    v8 e = v8_exp_down(-v8_abs(x));
    return v8_select(x < 0.0f, e, v8_set(1.0f)) / (1.0f + e);
}

/* tanh, absolute error below 2e-7: odd polynomial up to 0.625, else from exp. */
LANE v8 v8_tanh(v8 x)
{
    v8 a = v8_abs(x), s = x * x;
    v8 p = s * -0.0060451651f + 0.0209613291f;
    p    = p * s + -0.0538432632f;
    p    = p * s + 0.133327188f;
    p    = p * s + -0.333333284f;
    v8 small = x + x * (s * p);
    v8 big   = v8_sign_of(1.0f - 2.0f / (v8_exp(a + a) + 1.0f), x);
    return v8_select(a > 0.625f, big, small);
}

/* erfc(z) for z >= 0, relative error below 1e-6 while the result is normal: t exp(-z^2) P(t), t = 1 / (1 + 0.4 z), P fitted on z in [0, 7]. */
LANE v8 v8_erfc_pos(v8 z)
{
    v8 t = 1.0f / (1.0f + z * 0.4f);
    v8 p = t * 0.0290864343f + -0.0793526864f;
    p    = p * t + -0.046377114f;
    p    = p * t + 0.243037964f;
    p    = p * t + -0.0322720576f;
    p    = p * t + 0.243633402f;
    p    = p * t + 0.188250712f;
    p    = p * t + 0.228488907f;
    p    = p * t + 0.225504457f;
    return p * t * v8_exp(-(z * z));
}
/* Phi(x), the normal distribution function. */
LANE v8 v8_phi(v8 x)
{
    v8 q = 0.5f * v8_erfc_pos(v8_abs(x) * 0.707106781f);
    return v8_select(x > 0.0f, 1.0f - q, q);
}

/* Sixteen partial sums over x[0..n): element i goes to sum i mod 16.  `EXPR` of `e` (a v8) is what is added; `fill` stands in for missing
 * elements, and must make EXPR zero. */
#define LANE_SUM(total, x, n, fill, e, EXPR)                                                    \
    do {                                                                                        \
        v8     s0_ = v8_set(0.0f), s1_ = v8_set(0.0f), e;                                       \
        size_t i_ = 0, n_ = (size_t)(n);                                                        \
        for (; i_ + 16 <= n_; i_ += 16) {                                                       \
            e = v8_load((x) + i_), s0_ += (EXPR);                                               \
            e = v8_load((x) + i_ + 8), s1_ += (EXPR);                                           \
        }                                                                                       \
        if (n_ - i_ >= 8) {                                                                     \
            e = v8_load((x) + i_), s0_ += (EXPR);                                               \
            i_ += 8;                                                                            \
            if (i_ < n_) e = v8_load_part((x) + i_, n_ - i_, fill), s1_ += (EXPR);              \
        } else if (i_ < n_) {                                                                   \
            e = v8_load_part((x) + i_, n_ - i_, fill), s0_ += (EXPR);                           \
        }                                                                                       \
        (total) = v8_sum(s0_ + s1_);                                                            \
    } while (0)

#endif
