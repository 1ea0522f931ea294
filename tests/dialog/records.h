/* What the tests of the store share: a scratch folder, replies made by hand, SQL behind the module's back (through the
 * functions of SQLite declared below: sqlite3.h is the store's alone).  Include first; a test that includes it is one program
 * with one folder. */
#ifndef DUET_TESTS_RECORDS_H
#define DUET_TESTS_RECORDS_H

#define _GNU_SOURCE
#include "dialog/chain.h"
#include "dialog/history.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define HELPER static inline __attribute__((unused))

typedef struct sqlite3 sqlite3;
int  sqlite3_open(const char *, sqlite3 **);
int  sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
int  sqlite3_close(sqlite3 *);
int  sqlite3_total_changes(sqlite3 *);
void sqlite3_free(void *);

static char  dir[256];
static arena mem;
static err   e;
#define OKAY(call) do { int rc_ = (call); if (rc_) fail_msg("%s: %d: %s", #call, rc_, e.msg); } while (0)

HELPER const char *in_dir(const char *name)
{
    static char path[8][512];
    static int  k;
    k = (k + 1) % 8;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}
HELPER void drop(const char *path)
{
    char p[600];
    unlink(path);
    snprintf(p, sizeof p, "%s-wal", path);
    unlink(p);
    snprintf(p, sizeof p, "%s-shm", path);
    unlink(p);
}

/* SQL behind the module's back; returns the number of changed rows, -1 when SQLite refused. */
HELPER int raw(const char *path, const char *fmt, ...)
{
    sqlite3 *db;
    char    *sql, *msg = NULL;
    va_list  ap;
    va_start(ap, fmt);
    assert_true(vasprintf(&sql, fmt, ap) > 0);
    va_end(ap);
    assert_int_equal(sqlite3_open(path, &db), 0);
    int rc = sqlite3_exec(db, sql, NULL, NULL, &msg), n = sqlite3_total_changes(db);
    sqlite3_free(msg);
    assert_int_equal(sqlite3_close(db), 0);
    free(sql);
    return rc ? -1 : n;
}
HELPER int keep_int(void *to, int n, char **v, char **names)
{
    (void)names;
    if (n > 0 && v[0]) *(long *)to = atol(v[0]);
    return 0;
}
HELPER long raw_int(const char *path, const char *sql)
{
    sqlite3 *db;
    long     v = -999;
    assert_int_equal(sqlite3_open(path, &db), 0);
    assert_int_equal(sqlite3_exec(db, sql, keep_int, &v, NULL), 0);
    assert_int_equal(sqlite3_close(db), 0);
    return v;
}

/* ---- files ---- */

/* NULL when it is no file. */
HELPER unsigned char *slurp(const char *path, size_t *n)
{
    struct stat st;
    FILE       *f = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL;
    if (!f) return *n = 0, NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *p = malloc(*n + 1);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}
