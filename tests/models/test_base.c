/* base: the ground.  Known answers come from the standards named beside them. */
#define _GNU_SOURCE
#include "models/base.h"
#include "models/options.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/duet-base-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int  k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void err_is_one_clean_line(void **s)
{
    (void)s;
    err  e;
    char big[600];
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = 0;
    assert_int_equal(err_set(&e, E_IO, "x\n\x1b[31m%s", "y"), E_IO);
    assert_string_equal(e.msg, "x??[31my");
    /* a three-byte character that does not fit whole is dropped, whatever the offset */
    for (int pad = 230; pad < 240; pad++) {
        err_set(&e, E_IO, "%.*s%s", pad, big, "中文中文中文");
        assert_true(utf8_valid(str_of(e.msg)));
        assert_true(strlen(e.msg) < sizeof e.msg);
    }
    err_set(&e, E_ARG, "inner");
    assert_int_equal(err_prefix(&e, "file %d", 7), E_ARG);
    assert_string_equal(e.msg, "file 7: inner");
    assert_int_equal(err_set(NULL, E_ARG, "no place"), E_ARG);
}

static void utf8_steps_like_the_standard(void **s)
{
    (void)s;
    static const struct {
        const char *in;
        size_t      n, step;
        uint32_t    cp;
    } t[] = { /* Unicode 15, table 3-7, and the substitution of maximal subparts of section 3.9 */
        { "A", 1, 1, 'A' },           { "\xC3\xA9", 2, 2, 0xE9 },     { "\xE4\xB8\xAD", 3, 3, 0x4E2D },
        { "\xF0\x9F\x98\x80", 4, 4, 0x1F600 },                        { "\x80", 1, 1, UTF8_BAD },
        { "\xC0\xAF", 2, 1, UTF8_BAD }, { "\xC1\xBF", 2, 1, UTF8_BAD }, { "\xE0\x80\x80", 3, 1, UTF8_BAD },
        { "\xED\xA0\x80", 3, 1, UTF8_BAD }, { "\xF4\x90\x80\x80", 4, 1, UTF8_BAD }, { "\xF5\x80", 2, 1, UTF8_BAD },
        { "\xE4\xB8", 2, 2, UTF8_BAD }, { "\xE4\xB8\x41", 3, 2, UTF8_BAD }, { "\xF0\x9F\x98", 3, 3, UTF8_BAD },
        { "\xF0\x9F\x41", 3, 2, UTF8_BAD }, { "\xFF", 1, 1, UTF8_BAD }, { "\0", 1, 1, 0 },
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint32_t cp;
        assert_int_equal(utf8_next(t[i].in, t[i].n, &cp), t[i].step);
        assert_int_equal(cp, t[i].cp);
    }
    for (uint32_t cp = 0; cp <= 0x110000; cp++) { /* every scalar value comes back; nothing else is written */
        char     b[4];
        uint32_t back;
        size_t   n = utf8_put(cp, b);
        if ((cp >= 0xD800 && cp <= 0xDFFF) || cp > 0x10FFFF) {
            assert_int_equal(n, 0);
            continue;
        }
        assert_int_equal(utf8_next(b, n, &back), n);
        assert_int_equal(back, cp);
    }
}

static void terminal_text_is_harmless(void **s)
{
    (void)s;
    buf b = { 0 };
    buf_visible(&b, STR("a\x1b[2J\r\n\xC2\x9B" "中\xE2\x80\xAE\xFF\x7F"));
    assert_string_equal(b.s, "a<U+001B>[2J<U+000D><U+000A><U+009B>中<U+202E>\xEF\xBF\xBD<U+007F>");
    buf_free(&b);
}

static void sha256_known_answers(void **s)
{
    (void)s; /* FIPS 180-2 appendix B, and the empty message */
    static const char *t[][2] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    };
    for (int i = 0; i < 3; i++) {
        sha256        h;
        unsigned char d[32];
        char          hex[65];
        sha256_init(&h);
        for (size_t k = 0; k < strlen(t[i][0]); k++) sha256_add(&h, t[i][0] + k, 1);
        sha256_end(&h, d);
        sha256_hex(d, hex);
        assert_string_equal(hex, t[i][1]);
    }
}

