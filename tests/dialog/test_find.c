/* find: the indices find what reading every line finds; filters; what is forgotten is not found and not in the index. */
#include "tests/dialog/records.h"

#include "dialog/grams.h"

#pragma GCC diagnostic ignored "-Woverride-init" /* FILTER below names some fields again */

static void grams(void **s)
{
    (void)s;
    buf b = { 0 };
    OKAY(grams_put(&b, STR("天天 aB"), STR("b\xff!")));
    assert_string_equal(b.s, "天 天天 \xEE\x80\xA0 天\xEE\x80\xA0 a \xEE\x80\xA0" "a b ab \xEE\x80\xA1 ");
    buf_reset(&b);
    grams_query(&b, STR("A!"));
    assert_string_equal(b.s, "a\xEE\x80\xA1");
    buf_reset(&b);
    OKAY(grams_put(&b, STR(""), STR("\xff\xc0")));
    assert_int_equal(b.n, 0);
    buf_free(&b);
}

/* ---- against reading everything ---- */

static int fold(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }
static int holds_folded(str s, str q)
{
    for (size_t at = 0; at + q.n <= s.n; at++) {
        size_t i = 0;
        while (i < q.n && fold(s.s[at + i]) == fold(q.s[i])) i++;
        if (i == q.n) return 1;
    }
    return 0;
}

enum { LINES = 300, QUERIES = 400 };
static const char *const alphabet[] = { "天", "气", "你", "好", "吗", "a", "B", "c", " ", "。", "'", "\"", "%", "_", "\\", "é", "🫥", "\x1b", "1", "\xff", "\xE5\xA4" };
static str some_text(int n)
{
    buf b = { 0 };
    while (n-- > 0) buf_str(&b, str_of(alphabet[draw(sizeof alphabet / sizeof alphabet[0])]));
    str t = arena_str(&mem, buf_view(&b), NULL);
    buf_free(&b);
    return t;
}

static void the_indices_find_what_reading_finds(void **s)
{
    (void)s;
    history *h = open_new(in_dir("read.db"));
    int64_t  conv, id[LINES];
    str      user[LINES], said[LINES];
    OKAY(hist_new(h, STR(""), &conv, &e));
    for (int i = 0; i < LINES; i++) {
        reply r     = some_reply(1, "", "", i);
        r.user_text = user[i] = some_text(draw(14));
        r.text      = said[i] = some_text(draw(14));
        id[i]       = add(h, conv, &r);
    }
    OKAY(hist_forget(h, conv, 7, STR("x"), NULL, &e));
    user[6] = said[6] = STR("");
    int hits = 0;
    for (int i = 0; i < QUERIES; i++) {
        str q = some_text(1 + draw(4));
        if (!utf8_valid(q)) continue;
        history_found *f;
        int            n, at = 0, caught = 0;
        OKAY(hist_search(h, q, NULL, 0, &mem, &f, &n, &e));
        for (int k = LINES - 1; k >= 0; k--)
            for (int side = 0; side < 2; side++) {
                if (!holds_folded(side ? said[k] : user[k], q)) continue;
                caught++;
                if (at >= n || f[at].turn != id[k] || f[at].speaker != side) fail_msg("'%s': line %d (%d) is not result %d of %d", q.s, k, side, at, n);
                at++;
            }
        if (at != n) fail_msg("'%s': %d found, %d there", q.s, n, at);
        hits += caught;
    }
    assert_true(hits > 500);
    print_message("%d hits\n", hits);
    hist_close(h);
}

/* ---- filters ---- */

static int count(history *h, const char *q, hist_filter f)
{
    history_found *l;
    int            n;
    OKAY(hist_search(h, str_of(q), &f, 0, &mem, &l, &n, &e));
    return n;
}
#define FILTER(...) ((hist_filter){ .speaker = -1, .verdict = -1, __VA_ARGS__ })

