/* store: several programs at once, killed programs, full disks, foreign files: nothing that was reported as stored is lost, and
 * foreign files stay as they were. */
#include "tests/dialog/records.h"

/* ---- several programs at once ---- */

static void two_handles(void **s)
{
    (void)s;
    const char *path = in_dir("two.db");
    history    *a    = open_new(path), *b;
    int64_t     conv, other, id;
    exchange    x;
    turn       *t;
    int         n;
    OKAY(hist_open(&b, path, HIST_WRITE, &e));
    OKAY(hist_new(a, STR(""), &conv, &e));
    OKAY(hist_new(b, STR(""), &other, &e));
    for (int i = 0; i < 20; i++) {
        say(a, conv, "from a", i);
        say(b, other, "from b", i);
    }
    /* Now both in one conversation; b has read it to the end. */
    OKAY(hist_turns(b, conv, 0, &mem, &t, &n, &e));
    assert_int_equal(n, 40);
    id = say(b, conv, "b knows all", 20);
    OKAY(hist_exchange(a, id, &mem, &x, &e));
    assert_int_equal(x.stale, 0);
    OKAY(hist_turns(a, conv, 0, &mem, &t, &n, &e));
    say(b, conv, "b goes on", 21);
    id = say(a, conv, "a has not seen that", 22);
    OKAY(hist_exchange(a, id, &mem, &x, &e));
    assert_int_equal(x.stale, 1);
    id = say(a, conv, "still not", 23);
    OKAY(hist_exchange(a, id, &mem, &x, &e));
    assert_int_equal(x.stale, 1);
    OKAY(hist_turns(a, conv, 0, &mem, &t, &n, &e));
    id = say(a, conv, "now it has", 24);
    OKAY(hist_exchange(a, id, &mem, &x, &e));
    assert_int_equal(x.stale, 0);
    sound(a);
    sound(b);
    hist_close(a);
    hist_close(b);
}

/* Run f in a child; its exit status. */
static int in_child(void (*f)(void *), void *p)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        f(p);
        _exit(0);
    }
    int st;
    assert_int_equal(waitpid(pid, &st, 0), pid);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 200 + WTERMSIG(st);
}
/* In a child, where a failing assert must not run the rest of the suite. */
#define MUST(x) do { if (!(x)) { fprintf(stderr, "child, line %d: %s: %s\n", __LINE__, #x, e.msg); _exit(9); } } while (0)

static int child_say(history *h, int64_t conv, int number, int64_t *id)
{
    respond_opts o = respond_defaults();
    reply        r = some_reply(3, "from a child", "reply", number);
    return hist_append(h, conv, &r, &o, STR("2026-11-24T15:04:05Z"), 0.1, id, &e);
}

static void two_processes(void **s)
{
    (void)s;
    enum { EACH = 40 };
    const char *path = in_dir("procs.db");
    pid_t       pid[3];
    drop(path);
    for (int p = 0; p < 3; p++) { /* the file is made by whoever is first */
        fflush(NULL);
        if ((pid[p] = fork()) == 0) {
            history *h;
            int64_t  own, id;
            MUST(hist_open(&h, path, HIST_WRITE, &e) == OK);
            MUST(hist_new(h, STR("own"), &own, &e) == OK);
            for (int i = 0; i < EACH; i++) {
                MUST(child_say(h, own, i, &id) == OK);
                MUST(child_say(h, 1, i, &id) == OK); /* all in the first conversation too */
            }
            hist_close(h);
            _exit(0);
        }
    }
    for (int p = 0; p < 3; p++) {
        int st;
        waitpid(pid[p], &st, 0);
        assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 0);
    }
    history *h;
    int64_t *ids;
    int      n;
    OKAY(hist_open(&h, path, HIST_READ, &e));
    OKAY(hist_turn_ids(h, 0, &mem, &ids, &n, &e));
    assert_int_equal(n, 3 * 2 * EACH);
    sound(h);
    hist_close(h);
}

static void locked(void **s)
{
    (void)s;
    const char *path = in_dir("lock.db");
    history    *h    = open_new(path);
    int64_t     conv;
    sqlite3    *db;
    OKAY(hist_new(h, STR(""), &conv, &e));
    assert_int_equal(sqlite3_open(path, &db), 0);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
    reply        r = some_reply(1, "a", "b", 1);
    respond_opts o = respond_defaults();
    int64_t      id;
    assert_int_equal(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e), E_DB); /* after 5 s */
    assert_non_null(strstr(e.msg, "locked by another program"));
    sound(h); /* reading goes on */
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), 0);
    OKAY(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e));
    sqlite3_close(db);
    hist_close(h);
}

