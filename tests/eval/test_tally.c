/* tally, audit_report: counts against the same counts by other means (SQL behind the module's back, by hand), and a page that says
 * them and holds nothing a stranger typed but as text. */
#include "tests/eval/world.h"

#include "eval/audit_report.h"
#include "eval/tally.h"

/* ---- small things ------------------------------------------------------------------------------------------------ */

static void repeats(void **s)
{
    (void)s;
    static const char *const yes[] = { "哈哈哈哈", "我不不不不知道", "好的好的好的", "abcabcabc", "你好吗你好吗你好吗？", "一二三四五六七八九十一二三四五六七八九十一二三四五六七八九十",
                                       "xx一二三四五六七八九十百千一二三四五六七八九十百千一二三四五六七八九十百千" },
                             *const no[] = { "", "哈哈哈", "好的好的", "abcabcab", "我觉得我觉得他", "aaa", "a    b", "谢谢谢你", "一二三四五六七八九十百千万一二三四五六七八九十百千万" };
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (!tally_repeats(str_of(yes[i]))) fail_msg("'%s' repeats itself", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (tally_repeats(str_of(no[i]))) fail_msg("'%s' does not", no[i]);
}

static void quantiles(void **s)
{
    (void)s;
    double     v[] = { 5, NAN, 1, 3, 2, 4, INFINITY };
    tally_list l   = { v, 7, 7 };
    assert_true(tally_quantile(&l, 0) == 1 && tally_quantile(&l, .2) == 1 && tally_quantile(&l, .21) == 2 && tally_quantile(&l, .5) == 3 &&
                tally_quantile(&l, 1) == 5);
    l.n = 0;
    assert_true(isnan(tally_quantile(&l, .5)));
}

/* ---- a store ------------------------------------------------------------------------------------------------------ */

static int64_t in_sql[32];
static int sql_row(void *ctx, int n, char **v, char **name)
{
    (void)ctx, (void)name;
    for (int i = 0; i < n && i < 32; i++) in_sql[i] = v[i] ? atoll(v[i]) : 0;
    return 0;
}
static int64_t ask_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), 0);
    assert_int_equal(sqlite3_exec(db, sql, sql_row, NULL, NULL), 0);
    sqlite3_close(db);
    return in_sql[0];
}

static int count(const buf *b, const char *what)
{
    int n = 0;
    for (const char *p = b->s; (p = strstr(p, what)); p++) n++;
    return n;
}

static int64_t *everything(history *h, int *n)
{
    int64_t *id;
    OKAY(hist_turn_ids(h, 0, &mem, &id, n, &e));
    return id;
}