static void filters(void **s)
{
    (void)s;
    static const char *const dates[] = { "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-15T12:30:00Z", "2026-02-01T08:00:00Z" };
    history     *h = open_new(in_dir("filter.db"));
    int64_t      conv[2], id;
    respond_opts o = respond_defaults();
    for (int c = 0; c < 2; c++) OKAY(hist_new(h, STR(""), &conv[c], &e));
    for (int i = 0; i < 8; i++) {
        reply r            = some_reply(2, "天气好 weather", "天气好 weather", i);
        r.chosen           = 0;
        r.user_v.action    = i % 5;
        r.cand[0].v.action = i == 3 ? RULE_REDACT : RULE_NONE;
        r.fwd_digest       = i < 2 ? "abc1" : "abd2";
        r.bwd_digest       = i == 7 ? "fff3" : "";
        if (i == 6) r.kind = REPLY_STOCK, r.chosen = -1;
        OKAY(hist_append(h, conv[i % 2], &r, &o, str_of(dates[i / 2]), 1, &id, &e));
    }
    OKAY(hist_tag(h, conv[1], STR("odd"), 1, NULL, &e));
    static const char *const q[] = { "天", "天气", "天气好", "weather" };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(count(h, q[i], FILTER(.speaker = -1)), 16);
        assert_int_equal(count(h, q[i], FILTER(.speaker = 0)), 8);
        assert_int_equal(count(h, q[i], FILTER(.speaker = 1)), 8);
        assert_int_equal(count(h, q[i], FILTER(.since = STR("2026"))), 12);
        assert_int_equal(count(h, q[i], FILTER(.since = STR("2026-01-15"))), 8);
        assert_int_equal(count(h, q[i], FILTER(.until = STR("2026-01"))), 12);
        assert_int_equal(count(h, q[i], FILTER(.until = STR("2026-01-01"))), 8);
        assert_int_equal(count(h, q[i], FILTER(.until = STR("2025"))), 4);
        assert_int_equal(count(h, q[i], FILTER(.until = STR("2024"))), 0);
        assert_int_equal(count(h, q[i], FILTER(.since = STR("2026-01-15T12"), .until = STR("2026-01-15T12:30"))), 4);
        assert_int_equal(count(h, q[i], FILTER(.conv = conv[1])), 8);
        assert_int_equal(count(h, q[i], FILTER(.conv = 99)), 0);
        assert_int_equal(count(h, q[i], FILTER(.conv = conv[1], .until = STR("2025"))), 2);
        assert_int_equal(count(h, q[i], FILTER(.tag = STR("odd"))), 8);
        assert_int_equal(count(h, q[i], FILTER(.tag = STR("o"))), 0);
        assert_int_equal(count(h, q[i], FILTER(.model = STR("abc"))), 4);
        assert_int_equal(count(h, q[i], FILTER(.model = STR("ab"))), 16);
        assert_int_equal(count(h, q[i], FILTER(.model = STR("fff3"))), 2);
        assert_int_equal(count(h, q[i], FILTER(.model = STR("%"))), 0);
        assert_int_equal(count(h, q[i], FILTER(.verdict = RULE_REDACT)), 1 + 1); /* user 3; reply 3 */
        assert_int_equal(count(h, q[i], FILTER(.verdict = RULE_REDACT, .speaker = 1)), 1);
        assert_int_equal(count(h, q[i], FILTER(.verdict = RULE_NONE, .speaker = 0)), 2); /* 0, 5 */
        assert_int_equal(count(h, q[i], FILTER(.verdict = RULE_BLOCK)), 1);
    }
    hist_filter    last = FILTER(.verdict = RULE_NONE, .speaker = 1);
    history_found *l;
    int            n;
    OKAY(hist_search(h, STR("天"), &last, 3, &mem, &l, &n, &e)); /* the limit counts what passes */
    assert_int_equal(n, 3);
    for (int i = 0; i < n; i++) assert_int_equal(l[i].speaker, 1);
    assert_int_equal(count(h, "天", FILTER(.tag = STR("x' OR '1'='1"))), 0);
    assert_int_equal(count(h, "天", FILTER(.since = STR("' OR 1=1 --"), .model = STR("' OR 1=1 --"))), 0);
    hist_close(h);
}

