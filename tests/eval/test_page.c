/* page: what is drawn is where the numbers say, whatever is quoted stays text, and nothing points outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/page.h"

static int count(const buf *b, const char *what)
{
    int n = 0;
    for (const char *p = b->s; (p = strstr(p, what)); p++) n++;
    return n;
}

/* Every element is closed by its own end, but for those that HTML lets end by themselves. */
static void balanced(const buf *b)
{
    static const char *const open_ended[] = { "!DOCTYPE", "meta", "tr", "td", NULL };
    char stack[64][16];
    int  n = 0;
    for (const char *p = b->s; (p = strchr(p, '<')); p++) {
        char   name[16];
        int    ends = p[1] == '/', skip = 0;
        size_t k    = strcspn(p + 1 + ends, " >/");
        assert_true(k > 0 && k < sizeof name);
        memcpy(name, p + 1 + ends, k);
        name[k] = 0;
        for (int i = 0; open_ended[i]; i++) skip |= strcmp(name, open_ended[i]) == 0;
        const char *close = strchr(p, '>');
        assert_non_null(close);
        if (skip || close[-1] == '/') continue;
        if (!ends) {
            assert_true(n < 64);
            strcpy(stack[n++], name);
        } else if (n == 0 || strcmp(stack[--n], name) != 0) fail_msg("</%s> closes nothing at %.80s", name, p);
    }
    if (n) fail_msg("<%s> is never closed", stack[n - 1]);
}

static void text_stays_text(void **state)
{
    (void)state;
    buf b = { 0 };
    page_text(&b, STR("<b>\"a\" & 'b'</b>\x1b[31m\n\xff\xe2\x80\xae"));
    assert_string_equal(b.s, "&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/b&gt;&lt;U+001B&gt;[31m&lt;U+000A&gt;\xEF\xBF\xBD&lt;U+202E&gt;");
    buf_free(&b);
}

/* Every place that takes a text is given a hostile one. */
static void nothing_gets_out(void **state)
{
    (void)state;
    static const char evil[] = "\"><script>x</script><img src=http://e/x onload='y'>";
    const double      x[] = { 1, 2, NAN, 4 }, y[] = { 3, INFINITY, 1, 0 };
    const str         names[] = { STR("a"), { evil, sizeof evil - 1 }, STR("c"), STR("d") };
    const page_series s[]     = { { evil, x, y, 4, NULL, NULL }, { "two", y, x, 4, NULL, NULL } };
    const page_bar    bar[]   = { { { evil, sizeof evil - 1 }, 3, 1 }, { STR("n"), NAN, 0 }, { STR("m"), 0, 99 } };
    const page_mark   mark[]  = { { evil, 2 }, { "far", 1e9 } };
    buf               b       = { 0 };
    page_begin(&b, evil, str_of(evil));
    page_section(&b, evil, evil);
    page_note(&b, "%s", evil);
    page_tiles(&b);
    page_tile(&b, 1, evil, "%s", evil);
    page_tiles_end(&b);
    page_table(&b, evil);
    page_row(&b);
    page_cell(&b, str_of(evil));
    page_cell_num(&b, "%s", evil);
    page_table_end(&b);
    page_card(&b, "%s", evil);
    page_say(&b, str_of(evil), str_of(evil));
    page_card_end(&b);
    page_figures(&b);
    page_bars(&b, evil, evil, bar, 3, "%.1f");
    page_columns(&b, evil, evil, names, 4, s, 2);
    page_histogram(&b, evil, evil, s, 2, mark, 2);
    page_plot(&b, evil, NULL, PAGE_LINES, evil, evil, s, 2);
    page_plot(&b, evil, NULL, PAGE_POINTS, evil, evil, s, 2);
    page_bars(&b, "t", NULL, NULL, 0, "%.1f");
    page_columns(&b, "t", NULL, NULL, 0, s, 0);
    page_histogram(&b, "t", NULL, s, 0, NULL, 0);
    page_plot(&b, "t", NULL, PAGE_LINES, "x", "y", NULL, 0);
    page_figures_end(&b);
    page_end(&b);
    assert_false(b.oom);
    assert_int_equal(count(&b, "<script"), 0);
    assert_int_equal(count(&b, "<img"), 0);
    assert_int_equal(count(&b, "onload='"), 0);
    assert_int_equal(count(&b, "url("), 0);
    assert_int_equal(count(&b, "nan"), 0);
    assert_int_equal(count(&b, "inf"), 0);
    assert_int_equal(count(&b, "nothing to draw"), 4);
    assert_int_equal(count(&b, "default-src 'none'"), 1);
    balanced(&b);
    buf_free(&b);
}

