/* What bench stands on: the stopwatch keeps quiet repeats and says so when there are none; random models are the same bytes every time and open; a workload
 * computes what the engine computes, whatever the threads, and counts its work right; limits are sane. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/limits.h"
#include "eval/pace.h"
#include "eval/synth.h"
#include "eval/workload.h"

static err e;
#define OKAY(x) do { if ((x) != OK) fail_msg("%s: %s", #x, e.msg); } while (0)

/* ---- stopwatch --------------------------------------------------------------------------------------------------- */

static void test_quantile(void **state)
{
    (void)state;
    double x[] = { 5, 1, 4, 2, 3 }, y[] = { 4, 1, 3, 2 }, z[100];
    assert_true(stopwatch_quantile(x, 5, 0.5) == 3 && x[0] == 1 && x[4] == 5);
    assert_true(stopwatch_quantile(y, 4, 0.5) == 2.5);
    for (int i = 0; i < 100; i++) z[i] = 100 - i;
    assert_true(stopwatch_quantile(z, 100, 0.95) == 95);
    assert_true(stopwatch_quantile(z, 100, 1) == 100 && stopwatch_quantile(z, 100, 0) == 1);
}

typedef struct {
    int calls, disturbed_until, fail_at;
} script;
/* A repeat of call number `calls` milliseconds; the first ones are disturbed. */
static int scripted(void *ctx, stopwatch *w, err *er)
{
    script *s = ctx;
    if (++s->calls == s->fail_at) return err_set(er, E_LIMIT, "call %d", s->calls);
    *w = (stopwatch){ .wall = s->calls * 1e-3, .cpu = s->calls * 2e-3, .lap = s->calls * 0.5e-3, .foreign = s->calls <= s->disturbed_until ? 0.5 : 0.01 };
    return OK;
}

static void test_repeats(void **state)
{
    (void)state;
    timing t;
    script quiet = { 0 }, some = { .disturbed_until = 3 }, noisy = { .disturbed_until = 1000 }, broken = { .fail_at = 3 };
    OKAY(stopwatch_repeat(scripted, &quiet, 5, &t, &e)); /* call 1 warms up; 2..6 count */
    assert_true(quiet.calls == 6 && t.n == 5 && t.disturbed == 0 && t.dropped == 0);
    assert_true(t.median == 4e-3 && t.min == 2e-3 && t.max == 6e-3 && t.cpu == 8e-3 && t.lap == 2e-3);
    OKAY(stopwatch_repeat(scripted, &some, 5, &t, &e)); /* 2 and 3 are taken again */
    assert_true(some.calls == 8 && t.disturbed == 0 && t.dropped == 2 && t.min == 4e-3 && t.max == 8e-3);
    OKAY(stopwatch_repeat(scripted, &noisy, 2, &t, &e));
    assert_true(noisy.calls == 7 && t.n == 2 && t.disturbed == 2 && t.dropped == 4);
    assert_int_equal(stopwatch_repeat(scripted, &broken, 5, &t, &e), E_LIMIT);
    assert_string_equal(e.msg, "call 3");
    assert_int_equal(stopwatch_repeat(scripted, &quiet, 0, &t, &e), E_ARG);
    assert_int_equal(stopwatch_repeat(scripted, &quiet, STOPWATCH_MAX + 1, &t, &e), E_ARG);
}

static void test_clock(void **state)
{
    (void)state;
    stopwatch w;
    stopwatch_start(&w);
    usleep(20000);
    stopwatch_lap(&w);
    usleep(20000);
    stopwatch_stop(&w);
    assert_true(w.wall >= 0.04 && w.lap >= 0.02 && w.lap < w.wall && w.cpu < 0.04 && w.foreign >= 0);
}

/* ---- models and workloads ---------------------------------------------------------------------------------------- */

static char dir[] = "/tmp/duet-bench-XXXXXX";

static char *path_of(const char *name)
{
    static char p[4][300];
    static int  at;
    at = (at + 1) % 4;
    snprintf(p[at], sizeof p[at], "%s/%s", dir, name);
    return p[at];
}