static void rng_is_philox(void **s)
{
    (void)s; /* Random123's kat_vectors for philox4x32-10: output words 1 and 0 */
    assert_true(rng_u64(0, 0, 0) == 0xe169c58d6627e8d5u);
    assert_true(rng_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x41c83b0e408f276du);
    assert_true(rng_u64(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u) == 0x94fdccebd16cfe09u);
}

static void rng_statistics(void **s)
{
    (void)s;
    enum { N = 200000 };
    double mean = 0, sq = 0, nm = 0, nv = 0;
    int    hist[10] = { 0 };
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_unit(5, i % 7, i), z = rng_normal(9, 3, i);
        assert_true(u >= 0 && u < 1);
        mean += u / N;
        sq += u * u / N;
        nm += z / N;
        nv += z * z / N;
        hist[rng_below(1, 2, i, 10)]++;
    }
    /* standard errors: 0.0006, 0.0007, 0.0022, 0.0032; bounds at five of them */
    assert_true(fabs(mean - 0.5) < 0.0033 && fabs(sq - 1.0 / 3) < 0.0034);
    assert_true(fabs(nm) < 0.0112 && fabs(nv - 1) < 0.016);
    for (int i = 0; i < 10; i++) assert_true(abs(hist[i] - N / 10) < 5 * 135);
    assert_true(rng_u64(1, 2, 3) != rng_u64(1, 3, 2) && rng_u64(1, 2, 3) != rng_u64(2, 1, 3));
}

static void arena_aligns_zeroes_and_refuses(void **s)
{
    (void)s;
    arena a = { 0 };
    for (int round = 0; round < 3; round++) {
        for (size_t n = 1; n < 200000; n = n * 3 + 1) {
            unsigned char *p = arena_new(&a, n, 1);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
            memset(p, 0xAA, n);
        }
        arena_reset(&a);
        assert_int_equal(a.used, 0);
    }
    assert_null(arena_new(&a, SIZE_MAX / 2, 3));
    assert_null(arena_new(&a, SIZE_MAX, 1));
    arena_free(&a);
}

static void files_replace_whole_or_not_at_all(void **s)
{
    (void)s;
    err         e;
    outfile    *o;
    filemap     m;
    const char *p = in_dir("f");
    char        big[100000];
    memset(big, 'q', sizeof big);
    assert_int_equal(out_open(&o, p, &e), OK);
    assert_int_equal(out_write(o, "old", 3, &e), OK);
    assert_int_equal(out_commit(o, &e), OK);
    assert_int_equal(out_open(&o, p, &e), OK);
    assert_int_equal(out_write(o, big, sizeof big, &e), OK);
    out_abort(o);
    assert_int_equal(map_open(&m, p, &e), OK);
    assert_int_equal(m.n, 3);
    assert_memory_equal(m.p, "old", 3);
    map_close(&m);
    assert_int_equal(out_open(&o, p, &e), OK);
    assert_int_equal(out_write(o, "ab", 2, &e), OK);
    assert_int_equal(out_write(o, big, sizeof big, &e), OK);
    assert_int_equal(out_pad(o, 300, &e), OK);
    assert_int_equal(out_tell(o), 2 + sizeof big + 300);
    assert_int_equal(out_commit(o, &e), OK);
    buf b = { 0 };
    assert_int_equal(read_file(p, 1 << 20, &b, &e), OK);
    assert_int_equal(b.n, 2 + sizeof big + 300);
    assert_int_equal(b.s[b.n - 1], 0);
    assert_int_equal(read_file(p, 100, &b, &e), E_LIMIT);
    buf_free(&b);
    assert_int_equal(map_open(&m, dir, &e), E_IO);
    assert_non_null(strstr(e.msg, "directory"));
    assert_int_equal(map_open(&m, in_dir("absent"), &e), E_IO);
    assert_int_equal(out_open(&o, in_dir("no/such/dir"), &e), E_IO);
    assert_int_equal(out_open(&o, dir, &e), E_IO);
    assert_int_equal(map_open(&m, "/dev/null", &e), E_IO);
    if (access("/dev/full", W_OK) == 0) { /* a full disk is told at the write, not at the rename */
        assert_int_equal(out_open(&o, in_dir("g"), &e), OK);
        out_abort(o);
        assert_int_not_equal(access(in_dir("g"), F_OK), 0);
    }
}

