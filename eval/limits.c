/* limits: see limits.h. */
#include "eval/limits.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A stream of arithmetic: `rounds` times the same instructions on registers; what comes back depends on all of them. */
typedef float stream(long rounds);
typedef struct {
    const char *by;
    stream     *run;
    double      ops; /* of a round */
} engine;

/* The compiler may not see through it. */
#if defined(__x86_64__)
#define KEEP(x) __asm__ volatile("" : "+x"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+m"(x))
#endif

#if defined(__x86_64__)
enum { CHAINS = 12 }; /* enough to hide the latency, few enough for sixteen registers */

#define STREAM(name, isa, vec, zero, one, step, sum)              \
    __attribute__((target(isa))) static float name(long rounds)   \
    {                                                             \
        vec acc[CHAINS], a = one;                                 \
        for (int i = 0; i < CHAINS; i++) acc[i] = zero;           \
        KEEP(a);                                                  \
        for (long r = 0; r < rounds; r++) {                       \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) step; \
            KEEP(a);                                              \
        }                                                         \
        for (int i = 1; i < CHAINS; i++) acc[0] = sum(acc[0], acc[i]); \
        float out[sizeof(vec) / sizeof(float)];                   \
        memcpy(out, &acc[0], sizeof out);                         \
        return out[0];                                            \
    }
STREAM(f32_512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), acc[i] = _mm512_fmadd_ps(acc[i], a, a), _mm512_add_ps)
STREAM(f32_256, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_set1_ps(0.5f), acc[i] = _mm256_fmadd_ps(acc[i], a, a), _mm256_add_ps)
STREAM(f32_128, "sse2", __m128, _mm_setzero_ps(), _mm_set1_ps(0.5f), acc[i] = _mm_add_ps(_mm_mul_ps(acc[i], a), a), _mm_add_ps)
STREAM(i8_vnni512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(3), acc[i] = _mm512_dpbusd_epi32(acc[i], a, a), _mm512_add_epi32)
STREAM(i8_avxvnni, "avx2,avxvnni", __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(3), acc[i] = _mm256_dpbusd_avx_epi32(acc[i], a, a), _mm256_add_epi32)
/* Products of bytes in pairs, pairs of pairs, the sum: three instructions where VNNI has one.  The operands come from the accumulator, so that none of
 * them can be taken out of the loop. */
STREAM(i8_256, "avx2", __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1),
       acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, acc[i]), a)), _mm256_add_epi32)
STREAM(i8_128, "sse2", __m128i, _mm_setzero_si128(), _mm_set1_epi8(1), acc[i] = _mm_add_epi32(acc[i], _mm_madd_epi16(acc[i], a)), _mm_add_epi32)

static engine f32_engine(void)
{
    if (__builtin_cpu_supports("avx512f")) return (engine){ "avx512 fma", f32_512, CHAINS * 32 };
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (engine){ "avx2 fma", f32_256, CHAINS * 16 };
    return (engine){ "sse2 mul + add", f32_128, CHAINS * 8 };
}
static engine i8_engine(void)
{
    if (__builtin_cpu_supports("avx512vnni")) return (engine){ "avx512 vpdpbusd", i8_vnni512, CHAINS * 128 };
    if (__builtin_cpu_supports("avxvnni")) return (engine){ "avx-vnni vpdpbusd", i8_avxvnni, CHAINS * 64 };
    if (__builtin_cpu_supports("avx2")) return (engine){ "avx2 vpmaddubsw + vpmaddwd + vpaddd", i8_256, CHAINS * 64 };
    return (engine){ "sse2 pmaddwd + paddd", i8_128, CHAINS * 16 };
}
#else
typedef float   f4 __attribute__((vector_size(16)));
typedef int16_t s8 __attribute__((vector_size(16)));
enum { CHAINS = 8 };
static float f32_any(long rounds)
{
    f4 acc[CHAINS] = { { 0 } }, a = { 0.5f, 0.5f, 0.5f, 0.5f };
    for (long r = 0; r < rounds; r++) {
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + a;
        KEEP(a);
    }
    for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
    return acc[0][0];
}
static float i8_any(long rounds)
{
    s8 acc[CHAINS] = { { 0 } }, a = { 3, 3, 3, 3, 3, 3, 3, 3 };
    for (long r = 0; r < rounds; r++) {
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + a;
        KEEP(a);
    }
    for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
    return (float)acc[0][0];
}
static engine f32_engine(void) { return (engine){ "128-bit mul + add", f32_any, CHAINS * 8 }; }
static engine i8_engine(void) { return (engine){ "128-bit 16-bit mul + add", i8_any, CHAINS * 16 }; }
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

