/* study, ballot, form, poll: nothing tells a judge whose reply it is, and what the judges say comes back to the right system, by whatever way. */
#include "tests/dialog/records.h"

#include "eval/csv.h"
#include "eval/form.h"
#include "eval/poll.h"

enum { ITEMS = 40 };
static testset    set;
static study      pair, ssa;
static str        reply_of[3][ITEMS];
static const char system_names[3][16] = { "alphasystem", "betasystem", "gammasystem" };

static str copy(const char *s)
{
    str x = arena_str(&mem, str_of(s), &e);
    assert_non_null(x.s);
    return x;
}

static void make(study *s, int kind, int n, int most)
{
    str        names[3];
    const str *replies[3] = { reply_of[0], reply_of[1], reply_of[2] };
    for (int i = 0; i < 3; i++) names[i] = str_of(system_names[i]);
    study_plan p = { kind, 0, most, 7, n, names, replies };
    OKAY(study_make(s, &p, &set, &mem, &e));
}

/* Item i: system 0 says "good i", 1 "bad i", but the same as 0 on each fifth; 2 "<third> i" on every item. */
static int make_world(void **state)
{
    (void)state;
    buf b = { 0 };
    for (int i = 0; i < ITEMS; i++) {
        char text[64];
        buf_fmt(&b, "{\"history\": [\"before %d\"], \"text\": \"line %d\"}\n", i, i);
        snprintf(text, sizeof text, "good %d", i);
        reply_of[0][i] = copy(text);
        snprintf(text, sizeof text, i % 5 ? "bad %d" : "good %d", i);
        reply_of[1][i] = copy(text);
        snprintf(text, sizeof text, "<third> \"%d\"", i);
        reply_of[2][i] = copy(text);
    }
    spit(in_dir("set.jsonl"), b.s, b.n);
    buf_free(&b);
    OKAY(testset_read(&set, in_dir("set.jsonl"), &e));
    make(&pair, STUDY_PAIR, 2, 0);
    make(&ssa, STUDY_SSA, 3, 0);
    return 0;
}
static int drop_world(void **state)
{
    testset_free(&set);
    arena_free(&mem);
    return drop_folder(state);
}

static int is_good(str s) { return str_starts(s, STR("good")); }

/* ---- the study -------------------------------------------------------------------------------------------------- */

static void studies(void **state)
{
    (void)state;
    assert_int_equal(pair.n, ITEMS - ITEMS / 5);
    assert_int_equal(pair.n_same, ITEMS / 5);
    assert_int_equal(ssa.n, 3 * ITEMS - ITEMS / 5); /* an equal reply is judged once */
    for (int u = 0; u < ssa.n; u++) assert_true(str_eq(ssa.unit[u].reply[0], STR("good 5")) ? ssa.unit[u].systems == 3 : 1);
    study some, three;
    make(&some, STUDY_PAIR, 2, 10);
    assert_int_equal(some.n, 10);
    for (int u = 0; u < 10; u++) assert_true(str_eq(some.unit[u].reply[0], pair.unit[u].reply[0])); /* a part is the beginning of the whole */
    assert_string_not_equal(some.digest, pair.digest);
    make(&three, STUDY_PAIR, 3, 0);
    assert_int_equal(three.n + three.n_same, 3 * ITEMS);

    study again;
    OKAY(study_write(&pair, in_dir("key.json"), &e));
    OKAY(study_read(&again, in_dir("key.json"), &mem, &e));
    assert_string_equal(again.digest, pair.digest);
    assert_true(again.n == pair.n && str_eq(again.unit[3].reply[1], pair.unit[3].reply[1]) && str_eq(again.item[0].turn[1], pair.item[0].turn[1]) && again.item[0].n_turn == 2);
    OKAY(study_write(&ssa, in_dir("ssa.json"), &e));
    OKAY(study_read(&again, in_dir("ssa.json"), &mem, &e));
    assert_string_equal(again.digest, ssa.digest);
    buf b = { 0 };
    OKAY(read_file(in_dir("key.json"), 1 << 20, &b, &e));
    *strstr(b.s, "good 7") = 'G';
    spit(in_dir("key2.json"), b.s, b.n);
    assert_int_equal(study_read(&again, in_dir("key2.json"), &mem, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "it was changed"));
    buf_free(&b);
    assert_true(study_judge_ok(STR("李雷")) && !study_judge_ok(STR("")) && !study_judge_ok(STR(" a")) && !study_judge_ok(STR("a\nb")) && !study_judge_ok(STR("\xff")));
}

