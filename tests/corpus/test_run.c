/* run: a tiny model learns; a run that is stopped, or killed at any moment, and taken up again ends in the same bytes as one that was not; refusals.
 * Every training happens in a child process: the parent must not have started OpenMP's threads before it forks. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "corpus/run.h"
#include "tests/corpus/help.h"

static tokenizer *tok;
static char       dir[256];

/* Dialogues a small model can learn: the reply repeats the key word of the line before. */
static void write_shard(const char *path, const char *const *key, int n_key, int n, double share)
{
    shard_writer *w;
    unsigned char digest[32];
    err           e;
    tokenizer_digest(tok, digest);
    if (shard_create(&w, path, digest, tokenizer_size(tok), STR(""), share, 1, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < n; i++) {
        char text[4][64];
        turn t[4];
        ivec ids[4] = { { 0 } };
        for (int k = 0; k < 4; k++) {
            snprintf(text[k], sizeof text[k], k % 2 ? "yes %s" : "do you like %s", key[(i + k / 2) % n_key]);
            assert_int_equal(tokenizer_encode(tok, S(text[k]), &ids[k], &e), OK);
            t[k] = (turn){ .text = S(text[k]), .id = ids[k].v, .n = (int)ids[k].n, .weight = 1, .speaker = k % 2 };
        }
        if (shard_add(w, t, 2 + 2 * (i % 2), (uint64_t)i, &e)) fail_msg("%s", e.msg);
        for (int k = 0; k < 4; k++) ivec_free(&ids[k]);
    }
    if (shard_finish(w, NULL, &e)) fail_msg("%s", e.msg);
}

static const char *file(const char *name)
{
    static char path[8][512];
    static int  k;
    char       *p = path[k++ & 7];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int setup_all(void **state)
{
    (void)state;
    static const char *const fruit[] = { "apples", "pears", "plums" }, *const pets[] = { "cats", "dogs", "mice", "owls" };
    tokenizer_trainer       *tr;
    err                      e;
    snprintf(dir, sizeof dir, "%s", scratch_dir());
    assert_int_equal(tokenizer_trainer_new(&tr, TOK_WORDPIECE, 1, &e), OK);
    static const char *const lines[] = { "do you like apples", "do you like pears", "do you like plums",
                                         "do you like cats", "do you like dogs", "do you like mice", "do you like owls", "yes" };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) assert_int_equal(tokenizer_trainer_add(tr, S(lines[i]), 10, &e), OK);
    if (tokenizer_trainer_build(tr, 180, 1, &tok, &e)) fail_msg("%s", e.msg);
    tokenizer_trainer_free(tr);
    write_shard(file("fruit.shard"), fruit, 3, 60, 0.1);
    write_shard(file("pets.shard"), pets, 4, 80, 0.1);
    write_shard(file("all.shard"), pets, 4, 20, 0);
    return 0;
}
static int teardown_all(void **state)
{
    tokenizer_close(tok);
    return scratch_remove(state);
}

typedef struct {
    const char *name;       /* files NAME.gguf, NAME.ckpt, NAME.jsonl */
    const char *shard2;     /* NULL: fruit alone */
    int         reverse, resume, csv, no_log;
    long        stop_at;    /* ask to stop after this update; 0 = never */
    long        steps;
    double      lr;
    int         patience, judge, keep_last;
    int         threads;    /* 0 = 1 */
    int         slow;       /* milliseconds to wait after each update, so that a kill falls anywhere */
} job;

static int stop_watch(void *ctx, const run_status *s)
{
    const job *j = ctx;
    if (j->slow) nanosleep(&(struct timespec){ 0, j->slow * 1000000L }, NULL);
    return j->stop_at && s->step == j->stop_at;
}

/* The whole of a run.  Returns its status; message to `text` when not NULL. */
static int work(const job *j, char *text, run_status *last)
{
    shard      *s[2] = { NULL, NULL };
    loader     *l    = NULL;
    trainer    *t    = NULL;
    err         e    = { 0 };
    int         n    = j->shard2 ? 2 : 1;
    char        out[512], ckpt[512], log[512];
    special_ids sp   = tokenizer_specials(tok);
    omp_set_num_threads(j->threads ? j->threads : 1);
    gpt2_config c    = { tokenizer_size(tok), 32, 16, 2, 1, 32, 1e-5f, 0, 1, 0, 1 };
    gpt2_meta   meta = { .fmt = { FORMAT_CLS_SEP, sp.bos, sp.eos }, .role = j->reverse ? ROLE_BACKWARD : ROLE_FORWARD };
    train_opts  to   = train_defaults();
    to.dropout       = 0.1f;
    loader_opts lo   = { .fmt = meta.fmt, .reversed = j->reverse, .n_ctx = 32, .max_tok = 64, .max_seq = 9, .seed = 1 };
    snprintf(out, sizeof out, "%s/%s.gguf", dir, j->name);
    snprintf(ckpt, sizeof ckpt, "%s/%s.ckpt", dir, j->name);
    snprintf(log, sizeof log, "%s/%s.%s", dir, j->name, j->csv ? "csv" : "jsonl");
    run_opts o = { .accum = 2, .sched = SCHED_COSINE, .lr = j->lr > 0 ? j->lr : 0.01, .min_ratio = 0.1, .warmup = 3, .steps = j->steps, .n_mix = n == 2 ? 2 : 0,
                   .mix = { 0.9, 0.1 }, .mix_end = { 0.2, 0.8 }, .eval_every = 7, .patience = j->patience, .judge = j->judge, .keep_last = j->keep_last, .out = out, .checkpoint = ckpt,
                   .log = j->no_log ? NULL : log };
    int rc = shard_open(&s[0], file("fruit.shard"), &e);
    if (rc == OK && j->shard2) rc = shard_open(&s[1], file(j->shard2), &e);
    if (rc == OK) rc = loader_new(&l, (const shard *const *)s, n, &lo, &e);
    if (rc == OK) rc = trainer_new(&t, &c, &to, lo.max_tok, lo.max_seq, &e);
    if (rc == OK) trainer_init(t, 1);
    run_parts p = { t, l, (const shard *const *)s, n, &c, &to, tok, &meta };
    if (rc == OK) rc = run_train(&p, &o, j->resume, stop_watch, (void *)(uintptr_t)j, last, &e);
    if (text) snprintf(text, 240, "%s", e.msg);
    trainer_free(t);
    loader_free(l);
    shard_close(s[0]);
    shard_close(s[1]);
    return rc;
}

/* work() in a child; its status.  kill_after > 0: SIGKILL after so many milliseconds, then 1 when that is what ended it. */
typedef struct {
    int        rc;
    char       text[240];
    run_status last;
} answer;
static answer in_child(job j, int kill_after)
{
    answer a = { .rc = 99 };
    int    fd[2], st;
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fd[0]);
        a.rc = work(&j, a.text, &a.last);
        _exit(write(fd[1], &a, sizeof a) != (ssize_t)sizeof a);
    }
    close(fd[1]);
    if (kill_after) {
        nanosleep(&(struct timespec){ kill_after / 1000, kill_after % 1000 * 1000000L }, NULL);
        kill(pid, SIGKILL);
    }
    if (read(fd[0], &a, sizeof a) != (ssize_t)sizeof a) a.rc = 1;
    close(fd[0]);
    assert_int_equal(waitpid(pid, &st, 0), pid);
    assert_true((WIFEXITED(st) && WEXITSTATUS(st) == 0) || (kill_after && WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL));
    return a;
}