/* What a killed program had reported as stored is there, and the chain is whole. */
static void killed(void **s)
{
    (void)s;
    const char *path = in_dir("killed.db");
    history    *h    = open_new(path);
    int64_t     conv, last = 0;
    OKAY(hist_new(h, STR(""), &conv, &e));
    hist_close(h);
    long reported = 0;
    for (int round = 0; round < 30; round++) {
        int fd[2];
        assert_int_equal(pipe(fd), 0);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            int64_t id;
            MUST(hist_open(&h, path, HIST_WRITE, &e) == OK);
            for (int i = 0;; i++) {
                MUST(child_say(h, conv, i, &id) == OK);
                MUST(write(fd[1], &id, sizeof id) == sizeof id);
            }
        }
        close(fd[1]);
        /* let it get some rows in, then kill it somewhere in the next ones */
        int64_t id;
        for (int i = 0; i < 1 + round % 3; i++)
            if (read(fd[0], &id, sizeof id) == sizeof id) last = id, reported++;
        usleep((useconds_t)draw(4000));
        kill(pid, SIGKILL);
        while (read(fd[0], &id, sizeof id) == sizeof id) last = id, reported++;
        close(fd[0]);
        int st;
        waitpid(pid, &st, 0);
        assert_true(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
        exchange x;
        OKAY(hist_open(&h, path, round % 2 ? HIST_WRITE : HIST_READ, &e));
        OKAY(hist_exchange(h, last, &mem, &x, &e));
        sound(h);
        int64_t *ids;
        int      n;
        OKAY(hist_turn_ids(h, 0, &mem, &ids, &n, &e));
        assert_true(n >= reported);
        assert_true(n <= reported + round + 1); /* at most one unreported row a round */
        hist_close(h);
        arena_reset(&mem);
    }
}

static void full_disk_child(void *p)
{
    history *h;
    int64_t  conv, id;
    int      r = OK, stored = 0;
    char    *m = malloc(100000);
    memset(m, 'x', 100000);
    struct rlimit lim = { 700000, 700000 };
    MUST(hist_open(&h, p, HIST_WRITE, &e) == OK);
    MUST(hist_new(h, STR(""), &conv, &e) == OK);
    signal(SIGXFSZ, SIG_IGN);
    MUST(setrlimit(RLIMIT_FSIZE, &lim) == 0);
    respond_opts o  = respond_defaults();
    reply        rp = some_reply(1, "a", "b", 1);
    rp.text         = (str){ m, 100000 };
    for (int i = 0; i < 40 && r == OK; i++) {
        r = hist_append(h, conv, &rp, &o, STR("x"), 1, &id, &e);
        stored += r == OK;
    }
    MUST(r == E_IO || r == E_DB);
    MUST(strstr(e.msg, "full.db") && strlen(e.msg) > 20);
    fprintf(stderr, "no room: %s\n", e.msg);
    int64_t *ids;
    int      n;
    MUST(hist_turn_ids(h, 0, &mem, &ids, &n, &e) == OK);
    MUST(n == stored && stored > 0);
    hist_close(h);
    _exit(stored);
}

static void full_disk(void **s)
{
    (void)s;
    const char *path = in_dir("full.db");
    drop(path);
    int      stored = in_child(full_disk_child, (void *)path), n;
    history *h;
    int64_t *ids;
    assert_true(stored > 0 && stored < 9);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    OKAY(hist_turn_ids(h, 0, &mem, &ids, &n, &e));
    assert_int_equal(n, stored);
    sound(h);
    say(h, 1, "room again", 1);
    sound(h);
    hist_close(h);
}

/* ---- opening and refusing ---- */

static void refused(const char *path, int flags, int code, const char *word)
{
    history       *h;
    size_t         n, m;
    unsigned char *before = slurp(path, &n);
    e.msg[0]              = 0;
    int r                 = hist_open(&h, path, flags, &e);
    if (r != code) fail_msg("%s: %d (%s), %d wanted", path, r, e.msg, code);
    assert_null(h);
    if (!strstr(e.msg, word) || !strstr(e.msg, path)) fail_msg("'%s' does not say '%s' of %s", e.msg, word, path);
    unsigned char *after = slurp(path, &m);
    assert_int_equal(n, m);
    if (before && n) assert_memory_equal(before, after, n);
    free(before);
    free(after);
}

