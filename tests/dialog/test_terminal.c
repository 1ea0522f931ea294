/* The conversation as a person at a terminal has it: a real pseudo-terminal, keys typed, the screen read.  Runs the program named by
 * $DUET (default build/duet) with the models that ship. */
#define _GNU_SOURCE
#include "models/base.h"

#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 60000 }; /* a sanitizer build on a busy machine is slow; a healthy run answers in a fraction of a second */

static char dir[] = "/tmp/duet-tty-XXXXXX";
static char program[4096];

typedef struct {
    pid_t  pid;
    int    fd;
    buf    seen;
    size_t mark; /* expect() looks behind this */
} screen;

static void start(screen *s, char *const argv[])
{
    struct winsize w = { .ws_row = 40, .ws_col = 120 };
    *s               = (screen){ 0 };
    s->pid           = forkpty(&s->fd, NULL, NULL, &w);
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        setenv("HOME", dir, 1);
        setenv("XDG_DATA_HOME", dir, 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        setenv("TERM", "xterm", 1);
        setenv("INPUTRC", "/dev/null", 1);
        execv(program, argv);
        _exit(127);
    }
}

static int pump(screen *s, int ms)
{
    struct pollfd p = { s->fd, POLLIN, 0 };
    char          b[4096];
    if (poll(&p, 1, ms) <= 0) return 0;
    ssize_t n = read(s->fd, b, sizeof b);
    if (n <= 0) return -1;
    buf_add(&s->seen, b, (size_t)n);
    return 1;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Does `what` come on the screen, behind the last thing expected, before `end`? */
static int comes(screen *s, const char *what, double end)
{
    for (;;) {
        char *hit = s->seen.n > s->mark ? memmem(s->seen.s + s->mark, s->seen.n - s->mark, what, strlen(what)) : NULL;
        if (hit) {
            s->mark = (size_t)(hit - s->seen.s) + strlen(what);
            return 1;
        }
        if (now_ms() > end || pump(s, 200) < 0) return 0;
    }
}
static void expect(screen *s, const char *what)
{
    if (comes(s, what, now_ms() + PATIENCE_MS)) return;
    fail_msg("'%s' did not come; the screen ends with:\n%s", what, s->seen.n > s->mark ? s->seen.s + s->mark : "(nothing)");
}

static void type(screen *s, const char *keys) { assert_int_equal(write(s->fd, keys, strlen(keys)), (ssize_t)strlen(keys)); }

static int leave(screen *s)
{
    int    status = 0;
    double end    = now_ms() + PATIENCE_MS;
    while (now_ms() < end && pump(s, 100) >= 0) {}
    pid_t got = 0;
    while (now_ms() < end && (got = waitpid(s->pid, &status, WNOHANG)) == 0) usleep(10000);
    if (got == 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, &status, 0);
        fail_msg("the chat did not end");
    }
    close(s->fd);
    buf_free(&s->seen);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The line editor is ready: what is typed before that may meet the terminal in another mode, where Ctrl-D is a NUL. */
static const char prompt[] = "\033[1;32m你>\033[0m ";
static void       ready(screen *s) { expect(s, prompt); }

#define ARGS(...) ((char *const[]){ program, __VA_ARGS__, NULL })

static void a_conversation(void **state)
{
    (void)state;
    screen s;
    char   db[300], text[300];
    snprintf(db, sizeof db, "%s/a.db", dir);
    snprintf(text, sizeof text, "/save %s/a.txt\r", dir);
    start(&s, ARGS("chat", "--db", db, "--seed", "1"));
    ready(&s);
    type(&s, "你好吗\x7f\r"); /* one backspace takes a whole character */
    expect(&s, "小对>");
    ready(&s);
    type(&s, "/cand\t\r"); /* completed */
    expect(&s, "/candidates");
    expect(&s, "反向");
    ready(&s);
    type(&s, "/set temperature 0.5\r");
    expect(&s, "temperature=0.5");
    ready(&s);
    type(&s, "/set temperature hot\r");
    expect(&s, "temperature=hot");
    ready(&s);
    type(&s, "/set nonsense 1\r");
    expect(&s, "'nonsense'");
    ready(&s);
    type(&s, "half a line");
    expect(&s, "half a line");
    int dropped = 0; /* Ctrl-C drops the line, not the chat; one that meets the line editor between two reads waits for the next */
    for (int i = 0; i < 20 && !dropped; i++) {
        type(&s, "\x03");
        dropped = comes(&s, prompt, now_ms() + 500);
    }
    assert_true(dropped);
    type(&s, "今天好累啊\r");
    expect(&s, "小对>");
    ready(&s);
    type(&s, "/retry\r");
    expect(&s, "小对>");
    ready(&s);
    type(&s, "/undo\r");
    expect(&s, "撤回");
    ready(&s);
    type(&s, "/history\r");
    expect(&s, "你好");
    expect(&s, "已撤回");
    ready(&s);
    type(&s, text);
    expect(&s, "2 行");
    ready(&s);
    type(&s, "/nothing\r");
    expect(&s, "没有命令 /nothing");
    ready(&s);
    type(&s, "/help\r");
    expect(&s, "Ctrl-D");
    ready(&s);
    type(&s, "\x1b[A\r"); /* the last line again, from readline's memory */
    expect(&s, "Ctrl-D");
    ready(&s);
    type(&s, "\x04");
    assert_int_equal(leave(&s), 0);

    buf b = { 0 };
    err e;
    snprintf(text, sizeof text, "%s/a.txt", dir);
    assert_int_equal(read_file(text, 1 << 20, &b, &e), OK);
    assert_true(str_starts(buf_view(&b), STR("你好\n")));
    buf_free(&b);

    start(&s, ARGS("chat", "--db", db, "--continue")); /* the newest goes on where it stopped */
    expect(&s, "你好");
    expect(&s, "1 轮");
    ready(&s);
    type(&s, "/resume\r");
    expect(&s, "/resume 号码");
    ready(&s);
    type(&s, "/resume 99\r");
    expect(&s, "99");
    ready(&s);
    type(&s, "/quit\r");
    assert_int_equal(leave(&s), 0);
}

static int db_holds(const char *db, const char *word)
{
    char path[320];
    int  found = 0;
    for (int i = 0; i < 2; i++) {
        buf b = { 0 };
        snprintf(path, sizeof path, "%s%s", db, i ? "-wal" : "");
        if (read_file(path, 64 << 20, &b, NULL) == OK) found |= b.n && memmem(b.s, b.n, word, strlen(word)) != NULL;
        buf_free(&b);
    }
    return found;
}

/* What a person asks to forget is gone from the store, its log, the backup and the line editor's memory; personal data never gets that
 * far, and the person is told of it once. */
static void forgetting(void **state)
{
    (void)state;
    screen s;
    char   db[300], copy[300], cmd[9000];
    snprintf(db, sizeof db, "%s/f.db", dir);
    snprintf(copy, sizeof copy, "%s/f-copy.db", dir);
    snprintf(cmd, sizeof cmd, "%s history backup --db %s %s >/dev/null", program, db, copy);
    start(&s, ARGS("chat", "--db", db, "--seed", "1", "-N", "2", "--max-new", "8"));
    ready(&s);
    type(&s, "我的手机号是13812345678\r");
    expect(&s, "个人信息已用标签代替");
    ready(&s);
    type(&s, "\x1b[A"); /* the line before, as it was stored */
    expect(&s, "我的手机号是[手机号]");
    type(&s, "\x15邮箱是某人abc@example.com\r");
    expect(&s, "小对>");
    ready(&s);
    type(&s, "我喜欢饕餮盛宴\r");
    expect(&s, "小对>");
    ready(&s);
    assert_int_equal(system(cmd), 0);
    assert_true(db_holds(db, "饕餮盛宴") && db_holds(copy, "饕餮盛宴"));
    assert_false(db_holds(db, "13812345678") || db_holds(db, "abc@example"));
    type(&s, "/forget 99\r");
    expect(&s, "nothing to forget");
    ready(&s);
    type(&s, "/forget x\r");
    expect(&s, "不是 'x'");
    ready(&s);
    type(&s, "/forget\r");
    expect(&s, "f-copy.db");
    expect(&s, "忘掉了 1 轮");
    ready(&s);
    assert_false(db_holds(db, "饕餮盛宴") || db_holds(copy, "饕餮盛宴"));
    size_t mark = s.mark;
    type(&s, "\x1b[A\x1b[A\x1b[A\x15/history\r"); /* nothing is left to scroll back to */
    expect(&s, "已忘掉");
    ready(&s);
    assert_null(memmem(s.seen.s + mark, s.seen.n - mark, "饕餮", strlen("饕餮")));
    type(&s, "/forget all\r");
    expect(&s, "忘掉了 2 轮");
    ready(&s);
    type(&s, "/retry\r");
    expect(&s, "还没有回复");
    ready(&s);
    type(&s, "再说一句\r");
    expect(&s, "小对>");
    ready(&s);
    type(&s, "/quit\r");
    char *first = memmem(s.seen.s, s.seen.n, "标签代替", strlen("标签代替"));
    assert_non_null(first); /* told once */
    assert_null(memmem(first + 1, s.seen.n - (size_t)(first + 1 - s.seen.s), "标签代替", strlen("标签代替")));
    assert_int_equal(leave(&s), 0);
    snprintf(cmd, sizeof cmd, "%s audit verify --db %s >/dev/null && %s audit verify --db %s >/dev/null", program, db, program, copy);
    assert_int_equal(system(cmd), 0);
}

static void control_c_stops_a_reply(void **state)
{
    (void)state;
    screen s;
    start(&s, ARGS("chat", "--private", "--seed", "1", "--threads", "1"));
    expect(&s, "你>");
    /* Work for seconds, so that the key certainly comes before the end. */
    type(&s, "/set n 256\r");
    expect(&s, "n=256");
    type(&s, "/set max_new 200\r");
    expect(&s, "max_new=200");
    type(&s, "/set min_new 120\r");
    expect(&s, "min_new=120");
    type(&s, "给我讲一个很长的故事\r");
    expect(&s, "/256");
    type(&s, "\x03");
    expect(&s, "停下了");
    type(&s, "/history\r");
    expect(&s, "这次对话还是空的"); /* nothing was recorded */
    type(&s, "/quit\r");
    assert_int_equal(leave(&s), 0);
}

static int setup(void **state)
{
    (void)state;
    const char *p = getenv("DUET");
    if (!realpath(p ? p : "build/duet", program)) return -1;
    return mkdtemp(dir) ? 0 : -1;
}
static int teardown(void **state)
{
    (void)state;
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest t[] = { cmocka_unit_test(a_conversation), cmocka_unit_test(forgetting), cmocka_unit_test(control_c_stops_a_reply) };
    return cmocka_run_group_tests_name("terminal", t, setup, teardown);
}
