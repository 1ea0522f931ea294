/* scene: what is refused and where, and that readings are distinct, consistent, complete and repeatable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "corpus/scene.h"
#include "tests/corpus/help.h"

static scene_slots *slots;

static int setup_slots(void **state)
{
    (void)state;
    const char *text = "# c\nfood: rice | soup | pie\npet: cat|dog\n\none: only\n";
    put_file(scratch("slots.txt"), text, strlen(text));
    return scene_slots_read(&slots, scratch("slots.txt"), NULL);
}
static int teardown(void **state)
{
    scene_slots_free(slots);
    return scratch_remove(state);
}

static int expand(const char *text, int readings, uint64_t seed, collector *c, read_counts *rc, err *e)
{
    read_opts o = { .readings = readings, .seed = seed };
    return scene_read(S(text), "x.scene", slots, &o, rc, collect, c, e);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        { "U: a\n", "x.scene:1: a scene of 1 line" },
        { "# c\n\nU: a\nB: b\nU: c\n", "x.scene:3: a scene of 3 lines" },
        { "B: a\nU: b\n", "x.scene:1: wanted 'U: '" },
        { "U: a\nU: b\n", "x.scene:2: wanted 'B: '" },
        { "U: a\nB:b\n", "x.scene:2: wanted 'B: '" },
        { "U: a | \nB: b\n", "x.scene:1: empty alternative" },
        { "U: a |  | c\nB: b\n", "x.scene:1:" },
        { "U: a|b\nB: b\n", "x.scene:1: stray bar" },
        { "U: a]b\nB: b\n", "x.scene:1: stray bracket" },
        { "U: a[b\nB: b\n", "x.scene:1: a choice without its closing bracket" },
        { "U: a[b | c]\nB: b\n", "x.scene:1: a choice without its closing bracket" },
        { "U: a[b[c|d]|e]\nB: b\n", "x.scene:1: choices cannot be nested" },
        { "U: a{food\nB: b\n", "x.scene:1: stray brace" },
        { "U: a}\nB: b\n", "x.scene:1: stray brace" },
        { "U: {Food}\nB: b\n", "x.scene:1: stray brace" },
        { "U: {fod}\nB: b\n", "x.scene:1: slots.txt has no such slot" },
        { "U: a\nB: [x|{nope}]\n", "x.scene:2: slots.txt has no such slot" },
        { "U: {one}\nB: {one2}\n", "x.scene:2: the scene wants more different values" },
        { "U: [a|]\nB: b\n", "x.scene:1: an alternative that can be empty" },
        { "U: [a|][b|] \nB: b\n", "x.scene:1: an alternative that can be empty" },
        { "U: \xFF\nB: b\n", "x.scene:1: invalid UTF-8" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        collector   c  = { 0 };
        read_counts rc = { 0 };
        err         e  = { 0 };
        int         r  = expand(bad[i].text, 5, 1, &c, &rc, &e);
        if (r != E_FORMAT || !strstr(e.msg, bad[i].part)) fail_msg("case %zu: %d '%s', wanted '%s'", i, r, e.msg, bad[i].part);
        buf_free(&c.text);
    }
    char long_scene[400] = "";
    for (int i = 0; i < 14; i++) strcat(long_scene, i % 2 ? "B: b\n" : "U: a\n");
    collector   c  = { 0 };
    read_counts rc = { 0 };
    err         e  = { 0 };
    assert_int_equal(expand(long_scene, 5, 1, &c, &rc, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "x.scene:13:"));
    buf_free(&c.text);
}

static void refuses_slots(void **state)
{
    (void)state;
    static const char *const bad[] = { "food rice", "food: a | ", "food: a | a", "food: a\nfood: b", "Food: a", ": a" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        scene_slots *s;
        err          e = { 0 };
        put_file(scratch("bad.txt"), bad[i], strlen(bad[i]));
        assert_int_equal(scene_slots_read(&s, scratch("bad.txt"), &e), E_FORMAT);
        assert_non_null(strstr(e.msg, "bad.txt:"));
    }
}

/* Every line of the collected text once? */
static void assert_distinct(const collector *c)
{
    str   rest = buf_view(&c->text), line;
    str  *v    = malloc((size_t)c->n * sizeof *v);
    int   n    = 0;
    while (next_line(&rest, &line)) {
        for (int i = 0; i < n; i++)
            if (str_eq(v[i], line)) fail_msg("twice: %.*s", (int)line.n, line.s);
        v[n++] = line;
    }
    assert_int_equal(n, c->n);
    free(v);
}

