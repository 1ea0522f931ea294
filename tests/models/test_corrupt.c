/* The 302 broken files of tests/vectors/corrupt: each in a process of its own under 512 MB of address space and 10 seconds; refused with one line,
 * or accepted where that is right.  `test_corrupt --unpack DIR` writes the files out instead, for tests/e2e/corrupt.sh; a vocabulary gets a
 * model of its size beside it, so that importing the folder reads it. */
#define _GNU_SOURCE
#include "models/import.h"

#include "models/ops.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined __SANITIZE_ADDRESS__
enum { LIMITED = 0 }; /* the sanitizer's shadow needs the address space */
#else
enum { LIMITED = 1 };
#endif

typedef struct {
    char path[100], expect[16];
    buf  file[3];
    char name[3][40];
    int  n_file;
} one;

static char scratch[200];

static void die(const char *what, const char *about)
{
    fprintf(stderr, "%s: %s\n", about, what);
    exit(1);
}

/* ---- the case file ---- */

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static void add_hex(buf *to, const char *hex)
{
    for (; digit(hex[0]) >= 0 && digit(hex[1]) >= 0; hex += 2) buf_chr(to, (char)(digit(hex[0]) << 4 | digit(hex[1])));
    if (*hex) die("not hex", hex);
}

static void add_line(one *c, const char *line)
{
    char   base[40], path[100], hex[128];
    size_t from, n;
    buf   *to = &c->file[c->n_file - 1];
    if (line[0] == '=' && sscanf(line, "= %39s %zu %zu", base, &from, &n) == 3) {
        buf b = { 0 };
        err e = { 0 };
        snprintf(path, sizeof path, "tests/vectors/corrupt/%s", base);
        if (read_file(path, 1 << 20, &b, &e)) die(e.msg, path);
        if (from > b.n || n > b.n - from) die("past the base file", line);
        buf_add(to, b.s + from, n);
        buf_free(&b);
    } else if (line[0] == 'x') {
        add_hex(to, line + 2);
    } else if (line[0] == '"') {
        buf_str(to, str_of(line + 2));
    } else if (line[0] == '*' && sscanf(line, "* %zu %127s", &n, hex) == 2) {
        while (n--) add_hex(to, hex);
    } else {
        die("not understood", line);
    }
}

/* Every case of cases.txt to fn; returns their number. */
static int for_each_case(int (*fn)(one *))
{
    FILE  *f    = fopen("tests/vectors/corrupt/cases.txt", "r");
    char  *line = NULL;
    size_t cap  = 0;
    int    n    = 0;
    one    c    = { 0 };
    if (!f) die("cannot be opened", "tests/vectors/corrupt/cases.txt");
    for (;;) {
        ssize_t len = getline(&line, &cap, f);
        if (len > 0 && line[len - 1] == '\n') line[--len] = 0;
        if (len < 0 || strncmp(line, "case ", 5) == 0) {
            if (c.n_file) n += fn(&c);
            for (int i = 0; i < 3; i++) buf_free(&c.file[i]);
            c.n_file = 0;
            if (len < 0) break;
            if (sscanf(line, "case %99s %15s", c.path, c.expect) != 2) die("not understood", line);
        } else if (strncmp(line, "file ", 5) == 0) {
            snprintf(c.name[c.n_file++], sizeof c.name[0], "%s", line + 5);
        } else if (line[0] != '#') {
            add_line(&c, line);
        }
    }
    free(line);
    fclose(f);
    return n;
}

/* ---- folders ---- */

/* A model for a vocabulary of n tokens. */
static void put_model(const char *dir, int n)
{
    gpt2_config c = { .n_vocab = n, .n_ctx = 4, .n_embd = 4, .n_head = 1, .n_layer = 1, .n_inner = 4, .eps = 1e-5f, .act = ACT_GELU_NEW, .scale_attn = 1, .tied = 1 };
    gpt2_meta   m = { 0 };
    err         e = { 0 };
    char        path[400];
    gpt2_tensor *list;
    size_t       floats;
    if (gpt2_tensors(&c, &list, &floats, &e) < 0) die(e.msg, dir);
    float *slab = calloc(floats, sizeof *slab);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    if (!slab || gpt2_save(path, &c, slab, NULL, &m, NULL, &e) || export_model(path, dir, &e)) die(e.msg, dir);
    unlink(path);
    free(slab);
    free(list);
}