/* An order is a shuffle, the judges' orders differ, sides are even, and neither goes with the system. */
static void orders(void **state)
{
    (void)state;
    int           a[ITEMS], b[ITEMS], seen[ITEMS] = { 0 }, moved = 0, left = 0, judges = 200;
    unsigned char sa[ITEMS], sb[ITEMS];
    OKAY(study_order(&pair, STR("anna"), a, sa, &e));
    OKAY(study_order(&pair, STR("anna"), b, sb, &e));
    assert_memory_equal(a, b, (size_t)pair.n * sizeof *a);
    assert_memory_equal(sa, sb, (size_t)pair.n);
    for (int i = 0; i < pair.n; i++) seen[a[i]]++;
    for (int i = 0; i < pair.n; i++) assert_int_equal(seen[i], 1);
    OKAY(study_order(&pair, STR("bert"), b, sb, &e));
    for (int i = 0; i < pair.n; i++) moved += a[i] != b[i];
    assert_true(moved > pair.n / 2);
    for (int j = 0; j < judges; j++) {
        char name[16];
        snprintf(name, sizeof name, "judge%d", j);
        OKAY(study_order(&pair, str_of(name), b, sb, &e));
        for (int i = 0; i < pair.n; i++) left += !sb[i];
    }
    assert_true(left > 0.47 * judges * pair.n && left < 0.53 * judges * pair.n); /* sd 0.6 % */
}

/* ---- the log ---------------------------------------------------------------------------------------------------- */

static ballot vote(int unit, const char *judge, int x, int y, int z) { return (ballot){ unit, str_of(judge), { x, y, z }, 2.5 }; }