static void counts_are_true(void **s)
{
    (void)s;
    const char *path = in_dir("tally.db");
    history    *h    = open_new(path);
    responder  *r;
    int64_t     row[9], conv;
    int         n;
    tally       t;
    OKAY(responder_new(&r, fwd, bwd, rules, &e));
    conv = make_talk(h, r, row);
    OKAY(hist_forget(h, conv, 4, STR("2026-11-24T15:04:05Z"), NULL, &e));
    int64_t *id = everything(h, &n);
    OKAY(tally_store(h, id, n, rules, &mem, &t, &e));
    assert_int_equal(t.n_turns, 7);
    assert_int_equal(t.n_undone, 1);
    assert_int_equal(t.n_forgotten, 1);
    for (int k = 0; k < 3; k++) {
        char sql[80];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM turn WHERE what=%d", k);
        assert_int_equal(t.kind[k], ask_sql(path, sql));
    }
    assert_int_equal(t.kind[REPLY_REFUSED], 1);
    assert_int_equal(t.n_cand, ask_sql(path, "SELECT count(*) FROM candidate"));
    for (int k = 0; k < 6; k++) {
        char sql[80];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM candidate WHERE fate=%d", k);
        assert_int_equal(t.fate[k], ask_sql(path, sql));
    }
    for (int k = 0; k < 5; k++) {
        char sql[120];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM turn WHERE what<3 AND user_action=%d", k);
        assert_int_equal(t.line_action[k], ask_sql(path, sql));
        snprintf(sql, sizeof sql, "SELECT count(*) FROM candidate WHERE fate<>1 AND action=%d", k);
        assert_int_equal(t.cand_action[k], ask_sql(path, sql));
    }
    assert_int_equal(t.n_drawn, ask_sql(path, "SELECT count(*) FROM candidate WHERE fate<>1 AND text IS NOT NULL"));
    assert_int_equal(t.n_shown, ask_sql(path, "SELECT count(*) FROM turn WHERE what=0 AND salt IS NOT NULL"));
    assert_int_equal(t.of_drawn[TALLY_CUT], ask_sql(path, "SELECT count(*) FROM candidate WHERE fate<>1 AND ended=0"));
    assert_int_equal(t.of_shown[TALLY_CUT], ask_sql(path, "SELECT count(*) FROM candidate JOIN turn ON id=turn AND k=chosen WHERE ended=0"));
    for (int i = 0; i < t.rules.n; i++) {
        char sql[200];
        int  rule = safety_find_rule(rules, t.rules.row[i].name);
        assert_true(rule >= 0 && str_eq(t.rules.row[i].category, STR("test")));
        snprintf(sql, sizeof sql, "SELECT count(DISTINCT turn) FROM hit WHERE k=-1 AND rule=%d", rule);
        assert_int_equal(t.rules.row[i].n[0], ask_sql(path, sql));
        snprintf(sql, sizeof sql, "SELECT count(*) FROM (SELECT DISTINCT turn,k FROM hit WHERE k>=0 AND rule=%d)", rule);
        assert_int_equal(t.rules.row[i].n[1], ask_sql(path, sql));
        snprintf(sql, sizeof sql, "SELECT count(*) FROM (SELECT DISTINCT turn,k FROM hit JOIN turn ON id=turn AND k=chosen WHERE k>=0 AND rule=%d)", rule);
        assert_int_equal(t.rules.row[i].n[2], ask_sql(path, sql));
    }
    assert_int_equal(t.rules.n, ask_sql(path, "SELECT count(DISTINCT rule) FROM hit"));
    assert_int_equal(t.fwd.n, t.bwd.n);
    assert_int_equal(t.fwd.n, ask_sql(path, "SELECT count(*) FROM candidate WHERE fate IN (0,4,5) AND fwd IS NOT NULL"));
    assert_int_equal(t.fwd_chosen.n, t.n_shown);
    assert_int_equal(t.seconds.n, 7);
    assert_int_equal(t.n_setup, 1);
    assert_int_equal(t.setup[0].n, 7);
    assert_string_equal(t.setup[0].fwd, gpt2_digest(fwd));
    assert_int_equal(t.time.n, 1);
    assert_int_equal((int)(t.time.kind[0][0] + t.time.kind[1][0] + t.time.kind[2][0]), 7);
    OKAY(tally_store(h, id, 0, rules, &mem, &t, &e));
    assert_int_equal(t.n_turns + t.time.n, 0);
    responder_free(r);
    hist_close(h);
}

/* Which reply would have been said without a ranking: two candidates each, chosen by hand. */
static void moves_are_seen(void **s)
{
    (void)s;
    history     *h = open_new(in_dir("moves.db"));
    respond_opts o = respond_defaults();
    int64_t      conv, id;
    int          n;
    tally        t;
    candidate    c[2] = { { .text = STR("a"), .id = (int[]){ 1, 2, 3 }, .n = 3, .ended = 1, .dup_of = -1, .fwd = -4, .bwd = -3, .n_source = 2, .score = -3, .v.rule = -1 },
                          { .text = STR("哈哈哈哈哈"), .id = (int[]){ 1 }, .n = 1, .ended = 1, .dup_of = -1, .fwd = -3, .bwd = -5, .n_source = 2, .score = -5, .v.rule = -1 } };
    reply        r    = { .text = STR("a"), .n = 2, .cand = c, .user_text = STR("a!"), .user_v.rule = -1, .fwd_digest = "f", .bwd_digest = "", .rules_digest = "", .numerics = "x" };
    static const char *const dates[] = { "2026-01-31T23:59:59Z", "2026-02-03T00:00:00Z", "yesterday", "2026-02-03T12:00:00Z" };
    OKAY(hist_new(h, STR(""), &conv, &e));
    for (int i = 0; i < 4; i++) {
        r.chosen     = i == 3; /* 0 is likelier per token: -1 against -1.5 */
        r.fwd_digest = i ? "f" : "g";
        OKAY(hist_append(h, conv, &r, &o, str_of(dates[i]), 1.5, &id, &e));
    }
    int64_t *all = everything(h, &n);
    OKAY(tally_store(h, all, n, NULL, &mem, &t, &e));
    assert_int_equal(t.n_ranked, 4);
    assert_int_equal(t.n_moved, 1);
    assert_int_equal(t.of_shown[TALLY_ECHO], 3);
    assert_int_equal(t.of_shown[TALLY_REPEATED], 1);
    assert_int_equal(t.of_drawn[TALLY_REPEATED], 4);
    assert_int_equal(t.n_setup, 2);
    assert_int_equal(t.time.undated, 1);
    assert_string_equal(t.time.unit, "hour"); /* 60 hours and a bit */
    assert_int_equal(t.time.n, 62);
    assert_string_equal(t.time.name[0].s, "01-31 23h");
    assert_string_equal(t.time.name[61].s, "02-03 12h");
    assert_true(t.time.kind[0][0] == 1 && t.time.kind[0][1] == 1 - 1 && t.time.kind[0][49] == 1 && t.time.kind[0][61] == 1);
    assert_true(fabs(t.fwd_chosen.v[3] + 1.5) < 1e-12 && fabs(t.bwd_chosen.v[3] + 2.5) < 1e-12);
    OKAY(hist_append(h, conv, &r, &o, STR("2027-12-01T00:00:00Z"), 1.5, &id, &e));
    all = everything(h, &n);
    OKAY(tally_store(h, all, n, NULL, &mem, &t, &e));
    assert_string_equal(t.time.unit, "month");
    assert_int_equal(t.time.n, 24);
    assert_string_equal(t.time.name[23].s, "2027-12");
    hist_close(h);
}