static void same_file(const char *a, const char *b)
{
    buf x = { 0 }, y = { 0 };
    err e;
    if (read_file(a, 1 << 24, &x, &e) || read_file(b, 1 << 24, &y, &e)) fail_msg("%s", e.msg);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.s, y.s, x.n);
    buf_free(&x);
    buf_free(&y);
}

/* Log lines as "step loss norm" or "step ppl best", without clocks. */
static void read_log(const char *path, buf *out)
{
    buf b = { 0 };
    str line, rest;
    assert_int_equal(read_file(path, 1 << 24, &b, NULL), OK);
    rest = buf_view(&b);
    while (next_line(&rest, &line)) {
        char copy[2048];
        assert_true(line.n < sizeof copy);
        memcpy(copy, line.s, line.n);
        copy[line.n] = 0;
        static const char *const keys[] = { "\"step\":", "\"lr\":", "\"loss\":", "\"norm\":", "\"ppl\":", "\"best\":" };
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            const char *at = strstr(copy, keys[k]);
            if (at) buf_fmt(out, "%s%.*s ", keys[k], (int)strcspn(at + strlen(keys[k]), ",}"), at + strlen(keys[k]));
        }
        buf_chr(out, '\n');
    }
    buf_free(&b);
}

static void same_log(const char *a, const char *b)
{
    buf x = { 0 }, y = { 0 };
    read_log(a, &x);
    read_log(b, &y);
    assert_string_equal(x.s, y.s);
    buf_free(&x);
    buf_free(&y);
}

