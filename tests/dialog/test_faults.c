/* faults: the n-th write, sync or shortening of a file fails, for every n, in everything that changes a store: what was reported as stored is
 * there, the rest is not half there, the chain holds, and the store can be used on.  This program's own pwrite64, fsync… stand before those of
 * the C library: SQLite's library calls them. */
#include "tests/dialog/records.h"

#include "dialog/transfer.h"

#include <dlfcn.h>

static long     calls, fail_at; /* 0 = never */
static int      fail_with, keep_failing;
static unsigned fails;

static int fault(void)
{
    calls++;
    if (!fail_at || (keep_failing ? calls < fail_at : calls != fail_at)) return 0;
    fails++;
    errno = fail_with;
    return 1;
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) { return fault() ? -1 : REAL(pwrite64)(fd, p, n, at); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return fault() ? -1 : REAL(pwrite)(fd, p, n, at); }
/* Nobody pulls the plug here: what is not made to fail need not wait for the disk. */
int fsync(int fd) { return fault() ? -1 : fcntl(fd, F_GETFD) < 0 ? -1 : 0; }
int fdatasync(int fd) { return fault() ? -1 : fcntl(fd, F_GETFD) < 0 ? -1 : 0; }
int ftruncate64(int fd, off64_t n) { return fault() ? -1 : REAL(ftruncate64)(fd, n); }
int ftruncate(int fd, off_t n) { return fault() ? -1 : REAL(ftruncate)(fd, n); }

static void arm(long at, int with, int keep)
{
    calls        = 0;
    fails        = 0;
    fail_at      = at;
    fail_with    = with;
    keep_failing = keep;
}
static void disarm(void) { fail_at = 0; }

static void copy_file(const char *from, const char *to)
{
    size_t         n;
    unsigned char *p = slurp(from, &n);
    drop(to);
    spit(to, p, n);
    free(p);
}

/* The ids that were reported are there, and hardly more: an exchange whose commit failed at the last moment may be. */
static void check(const char *path, const int64_t *id, int n, int may_be)
{
    history *h;
    int64_t *ids;
    int      m;
    exchange x;
    OKAY(hist_open(&h, path, HIST_READ, &e));
    sound(h);
    for (int i = 0; i < n; i++) OKAY(hist_exchange(h, id[i], &mem, &x, &e));
    OKAY(hist_turn_ids(h, 0, &mem, &ids, &m, &e));
    if (m < n || m > n + may_be) fail_msg("%d exchanges are there, %d were reported, %d may be more", m, n, may_be);
    hist_close(h);
}

static void appending(void **s)
{
    (void)s;
    const char *base = in_dir("base.db"), *path = in_dir("append.db");
    history    *h    = open_new(base);
    int64_t     conv, first, id[8];
    OKAY(hist_new(h, STR(""), &conv, &e));
    first = say(h, conv, "the first", 0);
    hist_close(h);
    int tried = 0, hit = 0;
    for (int keep = 0; keep < 2; keep++)
        for (int code = 0; code < 2; code++)
            for (long at = 1;; at += keep ? 3 : 1) {
                copy_file(base, path);
                int n = 0, failed = 0;
                id[n++] = first;
                arm(at, code ? ENOSPC : EIO, keep);
                int r = hist_open(&h, path, HIST_WRITE, &e);
                for (int i = 1; i < 5 && r == OK; i++) {
                    reply        rp = some_reply(3, "words to be stored", "words", i);
                    respond_opts o  = respond_defaults();
                    e.msg[0]        = 0;
                    int q           = hist_append(h, conv, &rp, &o, STR("2026-11-24T15:04:05Z"), 1, &id[n], &e);
                    if (q == OK) n++;
                    else {
                        failed++;
                        assert_true(q == E_IO || q == E_DB);
                        assert_non_null(strstr(e.msg, "append.db"));
                    }
                }
                unsigned hits = fails;
                disarm();
                if (r == OK) { /* the same handle goes on when the fault is over */
                    if (!keep || failed) id[n++] = say(h, conv, "after all that", 9);
                    hist_close(h);
                } else assert_true(r == E_IO || r == E_DB);
                check(path, id, n, failed);
                tried++;
                hit += hits > 0;
                arena_reset(&mem);
                if (!hits) break;
                assert_true(at < 400);
            }
    print_message("%d faults while appending\n", hit);
    assert_true(hit > 40);
    assert_true(tried > hit);
}