enum { TRIES = 8 };

/* The best of TRIES runs of about 15 ms on all threads. */
static double arithmetic(const engine *g, int threads)
{
    long   rounds = 100000;
    double best   = 0;
    float  sum    = 0;
    for (int i = 0; i < TRIES; i++) {
        double t0 = now();
#pragma omp parallel num_threads(threads) reduction(+ : sum)
        sum += g->run(rounds);
        double t = now() - t0, rate = g->ops * (double)rounds * threads / t * 1e-9;
        if (rate > best) best = rate;
        if (t < 0.015) rounds = rounds * 2;
    }
    KEEP(sum);
    return best;
}

/* Every cache line of n bytes is read. */
static uint64_t read_all(const unsigned char *p, size_t n)
{
    typedef uint64_t line __attribute__((vector_size(64), may_alias));
    line s[4] = { { 0 } };
    for (size_t i = 0; i + 256 <= n; i += 256)
        for (size_t k = 0; k < 4; k++) s[k] ^= *(const line *)(p + i + 64 * k);
    s[0] ^= s[1] ^ s[2] ^ s[3];
    return s[0][0] ^ s[0][1] ^ s[0][2] ^ s[0][3] ^ s[0][4] ^ s[0][5] ^ s[0][6] ^ s[0][7];
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const unsigned char *p, size_t n)
{
    __m256i s[8];
    for (int k = 0; k < 8; k++) s[k] = _mm256_setzero_si256();
    for (size_t i = 0; i + 256 <= n; i += 256)
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) s[k] = _mm256_xor_si256(s[k], _mm256_load_si256((const __m256i *)(p + i + 32 * k)));
    for (int k = 1; k < 8; k++) s[0] = _mm256_xor_si256(s[0], s[k]);
    return (uint64_t)_mm256_extract_epi64(s[0], 0) ^ (uint64_t)_mm256_extract_epi64(s[0], 1) ^ (uint64_t)_mm256_extract_epi64(s[0], 2) ^
           (uint64_t)_mm256_extract_epi64(s[0], 3);
}
#endif
static uint64_t reader(const unsigned char *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return read_avx2(p, n);
#endif
    return read_all(p, n);
}

/* Every thread reads its part of n bytes `passes` times; the best of TRIES. */
static double reading(const unsigned char *p, size_t n, int passes, int threads)
{
    double   best = 0;
    uint64_t sum  = 0;
    size_t   part = n / (size_t)threads / 256 * 256;
    for (int i = 0; i < TRIES; i++) {
        double t0 = now();
#pragma omp parallel num_threads(threads) reduction(^ : sum)
        for (int k = 0; k < passes; k++) sum ^= reader(p + part * (size_t)omp_get_thread_num(), part) + (uint64_t)k;
        double rate = (double)part * threads * passes / (now() - t0) * 1e-9;
        if (rate > best) best = rate;
    }
    __asm__ volatile("" ::"r"(sum));
    return best;
}

/* Bytes of the last-level cache; what sysconf says is made up under some hypervisors, so the kernel's own list comes first. */
static size_t cache_size(void)
{
    enum { LEAST = 1 << 20, MOST = 128 << 20, FALLBACK = 8 << 20 };
    long  n = -1;
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (f && fscanf(f, "%ldK", &n) == 1) n *= 1024;
    if (f) fclose(f);
#ifdef _SC_LEVEL3_CACHE_SIZE
    if (n <= 0) n = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return n < LEAST || n > MOST ? FALLBACK : (size_t)n;
}

int limits_measure(machine_limits *m, int threads, err *e)
{
    enum { MEMORY = 128 << 20 };
    engine f = f32_engine(), b = i8_engine();
    *m = (machine_limits){ .threads = threads, .f32_by = f.by, .i8_by = b.by, .memory_bytes = MEMORY, .cache_bytes = cache_size() / 2 };
    unsigned char *p = aligned_alloc(2 << 20, MEMORY);
    if (!p) return err_set(e, E_NOMEM, "out of memory for %d MB to read", MEMORY >> 20);
    memset(p, 1, MEMORY);
    m->f32    = arithmetic(&f, threads);
    m->i8     = arithmetic(&b, threads);
    m->memory = reading(p, MEMORY, 1, threads);
    m->cache  = reading(p, m->cache_bytes, 8, threads);
    free(p);
    return OK;
}