static void learns(void **state)
{
    (void)state;
    for (int reverse = 0; reverse < 2; reverse++) {
        answer a = in_child((job){ .name = reverse ? "back" : "forth", .steps = 90, .reverse = reverse }, 0);
        if (a.rc) fail_msg("%s", a.text);
        assert_int_equal(a.last.step, 90);
        /* The key word is one of three that must be copied, everything else is fixed: far below the first perplexity (about the vocabulary's size). */
        assert_true(a.last.best < 2.5);
        buf    log   = { 0 };
        double least = INFINITY; /* the best is the least of what was seen, and OUT is that one: its step is in the log with that number */
        int    looks = 0;
        assert_int_equal(read_file(file(reverse ? "back.jsonl" : "forth.jsonl"), 1 << 24, &log, NULL), OK);
        for (const char *at = log.s; (at = strstr(at, ",\"ppl\":")) != NULL; at += 7)
            if (strstr(at, ",\"best\":") == at + 7 + strcspn(at + 7, ",")) {
                double ppl = atof(at + 7);
                if (ppl < least) least = ppl;
                looks++;
            }
        buf_free(&log);
        assert_int_equal(looks, 14); /* 0, 7 … 84, 90 */
        assert_true(fabs(least - a.last.best) < 1e-5);
        gguf       *g;
        gpt2_meta   m;
        gpt2_config c;
        err         e;
        if (gguf_open(&g, file(reverse ? "back.gguf" : "forth.gguf"), &e)) fail_msg("%s", e.msg);
        assert_int_equal(gpt2_read_config(g, &c, &e), OK);
        assert_int_equal(gpt2_read_meta(g, tok, &m, &e), OK);
        assert_int_equal(m.role, reverse ? ROLE_BACKWARD : ROLE_FORWARD);
        assert_int_equal(m.fmt.kind, FORMAT_CLS_SEP);
        assert_int_equal(c.n_vocab, tokenizer_size(tok));
        assert_null(gguf_find(g, "opt.m.token_embd.weight")); /* an ordinary model */
        gguf_close(g);
    }
}

static void stopped_and_resumed(void **state)
{
    (void)state;
    answer a = in_child((job){ .name = "whole", .shard2 = "pets.shard", .threads = 2, .steps = 40 }, 0);
    if (a.rc) fail_msg("%s", a.text);
    a = in_child((job){ .name = "parts", .shard2 = "pets.shard", .threads = 2, .steps = 40, .stop_at = 10 }, 0); /* between two looks */
    assert_int_equal(a.rc, E_CANCEL);
    assert_non_null(strstr(a.text, "stopped at step 10"));
    a = in_child((job){ .name = "parts", .shard2 = "pets.shard", .threads = 2, .steps = 40, .resume = 1, .stop_at = 21 }, 0); /* at a look */
    assert_int_equal(a.rc, E_CANCEL);
    a = in_child((job){ .name = "parts", .shard2 = "pets.shard", .threads = 2, .steps = 40, .resume = 1 }, 0);
    if (a.rc) fail_msg("%s", a.text);
    same_file(file("whole.gguf"), file("parts.gguf"));
    same_log(file("whole.jsonl"), file("parts.jsonl"));
}

static void killed_and_resumed(void **state)
{
    (void)state;
    answer a      = in_child((job){ .name = "calm", .shard2 = "pets.shard", .steps = 60 }, 0);
    int    killed = 0, resume = 0;
    if (a.rc) fail_msg("%s", a.text);
    for (int i = 0; i < 200; i++) {
        resume = access(file("hunted.ckpt"), F_OK) == 0;
        a      = in_child((job){ .name = "hunted", .shard2 = "pets.shard", .steps = 60, .resume = resume, .slow = 2 }, i < 40 ? 20 + i * 37 % 113 : 0);
        if (access(file("hunted.gguf"), F_OK) == 0) { /* whatever stands there is whole */
            gguf *g;
            err   e;
            if (gguf_open(&g, file("hunted.gguf"), &e)) fail_msg("%s", e.msg);
            gguf_close(g);
        }
        if (a.rc == OK) break;
        if (a.rc != 1) fail_msg("%s", a.text);
        killed++;
    }
    assert_int_equal(a.rc, OK);
    assert_true(killed >= 1);
    same_file(file("calm.gguf"), file("hunted.gguf"));
    same_log(file("calm.jsonl"), file("hunted.jsonl"));
}

