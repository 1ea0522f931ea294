/* notes: judgments and tags; and the way of a store from schema 1 to this one, with its record unharmed. */
#include "tests/dialog/records.h"

static const char OLD[] = "tests/vectors/dialog/schema1.db";

static void a_judgment_a_reader_a_turn(void **s)
{
    (void)s;
    const char *path = in_dir("judge.db");
    history    *h    = open_new(path);
    int64_t     conv, a, b;
    judgment   *j;
    int         n;
    OKAY(hist_new(h, STR(""), &conv, &e));
    a = say(h, conv, "first", 1);
    b = say(h, conv, "second", 2);
    OKAY(hist_undo(h, conv, STR("x"), NULL, &e));
    for (int i = 0; i < JUDGE_LABELS; i++) assert_int_equal(hist_label_of_name(hist_label_name(i)), i);
    assert_null(hist_label_name(JUDGE_LABELS));
    assert_null(hist_label_name(-1));
    assert_int_equal(hist_label_of_name("OK"), -1);
    OKAY(hist_judgments(h, &mem, &j, &n, &e));
    assert_int_equal(n, 0);
    OKAY(hist_judge(h, b, STR("李雷"), JUDGE_UNSAFE, STR("'; DROP TABLE turn; --"), STR("2026-11-25T00:00:00Z"), &e));
    OKAY(hist_judge(h, a, STR("zoe"), JUDGE_OK, STR(""), STR("2026-11-25T00:00:01Z"), &e));
    OKAY(hist_judge(h, a, STR("ann"), JUDGE_OTHER, STR("odd"), STR("2026-11-25T00:00:02Z"), &e));
    OKAY(hist_judge(h, a, STR("zoe"), JUDGE_REPETITION, STR("again"), STR("2026-11-25T00:00:03Z"), &e)); /* instead of the first */
    OKAY(hist_judgments(h, &mem, &j, &n, &e));
    assert_int_equal(n, 3);
    assert_true(j[0].turn == a && j[1].turn == a && j[2].turn == b);
    same_text(j[0].reader, STR("ann"));
    same_text(j[1].reader, STR("zoe"));
    assert_int_equal(j[1].label, JUDGE_REPETITION);
    same_text(j[1].note, STR("again"));
    same_text(j[1].created, STR("2026-11-25T00:00:03Z"));
    same_text(j[2].note, STR("'; DROP TABLE turn; --"));
    assert_int_equal(j[2].label, JUDGE_UNSAFE);

    char big[5000];
    memset(big, 'x', sizeof big);
    assert_int_equal(hist_judge(h, a, STR("zoe"), JUDGE_LABELS, STR(""), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, a, STR("zoe"), -1, STR(""), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, a, STR(""), 0, STR(""), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, a, (str){ big, 201 }, 0, STR(""), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, a, STR("\xff"), 0, STR(""), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, a, STR("zoe"), 0, (str){ big, 4097 }, STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, a, STR("zoe"), 0, STR("a\0b"), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, 999, STR("zoe"), 0, STR(""), STR("x"), &e), E_ARG);
    assert_int_equal(hist_judge(h, b + 1, STR("zoe"), 0, STR(""), STR("x"), &e), E_ARG); /* the undo row */
    sound(h); /* judgments are not in the chain */

    /* Forgetting a turn takes what a reader may have quoted from it, and leaves the label. */
    OKAY(hist_forget(h, conv, 1, STR("x"), NULL, &e));
    OKAY(hist_judgments(h, &mem, &j, &n, &e));
    assert_int_equal(n, 3);
    assert_int_equal(j[0].note.n + j[1].note.n, 0);
    assert_int_equal(j[1].label, JUDGE_REPETITION);
    assert_true(j[2].note.n > 0);
    sound(h);
    hist_close(h);
    assert_int_equal(raw(path, "UPDATE judgment SET label=9 WHERE reader='zoe'"), 1); /* a damaged table is called that */
    OKAY(hist_open(&h, path, HIST_READ, &e));
    assert_int_equal(hist_judgments(h, &mem, &j, &n, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "label"));
    hist_close(h);
}

