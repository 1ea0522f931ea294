/* transfer: the record goes out as text and comes back to the bit, or not at all; two stores are put together; backups; what is forgotten
 * stays forgotten on all these ways. */
#include "tests/dialog/records.h"

#include "dialog/transfer.h"

/* ---- lines in memory ---- */

typedef struct {
    str  line[64];
    int  n, at;
} text;
static int keep(void *ctx, str line, err *er)
{
    text *t = ctx;
    assert_true(t->n < 64);
    t->line[t->n++] = arena_str(&mem, line, er);
    return OK;
}
static int give(void *ctx, str *line, err *er)
{
    text *t = ctx;
    (void)er;
    if (t->at == t->n) return 0;
    *line = t->line[t->at++];
    return 1;
}
static text dump_all(history *h)
{
    text          t = { .n = 0 };
    conversation *c;
    int           n;
    OKAY(hist_list(h, 0, &mem, &c, &n, &e));
    for (int id = 1; id <= n; id++) OKAY(hist_dump(h, id, keep, &t, &e)); /* none was ever removed: they are 1 to n */
    return t;
}
static int load(history *h, text t, hist_loaded *l)
{
    t.at = 0;
    return hist_load(h, give, &t, l, &e);
}
static void same_dump(history *a, history *b)
{
    text x = dump_all(a), y = dump_all(b);
    assert_int_equal(x.n, y.n);
    for (int i = 0; i < x.n; i++) same_text(x.line[i], y.line[i]);
}

/* Everything that a record may hold, the odd values too. */
static void make_odd_record(const char *path)
{
    make_record(path);
    history *h;
    int64_t  conv, id;
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    OKAY(hist_new(h, STR("a title with \"quotes\" and 中文"), &conv, &e));
    reply r = some_reply(6, "x", "y", 1);
    r.user_text         = STR("a\0b\xff\xfe no UTF-8");
    r.text              = STR("\x1b[2J \"\\ 👋 \xE2\x80\xA8");
    r.cand[0].fwd       = -INFINITY;
    r.cand[0].bwd       = INFINITY;
    r.cand[0].score     = -0.0;
    r.cand[1].fwd       = 5e-324;
    r.cand[1].score     = -1.7976931348623157e308;
    r.cand[2].fwd       = 0.1 + 0.2;
    respond_opts o      = respond_defaults();
    o.seed              = UINT64_MAX;
    OKAY(hist_append(h, conv, &r, &o, STR("2026-11-24T15:04:05Z"), NAN, &id, &e));
    OKAY(hist_tag(h, conv, STR("标签"), 1, NULL, &e));
    OKAY(hist_tag(h, conv, STR("z"), 1, NULL, &e));
    OKAY(hist_judge(h, id, STR("李雷"), JUDGE_OFF_TOPIC, STR("a note"), STR("2026-11-25T00:00:00Z"), &e));
    OKAY(hist_judge(h, id, STR("zoe"), JUDGE_OK, STR(""), STR("2026-11-25T00:00:00Z"), &e));
    hist_close(h);
}

static void there_and_back(void **s)
{
    (void)s;
    const char *from = in_dir("from.db"), *to = in_dir("to.db");
    make_odd_record(from);
    history    *a, *b = open_new(to);
    hist_loaded l;
    OKAY(hist_open(&a, from, HIST_READ, &e));
    text t = dump_all(a);
    assert_int_equal(t.n, 4);
    OKAY(load(b, t, &l));
    assert_int_equal(l.conversations, 4);
    assert_int_equal(l.known, 0);
    assert_int_equal(l.rows, raw_int(from, "SELECT count(*) FROM turn"));
    sound(b);
    same_dump(a, b);
    static const char *const same[] = { "SELECT count(*) FROM candidate", "SELECT count(*) FROM hit", "SELECT count(*) FROM judgment", "SELECT count(*) FROM tag" };
    for (int i = 0; i < 4; i++) assert_int_equal(raw_int(from, same[i]), raw_int(to, same[i]));
    OKAY(load(b, t, &l)); /* again: nothing new */
    assert_true(l.conversations == 0 && l.rows == 0 && l.known > 0);
    same_dump(a, b);
    history_found *f;
    int            n;
    OKAY(hist_search(b, STR("something to say"), NULL, 0, &mem, &f, &n, &e)); /* what came in is indexed */
    assert_true(n > 5);
    say(b, 1, "and on", 1);
    sound(b);
    hist_close(a);
    hist_close(b);
}