static void buffers_and_views(void **s)
{
    (void)s;
    buf  b = { 0 };
    ivec v = { 0 };
    for (int i = 0; i < 1000; i++) {
        buf_fmt(&b, "%d,", i);
        ivec_push(&v, i);
    }
    assert_false(b.oom || v.oom);
    assert_int_equal(b.n, 3890);
    assert_int_equal(v.v[999], 999);
    assert_true(str_eq(str_trim(STR(" \t a b\r\n")), STR("a b")));
    assert_true(str_starts(STR("abc"), STR("ab")) && !str_starts(STR("a"), STR("ab")));
    size_t z;
    assert_int_equal(mul_size(SIZE_MAX, 2, &z), -1);
    assert_int_equal(add_size(SIZE_MAX, 1, &z), -1);
    buf_free(&b);
    ivec_free(&v);
}

static void options_are_strict(void **s)
{
    (void)s;
    int          n = 5, flag = 0, np;
    float        f = 0;
    uint64_t     u = 0;
    const char  *str_ = NULL, *two[2] = { NULL, NULL }, *pos[2];
    opt_list     list = { 0 };
    err          e;
    const option o[] = { { "--n,-N", OPT_INT, &n, "N", "" },      { "--flag", OPT_FLAG, &flag, NULL, "" },
                         { "--f", OPT_FLOAT, &f, "X", "" },       { "--seed", OPT_U64, &u, "S", "" },
                         { "--s", OPT_STR, &str_, "FILE", "" },   { "--two", OPT_STR2, two, "A B", "" },
                         { "--more", OPT_STRS, &list, "X", "" },  { 0 } };
#define PARSE(...) options_parse(o, (int)(sizeof(char *[]){ __VA_ARGS__ } / sizeof(char *)), (char *[]){ __VA_ARGS__ }, pos, 2, &np, &e)
    assert_int_equal(PARSE("a", "-N", "7", "--flag", "--f=0.5", "--seed", "18446744073709551615", "--s", "-", "--two", "x", "y", "--more", "1",
                           "--more=2", "--", "-b"), OK);
    assert_int_equal(np, 2);
    assert_string_equal(pos[1], "-b");
    assert_true(n == 7 && flag == 1 && f == 0.5f && u == UINT64_MAX && list.n == 2);
    assert_string_equal(str_, "-");
    assert_string_equal(two[1], "y");
    assert_int_equal(PARSE("--help"), OPTIONS_HELP);
    assert_int_equal(PARSE("--nn", "1"), E_ARG);
    assert_int_equal(PARSE("--n"), E_ARG);
    assert_int_equal(PARSE("--n", "7x"), E_ARG);
    assert_int_equal(PARSE("--n", "99999999999"), E_ARG);
    assert_int_equal(PARSE("--f", "nan"), E_ARG);
    assert_int_equal(PARSE("--seed", "-1"), E_ARG);
    assert_int_equal(PARSE("--flag=1"), E_ARG);
    assert_int_equal(PARSE("--two", "x"), E_ARG);
    assert_int_equal(PARSE("a", "b", "c"), E_ARG);
}

static int setup(void **s)
{
    (void)s;
    return mkdtemp(dir) ? 0 : -1;
}
static int teardown(void **s)
{
    (void)s;
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(err_is_one_clean_line),  cmocka_unit_test(utf8_steps_like_the_standard),
        cmocka_unit_test(terminal_text_is_harmless), cmocka_unit_test(sha256_known_answers),
        cmocka_unit_test(rng_is_philox),          cmocka_unit_test(rng_statistics),
        cmocka_unit_test(arena_aligns_zeroes_and_refuses), cmocka_unit_test(files_replace_whole_or_not_at_all),
        cmocka_unit_test(buffers_and_views),      cmocka_unit_test(options_are_strict),
    };
    return cmocka_run_group_tests_name("base", t, setup, teardown);
}