/* A file of schema 2 has no table of days and no indices over verdicts: read as it is, and brought up to date, it answers alike. */
static void without_and_with_the_days(void **s)
{
    (void)s;
    const hist_filter f[] = { FILTER(.since = STR("2026-01-15")), FILTER(.until = STR("2026-01-01")), FILTER(.until = STR("2025")),
                                     FILTER(.until = STR("2024")), FILTER(.verdict = RULE_REDACT), FILTER(.verdict = RULE_BLOCK), FILTER(.verdict = RULE_NONE) };
    enum { N = sizeof f / sizeof f[0] };
    static const char *const q[] = { "天", "天气好" };
    const char *path = in_dir("filter.db"); /* of the test before */
    int         want[N][2];
    history    *h;
    OKAY(hist_open(&h, path, HIST_READ, &e));
    for (int i = 0; i < 2 * N; i++) want[i / 2][i % 2] = count(h, q[i % 2], f[i / 2]);
    hist_close(h);
    raw(path, "DROP TABLE day; DROP INDEX judged_line; DROP INDEX judged_candidate; PRAGMA user_version=2");
    for (int flags = HIST_READ; flags <= HIST_WRITE; flags++) {
        OKAY(hist_open(&h, path, flags, &e));
        for (int i = 0; i < 2 * N; i++) assert_int_equal(count(h, q[i % 2], f[i / 2]), want[i / 2][i % 2]);
        hist_close(h);
    }
    assert_int_equal(raw_int(path, "PRAGMA user_version"), 3);
    assert_int_equal(raw_int(path, "SELECT hi FROM day WHERE day='2026-01-15'"), 6);
}

/* No word of either index is left of what was forgotten, wherever it was indexed. */
static void nothing_is_left_in_the_indices(void **s)
{
    (void)s;
    const char *path = in_dir("left.db");
    history    *h    = open_new(path);
    int64_t     conv[2];
    for (int c = 0; c < 2; c++) OKAY(hist_new(h, STR(""), &conv[c], &e));
    for (int i = 0; i < 60; i++) {
        reply r     = some_reply(1, "", "", i);
        r.user_text = i % 2 ? STR("zqj 饕餮盛宴") : STR("plain words 平常的话");
        r.text      = i % 2 ? STR("耄耋之年 xkv") : STR("nothing special 没什么");
        add(h, conv[i % 2], &r);
    }
    hist_close(h);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    OKAY(hist_forget(h, conv[1], 0, STR("x"), NULL, &e));
    sound(h);
    assert_int_equal(count(h, "平常", FILTER(.conv = conv[0])), 30);
    hist_close(h);
    static const char *const words[] = { "search", "gram" };
    for (int i = 0; i < 2; i++) {
        char sql[400];
        snprintf(sql, sizeof sql, "CREATE VIRTUAL TABLE temp.v USING fts5vocab(main,%s,row); SELECT count(*) FROM v WHERE term GLOB '*[饕餮盛宴耄耋年]*' OR "
                 "term IN ('zqj','xkv','zq','qj','kv','q','z','j')", words[i]);
        assert_int_equal(raw_int(path, sql), 0);
        snprintf(sql, sizeof sql, "CREATE VIRTUAL TABLE temp.v USING fts5vocab(main,%s,row); SELECT count(*) FROM v WHERE term LIKE '%%平%%'", words[i]);
        assert_true(raw_int(path, sql) > 0);
    }
    static const char *const bytes[] = { "饕餮", "耄耋", "xkv", "zqj" };
    for (int i = 0; i < 4; i++) assert_false(holds(path, bytes[i]));
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grams),
        cmocka_unit_test(the_indices_find_what_reading_finds),
        cmocka_unit_test(filters),
        cmocka_unit_test(without_and_with_the_days),
        cmocka_unit_test(nothing_is_left_in_the_indices),
    };
    return cmocka_run_group_tests_name("find", tests, NULL, drop_folder);
}
