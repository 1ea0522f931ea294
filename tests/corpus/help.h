/* help: what the tests of this room share.  Include after cmocka.h. */
#ifndef DUET_TESTS_CORPUS_HELP_H
#define DUET_TESTS_CORPUS_HELP_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "corpus/dialogue.h"

#define HELPER static inline __attribute__((unused))
#define S(x) str_of(x)

/* Dialogues as "a/b/c\n…" with weights and speakers when wanted. */
typedef struct {
    buf      text;
    int      n, details;
    uint64_t group[4096];
} collector;
HELPER int collect(void *ctx, const dialogue *d, err *e)
{
    collector *c = ctx;
    (void)e;
    if (c->n < 4096) c->group[c->n] = d->group;
    c->n++;
    for (int i = 0; i < d->n; i++) {
        if (i) buf_chr(&c->text, '/');
        if (c->details) buf_fmt(&c->text, "%d:%g:", d->turn[i].speaker, (double)d->turn[i].weight);
        buf_str(&c->text, d->turn[i].text);
    }
    buf_chr(&c->text, '\n');
    return OK;
}

HELPER const char *scratch_dir(void)
{
    static char dir[256];
    if (!dir[0]) {
        const char *t = getenv("TMPDIR");
        snprintf(dir, sizeof dir, "%s/duet-corpus-XXXXXX", t && *t ? t : "/tmp");
        assert_non_null(mkdtemp(dir));
    }
    return dir;
}
HELPER const char *scratch(const char *name)
{
    static char path[8][512];
    static int  k;
    char       *p = path[k++ & 7];
    snprintf(p, sizeof path[0], "%s/%s", scratch_dir(), name);
    return p;
}
HELPER int scratch_remove(void **state)
{
    char cmd[600];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", scratch_dir());
    return system(cmd);
}
HELPER void put_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

#endif