static void logs(void **state)
{
    (void)state;
    const char *path = in_dir("log.jsonl");
    ballot_log *l;
    ballot     *list;
    int         n;
    long        torn;
    OKAY(ballots_read(&pair, path, &mem, &list, &n, &torn, &e));
    assert_true(n == 0 && torn == -1);
    OKAY(ballot_log_open(&l, path, -1, &e));
    for (int u = 0; u < 3; u++) {
        ballot x = vote(u, "anna", 1, 0, -1);
        OKAY(ballot_log_add(l, &pair, &x, "terminal", "2026-01-01T00:00:00Z", &e));
    }
    OKAY(ballot_log_undo(l, 1, STR("anna"), "2026-01-01T00:00:00Z", &e));
    ballot_log_close(l);
    OKAY(ballots_read(&pair, path, &mem, &list, &n, &torn, &e));
    assert_true(n == 2 && torn == -1 && list[0].unit == 0 && list[1].unit == 2 && list[0].answer[0] == 1 && list[0].answer[1] == 0 && list[0].answer[2] == -1 && list[1].seconds == 2.5);
    assert_true(ballot_find(list, n, 1, STR("anna")) == NULL && ballot_find(list, n, 2, STR("anna")) == &list[1] && ballot_find(list, n, 2, STR("bert")) == NULL);

    /* Cut anywhere: whole lines stay, and the next judgment begins a line of its own. */
    buf whole = { 0 }, b = { 0 };
    OKAY(read_file(path, 1 << 20, &whole, &e));
    for (size_t cut = 0; cut <= whole.n; cut += 7) {
        int lines = 0, undone = 0;
        for (size_t i = 0; i < cut; i++) lines += whole.s[i] == '\n';
        undone = lines == 4;
        spit(in_dir("cut.jsonl"), whole.s, cut);
        OKAY(ballots_read(&pair, in_dir("cut.jsonl"), &mem, &list, &n, &torn, &e));
        assert_int_equal(n, lines - 2 * undone);
        OKAY(ballot_log_open(&l, in_dir("cut.jsonl"), torn, &e));
        ballot x = vote(9, "bert", 0, 0, 0);
        OKAY(ballot_log_add(l, &pair, &x, "form", "t", &e));
        ballot_log_close(l);
        OKAY(ballots_read(&pair, in_dir("cut.jsonl"), &mem, &list, &n, &torn, &e));
        assert_true(n == lines - 2 * undone + 1 && torn == -1 && list[n - 1].unit == 9);
    }
    static const struct { const char *line, *says; } bad[] = {
        { "{\"unit\":0,\"judge\":\"anna\",\"answers\":{\"relevance\":\"a\",\"informativeness\":\"a\",\"human_likeness\":\"a\"}}\n", ":5: unit 0 was judged by anna before" },
        { "{\"unit\":32,\"judge\":\"anna\",\"answers\":{}}\n", ":5: no unit of this study: they are numbered 0 to 31" },
        { "{\"unit\":5,\"judge\":\"anna\",\"answers\":{\"relevance\":\"c\"}}\n", "no answer to \"relevance\"" },
        { "{\"unit\":5,\"answers\":{}}\n", "no \"judge\"" },
        { "{\"undo\":5,\"judge\":\"anna\"}\n", "was not judged" },
        { "nonsense\n", ":5: not a JSON object" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf_reset(&b);
        buf_str(&b, buf_view(&whole));
        buf_str(&b, str_of(bad[i].line));
        spit(in_dir("bad.jsonl"), b.s, b.n);
        assert_int_equal(ballots_read(&pair, in_dir("bad.jsonl"), &mem, &list, &n, &torn, &e), E_FORMAT);
        if (!strstr(e.msg, bad[i].says)) fail_msg("%s: wanted %s", e.msg, bad[i].says);
    }
    buf_free(&b);
    buf_free(&whole);
}

/* ---- forms ------------------------------------------------------------------------------------------------------ */

static void blind(void **state)
{
    (void)state;
    const study *kinds[] = { &pair, &ssa };
    for (int k = 0; k < 2; k++)
        for (int table = 0; table < 2; table++) {
            buf b = { 0 };
            if (table) OKAY(form_csv(kinds[k], STR("anna"), &b, &e));
            else OKAY(form_html(kinds[k], STR("<anna>"), &b, &e));
            for (int i = 0; i < 3; i++) assert_null(strstr(b.s, system_names[i]));
            assert_null(strstr(b.s, kinds[k]->digest)); /* from which, with the key alone, nothing follows; but nobody needs it there */
            assert_null(strstr(b.s, "http:"));
            assert_null(strstr(b.s, "https:"));
            assert_non_null(strstr(b.s, "good 3"));
            if (!table) assert_null(strstr(b.s, "<third>"));
            if (!table) assert_null(strstr(b.s, "<anna>"));
            buf_free(&b);
        }
}

/* A judge who fills the table in and always likes the good reply: it comes back as system 0. */
static void fill(const study *s, const char *judge, buf *out)
{
    buf  form = { 0 };
    csv  c;
    OKAY(form_csv(s, str_of(judge), &form, &e));
    csv_open(&c, buf_view(&form));
    assert_int_equal(csv_next(&c, &mem, &e), 1);
    int one = csv_column(&c, s->kind == STUDY_SSA ? "reply" : "reply 1"), cols = c.n;
    for (int k = 0; k < cols; k++) csv_cell(out, csv_plain(c.cell[k]), k == 0);
    csv_end(out);
    while (csv_next(&c, &mem, &e) == 1) {
        int n_q = s->kind == STUDY_SSA ? 2 : 3, good = is_good(c.cell[one]);
        assert_int_equal(c.n, cols);
        for (int k = 0; k < cols; k++) {
            str cell = k < cols - n_q ? csv_plain(c.cell[k]) : s->kind == STUDY_SSA ? good ? STR("yes") : k == cols - 1 ? STR("") : STR("no") : k == cols - 2 ? STR("tie") : good ? STR("1") : STR("2");
            csv_cell(out, cell, k == 0);
        }
        csv_end(out);
    }
    buf_free(&form);
}

static void there_and_back(void **state)
{
    (void)state;
    static const char *const judges[] = { "anna", "bert", "=carl" };
    ballot *all = arena_new(&mem, 3 * ITEMS, sizeof *all), *list;
    int     n, total = 0;
    poll    p;
    for (int j = 0; j < 3; j++) {
        buf b = { 0 };
        fill(&pair, judges[j], &b);
        OKAY(ballots_from_form(&pair, buf_view(&b), "f.csv", &mem, &list, &n, &e));
        assert_int_equal(n, pair.n);
        for (int i = 0; i < n; i++) {
            assert_true(list[i].answer[0] == 1 && list[i].answer[1] == 0 && list[i].answer[2] == 1 && str_eq(list[i].judge, str_of(judges[j])));
            all[total++] = list[i];
        }
        buf_free(&b);
    }
    OKAY(poll_count(&pair, all, total, &mem, &p, &e));
    assert_true(p.n_pair == 1 && p.pair[0].n_same == ITEMS / 5 && p.pair[0].q[0].n == pair.n && p.pair[0].q[0].win == pair.n && p.pair[0].q[0].loss == 0 && p.pair[0].q[1].tie == pair.n);
    assert_true(p.pair[0].q[0].p < 1e-9 && p.pair[0].q[1].p == 1 && p.pair[0].q[0].vote[0] == 1);
    assert_true(p.agree[0].n_one == 3 && p.agree[0].n_shared == pair.n && isnan(p.agree[0].alpha) && isnan(p.agree[0].fleiss));
    assert_true(p.first_won + p.second_won == 2 * total && p.side_p > 1e-4);
    /* Two of three turn round on half of the units: the majority goes with them. */
    for (int i = 0; i < total; i++)
        if (all[i].unit < pair.n / 2 && !str_eq(all[i].judge, STR("anna"))) all[i].answer[0] = -1;
    OKAY(poll_count(&pair, all, total, &mem, &p, &e));
    assert_true(p.pair[0].q[0].win == pair.n - pair.n / 2 && p.pair[0].q[0].loss == pair.n / 2);
    assert_true(fabs(p.pair[0].q[0].vote[2] - 1.0 / 3) < 1e-12 && fabs(p.agree[0].pair[0].observed - 0.5) < 1e-12 && p.agree[0].fleiss_m == 3);
    buf text = { 0 };
    OKAY(poll_text(&p, &text, &e));
    assert_non_null(strstr(text.s, "alphasystem against betasystem: 32 units judged, 8 more had equal replies"));
    buf_reset(&text);
    OKAY(poll_html(&p, all, total, &text, &e));
    assert_non_null(strstr(text.s, "betasystem"));
    buf_free(&text);

    buf b = { 0 };
    fill(&ssa, "anna", &b);
    OKAY(ballots_from_form(&ssa, buf_view(&b), "f.csv", &mem, &list, &n, &e));
    assert_int_equal(n, ssa.n);
    OKAY(poll_count(&ssa, list, n, &mem, &p, &e));
    assert_true(p.system[0][0].share == 1 && p.system[0][1].share == 1 && fabs(p.system[1][0].share - 0.2) < 1e-12 && p.system[2][0].share == 0 && p.system[1][0].n == ITEMS);
    assert_true(p.ssa[0] == 1 && p.pair[0].q[0].win == ITEMS - ITEMS / 5 && p.pair[0].q[0].tie == ITEMS / 5);
    buf_free(&b);
}

static void refusals(void **state)
{
    (void)state;
    char    sheet[65];
    ballot *list;
    int     n;
    study_sheet(&pair, STR("anna"), sheet);
    static const struct { const char *rows, *says; } bad[] = {
        { "%s,anna,1,1,1,1\n%s,anna,1,2,2,2\n", "line 3: item 1 is there twice" },
        { "%s,anna,33,1,1,1\n%s,anna,1,,,\n", "line 2: no item '33': there are 1 to 32" },
        { "%s,anna,x,1,1,1\n%s,anna,1,,,\n", "line 2: no item 'x'" },
        { "%s,anna,1,1,1,3\n%s,anna,2,,,\n", "line 2: item 1: '3' is no answer to \"human_likeness\" (1, 2 or tie)" },
        { "%s,anna,1,1,,2\n%s,anna,2,,,\n", "item 1: \"informativeness\" is not answered" },
        { "%s,bert,1,1,1,1\n%s,bert,2,,,\n", "line 2: another sheet" },
        { "%s,anna,1,1,1,1\n%s,bert,2,1,1,1\n", "line 3: a second judge" },
        { "00%s,anna,1,1,1,1\n%s,anna,2,1,1,1\n", "another sheet" },
        { "%s,,1,1,1,1\n%s,,2,1,1,1\n", "no judge's name" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf b = { 0 };
        buf_str(&b, STR("\xEF\xBB\xBFsheet,judge,item,relevance,informativeness,human_likeness\n"));
        buf_fmt(&b, bad[i].rows, sheet, sheet);
        assert_int_equal(ballots_from_form(&pair, buf_view(&b), "f.csv", &mem, &list, &n, &e), E_FORMAT);
        if (!strstr(e.msg, bad[i].says) || strncmp(e.msg, "f.csv: ", 7)) fail_msg("%s: wanted %s", e.msg, bad[i].says);
        buf_free(&b);
    }
    assert_int_equal(ballots_from_form(&pair, STR("sheet,judge\n"), "f.csv", &mem, &list, &n, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "no column 'item'"));
    assert_int_equal(ballots_from_form(&pair, STR(""), "f.csv", &mem, &list, &n, &e), E_FORMAT);
    buf b = { 0 };
    buf_fmt(&b, "{\"sheet\":\"%s\",\"judge\":\"anna\",\"answers\":[{\"item\":2,\"answers\":[\"1\",\"tie\",\"2\"],\"seconds\":3},{\"item\":3,\"answers\":[\"\",\"\",\"\"]}]}", sheet);
    OKAY(ballots_from_form(&pair, buf_view(&b), "f.json", &mem, &list, &n, &e));
    assert_true(n == 1 && list[0].seconds == 3);
    buf_reset(&b);
    buf_fmt(&b, "{\"sheet\":\"%s\",\"judge\":\"anna\",\"answers\":[{\"item\":2,\"answers\":[\"1\",\"tie\",\"2\"]},{\"item\":2,\"answers\":[\"1\",\"tie\",\"2\"]}]}", sheet);
    assert_int_equal(ballots_from_form(&pair, buf_view(&b), "f.json", &mem, &list, &n, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "item 2 is there twice"));
    assert_int_equal(ballots_from_form(&pair, STR("{\"sheet\": 1"), "f.json", &mem, &list, &n, &e), E_FORMAT);
    assert_int_equal(ballots_from_form(&pair, STR("{\"answers\": {}}"), "f.json", &mem, &list, &n, &e), E_FORMAT);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(studies), cmocka_unit_test(orders), cmocka_unit_test(logs), cmocka_unit_test(blind), cmocka_unit_test(there_and_back), cmocka_unit_test(refusals) };
    if (make_folder()) return 1;
    return cmocka_run_group_tests(tests, make_world, drop_world);
}