/* Two machines: each has what the other has not. */
static void stores_are_put_together(void **s)
{
    (void)s;
    history    *a = open_new(in_dir("a.db")), *b = open_new(in_dir("b.db"));
    int64_t     conv, other;
    hist_loaded l;
    OKAY(hist_new(b, STR("b's own"), &other, &e));
    say(b, other, "only b", 1);
    OKAY(hist_new(a, STR("shared"), &conv, &e));
    say(a, conv, "one", 1);
    say(a, conv, "two secret", 2);
    OKAY(load(b, dump_all(a), &l));
    assert_int_equal(l.rows, 2);
    /* a goes on, and forgets; b hears of both */
    say(a, conv, "three", 3);
    OKAY(hist_undo(a, conv, STR("x"), NULL, &e));
    OKAY(hist_forget(a, conv, 2, STR("x"), NULL, &e));
    text old = dump_all(b);
    OKAY(load(b, dump_all(a), &l));
    assert_int_equal(l.rows, 3);
    assert_int_equal(l.known, 2);
    assert_int_equal(l.erased, 1);
    sound(b);
    hist_close(b);
    assert_false(holds(in_dir("b.db"), "secret"));
    OKAY(hist_open(&b, in_dir("b.db"), HIST_WRITE, &e));
    /* an older export does not bring the words back */
    OKAY(load(b, old, &l));
    assert_int_equal(l.rows, 0);
    history_found *f;
    int            n;
    OKAY(hist_search(b, STR("secret"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 0);
    /* both go on by themselves: then there is no one record any more */
    say(a, conv, "a's way", 4);
    say(b, 2, "b's way", 4);
    text before = dump_all(b);
    assert_int_equal(load(b, dump_all(a), &l), E_FORMAT);
    assert_non_null(strstr(e.msg, "with another row"));
    text after = dump_all(b);
    for (int i = 0; i < before.n; i++) same_text(before.line[i], after.line[i]);
    hist_close(a);
    hist_close(b);
}

/* Change one thing in a line that was exported: it is refused, and nothing of the file is taken. */
static void what_was_changed_is_refused(void **s)
{
    (void)s;
    const char *from = in_dir("guard.db"), *to = in_dir("guard-to.db");
    make_odd_record(from);
    history    *a, *b = open_new(to);
    hist_loaded l;
    OKAY(hist_open(&a, from, HIST_READ, &e));
    text t = dump_all(a);
    hist_close(a);
    str whole = t.line[t.n - 1];
    int seen = 0, same = 0;
    for (int i = 0; i < 300; i++) {
        size_t at   = (size_t)draw((int)whole.n);
        char  *copy = malloc(whole.n + 1);
        memcpy(copy, whole.s, whole.n + 1);
        copy[at] = copy[at] >= '0' && copy[at] <= '8' ? (char)(copy[at] + 1) : copy[at] == 'a' ? 'b' : (char)(copy[at] ^ 1);
        t.line[t.n - 1] = (str){ copy, whole.n };
        int r           = load(b, t, &l);
        if (r == OK) { /* what the chain does not vouch for: number, title, tags, turns, judgments, "undone" */
            same++;
            const char *rows = strstr(whole.s, "\"rows\":");
            int         note = (size_t)(strstr(whole.s, "\"judgments\":") - whole.s) <= at || rows > whole.s + at || strstr(whole.s, "\"turns\":") < rows;
            assert_true(note);
            sound(b);
            hist_close(b);
            b = open_new(to);
        } else {
            seen++;
            assert_true(r == E_FORMAT);
            assert_non_null(strstr(e.msg, "line 4"));
            conversation *c;
            int           n;
            OKAY(hist_list(b, 0, &mem, &c, &n, &e));
            assert_int_equal(n, 0);
        }
        free(copy);
    }
    print_message("%d changed bytes refused, %d were beside the record\n", seen, same);
    assert_true(seen > 150);
    hist_close(b);
}

static void bad_lines(void **s)
{
    (void)s;
    static const struct {
        const char *line, *says;
    } bad[] = {
        { "{", "not JSON" },
        { "[]", "no record of a conversation" },
        { "{\"turns\":[]}", "no record of a conversation" },
        { "{\"key\":1,\"rows\":[],\"title\":\"\",\"created\":\"\",\"tags\":[]}", "\"key\"" },
        { "{\"key\":\"00112233445566778899aabbccddeeff\",\"rows\":[],\"created\":\"\",\"tags\":[]}", "\"title\": is missing" },
        { "{\"key\":\"00112233445566778899aabbccddeefg\",\"rows\":[],\"title\":\"\",\"created\":\"\",\"tags\":[]}", "\"key\"" },
        { "{\"key\":\"00112233445566778899aabbccddeeff\",\"rows\":[],\"title\":\"\",\"created\":\"\",\"tags\":[\"a b\"]}", "\"tags\"" },
        { "{\"key\":\"00112233445566778899aabbccddeeff\",\"rows\":{},\"title\":\"\",\"created\":\"\",\"tags\":[]}", "\"rows\"" },
        { "{\"key\":\"00112233445566778899aabbccddeeff\",\"rows\":[1],\"title\":\"\",\"created\":\"\",\"tags\":[]}", "row 1" },
        { "{\"key\":\"00112233445566778899aabbccddeeff\",\"rows\":[{\"what\":\"model\"}],\"title\":\"\",\"created\":\"\",\"tags\":[]}", "row 1: \"n\"" },
        { "{\"key\":\"00112233445566778899aabbccddeeff\",\"rows\":[{\"what\":\"sung\"}],\"title\":\"\",\"created\":\"\",\"tags\":[]}", "\"what\"" },
    };
    history    *h = open_new(in_dir("bad.db"));
    hist_loaded l;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        text t = { .line = { STR(""), str_of(bad[i].line) }, .n = 2 };
        e.msg[0] = 0;
        assert_int_equal(load(h, t, &l), E_FORMAT);
        if (!strstr(e.msg, bad[i].says) || !strstr(e.msg, "line 2")) fail_msg("'%s' does not say '%s'", e.msg, bad[i].says);
    }
    text deep = { .n = 1 };
    char *m   = malloc(200001);
    memset(m, '[', 200000);
    m[200000]    = 0;
    deep.line[0] = str_of(m);
    assert_int_equal(load(h, deep, &l), E_FORMAT);
    free(m);
    assert_int_equal(raw_int(in_dir("bad.db"), "SELECT count(*) FROM conversation"), 0);
    hist_close(h);
}

/* An erasure that no row announces does not come in. */
static void a_silent_erasure_is_refused(void **s)
{
    (void)s;
    const char *path = in_dir("silent.db");
    history    *h    = open_new(path), *b = open_new(in_dir("silent-to.db"));
    int64_t     conv;
    hist_loaded l;
    OKAY(hist_new(h, STR(""), &conv, &e));
    for (int i = 0; i < 3; i++) say(h, conv, "words", i);
    OKAY(hist_forget(h, conv, 2, STR("x"), NULL, &e));
    text t = dump_all(h);
    OKAY(load(b, t, &l));
    sound(b);
    hist_close(b);
    b = open_new(in_dir("silent-to.db"));
    /* the same without its last row, the one that says "forget" */
    char *last = NULL;
    for (char *p = (char *)t.line[0].s; (p = strstr(p, ",{\"n\":4,")); p++) last = p;
    assert_non_null(last);
    memcpy(last, "]}", 3);
    t.line[0].n = strlen(t.line[0].s);
    assert_int_equal(load(b, t, &l), E_FORMAT);
    assert_non_null(strstr(e.msg, "no forget row says so"));
    hist_close(b);
    hist_close(h);
}

/* ---- backups ---- */

typedef struct {
    char    path[4][600], failed[4][300];
    int64_t n[4];
    int     count;
} told;
static void tell(void *ctx, const char *path, int64_t n, const char *failed)
{
    told *t = ctx;
    assert_true(t->count < 4);
    snprintf(t->path[t->count], sizeof t->path[0], "%s", path);
    snprintf(t->failed[t->count], sizeof t->failed[0], "%s", failed ? failed : "");
    t->n[t->count++] = n;
}

static void backups(void **s)
{
    (void)s;
    const char *path = in_dir("main.db");
    char        one[400], two[400], gone[400];
    struct stat st;
    snprintf(one, sizeof one, "%s/one.db", dir);
    snprintf(two, sizeof two, "%s/two.db", dir);
    snprintf(gone, sizeof gone, "%s/gone.db", dir);
    history   *h = open_new(path), *c;
    int64_t    conv, other;
    hist_copy *b;
    int        n;
    OKAY(hist_new(h, STR(""), &conv, &e));
    OKAY(hist_new(h, STR(""), &other, &e));
    say(h, conv, "before the first copy 饕餮", 1);
    mode_t old = umask(0);
    OKAY(hist_backup(h, one, STR("2026-11-25T00:00:00Z"), &e));
    umask(old);
    say(h, conv, "between the copies 耄耋", 2);
    say(h, other, "something else", 3);
    OKAY(hist_backup(h, two, STR("2026-11-26T00:00:00Z"), &e));
    OKAY(hist_backup(h, gone, STR("2026-11-27T00:00:00Z"), &e));
    assert_int_equal(stat(one, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(hist_backup(h, one, STR("x"), &e), E_IO); /* replaces nothing */
    assert_non_null(strstr(e.msg, "is there already"));
    assert_int_equal(hist_backup(h, in_dir("no/such/folder.db"), STR("x"), &e), E_IO);
    OKAY(hist_backups(h, &mem, &b, &n, &e));
    assert_int_equal(n, 3);
    assert_string_equal(b[0].path.s, one);
    OKAY(hist_open(&c, two, HIST_READ, &e)); /* it is a store like any other */
    sound(c);
    hist_close(c);
    drop(gone);
    char glob[700];
    snprintf(glob, sizeof glob, "test -z \"$(ls %s | grep -E 'db\\.[A-Za-z0-9]{6}$')\"", dir);
    assert_int_equal(system(glob), 0); /* nothing half-made is left */

    /* forget goes to the copies that are still there and have the words */
    told t = { 0 };
    int  which[] = { 2 };
    OKAY(hist_forget(h, conv, 2, STR("x"), &n, &e));
    OKAY(hist_forget_copies(h, conv, which, 1, STR(""), STR("x"), tell, &t, &e));
    assert_int_equal(t.count, 2);
    assert_true(t.n[0] == 0 && t.n[1] == 1 && !t.failed[0][0] && !t.failed[1][0]);
    assert_false(holds(two, "耄耋") || holds(path, "耄耋"));
    assert_true(holds(two, "饕餮"));
    which[0] = 0;
    t.count  = 0;
    OKAY(hist_forget(h, conv, 0, STR("x"), &n, &e));
    OKAY(hist_forget_copies(h, conv, which, 1, STR(""), STR("x"), tell, &t, &e));
    assert_true(t.n[0] == 1 && t.n[1] == 1);
    assert_false(holds(one, "饕餮") || holds(two, "饕餮"));
    OKAY(hist_open(&c, two, HIST_READ, &e));
    sound(c);
    hist_close(c);
    assert_true(holds(two, "something else"));

    /* a copy that cannot be changed is told of */
    spit(one, "no database any more, but not nothing either: a hundred bytes and more of something that is not Duet's at all", 108);
    t.count = 0;
    int64_t ex, cs;
    OKAY(hist_purge(h, STR("2027"), 0, STR("x"), &ex, &cs, &e));
    assert_true(ex == 1 && cs == 1);
    OKAY(hist_forget_copies(h, 0, NULL, 0, STR("2027"), STR("x"), tell, &t, &e));
    assert_non_null(strstr(t.failed[0], "not a database"));
    assert_true(t.n[1] == 1 && !t.failed[1][0]);
    assert_false(holds(two, "something else"));
    hist_close(h);
}

/* Another program reads on, as long as it likes: the words are gone from the file, the caller is told that the log is not clean yet. */
static void forgetting_while_another_reads(void **s)
{
    (void)s;
    const char *path = in_dir("busy.db");
    history    *h    = open_new(path);
    int64_t     conv;
    int         n = -1;
    sqlite3    *db;
    OKAY(hist_new(h, STR(""), &conv, &e));
    say(h, conv, "zeppelin", 1);
    say(h, conv, "quagmire", 2);
    assert_int_equal(sqlite3_open(path, &db), 0);
    assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT count(*) FROM turn", NULL, NULL, NULL), 0);
    assert_int_equal(hist_forget(h, conv, 1, STR("x"), &n, &e), E_DB); /* after 5 s */
    assert_int_equal(n, 1);
    assert_non_null(strstr(e.msg, "the log beside the database keeps old pages"));
    sound(h);
    history_found *f;
    OKAY(hist_search(h, STR("zeppelin"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 0);
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), 0);
    sqlite3_close(db);
    OKAY(hist_forget(h, conv, 2, STR("x"), &n, &e)); /* the next one cleans up */
    char wal[600];
    snprintf(wal, sizeof wal, "%s-wal", path);
    assert_false(holds(path, "zeppelin") || holds(wal, "zeppelin"));
    hist_close(h);
}

static void purge(void **s)
{
    (void)s;
    const char  *path = in_dir("purge.db");
    history     *h    = open_new(path);
    int64_t      conv[3], id, ex, cs;
    respond_opts o = respond_defaults();
    static const char *const day[] = { "2026-01-01T10:00:00Z", "2026-02-01T10:00:00Z", "2026-03-01T10:00:00Z" };
    for (int c = 0; c < 3; c++) {
        OKAY(hist_new(h, STR(""), &conv[c], &e));
        for (int i = 0; i < 3; i++) {
            char  words[40];
            snprintf(words, sizeof words, "conversation%d day%d", c, c == 0 ? 0 : i);
            reply r = some_reply(2, words, words, i);
            OKAY(hist_append(h, conv[c], &r, &o, str_of(day[c == 0 ? 0 : i]), 1, &id, &e));
        }
    }
    OKAY(hist_purge(h, STR("2026-02-15"), 1, STR("x"), &ex, &cs, &e)); /* dry */
    assert_true(ex == 7 && cs == 3);
    assert_int_equal(raw_int(path, "SELECT count(*) FROM turn"), 9);
    OKAY(hist_purge(h, STR("2026-02-15"), 0, STR("2026-04-01T00:00:00Z"), &ex, &cs, &e));
    assert_true(ex == 7 && cs == 3);
    assert_int_equal(raw_int(path, "SELECT count(*) FROM turn WHERE what=17"), 1 + 2 + 2); /* a whole conversation, and two exchanges of each other */
    sound(h);
    assert_false(holds(path, "conversation0") || holds(path, "day0") || holds(path, "day1"));
    assert_true(holds(path, "conversation1 day2"));
    OKAY(hist_purge(h, STR("2026-02-15"), 0, STR("x"), &ex, &cs, &e));
    assert_true(ex == 0 && cs == 0);
    int64_t before, after;
    OKAY(hist_vacuum(h, &before, &after, &e));
    assert_true(after <= before && after > 0);
    sound(h);
    hist_numbers v;
    OKAY(hist_stats(h, &mem, &v, &e));
    assert_true(v.conversations == 3 && v.exchanges == 9 && v.forgotten == 7 && v.n_month == 3 && v.candidates == 18);
    same_text(v.first, str_of(day[0]));
    assert_true(v.p50 == 1 && v.p95 == 1);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(stores_are_put_together),
        cmocka_unit_test(what_was_changed_is_refused),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(a_silent_erasure_is_refused),
        cmocka_unit_test(backups),
        cmocka_unit_test(forgetting_while_another_reads),
        cmocka_unit_test(purge),
    };
    return cmocka_run_group_tests_name("transfer", tests, NULL, drop_folder);
}
