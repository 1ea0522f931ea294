/* shard: what goes in comes out; held-out groups; every truncation, every damaged byte, and damage with a checksum that fits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "corpus/shard.h"
#include "tests/corpus/help.h"

static const unsigned char digest[32] = { 1, 2, 3, 31 };

/* `n` dialogues: number i has 2 + i % 3 turns of 1 + (i + k) % 4 ids, group i / per_group. */
static void write_shard(const char *path, int n, int n_vocab, int per_group, double share, uint64_t seed, shard_part part[2])
{
    shard_writer *w;
    err           e;
    if (shard_create(&w, path, digest, n_vocab, STR("tok/vocab.txt"), share, seed, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < n; i++) {
        if (i % 10 == 0) assert_int_equal(shard_source(w, i ? STR("second.txt") : STR("a.scene"), &e), OK);
        int  id[8][8];
        turn t[8];
        int  m = 2 + i % 3;
        for (int k = 0; k < m; k++) {
            t[k] = (turn){ .text = STR("\xE4\xBD\xA0x"), .id = id[k], .n = 1 + (i + k) % 4, .speaker = k & 1, .weight = k ? 1 : 0.5f };
            for (int j = 0; j < t[k].n; j++) id[k][j] = (i * 31 + k * 7 + j) % n_vocab;
        }
        if (shard_add(w, t, m, (uint64_t)(i / per_group) * 1000003, &e)) fail_msg("%s", e.msg);
    }
    if (shard_finish(w, part, &e)) fail_msg("%s", e.msg);
}

static void round_trip(void **state)
{
    (void)state;
    static const int vocab[] = { 100, 65536, 65537, 1 << 24 };
    for (size_t v = 0; v < 4; v++) {
        shard_part     part[2];
        shard         *s;
        shard_dialogue d = { 0 };
        err            e;
        write_shard(scratch("a.shard"), 50, vocab[v], 1, 0.2, 1, part);
        if (shard_open(&s, scratch("a.shard"), &e)) fail_msg("%s", e.msg);
        assert_int_equal(shard_n_vocab(s), vocab[v]);
        assert_memory_equal(shard_tokenizer(s), digest, 32);
        assert_true(str_eq(shard_hint(s), STR("tok/vocab.txt")));
        assert_int_equal(shard_n_sources(s), 5);
        assert_true(str_eq(shard_source_name(s, 4), STR("second.txt")) && shard_source_name(s, 5).n == 0);
        assert_int_equal(part[0].dialogues + part[1].dialogues, 50);
        int seen[50] = { 0 };
        for (int p = 0; p < 2; p++) {
            shard_part sum = { 0 };
            assert_memory_equal(shard_about(s, p), &part[p], sizeof part[p]);
            for (uint64_t i = 0; i < part[p].dialogues; i++) {
                assert_int_equal(shard_get(s, p, i, &d, &e), OK);
                int k = (int)(d.group / 1000003);
                assert_int_equal(seen[k]++, 0);
                assert_int_equal(d.n, 2 + k % 3);
                assert_int_equal(d.source, k / 10);
                for (int t = 0; t < d.n; t++) {
                    assert_int_equal(d.turn[t].n, 1 + (k + t) % 4);
                    assert_int_equal(d.turn[t].speaker, t & 1);
                    assert_true(d.turn[t].weight == (t ? 1 : 0.5f));
                    assert_int_equal(d.chars[t], 2); /* characters, not bytes */
                    for (int j = 0; j < d.turn[t].n; j++) assert_int_equal(d.turn[t].id[j], (k * 31 + t * 7 + j) % vocab[v]);
                    sum.turns++;
                    sum.tokens += (uint64_t)d.turn[t].n + 1;
                    sum.chars += 2;
                }
                sum.dialogues++;
            }
            assert_memory_equal(&sum, &part[p], sizeof sum);
            assert_int_equal(shard_get(s, p, part[p].dialogues, &d, &e), E_ARG);
        }
        assert_int_equal(shard_get(s, 2, 0, &d, &e), E_ARG);
        shard_dialogue_free(&d);
        shard_close(s);
    }
}

static void held_out(void **state)
{
    (void)state;
    shard_part     part[2];
    shard         *s;
    shard_dialogue d = { 0 };
    write_shard(scratch("h.shard"), 2000, 100, 10, 0.1, 7, part); /* 200 groups of 10 */
    assert_in_range(part[1].dialogues, 80, 340);                  /* 20 groups expected, sd 4.2 */
    assert_int_equal(part[1].dialogues % 10, 0);
    assert_int_equal(shard_open(&s, scratch("h.shard"), NULL), OK);
    for (int p = 0; p < 2; p++)
        for (uint64_t i = 0; i < part[p].dialogues; i++) {
            assert_int_equal(shard_get(s, p, i, &d, NULL), OK);
            assert_int_equal(rng_unit(7, d.group, 0) < 0.1, p); /* the rule of the header, so whole groups, wherever they stand */
        }
    shard_close(s);
    write_shard(scratch("h.shard"), 6, 100, 2, 0.001, 7, part); /* no group falls below the share: the least one is taken */
    assert_int_equal(part[1].dialogues, 2);
    write_shard(scratch("h.shard"), 6, 100, 100, 0.5, 7, part); /* one group alone: all on one side */
    assert_true(part[0].dialogues == 6 || part[1].dialogues == 6);
    write_shard(scratch("h.shard"), 6, 100, 1, 0, 7, part);
    assert_int_equal(part[1].dialogues, 0);
    shard_dialogue_free(&d);
}

static void refuses_to_write(void **state)
{
    (void)state;
    shard_writer *w;
    err           e;
    int           id[] = { 5, 100 };
    turn          t[2] = { { .id = id, .n = 1, .weight = 1 }, { .id = id, .n = 2, .weight = 1 } };
    put_file(scratch("old"), "old", 3);
    assert_int_equal(shard_create(&w, scratch("old"), digest, 100, STR(""), 1, 1, &e), E_ARG);
    assert_int_equal(shard_create(&w, scratch("old"), digest, 0, STR(""), 0.1, 1, &e), E_ARG);
    assert_int_equal(shard_create(&w, scratch("old"), digest, 100, STR(""), 0.1, 1, &e), OK);
    assert_int_equal(shard_add(w, t, 2, 1, &e), E_ARG); /* id 100 of 100 */
    t[1].n      = 1;
    t[0].weight = NAN;
    assert_int_equal(shard_add(w, t, 2, 1, &e), E_ARG);
    t[0].weight = -1;
    assert_int_equal(shard_add(w, t, 2, 1, &e), E_ARG);
    t[0].weight = 0;
    t[0].n      = 0;
    assert_int_equal(shard_add(w, t, 2, 1, &e), E_ARG);
    assert_int_equal(shard_add(w, t, 0, 1, &e), E_ARG);
    shard_discard(w); /* and the file that was there is untouched */
    char x[4] = "";
    FILE *f   = fopen(scratch("old"), "rb");
    assert_int_equal(fread(x, 1, 4, f), 3);
    fclose(f);
    assert_string_equal(x, "old");
}

/* Open and read everything: OK or an error, never a crash.  Returns whether all of it went well. */
static int try_all(const char *path)
{
    shard         *s;
    shard_dialogue d  = { 0 };
    int            ok = 1;
    err            e;
    if (shard_open(&s, path, &e)) {
        assert_true(e.msg[0] != 0);
        return 0;
    }
    for (int p = 0; p < 2; p++)
        for (uint64_t i = 0; i < shard_about(s, p)->dialogues && i < 1000; i++) {
            if (shard_get(s, p, i, &d, &e)) {
                assert_true(e.msg[0] != 0);
                ok = 0;
                continue;
            }
            for (size_t k = 0; k < d.ids.n; k++) assert_true(d.ids.v[k] >= 0 && d.ids.v[k] < shard_n_vocab(s));
            for (int k = 0; k < d.n; k++) assert_true(d.turn[k].n >= 1 && d.turn[k].weight >= 0 && isfinite(d.turn[k].weight));
        }
    for (uint32_t i = 0; i < shard_n_sources(s); i++) ok &= shard_source_name(s, i).s != NULL;
    shard_dialogue_free(&d);
    shard_close(s);
    return ok;
}

static void hostile(void **state)
{
    (void)state;
    buf b = { 0 };
    write_shard(scratch("a.shard"), 7, 100, 1, 0.2, 1, NULL);
    assert_int_equal(read_file(scratch("a.shard"), 1 << 20, &b, NULL), OK);
    const char *path = scratch("bad.shard");
    char        bad[512];
    snprintf(bad, sizeof bad, "%s", path); /* scratch() reuses its strings */
    assert_true(try_all(scratch("a.shard")));
    for (size_t n = 0; n < b.n; n++) { /* every truncation */
        put_file(bad, b.s, n);
        assert_false(try_all(bad));
    }
    buf_chr(&b, 0); /* a byte behind the end */
    put_file(bad, b.s, b.n);
    assert_false(try_all(bad));
    b.n--;
    for (size_t i = 0; i < b.n; i++) { /* every byte damaged */
        b.s[i] ^= 0x10;
        put_file(bad, b.s, b.n);
        assert_false(try_all(bad));
        b.s[i] ^= 0x10;
    }
    /* Damage by somebody who signs it again: any outcome but a crash (the sanitizers look on), and never an id out of range. */
    static const unsigned char values[] = { 0, 1, 0x7F, 0x80, 0xFF };
    for (size_t i = 8; i < b.n - 40; i++)
        for (size_t v = 0; v < sizeof values; v++) {
            char          was = b.s[i];
            sha256        h;
            unsigned char sum[32], old[32];
            b.s[i] = (char)values[v];
            sha256_init(&h);
            sha256_add(&h, b.s, b.n - 40);
            sha256_end(&h, sum);
            memcpy(old, b.s + b.n - 40, 32);
            memcpy(b.s + b.n - 40, sum, 32);
            put_file(bad, b.s, b.n);
            try_all(bad);
            memcpy(b.s + b.n - 40, old, 32);
            b.s[i] = was;
        }
    buf_free(&b);
    put_file(bad, "", 0);
    assert_false(try_all(bad));
    assert_false(try_all(scratch_dir()));
    assert_false(try_all(scratch("none")));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(round_trip), cmocka_unit_test(held_out), cmocka_unit_test(refuses_to_write), cmocka_unit_test(hostile) };
    return cmocka_run_group_tests_name("shard", tests, NULL, scratch_remove);
}