static void digest(const char *path, char hex[65])
{
    buf           b = { 0 };
    sha256        h;
    unsigned char d[32];
    OKAY(read_file(path, 1 << 24, &b, &e));
    sha256_init(&h);
    sha256_add(&h, b.s, b.n);
    sha256_end(&h, d);
    sha256_hex(d, hex);
    buf_free(&b);
}

static gpt2 *tiny(const char *name, int type)
{
    gpt2_config c;
    gpt2       *m;
    OKAY(synth_config("tiny", &c, &e));
    OKAY(synth_write(path_of(name), &c, type, 1, &e));
    OKAY(gpt2_open(&m, path_of(name), &e));
    return m;
}

static void test_synth(void **state)
{
    (void)state;
    gpt2_config c;
    char        a[65], b[65], other[65];
    gpt2       *m = tiny("a.gguf", GT_Q8_0);
    assert_int_equal(gpt2_cfg(m)->n_layer, 2);
    assert_null(gpt2_tokenizer(m));
    gpt2_close(m);
    OKAY(synth_config("tiny", &c, &e));
    omp_set_num_threads(2);
    OKAY(synth_write(path_of("b.gguf"), &c, GT_Q8_0, 1, &e));
    omp_set_num_threads(1);
    OKAY(synth_write(path_of("c.gguf"), &c, GT_Q8_0, 2, &e));
    digest(path_of("a.gguf"), a);
    digest(path_of("b.gguf"), b);
    digest(path_of("c.gguf"), other);
    assert_string_equal(a, b);
    assert_string_not_equal(a, other);

    /* the spread of the weights, from the f32 file */
    gpt2_close(tiny("f.gguf", GT_F32));
    gguf              *g;
    OKAY(gguf_open(&g, path_of("f.gguf"), &e));
    const gguf_tensor *t = gguf_find(g, "token_embd.weight");
    double             sum = 0, sq = 0;
    const float       *w = (const float *)t->data;
    size_t             n = t->n_bytes / sizeof *w;
    for (size_t i = 0; i < n; i++) sum += (double)w[i], sq += (double)w[i] * (double)w[i];
    assert_true(n == 500 * 64 && sum / (double)n < 5e-4 && sum / (double)n > -5e-4);
    assert_true(sq / (double)n > 0.0195 * 0.0195 && sq / (double)n < 0.0205 * 0.0205);
    gguf_close(g);

    assert_int_equal(synth_config("125M", &c, &e), E_ARG);
    c.n_embd = 40, c.n_inner = 160; /* no whole blocks of 32 */
    assert_int_equal(synth_write(path_of("d.gguf"), &c, GT_Q4_0, 1, &e), E_ARG);
    assert_int_not_equal(access(path_of("d.gguf"), F_OK), 0);
}

static void hash_of(const float *x, size_t n, char out[17])
{
    sha256        h;
    unsigned char d[32];
    char          hex[65];
    sha256_init(&h);
    sha256_add(&h, x, n * sizeof *x);
    sha256_end(&h, d);
    sha256_hex(d, hex);
    memcpy(out, hex, 16);
    out[16] = 0;
}