static void foreign_files_are_refused(void **s)
{
    (void)s;
    const char *p = in_dir("foreign");
    for (int flags = HIST_READ; flags <= HIST_WRITE; flags++) {
        drop(p);
        spit(p, "not a database, but something dear to somebody, and long enough to be taken for a header of one hundred bytes", 105);
        refused(p, flags, E_DB, "not a database");
        spit(p, "SQLite format 3", 16);
        refused(p, flags, E_DB, "not a database");
        char junk[4096] = "SQLite format 3";
        spit(p, junk, sizeof junk);
        refused(p, flags, E_DB, "not a database");
        drop(p);
        raw(p, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        refused(p, flags, E_DB, "another program");
        raw(p, "PRAGMA application_id=1234");
        refused(p, flags, E_DB, "another program");
        drop(p);
        raw(p, "PRAGMA user_version=4");
        refused(p, flags, E_DB, "another program");
        drop(p);
        raw(p, "PRAGMA application_id=1148544372; PRAGMA user_version=4; CREATE TABLE conversation(id)");
        refused(p, flags, E_DB, "newer Duet");
        raw(p, "PRAGMA user_version=-1");
        refused(p, flags, E_DB, "never was");
        refused(dir, flags, E_IO, "folder");
        refused("/dev/null", flags, E_IO, "not a file");
        refused(in_dir("no/such/folders.db"), flags, E_IO, "no/such");
        drop(p);
    }
    char pipe_[300];
    snprintf(pipe_, sizeof pipe_, "%s/fifo", dir);
    assert_int_equal(mkfifo(pipe_, 0600), 0);
    history *h;
    assert_int_equal(hist_open(&h, pipe_, HIST_WRITE, &e), E_IO);
    refused(in_dir("missing.db"), HIST_READ, E_IO, "No such file");
    spit(p, "", 0);
    refused(p, HIST_READ, E_DB, "empty");
    OKAY(hist_open(&h, p, HIST_WRITE, &e)); /* an empty file may become one */
    sound(h);
    hist_close(h);
    assert_int_equal(hist_open(&h, "", HIST_WRITE, &e), E_ARG);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : st.st_mode & 07777;
}

static void private_whatever_the_umask(void **s)
{
    (void)s;
    static const mode_t masks[] = { 0, 022, 0777 };
    for (int i = 0; i < 3; i++) {
        char path[400], side[420];
        snprintf(path, sizeof path, "%s/sub%d/mask.db", dir, i);
        mode_t   old = umask(masks[i] & 077); /* the folder must be searchable for us */
        history *h;
        OKAY(hist_open(&h, path, HIST_WRITE, &e));
        hist_close(h);
        umask(masks[i]);
        drop(path);
        OKAY(hist_open(&h, path, HIST_WRITE, &e));
        int64_t conv;
        OKAY(hist_new(h, STR(""), &conv, &e));
        say(h, conv, "private", 1);
        umask(old);
        assert_int_equal(mode_of(path), 0600);
        snprintf(side, sizeof side, "%s-wal", path);
        assert_int_equal(mode_of(side), 0600);
        snprintf(side, sizeof side, "%s-shm", path);
        assert_int_equal(mode_of(side), 0600);
        *strrchr(path, '/') = 0;
        assert_int_equal(mode_of(path), 0700);
        hist_close(h);
    }
}

static void read_only_child(void *p)
{
    const char *path = p;
    history    *h;
    if (geteuid() == 0) MUST(setgid(65534) == 0 && setuid(65534) == 0);
    MUST(hist_open(&h, path, HIST_WRITE, &e) == E_IO);
    MUST(strstr(e.msg, "may not be written") || strstr(e.msg, "ermission denied"));
    MUST(hist_open(&h, path, HIST_READ, &e) == OK);
    int64_t bad, n;
    str     what;
    MUST(hist_verify(h, 0, &mem, &bad, &what, &n, &e) == OK && bad == 0 && n > 0);
    hist_close(h);
    char other[500];
    snprintf(other, sizeof other, "%s-new", path);
    MUST(hist_open(&h, other, HIST_WRITE, &e) == E_IO);
}

static void unwritable(void **s)
{
    (void)s;
    char sub[300], path[320], odd[340];
    snprintf(sub, sizeof sub, "%s/read only%%3f?#", dir); /* a name that would confuse an URI */
    snprintf(path, sizeof path, "%s/ro.db", sub);
    assert_int_equal(mkdir(sub, 0755), 0);
    chmod(dir, 0755);
    make_record(path);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(in_child(read_only_child, path), 0); /* folder may be searched but not written: no -shm can be made */
    chmod(sub, 0555);
    assert_int_equal(in_child(read_only_child, path), 0);
    chmod(sub, 0755);
    /* names that mean something to SQLite are names here */
    char cwd[1000];
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(chdir(dir), 0);
    static const char *const names[] = { ":memory:", "file:odd.db?mode=memory", "a'b\"c.db" };
    for (int i = 0; i < 3; i++) {
        history *h;
        OKAY(hist_open(&h, names[i], HIST_WRITE, &e));
        sound(h);
        hist_close(h);
        snprintf(odd, sizeof odd, "%s/%s", dir, names[i]);
        assert_int_equal(access(odd, F_OK), 0);
    }
    assert_int_equal(chdir(cwd), 0);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_handles),
        cmocka_unit_test(two_processes),
        cmocka_unit_test(locked),
        cmocka_unit_test(killed),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(foreign_files_are_refused),
        cmocka_unit_test(private_whatever_the_umask),
        cmocka_unit_test(unwritable),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, drop_folder);
}