static void all_readings(void **state)
{
    (void)state;
    collector   c  = { 0 };
    read_counts rc = { 0 };
    /* (a|b: 2) + (c: 1) = 3 openings, (d: 1) + (e, ee: 2) = 3 replies: 9 readings, however many are asked for */
    assert_int_equal(expand("U: [a|b] x | c\nB: d | e[|e]\n", 100, 7, &c, &rc, NULL), OK);
    assert_int_equal(c.n, 9);
    assert_true(rc.combinations == 9);
    assert_distinct(&c);
    for (int i = 0; i < c.n; i++) assert_true(c.group[i] == c.group[0]);
    buf_free(&c.text);
    c = (collector){ 0 };
    assert_int_equal(expand("U: a | a\nB: b\n", 5, 7, &c, &rc, NULL), OK); /* two ways, one reading */
    assert_string_equal(c.text.s, "a/b\n");
    buf_free(&c.text);
    c = (collector){ 0 }; /* line ends of either kind, white space on the border, a comment inside */
    assert_int_equal(expand("U: a\r\n# c\r\nB: b|\r\n", 5, 7, &c, &rc, NULL), E_FORMAT);
    assert_int_equal(expand("U: a\r\n# c\r\nB: b [c]\r\n \t\r\nU: d\nB: e", 5, 7, &c, &rc, NULL), OK);
    assert_string_equal(c.text.s, "a/b c\nd/e\n");
    buf_free(&c.text);
}

static void slots_agree(void **state)
{
    (void)state;
    collector   c  = { 0 };
    read_counts rc = { 0 };
    assert_int_equal(expand("U: {food}\nB: {food},{food2},{food3},{pet},[{one}|{one}]\n", 1000, 3, &c, &rc, NULL), OK);
    assert_int_equal(c.n, 12); /* 3! orders of food, 2 pets */
    assert_distinct(&c);
    str rest = buf_view(&c.text), line;
    while (next_line(&rest, &line)) {
        const char *slash = memchr(line.s, '/', line.n);
        size_t      k     = (size_t)(slash - line.s);
        assert_memory_equal(line.s, slash + 1, k); /* the same value in both lines */
        assert_int_equal(slash[1 + k], ',');
        buf b = { 0 };
        buf_add(&b, slash, line.n - k);
        assert_true(strstr(b.s, "rice") && strstr(b.s, "soup") && strstr(b.s, "pie")); /* three different ones */
        buf_free(&b);
    }
    buf_free(&c.text);
}

static void dealt_evenly(void **state)
{
    (void)state;
    collector   c  = { 0 };
    read_counts rc = { 0 };
    assert_int_equal(expand("U: a | b | c | d | e\nB: 1 | 2 | 3 | 4 | 5 | 6 | 7\n", 10, 11, &c, &rc, NULL), OK);
    assert_int_equal(c.n, 10);
    int seen[5] = { 0 };
    str rest    = buf_view(&c.text), line;
    while (next_line(&rest, &line)) seen[line.s[0] - 'a']++;
    for (int i = 0; i < 5; i++) assert_in_range(seen[i], 1, 3); /* 2 each, one more or less where a duplicate was thrown away */
    buf_free(&c.text);
}

static void repeatable(void **state)
{
    (void)state;
    const char *s1 = "U: a | b | c [x|y|z]\nB: {food} | {pet} and {pet2}\n", *s2 = "U: other | thing\nB: b\n";
    char        both[400];
    collector   c[4] = { { .n = 0 } };
    read_counts rc   = { 0 };
    assert_int_equal(expand(s1, 6, 5, &c[0], &rc, NULL), OK);
    assert_int_equal(expand(s1, 6, 5, &c[1], &rc, NULL), OK);
    assert_int_equal(expand(s1, 6, 6, &c[2], &rc, NULL), OK);
    assert_string_equal(c[0].text.s, c[1].text.s);
    assert_string_not_equal(c[0].text.s, c[2].text.s);
    snprintf(both, sizeof both, "# where it stands does not matter\n%s\n\n%s", s2, s1);
    assert_int_equal(expand(both, 6, 5, &c[3], &rc, NULL), OK);
    assert_non_null(strstr(c[3].text.s, c[0].text.s));
    assert_true(c[3].group[0] != c[0].group[0] && c[3].group[c[3].n - 1] == c[0].group[0]);
    for (int i = 0; i < 4; i++) buf_free(&c[i].text);
}

static void what_is_shipped(void **state)
{
    (void)state;
    static const char *const dirs[] = { "corpus/scenes/zh", "corpus/scenes/en" };
    static collector         c[2];
    for (int i = 0; i < 2; i++) {
        read_opts   o  = { .readings = 2, .seed = 1 };
        read_counts rc = { 0 };
        err         e  = { 0 };
        if (dialogue_read(dirs[i], &o, &rc, collect, &c[i], &e)) fail_msg("%s", e.msg);
        assert_true(rc.scenes >= 1800 && rc.dialogues > rc.scenes);
        for (const char *p = c[i].text.s; *p; p++) assert_null(strchr("{}[]|", *p));
        buf_free(&c[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses),      cmocka_unit_test(refuses_slots), cmocka_unit_test(all_readings), cmocka_unit_test(slots_agree),
        cmocka_unit_test(dealt_evenly), cmocka_unit_test(repeatable),    cmocka_unit_test(what_is_shipped),
    };
    return cmocka_run_group_tests_name("scene", tests, setup_slots, teardown);
}
