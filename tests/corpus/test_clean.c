/* clean: each rule by itself, cutting against dropping, duplicates, the switches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "corpus/clean.h"
#include "tests/corpus/help.h"

static void turns(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int         rule;
        const char *clean;
    } cases[] = {
        { "  a \t b\xE3\x80\x80" "c \xC2\xA0", -1, "a b c" },
        { "\xEF\xBB\xBFhi\xE2\x80\x8B", -1, "hi" },
        { " \xE3\x80\x80\xE2\x80\x8B ", CLEAN_EMPTY, "" },
        { "a\xFFz", CLEAN_UTF8, NULL },
        { "a\xEF\xBF\xBDz", CLEAN_UTF8, NULL },
        { "a\x1B[31mz", CLEAN_CONTROL, NULL },
        { "a\xE2\x80\xAEz", CLEAN_CONTROL, NULL },
        { "no no yes no no", -1, NULL },
        { "no no no", CLEAN_REPEAT, NULL },
        { "no No no", -1, NULL },
        { "\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88", -1, NULL },
        { "\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88\xE5\x93\x88", CLEAN_REPEAT, NULL },
        { "see HTTPS://x.y", CLEAN_ADDRESS, NULL },
        { "see www.x", CLEAN_ADDRESS, NULL },
        { "awww. nice", -1, NULL },
        { "me@host.org", CLEAN_ADDRESS, NULL },
        { "10 @ 5.0", -1, NULL },
        { "call 123-4567", -1, NULL },
        { "call 1234567", CLEAN_NUMBER, NULL },
        { "a <br/> b", CLEAN_MARKUP, NULL },
        { "a < b > c", -1, NULL },
        { "i <3 you", -1, NULL },
        { "a &amp; b", CLEAN_MARKUP, NULL },
        { "a &#39; b", CLEAN_MARKUP, NULL },
        { "R&B; &c.", CLEAN_MARKUP, NULL },
        { "Q & A; fine", -1, NULL },
        { "[x](y)", CLEAN_MARKUP, NULL },
    };
    clean_opts o = clean_defaults();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf b   = { 0 };
        int got = clean_turn(&o, S(cases[i].text), &b);
        if (got != cases[i].rule) fail_msg("'%s': %s, wanted %s", cases[i].text, clean_name(got), clean_name(cases[i].rule));
        if (cases[i].clean) assert_string_equal(b.s ? b.s : "", cases[i].clean);
        if (got > CLEAN_UTF8) { /* switched off, the turn passes */
            clean_opts off = o;
            off.off        = 1u << got;
            buf_reset(&b);
            assert_int_equal(clean_turn(&off, S(cases[i].text), &b), -1);
        }
        buf_free(&b);
    }
    buf b       = { 0 };
    o.max_chars = 3;
    assert_int_equal(clean_turn(&o, S("\xE4\xBD\xA0\xE5\xA5\xBD\xE5\x90\x97"), &b), -1); /* characters, not bytes */
    assert_int_equal(clean_turn(&o, S("abcd"), &b), CLEAN_LONG);
    buf_free(&b);
}

static void push(cleaner *c, const char *slashed, collector *out)
{
    turn_list l    = { 0 };
    str       rest = S(slashed);
    for (;;) {
        const char *p = memchr(rest.s, '/', rest.n);
        size_t      k = p ? (size_t)(p - rest.s) : rest.n;
        assert_int_equal(turn_list_add(&l, (str){ rest.s, k }, 0, 1, NULL), OK);
        if (!p) break;
        rest.s += k + 1, rest.n -= k + 1;
    }
    dialogue d = { l.v, (int)l.n, 42, "f", 1 };
    assert_int_equal(cleaner_push(c, &d, collect, out, NULL), OK);
    turn_list_free(&l);
}

static void dialogues(void **state)
{
    (void)state;
    cleaner   *c;
    collector  out = { 0 };
    clean_opts o   = clean_defaults();
    assert_int_equal(cleaner_new(&c, &o, NULL), OK);
    push(c, "a/b", &out);
    push(c, " a/b ", &out);               /* the same after normalisation */
    push(c, "ab/", &out);                 /* not the same as a/b; one turn left */
    push(c, "a/b/www.x/c/d/www.y/e", &out); /* cut into a/b (a duplicate), c/d and e (too short) */
    push(c, "a", &out);
    assert_string_equal(out.text.s, "a/b\nc/d\n");
    const clean_counts *n = cleaner_counts(c);
    assert_int_equal(n->in, 5);
    assert_int_equal(n->out, 2);
    assert_int_equal(n->turns_in, 14);
    assert_int_equal(n->turns_out, 4);
    assert_int_equal(n->hit[CLEAN_DUPLICATE], 2);
    assert_int_equal(n->hit[CLEAN_EMPTY], 1);
    assert_int_equal(n->hit[CLEAN_ADDRESS], 2);
    assert_int_equal(n->hit[CLEAN_FEW], 3);
    for (int i = 0; i < out.n; i++) assert_true(out.group[i] == 42);
    cleaner_free(c);

    o.whole     = 1;
    o.max_turns = 3;
    o.off       = 1u << CLEAN_DUPLICATE;
    buf_reset(&out.text);
    assert_int_equal(cleaner_new(&c, &o, NULL), OK);
    push(c, "a/b/www.x/c/d", &out);
    push(c, "a/b/c/d", &out);
    push(c, "a/b/c/d", &out);
    assert_string_equal(out.text.s, "a/b/c\na/b/c\n");
    assert_int_equal(cleaner_counts(c)->hit[CLEAN_MANY], 2);
    cleaner_free(c);
    buf_free(&out.text);

    o = clean_defaults();
    o.off = 1u << CLEAN_UTF8;
    assert_int_equal(cleaner_new(&c, &o, NULL), E_ARG);
    o = clean_defaults();
    o.max_turns = 1;
    assert_int_equal(cleaner_new(&c, &o, NULL), E_ARG);
    for (int i = 0; i < CLEAN_N; i++) assert_int_equal(clean_of_name(S(clean_name(i))), i);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(turns), cmocka_unit_test(dialogues) };
    return cmocka_run_group_tests_name("clean", tests, NULL, NULL);
}
