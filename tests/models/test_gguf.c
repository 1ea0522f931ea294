/* gguf: what is written is read back; what is cut, flipped or made up is refused, with memory bounded by the file. */
#define _GNU_SOURCE
#include "models/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/duet-gguf-XXXXXX";
static char path[300], path2[300];

static void write_sample(const char *to)
{
    gguf_writer *w;
    err          e;
    const str    words[] = { STR("a"), STR("中文"), STR("") };
    const int32_t ints[] = { -1, 0, INT32_MAX };
    const float   f[]    = { 0.5f, -2 };
    float         data[64];
    unsigned char q[34 * 2];
    for (int i = 0; i < 64; i++) data[i] = (float)i;
    memset(q, 7, sizeof q);
    assert_int_equal(gguf_create(&w, to, &e), OK);
    gguf_put_str(w, "general.architecture", STR("gpt2"));
    gguf_put_u32(w, "u32", 4000000000u);
    gguf_put_u64(w, "u64", UINT64_MAX);
    gguf_put_i32(w, "i32", -5);
    gguf_put_f32(w, "f32", 1e-5f);
    gguf_put_f64(w, "f64", 0.1);
    gguf_put_bool(w, "yes", 1);
    gguf_put_strs(w, "words", words, 3);
    gguf_put_i32s(w, "ints", ints, 3);
    gguf_put_f32s(w, "floats", f, 2);
    gguf_declare(w, "one", GT_F32, 1, (uint64_t[]){ 3 });
    gguf_declare(w, "mat", GT_F32, 2, (uint64_t[]){ 5, 4 });
    gguf_declare(w, "quant", GT_Q8_0, 2, (uint64_t[]){ 32, 2 });
    assert_int_equal(gguf_data(w, data, 3 * 4 + 8 * 4, &e), OK); /* a piece may span tensors */
    assert_int_equal(gguf_data(w, data + 11, 12 * 4, &e), OK);
    assert_int_equal(gguf_data(w, q, sizeof q, &e), OK);
    assert_int_equal(gguf_finish(w, &e), OK);
}

static void round_trip(void **s)
{
    (void)s;
    gguf    *g;
    err      e;
    uint64_t u;
    double   d;
    int      b;
    str      t;
    write_sample(path);
    assert_int_equal(gguf_open(&g, path, &e), OK);
    assert_int_equal(gguf_n_keys(g), 10);
    assert_int_equal(gguf_get_u64(g, "u32", &u, &e), 1);
    assert_true(u == 4000000000u);
    assert_int_equal(gguf_get_u64(g, "u64", &u, &e), 1);
    assert_true(u == UINT64_MAX);
    assert_int_equal(gguf_get_u64(g, "i32", &u, &e), E_FORMAT);
    assert_int_equal(gguf_get_u64(g, "yes", &u, &e), E_FORMAT);
    assert_int_equal(gguf_get_u64(g, "none", &u, &e), 0);
    assert_int_equal(gguf_get_f64(g, "f32", &d, &e), 1);
    assert_true(d == (double)1e-5f);
    assert_int_equal(gguf_get_f64(g, "f64", &d, &e), 1);
    assert_true(d == 0.1);
    assert_int_equal(gguf_get_bool(g, "yes", &b, &e), 1);
    assert_int_equal(b, 1);
    assert_int_equal(gguf_get_str(g, "general.architecture", &t, &e), 1);
    assert_true(str_eq(t, STR("gpt2")));
    const gguf_key *k = gguf_get(g, "words");
    assert_int_equal(k->n, 3);
    assert_true(str_eq(k->strs[1], STR("中文")) && k->strs[2].n == 0);
    assert_int_equal(gguf_int_at(gguf_get(g, "ints"), 0), -1);
    assert_int_equal(gguf_int_at(gguf_get(g, "ints"), 2), INT32_MAX);
    assert_true(gguf_float_at(gguf_get(g, "floats"), 1) == -2);
    const gguf_tensor *m = gguf_find(g, "mat");
    assert_int_equal(m->n_dims, 2);
    assert_int_equal(m->ne[0], 5);
    for (int i = 0; i < 20; i++) assert_true(((const float *)m->data)[i] == (float)(i + 3));
    assert_int_equal(gguf_find(g, "quant")->n_bytes, 68);
    assert_int_equal(gguf_find(g, "quant")->data[67], 7);
    assert_null(gguf_find(g, "qua"));

    gguf_writer *w; /* keys copied one by one make the same header */
    assert_int_equal(gguf_create(&w, path2, &e), OK);
    for (int i = 0; i < gguf_n_keys(g); i++) gguf_put_key(w, gguf_key_at(g, i));
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        char name[64];
        const gguf_tensor *x = gguf_tensor_at(g, i);
        snprintf(name, sizeof name, "%.*s", (int)x->name.n, x->name.s);
        gguf_declare(w, name, x->type, x->n_dims, x->ne);
    }
    for (int i = 0; i < gguf_n_tensors(g); i++) assert_int_equal(gguf_data(w, gguf_tensor_at(g, i)->data, gguf_tensor_at(g, i)->n_bytes, &e), OK);
    assert_int_equal(gguf_finish(w, &e), OK);
    buf a = { 0 };
    assert_int_equal(read_file(path2, 1 << 20, &a, &e), OK);
    assert_true(str_eq(buf_view(&a), gguf_bytes(g)));
    buf_free(&a);
    gguf_close(g);
}