/* ---- the page ------------------------------------------------------------------------------------------------------ */

static void a_page_says_it(void **s)
{
    (void)s;
    const char  *path = in_dir("page.db");
    history     *h    = open_new(path);
    responder   *r;
    int64_t      row[9], conv;
    int          n, sound;
    buf          page = { 0 };
    respond_opts o    = respond_defaults();
    o.n_cand          = 4;
    OKAY(responder_new(&r, fwd, bwd, rules, &e));
    conv = make_talk(h, r, row);
    talk(h, r, conv, "<script>alert('你好')</script>\x1b[2J\"&", &o);
    OKAY(hist_set_title(h, conv, STR("<img src=x onerror=y>"), &e));
    int64_t          *id = everything(h, &n);
    audit_report_opts ro = { "page.db", STR("2026-11-24T15:04:05Z"), id, n, 0, rules, 100, 7 };
    OKAY(audit_report(h, &ro, &page, &sound, &e));
    assert_true(sound);
    assert_int_equal(count(&page, "<script"), 0);
    assert_int_equal(count(&page, "<img"), 0);
    assert_int_equal(count(&page, "\x1b"), 0);
    assert_true(count(&page, "&lt;script&gt;alert(") >= 1);
    assert_int_equal(count(&page, "&lt;img src=x onerror=y&gt;"), 1);
    assert_int_equal(count(&page, "<div class=\"card\">"), 8); /* all exchanges are in the sample */
    assert_int_equal(count(&page, ">holds<"), 1);
    assert_int_equal(count(&page, "<svg"), 8);
    assert_int_equal(count(&page, "http:") + count(&page, "https:"), 0);
    hist_close(h);

    /* The same page again, to the byte; and with a tampered row it says so. */
    buf again = { 0 };
    OKAY(hist_open(&h, path, HIST_READ, &e));
    OKAY(audit_report(h, &ro, &again, &sound, &e));
    assert_int_equal(again.n, page.n);
    assert_memory_equal(again.s, page.s, page.n);
    hist_close(h);
    assert_int_equal(raw(path, "UPDATE candidate SET score=1.0 WHERE turn=%lld AND k=0", (long long)row[1]), 1);
    OKAY(hist_open(&h, path, HIST_READ, &e));
    buf_reset(&again);
    OKAY(audit_report(h, &ro, &again, &sound, &e));
    assert_false(sound);
    assert_int_equal(count(&again, ">1 fault<"), 1);
    assert_int_equal(count(&again, ">holds<"), 0);
    buf_free(&page);
    buf_free(&again);
    responder_free(r);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeats), cmocka_unit_test(quantiles), cmocka_unit_test(counts_are_true), cmocka_unit_test(moves_are_seen), cmocka_unit_test(a_page_says_it),
    };
    return cmocka_run_group_tests_name("tally", tests, make_world, drop_world);
}