static double attribute(const char *p, const char *name)
{
    char key[40];
    snprintf(key, sizeof key, " %s=\"", name);
    const char *at = strstr(p, key);
    assert_non_null(at);
    return atof(at + strlen(key));
}

static void lengths_are_true(void **state)
{
    (void)state;
    const page_bar bar[] = { { STR("all"), 200, 0 }, { STR("half"), 100, 1 }, { STR("none"), 0, 2 } };
    buf            b     = { 0 };
    page_bars(&b, "t", NULL, bar, 3, "%.0f");
    const char *p = b.s;
    double      w[3];
    for (int i = 0; i < 3; i++) { /* behind each bar stands its full length */
        p    = strstr(p, "<rect") + 1;
        p    = strstr(p, "<rect") + 1;
        w[i] = attribute(p, "width");
    }
    assert_true(w[0] > 100 && fabs(w[1] - w[0] / 2) < .06 && w[2] == 0);
    buf_free(&b);

    const double      y1[] = { 1, 2 }, y2[] = { 3, 0 };
    const str         names[] = { STR("mon"), STR("tue") };
    const page_series s[]     = { { "a", NULL, y1, 2, NULL, NULL }, { "b", NULL, y2, 2, NULL, NULL } };
    b                         = (buf){ 0 };
    page_columns(&b, "t", NULL, names, 2, s, 2);
    assert_int_equal(count(&b, "<rect"), 3); /* the fourth is empty */
    p               = strstr(b.s, "<rect");
    double low_y    = attribute(p, "y"), low_h = attribute(p, "height");
    p               = strstr(p + 1, "<rect");
    double up_y     = attribute(p, "y"), up_h = attribute(p, "height");
    assert_true(fabs(up_y + up_h - low_y) < .11 && fabs(up_h - 3 * low_h) < .31); /* one stands on the other, three times as high */
    assert_non_null(strstr(b.s, "mon; a: 1; b: 3"));
    buf_free(&b);
}

/* 1000 numbers, 900 of them in one bin; the marks stand at their places. */
static void shares_are_true(void **state)
{
    (void)state;
    static double x[1000];
    for (int i = 0; i < 1000; i++) x[i] = i < 900 ? 2.5 : i % 10 + .5;
    const page_series s      = { "a", x, NULL, 1000, NULL, NULL };
    const page_mark   mark[] = { { "left", 0 }, { "middle", 5 }, { "outside", 11 } };
    buf               b      = { 0 };
    page_histogram(&b, "t", NULL, &s, 1, mark, 3);
    double low = 0, top = 1e9;
    const char *d = strstr(b.s, " d=\"M");
    assert_non_null(d);
    low = atof(strchr(d, ' ') ? strchr(d + 5, ' ') : d);
    for (const char *p = d; *p != 'Z'; p++)
        if (*p == 'V' && atof(p + 1) < top) top = atof(p + 1);
    /* The axis says what 91 % is: 900 and the 10 of the hundred others that fall there. */
    const char *tick = strstr(b.s, ">50%<");
    assert_non_null(tick);
    while (strncmp(tick, "<text", 5)) tick--;
    double y50 = attribute(tick, "y") - 4, per = (low - y50) / 50;
    assert_true(fabs((low - top) / per - 91) < .5);
    assert_non_null(strstr(b.s, ">middle<"));
    assert_null(strstr(b.s, ">outside<"));
    buf_free(&b);
}

static void any_range_is_drawn(void **state)
{
    (void)state;
    static const double hard[][2] = { { 0, 0 }, { -3, -3 }, { 1e-300, 2e-300 }, { -1e300, 1e300 }, { 1e15, 1e15 + 1 }, { 5, 5 + 1e-14 } };
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++) {
        const page_series s = { "a", hard[i], hard[i], 2, NULL, NULL };
        buf               b = { 0 };
        page_plot(&b, "t", NULL, PAGE_LINES, "x", "y", &s, 1);
        page_histogram(&b, "t", NULL, &s, 1, NULL, 0);
        assert_int_equal(count(&b, "nan"), 0);
        assert_int_equal(count(&b, "inf"), 0);
        assert_true(b.n < 20000 && count(&b, "<svg") == 2);
        balanced(&b);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_stays_text),  cmocka_unit_test(nothing_gets_out),   cmocka_unit_test(lengths_are_true),
        cmocka_unit_test(shares_are_true), cmocka_unit_test(any_range_is_drawn),
    };
    return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