static void tags(void **s)
{
    (void)s;
    history      *h = open_new(in_dir("tags.db"));
    int64_t       a, b;
    int           n, changed;
    conversation *l, c;
    OKAY(hist_new(h, STR("one"), &a, &e));
    OKAY(hist_new(h, STR("two"), &b, &e));
    OKAY(hist_tag(h, a, STR("工作"), 1, &changed, &e));
    assert_int_equal(changed, 1);
    OKAY(hist_tag(h, a, STR("工作"), 1, &changed, &e));
    assert_int_equal(changed, 0);
    OKAY(hist_tag(h, a, STR("a'b"), 1, NULL, &e));
    OKAY(hist_tag(h, b, STR("工作"), 1, NULL, &e));
    OKAY(hist_get(h, a, &mem, &c, &e));
    same_text(c.tags, STR("a'b 工作"));
    OKAY(hist_tagged(h, STR("工作"), 0, &mem, &l, &n, &e));
    assert_int_equal(n, 2);
    OKAY(hist_tagged(h, STR("a'b"), 0, &mem, &l, &n, &e));
    assert_int_equal(n, 1);
    assert_true(l[0].id == a);
    OKAY(hist_tagged(h, STR("none"), 0, &mem, &l, &n, &e));
    assert_int_equal(n, 0);
    OKAY(hist_tag(h, a, STR("a'b"), 0, &changed, &e));
    assert_int_equal(changed, 1);
    OKAY(hist_tag(h, a, STR("a'b"), 0, &changed, &e));
    assert_int_equal(changed, 0);
    OKAY(hist_get(h, a, &mem, &c, &e));
    same_text(c.tags, STR("工作"));
    static const str bad[] = { STR(""), STR("a b"), STR("a\tb"), STR("a\x1b[2J"), STR("a\xE3\x80\x80" "b"), STR("\xff"), STR("a\0b"), STR("a\xE2\x80\xAE") };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_int_equal(hist_tag(h, a, bad[i], 1, NULL, &e), E_ARG);
    assert_int_equal(hist_tag(h, 99, STR("x"), 1, NULL, &e), E_ARG);
    sound(h);
    hist_close(h);
}

/* ---- schemas ---- */

static unsigned char *copy_old(const char *path, size_t *n)
{
    unsigned char *bytes = slurp(OLD, n);
    assert_non_null(bytes);
    drop(path);
    spit(path, bytes, *n);
    return bytes;
}

static const char *const queries[] = { "天气", "天", "你", "名字", "小对", "0%", "_", "'b", "B", "hi", "so", "something", "ÄPFEL", "Ö", "ï", "答", "1 ", "公园散步", "？" };
enum { N_QUERIES = sizeof queries / sizeof queries[0] };