static void test_workloads(void **state)
{
    (void)state;
    gpt2   *m = tiny("w.gguf", GT_F32);
    subject s;
    figure  f, g;
    char    want[17];
    int     V = gpt2_cfg(m)->n_vocab, ids[20];
    float  *logits = calloc((size_t)V, sizeof *logits);
    OKAY(subject_of(&s, m, &e));
    assert_true(s.row == 2.0 * 2 * 12 * 64 * 64 && s.head == 2.0 * 500 * 64 && s.pair == 4.0 * 2 * 64 && !s.bytes_wide);
    assert_true(s.head_bytes == 500 * 64 * 4 && s.blocks_bytes == 2.0 * 12 * 64 * 64 * 4 && s.kv_bytes == 2.0 * 2 * 64 * 4);

    workload w = { WORK_PREFILL, 20, 0, 0 };
    OKAY(workload_run(&w, &s, NULL, 2, &f, &e));
    for (int i = 0; i < 20; i++) ids[i] = (i * 7919 + 13) % V;
    gpt2_cache *c = gpt2_cache_new(m, 20, 0, 0, 20, &e);
    OKAY(gpt2_sync(m, c, ids, 20, logits, NULL, &e));
    hash_of(logits, (size_t)V, want);
    assert_string_equal(f.hash, want);
    assert_true(f.tokens == 20 && f.time.n == 2 && f.time.median > 0);
    assert_true(f.ops == 20 * s.row + s.head + 210 * s.pair);
    gpt2_cache_free(c);

    static const workload all[] = { { WORK_PREFILL, 70, 0, 0 }, { WORK_DECODE, 3, 20, 5 }, { WORK_SCORE, 3, 20, 6 }, { WORK_TURN, 3, 20, 6 } };
    for (int i = 0; i < 4; i++) { /* twice, with one thread and with two: the same bits */
        omp_set_num_threads(1);
        OKAY(workload_run(&all[i], &s, &s, 1, &f, &e));
        omp_set_num_threads(2);
        OKAY(workload_run(&all[i], &s, &s, 1, &g, &e));
        assert_string_equal(f.hash, g.hash);
        assert_true(f.ops > 0 && f.bytes > 0 && f.ops == g.ops);
    }
    omp_set_num_threads(1);
    OKAY(workload_run(&all[1], &s, NULL, 1, &f, &e));
    double seen = 3 * (21 + 22 + 23 + 24 + 25);
    assert_true(f.tokens == 15 && f.ops == 15 * (s.row + s.head) + seen * s.pair);
    assert_true(f.bytes == 5 * (s.blocks_bytes + s.head_bytes) + (5 * 20 + 3 * 15) * s.kv_bytes);

    assert_int_equal(workload_run(&(workload){ WORK_PREFILL, 129, 0, 0 }, &s, NULL, 1, &f, &e), E_ARG);
    assert_int_equal(workload_run(&(workload){ WORK_TURN, 2, 100, 29 }, &s, &s, 1, &f, &e), E_ARG);
    assert_int_equal(workload_run(&(workload){ WORK_DECODE, 2, 0, 2 }, &s, &s, 1, &f, &e), E_ARG);
    free(logits);
    gpt2_close(m);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

static void test_limits(void **state)
{
    (void)state;
    machine_limits m;
    OKAY(limits_measure(&m, 1, &e));
    assert_true(m.threads == 1 && m.f32 > 0.1 && m.i8 > 0.1 && m.memory > 0.01 && m.cache > 0.01 && m.cache_bytes < m.memory_bytes);
}

static int take(void *ctx, err *er)
{
    size_t n = *(size_t *)ctx;
    if (n == 0) return err_set(er, E_LIMIT, "nothing to take");
    char *p = malloc(n);
    if (!p) return err_set(er, E_NOMEM, "out of memory");
    memset(p, 1, n);
    __asm__ volatile("" ::"r"(p) : "memory");
    free(p);
    return OK;
}

static void test_memory(void **state)
{
    (void)state;
    double few = 0, many = 0;
    size_t a = 1 << 20, b = 64 << 20, none = 0;
    OKAY(pace_memory(take, &a, &few, &e));
    OKAY(pace_memory(take, &b, &many, &e));
    assert_true(few > 0 && many - few > 50e6 && many - few < 80e6);
    assert_int_equal(pace_memory(take, &none, &few, &e), E_LIMIT);
    assert_string_equal(e.msg, "nothing to take");
}

static void test_program(void **state)
{
    (void)state;
    stopwatch w;
    OKAY(pace_program((char *[]){ "/bin/sh", "-c", "read x; sleep 0.02", NULL }, &w, &e));
    assert_true(w.wall >= 0.02);
    assert_int_equal(pace_program((char *[]){ "/bin/sh", "-c", "exit 3", NULL }, &w, &e), E_IO);
    assert_int_equal(pace_program((char *[]){ "/nowhere/at/all", NULL }, &w, &e), E_IO);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}
static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = { "a.gguf", "b.gguf", "c.gguf", "f.gguf", "w.gguf" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(path_of(names[i]));
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory), /* first: before there are threads */
        cmocka_unit_test(test_quantile), cmocka_unit_test(test_repeats), cmocka_unit_test(test_clock), cmocka_unit_test(test_synth),
        cmocka_unit_test(test_workloads), cmocka_unit_test(test_limits), cmocka_unit_test(test_program),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
