/* csv: what is written comes back, whatever it is; the forms of RFC 4180; bad tables are refused with their line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "eval/csv.h"

static err   e;
static arena mem;

static void what_is_written_comes_back(void **s)
{
    (void)s;
    static const str cells[] = { STR("plain"), STR("a,b"), STR("say \"x\""), STR("two\nlines\r\n"), STR(""), STR("=1+1"), STR("'=1"), STR("-"), STR("''+x"),
                                 STR("'quoted'"), STR("@a,b"), STR("\t"), STR("你好，“世界”"), STR("a\0b"), STR("\"") };
    enum { N = sizeof cells / sizeof *cells };
    buf b = { 0 };
    csv c;
    for (int i = 0; i < N; i++) csv_cell(&b, cells[i], i == 0);
    csv_end(&b);
    csv_cell(&b, STR("end"), 1);
    csv_end(&b);
    csv_open(&c, buf_view(&b));
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_int_equal(c.n, N);
    for (int i = 0; i < N; i++) {
        str back = csv_plain(c.cell[i]);
        if (!str_eq(back, cells[i])) fail_msg("'%s' came back as '%.*s'", cells[i].s, (int)back.n, back.s);
        assert_false(c.cell[i].n && c.cell[i].s[0] && strchr("=+-@\t\r", c.cell[i].s[0])); /* nothing a spreadsheet would run */
    }
    assert_int_equal(c.line, 1);
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_int_equal(c.line, 4);
    assert_int_equal(csv_next(&c, &mem, &e), 0);
    buf_free(&b);
}

static void forms(void **s)
{
    (void)s;
    csv c;
    csv_open(&c, STR("\xEF\xBB\xBFturn, label ,note\n\n1,ok,\r\n2,\"x\"\"y\",\"a\nb\"\n3"));
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_int_equal(csv_column(&c, "turn"), 0);
    assert_int_equal(csv_column(&c, "label"), 1);
    assert_int_equal(csv_column(&c, "lab"), -1);
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_true(c.n == 3 && c.line == 3 && c.cell[2].n == 0);
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_true(c.line == 4 && str_eq(c.cell[1], STR("x\"y")) && str_eq(c.cell[2], STR("a\nb")));
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_true(c.line == 6 && c.n == 1 && str_eq(c.cell[0], STR("3")));
    assert_int_equal(csv_next(&c, &mem, &e), 0);
    csv_open(&c, STR(",\n"));
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    assert_int_equal(c.n, 2);
    csv_open(&c, STR(""));
    assert_int_equal(csv_next(&c, &mem, &e), 0);
}

static void bad_tables(void **s)
{
    (void)s;
    static const str bad[] = { STR("a\n\"b"), STR("a\n\"b\"c\n"), STR("a\n\""), STR("a\n\"b\"\"") };
    csv c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        csv_open(&c, bad[i]);
        assert_int_equal(csv_next(&c, &mem, &e), 1);
        assert_int_equal(csv_next(&c, &mem, &e), E_FORMAT);
        assert_non_null(strstr(e.msg, "line 2"));
    }
    char wide[CSV_COLUMNS + 1];
    memset(wide, ',', sizeof wide);
    csv_open(&c, (str){ wide, CSV_COLUMNS - 1 });
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    csv_open(&c, (str){ wide, CSV_COLUMNS });
    assert_int_equal(csv_next(&c, &mem, &e), E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_written_comes_back), cmocka_unit_test(forms), cmocka_unit_test(bad_tables) };
    int r = cmocka_run_group_tests_name("csv", tests, NULL, NULL);
    arena_free(&mem);
    return r;
}