static int tokens_of(const char *dir)
{
    tokenizer *t = NULL;
    char       a[400], b[400], w[400];
    snprintf(a, sizeof a, "%s/vocab.json", dir);
    snprintf(b, sizeof b, "%s/merges.txt", dir);
    snprintf(w, sizeof w, "%s/vocab.txt", dir);
    int r = access(w, F_OK) == 0 ? tokenizer_open_wordpiece(&t, w, 1, NULL) : tokenizer_open_bpe(&t, a, b, NULL);
    int n = r == OK ? tokenizer_size(t) : 20;
    tokenizer_close(t);
    return n;
}

static void folder_of(const one *c, char dir[300])
{
    snprintf(dir, 300, "%s/%s", scratch, c->path);
    for (char *p = dir + strlen(scratch) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        mkdir(dir, 0777);
    }
    mkdir(dir, 0777);
}

static int unpack(one *c)
{
    char dir[300], path[400];
    folder_of(c, dir);
    for (int i = 0; i < c->n_file; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, c->name[i]);
        FILE *f = fopen(path, "wb");
        if (!f || (c->file[i].n && fwrite(c->file[i].s, 1, c->file[i].n, f) != c->file[i].n) || fclose(f)) die("cannot be written", path);
    }
    snprintf(path, sizeof path, "%s/expect", dir);
    FILE *f = fopen(path, "w");
    if (!f || fprintf(f, "%s\n", c->expect) < 0 || fclose(f)) die("cannot be written", path);
    return 1;
}

static int is_vocab(const one *c) { return strncmp(c->path, "vocab_", 6) == 0; }

static int unpack_with_model(one *c)
{
    char dir[300];
    unpack(c);
    folder_of(c, dir);
    if (is_vocab(c)) put_model(dir, tokens_of(dir));
    return 1;
}

/* ---- the test ---- */

/* In the child: 0 accepted, 10 refused with one line, 11 refused badly. */
static int try(const one *c)
{
    char  dir[300], path[400];
    err   e = { 0 };
    int   r;
    gpt2 *m = NULL;
    folder_of(c, dir);
    if (LIMITED) setrlimit(RLIMIT_AS, &(struct rlimit){ 512u << 20, 512u << 20 });
    setrlimit(RLIMIT_CPU, &(struct rlimit){ 10, 10 });
    if (is_vocab(c)) put_model(dir, tokens_of(dir));
    if (strcmp(c->name[0], "model.gguf") == 0) {
        snprintf(path, sizeof path, "%s/model.gguf", dir);
        r = gpt2_open(&m, path, &e);
    } else {
        snprintf(path, sizeof path, "%s/out.gguf", dir);
        r = import_model(dir, path, &(import_opts){ .lower = -1 }, &e);
        if (r == OK) r = gpt2_open(&m, path, &e); /* what was accepted is a model */
        else if (access(path, F_OK) == 0) return 11;
    }
    gpt2_close(m);
    if (r == OK) return 0;
    fprintf(stderr, "%-44s %s\n", c->path, e.msg);
    return r == e.code && e.msg[0] && !strchr(e.msg, '\n') ? 10 : 11;
}

static int bad;

static int check(one *c)
{
    unpack(c);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) _exit(try(c));
    int st = 0, rc;
    assert_int_equal(waitpid(pid, &st, 0), pid);
    rc             = WIFEXITED(st) ? WEXITSTATUS(st) : 100 + WTERMSIG(st);
    int may_accept = strcmp(c->expect, "reject") != 0, may_refuse = strcmp(c->expect, "accept") != 0;
    if ((rc == 0 && may_accept) || (rc == 10 && may_refuse)) return 1;
    print_error("%s: %s is wanted, the answer was %d (0 accepted, 10 refused, 11 refused without a proper line, 100+ died)\n", c->path, c->expect, rc);
    bad++;
    return 1;
}

static void broken_files_are_refused(void **s)
{
    (void)s;
    unlink("/tmp/oracle_pwned_marker");
    assert_int_equal(for_each_case(check), 302);
    assert_int_equal(bad, 0);
    assert_int_equal(access("/tmp/oracle_pwned_marker", F_OK), -1); /* no pickle was obeyed */
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
    (void)st, (void)flag, (void)w;
    return remove(path);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--unpack") == 0) {
        snprintf(scratch, sizeof scratch, "%s", argv[2]);
        return for_each_case(unpack_with_model) == 302 ? 0 : 1;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/duet-corrupt-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(scratch)) return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(broken_files_are_refused) };
    int                     failed  = cmocka_run_group_tests_name("corrupt", tests, NULL, NULL);
    nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed;
}