static void logs_as_csv(void **state)
{
    (void)state;
    answer a = in_child((job){ .name = "table", .steps = 14, .csv = 1, .stop_at = 9 }, 0);
    assert_int_equal(a.rc, E_CANCEL);
    FILE *f = fopen(file("table.csv"), "ab"); /* what a kill leaves: lines past the checkpoint, the last one cut */
    assert_non_null(f);
    fputs("10,1,1,1,1,1,,\n1", f);
    fclose(f);
    a = in_child((job){ .name = "table", .steps = 14, .csv = 1, .resume = 1 }, 0);
    if (a.rc) fail_msg("%s", a.text);
    buf b = { 0 };
    str line, rest;
    assert_int_equal(read_file(file("table.csv"), 1 << 20, &b, NULL), OK);
    rest   = buf_view(&b);
    int  n = 0, last = -1, looks = 0;
    while (next_line(&rest, &line)) {
        if (n++ == 0) {
            assert_true(str_eq(line, STR("step,lr,loss,norm,tokens_s,seconds,ppl,best")));
            continue;
        }
        int step = atoi(line.s);
        if (step == last || n == 2) looks++;
        else assert_int_equal(step, last + 1);
        last = step;
        int commas = 0;
        for (size_t i = 0; i < line.n; i++) commas += line.s[i] == ',';
        assert_int_equal(commas, 7);
    }
    assert_int_equal(last, 14);
    assert_int_equal(looks, 3); /* at 0, 7, 14 */
    assert_int_equal(n, 1 + 14 + 3);
    buf_free(&b);
}

static void stops_early(void **state)
{
    (void)state;
    answer a = in_child((job){ .name = "early", .steps = 4000, .lr = 1e-12, .patience = 2, .no_log = 1 }, 0); /* nothing can get better */
    if (a.rc) fail_msg("%s", a.text);
    assert_true(a.last.stopped_early && a.last.step <= 7 * 4);
}

/* A learning rate so high that the model gets worse: OUT is the last one only when asked for, and that is what the checkpoint holds. */
static void keeps_the_last(void **state)
{
    (void)state;
    for (int last = 0; last < 2; last++) {
        answer a = in_child((job){ .name = "keep", .steps = 14, .lr = 30, .keep_last = last, .no_log = 1 }, 0);
        if (a.rc) fail_msg("%s", a.text);
        assert_true(a.last.best_step < 14);
        gguf *out, *ckpt;
        err   e;
        if (gguf_open(&out, file("keep.gguf"), &e) || gguf_open(&ckpt, file("keep.ckpt"), &e)) fail_msg("%s", e.msg);
        const gguf_tensor *x = gguf_find(out, "token_embd.weight"), *y = gguf_find(ckpt, "token_embd.weight");
        assert_non_null(x);
        assert_non_null(y);
        assert_int_equal(memcmp(x->data, y->data, x->n_bytes) == 0, last);
        gguf_close(out);
        gguf_close(ckpt);
    }
}

static void refusals(void **state)
{
    (void)state;
    answer a = in_child((job){ .name = "r", .steps = 5, .shard2 = "all.shard" }, 0);
    assert_int_equal(a.rc, E_FORMAT);
    assert_non_null(strstr(a.text, "held-out part is empty"));
    a = in_child((job){ .name = "r", .steps = 0 }, 0);
    assert_int_equal(a.rc, E_ARG);
    a = in_child((job){ .name = "r", .steps = 5, .judge = 2 }, 0);
    assert_int_equal(a.rc, E_ARG);
    a = in_child((job){ .name = "nothing", .steps = 5, .resume = 1 }, 0);
    assert_int_equal(a.rc, E_IO);
    a = in_child((job){ .name = "r", .steps = 20, .stop_at = 5 }, 0);
    assert_int_equal(a.rc, E_CANCEL);
    a = in_child((job){ .name = "r", .steps = 30, .resume = 1 }, 0); /* another run: the schedule would differ */
    assert_int_equal(a.rc, E_ARG);
    assert_non_null(strstr(a.text, "had steps=20, now it is steps=30"));
    a = in_child((job){ .name = "r", .steps = 20, .resume = 1, .reverse = 1 }, 0);
    assert_int_equal(a.rc, E_ARG);
    a = in_child((job){ .name = "r", .steps = 20, .resume = 1, .shard2 = "pets.shard" }, 0);
    assert_int_equal(a.rc, E_ARG);
    assert_int_equal(rename(file("r.gguf"), file("r.ckpt")), 0); /* an ordinary model is no checkpoint */
    a = in_child((job){ .name = "r", .steps = 20, .resume = 1 }, 0);
    assert_true(a.rc < 0 && a.text[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns),      cmocka_unit_test(stopped_and_resumed), cmocka_unit_test(killed_and_resumed),
        cmocka_unit_test(logs_as_csv), cmocka_unit_test(stops_early),         cmocka_unit_test(refusals),
        cmocka_unit_test(keeps_the_last),
    };
    return cmocka_run_group_tests_name("run", tests, setup_all, teardown_all);
}