HELPER void spit(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
HELPER int holds(const char *path, const char *word)
{
    size_t         n;
    unsigned char *p   = slurp(path, &n);
    int            yes = p && memmem(p, n, word, strlen(word)) != NULL;
    free(p);
    return yes;
}

/* ---- replies by hand ---- */

static uint64_t draw_seed = 1, draw_at;
HELPER int      draw(int n) { return (int)rng_below(draw_seed, 7, draw_at++, (uint64_t)n); }
HELPER int     *some_ids(int n)
{
    int *id = arena_new(&mem, (size_t)n, sizeof *id);
    for (int i = 0; i < n; i++) id[i] = draw(13317);
    return id;
}
HELPER verdict some_verdict(int hits, size_t text)
{
    verdict v = { .action = hits ? 1 + draw(4) : 0, .rule = hits ? draw(90) : -1, .n_hit = hits };
    if (hits) v.hit = arena_new(&mem, (size_t)hits, sizeof *v.hit);
    for (int i = 0; i < hits; i++) {
        size_t from = text ? (size_t)draw((int)text) : 0;
        v.hit[i]    = (safety_hit){ draw(90), draw(2), from, from + (size_t)draw(9) };
    }
    return v;
}
/* An ordinary exchange; `salt` makes texts differ. */
HELPER reply some_reply(int n_cand, const char *user, const char *said, int number)
{
    reply r   = { .kind = REPLY_MODEL, .n = n_cand, .chosen = n_cand - 1, .cut = draw(3), .evaluated = 1 + draw(50) };
    char  t[400];
    snprintf(t, sizeof t, "%s %d", said, number);
    r.text = arena_str(&mem, str_of(t), NULL);
    snprintf(t, sizeof t, "%s %d", user, number);
    r.user_text    = arena_str(&mem, str_of(t), NULL);
    r.n_id         = 1 + draw(5);
    r.id           = some_ids(r.n_id);
    r.n_user_id    = 1 + draw(5);
    r.user_id      = some_ids(r.n_user_id);
    r.user_v       = some_verdict(draw(3), r.user_text.n);
    r.fwd_digest   = "a111111111111111111111111111111111111111111111111111111111111111";
    r.bwd_digest   = "b222222222222222222222222222222222222222222222222222222222222222";
    r.rules_digest = "c333333333333333333333333333333333333333333333333333333333333333";
    r.numerics     = "ops1 test";
    memset(r.prompt_digest, "0123456789abcdef"[draw(16)], 64);
    r.cand = arena_new(&mem, (size_t)n_cand, sizeof *r.cand);
    for (int k = 0; k < n_cand; k++) {
        candidate *c = &r.cand[k];
        snprintf(t, sizeof t, "candidate %d of %d", k, number);
        c->text = arena_str(&mem, str_of(t), NULL);
        c->n    = draw(6);
        c->id   = some_ids(c->n);
        *c      = (candidate){ .text = c->text, .id = c->id, .n = c->n, .ended = draw(2), .fate = k % 6, .dup_of = k % 6 == CAND_DUPLICATE ? 0 : -1,
                               .fwd = -0.1 * draw(1000), .bwd = k % 2 ? NAN : -1.0 / 3 * draw(1000), .n_source = draw(20),
                               .score = k % 3 ? -0.7 * draw(99) : NAN, .v = some_verdict(k % 3, c->text.n) };
    }
    return r;
}

HELPER history *open_new(const char *path)
{
    history *h;
    drop(path);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    return h;
}
HELPER int64_t add(history *h, int64_t conv, const reply *r)
{
    respond_opts o = respond_defaults();
    int64_t      id;
    o.seed = 0xFEDCBA9876543210u + (uint64_t)draw(1000);
    OKAY(hist_append(h, conv, r, &o, STR("2026-11-24T15:04:05Z"), 0.25, &id, &e));
    return id;
}
HELPER int64_t say(history *h, int64_t conv, const char *user, int number)
{
    reply r = some_reply(3, user, "reply", number);
    return add(h, conv, &r);
}
/* The difference that verify finds, "" when none. */
HELPER const char *verify(history *h, int64_t conv)
{
    int64_t bad, n;
    str     what;
    OKAY(hist_verify(h, conv, &mem, &bad, &what, &n, &e));
    assert_true((bad == 0) == (what.n == 0));
    return what.s;
}
HELPER void sound(history *h)
{
    const char *w = verify(h, 0);
    if (w[0]) fail_msg("verify: %s", w);
}

/* Three conversations with every kind of row; closed, so that the one file holds everything. */
HELPER void make_record(const char *path)
{
    history *h = open_new(path);
    int64_t  conv[3];
    for (int c = 0; c < 3; c++) OKAY(hist_new(h, STR(""), &conv[c], &e));
    for (int i = 0; i < 4; i++)
        for (int c = 0; c < 3; c++) {
            reply r = some_reply(6, "something to say", "something to answer", 10 * c + i);
            if (i == 2) {
                r.kind   = REPLY_REFUSED;
                r.chosen = -1;
            }
            r.user_v = some_verdict(2, r.user_text.n);
            add(h, conv[c], &r);
            if (i == 1) OKAY(hist_undo(h, conv[c], STR("2026-11-24T15:04:09Z"), NULL, &e));
        }
    OKAY(hist_forget(h, conv[2], 1, STR("2026-11-24T15:04:10Z"), NULL, &e));
    sound(h);
    hist_close(h);
}

HELPER void same_double(double a, double b)
{
    if (isnan(a) && isnan(b)) return;
    a = a == 0 ? 0 : a; /* -0 and +0 are one value to the record */
    b = b == 0 ? 0 : b;
    assert_memory_equal(&a, &b, sizeof a);
}
HELPER void same_text(str a, str b)
{
    assert_int_equal(a.n, b.n);
    assert_true(str_eq(a, b));
}
HELPER void same_ids(const int *a, int n, const int *b, int m)
{
    assert_int_equal(n, m);
    if (n) assert_memory_equal(a, b, (size_t)n * sizeof *a);
}
HELPER void same_verdict(const verdict *a, const verdict *b)
{
    assert_int_equal(a->action, b->action);
    assert_int_equal(a->rule, b->rule);
    assert_int_equal(a->n_hit, b->n_hit);
    for (int i = 0; i < a->n_hit; i++) {
        assert_int_equal(a->hit[i].rule, b->hit[i].rule);
        assert_int_equal(a->hit[i].limit, b->hit[i].limit);
        assert_int_equal(a->hit[i].from, b->hit[i].from);
        assert_int_equal(a->hit[i].to, b->hit[i].to);
    }
}
HELPER void same_reply(const reply *a, const reply *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->chosen, b->chosen);
    assert_int_equal(a->cut, b->cut);
    assert_int_equal(a->evaluated, b->evaluated);
    same_text(a->text, b->text);
    same_ids(a->id, a->n_id, b->id, b->n_id);
    same_text(a->user_text, b->user_text);
    same_ids(a->user_id, a->n_user_id, b->user_id, b->n_user_id);
    same_verdict(&a->user_v, &b->user_v);
    assert_string_equal(a->prompt_digest, b->prompt_digest);
    assert_string_equal(a->fwd_digest, b->fwd_digest);
    assert_string_equal(a->bwd_digest, b->bwd_digest);
    assert_string_equal(a->rules_digest, b->rules_digest);
    assert_string_equal(a->numerics, b->numerics);
    assert_int_equal(a->n, b->n);
    for (int k = 0; k < a->n; k++) {
        const candidate *c = &a->cand[k], *d = &b->cand[k];
        same_text(c->text, d->text);
        same_ids(c->id, c->n, d->id, d->n);
        assert_int_equal(c->ended, d->ended);
        assert_int_equal(c->fate, d->fate);
        assert_int_equal(c->dup_of, d->dup_of);
        assert_int_equal(c->n_source, d->n_source);
        same_double(c->fwd, d->fwd);
        same_double(c->bwd, d->bwd);
        same_double(c->score, d->score);
        same_verdict(&c->v, &d->v);
    }
}

/* ---- the scratch folder ---- */

HELPER int make_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/duet-records-XXXXXX", tmp && strlen(tmp) < 200 ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : 1;
}
HELPER int drop_folder(void **s)
{
    (void)s;
    char cmd[600];
    arena_free(&mem);
    snprintf(cmd, sizeof cmd, "chmod -R u+w '%s'; rm -rf '%s'", dir, dir);
    return system(cmd);
}

#endif