static void writer_refuses_mistakes(void **s)
{
    (void)s;
    gguf_writer *w;
    err          e;
    unlink(path2);
    assert_int_equal(gguf_create(&w, path2, &e), OK);
    gguf_put_u32(w, "a", 1);
    gguf_put_u32(w, "a", 2);
    assert_int_equal(gguf_finish(w, &e), E_ARG);
    assert_non_null(strstr(e.msg, "twice: a"));
    gguf_discard(w);
    assert_int_equal(gguf_create(&w, path2, &e), OK);
    gguf_declare(w, "t", GT_Q8_0, 1, (uint64_t[]){ 33 });
    assert_int_equal(gguf_finish(w, &e), E_ARG);
    gguf_discard(w);
    assert_int_equal(gguf_create(&w, path2, &e), OK);
    gguf_declare(w, "t", GT_F32, 1, (uint64_t[]){ 4 });
    assert_int_equal(gguf_data(w, "12345678", 8, &e), OK);
    assert_int_equal(gguf_finish(w, &e), E_ARG);
    gguf_discard(w);
    assert_int_equal(gguf_create(&w, path2, &e), OK);
    gguf_declare(w, "t", GT_F32, 1, (uint64_t[]){ 1 });
    assert_int_equal(gguf_data(w, "12345678", 8, &e), E_ARG);
    gguf_discard(w);
    assert_int_not_equal(access(path2, F_OK), 0); /* a discarded file never appears */
}

static void put(const char *p, const void *b, size_t n)
{
    FILE *f = fopen(p, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void every_truncation_is_refused(void **s)
{
    (void)s;
    buf   b = { 0 };
    err   e;
    gguf *g;
    write_sample(path);
    assert_int_equal(read_file(path, 1 << 20, &b, &e), OK);
    size_t pad = 28; /* zeroes behind the last tensor: 68 bytes, padded to 96; a file may end where its data does */
    for (size_t n = 0; n < b.n; n++) {
        put(path2, b.s, n);
        int r = gguf_open(&g, path2, &e);
        if (n == b.n - pad) {
            assert_int_equal(r, OK);
            gguf_close(g);
            continue;
        }
        if (r == OK) fail_msg("%zu of %zu bytes were accepted", n, b.n);
        assert_true(strlen(e.msg) > 10);
    }
    buf_chr(&b, 0);
    put(path2, b.s, b.n);
    assert_int_equal(gguf_open(&g, path2, &e), E_FORMAT); /* trailing junk */
    buf_free(&b);
    unlink(path2);
}

static void every_byte_flipped_never_crashes(void **s)
{
    (void)s;
    buf b = { 0 };
    err e;
    write_sample(path);
    assert_int_equal(read_file(path, 1 << 20, &b, &e), OK);
    for (size_t i = 0; i < b.n; i++)
        for (int v = 0; v < 3; v++) {
            char old = b.s[i];
            b.s[i]   = v == 0 ? (char)0xFF : v == 1 ? (char)0 : (char)(old ^ 0x40);
            put(path2, b.s, b.n);
            gguf *g;
            if (gguf_open(&g, path2, &e) == OK) gguf_close(g);
            else assert_true(e.msg[0]);
            b.s[i] = old;
        }
    buf_free(&b);
    unlink(path2);
}

static int setup(void **s)
{
    (void)s;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/a.gguf", dir);
    snprintf(path2, sizeof path2, "%s/b.gguf", dir);
    return 0;
}
static int teardown(void **s)
{
    (void)s;
    unlink(path);
    unlink(path2);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(writer_refuses_mistakes),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_byte_flipped_never_crashes),
    };
    return cmocka_run_group_tests_name("gguf", t, setup, teardown);
}