static void old_files_are_read_as_they_are(void **s)
{
    (void)s;
    const char    *path = in_dir("old.db");
    size_t         n, m;
    unsigned char *bytes = copy_old(path, &n);
    history       *h, *w;
    conversation  *l;
    judgment      *j;
    int            k;
    OKAY(hist_open(&h, path, HIST_READ, &e));
    sound(h);
    OKAY(hist_list(h, 0, &mem, &l, &k, &e));
    assert_int_equal(k, 4);
    assert_int_equal(l[0].tags.n, 0);
    OKAY(hist_judgments(h, &mem, &j, &k, &e));
    assert_int_equal(k, 0);
    assert_true(hist_judge(h, 1, STR("me"), 0, STR(""), STR("x"), &e) != OK);
    assert_true(hist_tag(h, 1, STR("me"), 1, NULL, &e) != OK);
    hist_close(h);
    unsigned char *after = slurp(path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(bytes, after, n);
    free(after);

    /* What the scan of the old file finds, the indices of the new one find. */
    const char *up = in_dir("up.db");
    free(copy_old(up, &m));
    OKAY(hist_open(&w, up, HIST_WRITE, &e));
    OKAY(hist_open(&h, path, HIST_READ, &e));
    int hits = 0;
    for (int i = 0; i < N_QUERIES; i++) {
        history_found *f, *g;
        int            nf, ng;
        OKAY(hist_search(h, str_of(queries[i]), NULL, 0, &mem, &f, &nf, &e));
        OKAY(hist_search(w, str_of(queries[i]), NULL, 0, &mem, &g, &ng, &e));
        if (nf != ng) fail_msg("'%s': %d by scan, %d by index", queries[i], nf, ng);
        for (int q = 0; q < nf; q++) {
            assert_true(f[q].turn == g[q].turn && f[q].speaker == g[q].speaker);
            same_text(f[q].snippet, g[q].snippet);
        }
        hits += nf;
    }
    assert_true(hits > 60);
    hist_close(h);
    hist_close(w);
    free(bytes);
}

static void the_schema_goes_forward(void **s)
{
    (void)s;
    const char *path = in_dir("forward.db");
    size_t      n;
    free(copy_old(path, &n));
    history      *h, *b;
    unsigned char before[4][32], after[32];
    int           row[4], k;
    OKAY(hist_open(&h, path, HIST_READ, &e));
    for (int c = 0; c < 4; c++) OKAY(hist_head(h, c + 1, &row[c], before[c], &e));
    hist_close(h);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    sound(h);
    for (int c = 0; c < 4; c++) {
        OKAY(hist_head(h, c + 1, &k, after, &e));
        assert_int_equal(k, row[c]);
        assert_memory_equal(before[c], after, 32);
    }
    OKAY(hist_tag(h, 1, STR("old"), 1, NULL, &e));
    OKAY(hist_judge(h, 1, STR("me"), 0, STR(""), STR("x"), &e));
    say(h, 1, "the talk goes on", 9);
    OKAY(hist_forget(h, 4, 0, STR("x"), NULL, &e)); /* rows indexed by the migration can be forgotten */
    sound(h);
    history_found *f;
    OKAY(hist_search(h, STR("天气"), NULL, 0, &mem, &f, &k, &e));
    assert_int_equal(k, 0);
    hist_close(h);
    assert_int_equal(raw_int(path, "PRAGMA user_version"), 3);
    assert_int_equal(raw_int(path, "SELECT count(*) FROM gram_data WHERE instr(block,CAST('\xE5\xA4\xA9' AS BLOB))"), 0);
    assert_true(raw(path, "INSERT INTO search(search) VALUES('integrity-check')") >= 0);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    OKAY(hist_open(&b, path, HIST_READ, &e));
    sound(b);
    hist_close(b);
    hist_close(h);
}

/* A step that fails leaves schema 1, whole. */
static void a_step_that_fails_changes_nothing(void **s)
{
    (void)s;
    const char *path = in_dir("stuck.db");
    size_t      n;
    free(copy_old(path, &n));
    assert_int_equal(raw(path, "CREATE TABLE backup(x)"), 0); /* the third thing that the step makes */
    history *h;
    assert_int_equal(hist_open(&h, path, HIST_WRITE, &e), E_DB);
    assert_non_null(strstr(e.msg, "schema was not brought up to date"));
    assert_int_equal(raw_int(path, "PRAGMA user_version"), 1);
    assert_int_equal(raw_int(path, "SELECT count(*) FROM sqlite_schema WHERE name IN ('judgment','tag','gram','day')"), 0);
    OKAY(hist_open(&h, path, HIST_READ, &e));
    sound(h);
    hist_close(h);
    assert_int_equal(raw(path, "DROP TABLE backup"), 0);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    sound(h);
    hist_close(h);
}

/* Killed at any moment of the step: before or after it, never between. */
static void killed_on_the_way(void **s)
{
    (void)s;
    const char *path = in_dir("way.db");
    int         old = 0, new = 0;
    for (int i = 0; i < 40; i++) {
        size_t n;
        free(copy_old(path, &n));
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            history *h;
            _exit(hist_open(&h, path, HIST_WRITE, &e) ? 1 : 0);
        }
        usleep((useconds_t)draw(40000));
        kill(pid, SIGKILL);
        int st;
        waitpid(pid, &st, 0);
        history *h;
        OKAY(hist_open(&h, path, HIST_READ, &e));
        sound(h);
        hist_close(h);
        long v = raw_int(path, "PRAGMA user_version"), made = raw_int(path, "SELECT count(*) FROM sqlite_schema WHERE name IN ('judgment','tag','gram','day','judged_line')");
        assert_true((v == 1 && made == 0) || (v == 3 && made == 5));
        old += v == 1;
        new += v == 3;
        OKAY(hist_open(&h, path, HIST_WRITE, &e));
        sound(h);
        hist_close(h);
        arena_reset(&mem);
    }
    print_message("killed before the step was done: %d, after: %d\n", old, new);
}

/* Two programs that meet an old file at once. */
static void both_want_it_new(void **s)
{
    (void)s;
    const char *path = in_dir("both.db");
    for (int round = 0; round < 5; round++) {
        size_t n;
        pid_t  pid[3];
        free(copy_old(path, &n));
        fflush(NULL);
        for (int p = 0; p < 3; p++)
            if ((pid[p] = fork()) == 0) {
                history     *h;
                respond_opts o = respond_defaults();
                int64_t      id;
                reply        r = some_reply(2, "from", "both", p);
                int          bad = hist_open(&h, path, HIST_WRITE, &e) || hist_append(h, 1, &r, &o, STR("x"), 1, &id, &e);
                if (bad) fprintf(stderr, "%s\n", e.msg);
                _exit(bad);
            }
        for (int p = 0; p < 3; p++) {
            int st;
            waitpid(pid[p], &st, 0);
            assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 0);
        }
        history *h;
        OKAY(hist_open(&h, path, HIST_READ, &e));
        sound(h);
        hist_close(h);
        assert_int_equal(raw_int(path, "SELECT count(*) FROM turn WHERE conv=1"), 5 + 3);
    }
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_judgment_a_reader_a_turn),
        cmocka_unit_test(tags),
        cmocka_unit_test(old_files_are_read_as_they_are),
        cmocka_unit_test(the_schema_goes_forward),
        cmocka_unit_test(a_step_that_fails_changes_nothing),
        cmocka_unit_test(killed_on_the_way),
        cmocka_unit_test(both_want_it_new),
    };
    return cmocka_run_group_tests_name("notes", tests, NULL, drop_folder);
}