static int next_line(void *ctx, str *line, err *er)
{
    str *all = ctx;
    (void)er;
    if (!all->n) return 0;
    const char *end = memchr(all->s, '\n', all->n);
    *line           = (str){ all->s, (size_t)(end - all->s) };
    all->n -= line->n + 1;
    all->s += line->n + 1;
    return 1;
}
static int keep_line(void *ctx, str line, err *er)
{
    (void)er;
    buf_str(ctx, line);
    buf_chr(ctx, '\n');
    return OK;
}

/* Forget, tag, judge, import, backup, schema step: done or not done. */
enum { FORGET, TAG, JUDGE, IMPORT, BACKUP, UPGRADE, ACTS };
static const char *const names[] = { "forget", "tag", "judge", "import", "backup", "upgrade" };

static int act(history *h, int what, const char *copy, str lines)
{
    hist_loaded l;
    switch (what) {
    case FORGET: return hist_forget(h, 1, 0, STR("2026-12-01T00:00:00Z"), NULL, &e);
    case TAG: return hist_tag(h, 1, STR("tag"), 1, NULL, &e);
    case JUDGE: return hist_judge(h, 1, STR("me"), JUDGE_OK, STR("note"), STR("2026-12-01T00:00:00Z"), &e);
    case IMPORT: return hist_load(h, next_line, &lines, &l, &e);
    default: return hist_backup(h, copy, STR("2026-12-01T00:00:00Z"), &e);
    }
}

static void all_or_nothing(void **s)
{
    (void)s;
    const char *base = in_dir("acts.db"), *path = in_dir("act.db"), *more = in_dir("more.db"), *copy = in_dir("copy.db");
    make_record(base);
    make_record(more); /* other keys: all of it is news to the first */
    history *h;
    buf      lines = { 0 };
    OKAY(hist_open(&h, more, HIST_READ, &e));
    for (int c = 1; c <= 3; c++) OKAY(hist_dump(h, c, keep_line, &lines, &e));
    hist_close(h);
    long rows = raw_int(base, "SELECT count(*) FROM turn"), erased = raw_int(base, "SELECT count(*) FROM turn WHERE what<3 AND salt IS NULL");
    for (int what = 0; what < ACTS; what++) {
        int hit = 0;
        for (long at = 1;; at += at < 20 ? 1 : 1 + at / 12) {
            copy_file(what == UPGRADE ? "tests/vectors/dialog/schema1.db" : base, path);
            drop(copy);
            int r = OK, opened = 0;
            if (what != UPGRADE) {
                OKAY(hist_open(&h, path, HIST_WRITE, &e));
                opened = 1;
            }
            arm(at, at % 2 ? EIO : ENOSPC, 0);
            r = what == UPGRADE ? hist_open(&h, path, HIST_WRITE, &e) : act(h, what, copy, buf_view(&lines));
            unsigned hits = fails;
            disarm();
            if (opened || r == OK) hist_close(h);
            if (r != OK) assert_true(r == E_IO || r == E_DB);
            OKAY(hist_open(&h, path, HIST_READ, &e));
            sound(h);
            hist_close(h);
            if (what == FORGET) {
                long now = raw_int(path, "SELECT count(*) FROM turn WHERE what<3 AND salt IS NULL");
                assert_true(now == erased || now == erased + 4);
                if (r == OK) assert_false(holds(path, "something to say 1 "));
            } else if (what == TAG) {
                long now = raw_int(path, "SELECT count(*) FROM tag");
                assert_true(now == 1 || (now == 0 && r != OK));
            } else if (what == JUDGE) {
                long now = raw_int(path, "SELECT count(*) FROM judgment");
                assert_true(now == 1 || (now == 0 && r != OK));
            } else if (what == IMPORT) {
                long now = raw_int(path, "SELECT count(*) FROM turn");
                assert_true(now == 2 * rows || (now == rows && r != OK));
            } else if (what == BACKUP) {
                if (access(copy, F_OK) == 0) { /* it is there: then it is whole */
                    OKAY(hist_open(&h, copy, HIST_READ, &e));
                    sound(h);
                    hist_close(h);
                    assert_int_equal(raw_int(copy, "SELECT count(*) FROM turn"), rows);
                } else assert_true(r != OK);
            }
            hit += hits > 0;
            arena_reset(&mem);
            if (!hits) {
                assert_int_equal(r, OK);
                break;
            }
            assert_true(at < 4000);
        }
        print_message("%s: %d faults\n", names[what], hit);
        assert_true(hit >= 3);
    }
    buf_free(&lines);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(appending), cmocka_unit_test(all_or_nothing) };
    return cmocka_run_group_tests_name("faults", tests, NULL, drop_folder);
}
