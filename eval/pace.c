/* pace: see pace.h. */
#include "eval/pace.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static const str zh[] = {
    STR("你好"), STR("最近工作好累，每天都加班到很晚"), STR("周末想出去走走，有什么建议吗？"), STR("我喜欢爬山，但是一个人去有点无聊"), STR("好的，谢谢你"), STR("晚安"),
    STR("我养了一只猫，叫团团"), STR("它今天不吃东西，我有点担心"), STR("要不要带它去看医生？"), STR("你会做什么呀"), STR("给我讲个笑话吧"), STR("哈哈，真有意思"),
    STR("今天下雨了，出门忘了带伞"), STR("晚饭吃什么好呢？"), STR("我不太会做饭"), STR("明天有考试，好紧张"), STR("我怕考不好"), STR("听你这么说我好多了"),
};
static const str en[] = {
    STR("Hello there"), STR("I have been working late every day and I am tired"), STR("What could I do at the weekend?"), STR("I like hiking, but not alone"), STR("Thank you"),
    STR("Good night"), STR("I have a cat, she is two years old"), STR("She did not eat anything today and I am worried"), STR("Should I see a doctor with her?"),
    STR("What can you do?"), STR("Tell me a joke"), STR("That is a good one"),
};

const str *pace_lines(int lang, int *n)
{
    *n = lang ? (int)(sizeof en / sizeof *en) : (int)(sizeof zh / sizeof *zh);
    return lang ? en : zh;
}

/* History of a conversation under way, in its own memory: that of a turn goes with the turn. */
enum { LINES = 6 };
typedef struct {
    arena a;
    turn  t[2 * LINES];
    int   n;
} talk;

static int keep(talk *h, str text, const int *id, int n, err *e)
{
    turn *t  = &h->t[h->n++];
    int  *to = arena_new(&h->a, (size_t)n + 1, sizeof *to);
    *t       = (turn){ .text = arena_str(&h->a, text, e), .id = to, .n = n, .weight = 1, .speaker = h->n % 2 ? 0 : 1 };
    if (!to || !t->text.s) return err_set(e, E_NOMEM, "out of memory");
    if (n) memcpy(to, id, (size_t)n * sizeof *to);
    return OK;
}

static void add_reply(pace *p, sha256 *h, const reply *x)
{
    for (int k = 0; k < x->n; k++) {
        const candidate *c = &x->cand[k];
        p->tokens += c->n + c->ended;
        p->candidates += c->bwd == c->bwd && c->fate != CAND_DUPLICATE;
        sha256_add(h, c->id, (size_t)c->n * sizeof *c->id);
        sha256_add(h, &c->score, sizeof c->score);
    }
}

static void sum_up(pace *p, double *wall, const double *foreign, int turns)
{
    int quiet = 0, n = 0;
    for (int i = 0; i < turns; i++) quiet += foreign[i] <= STOPWATCH_DISTURBED;
    for (int i = 0; i < turns; i++)
        if (2 * quiet < turns || foreign[i] <= STOPWATCH_DISTURBED) wall[n++] = wall[i], p->mean += wall[i];
    p->turns     = turns;
    p->disturbed = turns - quiet;
    p->mean /= n;
    p->p50 = stopwatch_quantile(wall, n, 0.5);
    p->p95 = stopwatch_quantile(wall, n, 0.95);
    p->max = wall[n - 1];
    p->tokens /= turns + 1;
    p->candidates /= turns + 1;
}

int pace_talk(responder *r, const respond_opts *o, const str *line, int n, int turns, pace *p, err *e)
{
    double       *wall = calloc((size_t)turns + 1, sizeof *wall), *foreign = calloc((size_t)turns + 1, sizeof *foreign);
    arena         a = { 0 };
    talk          h = { .n = 0 };
    sha256        sum;
    unsigned char d[32];
    char          hex[65];
    int           got = wall && foreign ? OK : err_set(e, E_NOMEM, "out of memory");
    *p = (pace){ 0 };
    sha256_init(&sum);
    for (int i = 0; i <= turns && got == OK; i++) {
        stopwatch w;
        reply     x;
        if (i % LINES == 0) arena_reset(&h.a), h.n = 0;
        arena_reset(&a);
        stopwatch_start(&w);
        got = respond(r, h.t, h.n, line[i % n], o, &a, &x, e);
        stopwatch_stop(&w);
        if (got) break;
        if (i == 0) p->first = w.wall;
        else wall[i - 1] = w.wall, foreign[i - 1] = w.foreign;
        add_reply(p, &sum, &x);
        got = keep(&h, x.user_text, x.user_id, x.n_user_id, e);
        if (got == OK) got = keep(&h, x.text, x.id, x.n_id, e);
    }
    if (got == OK) {
        sum_up(p, wall, foreign, turns);
        sha256_end(&sum, d);
        sha256_hex(d, hex);
        memcpy(p->hash, hex, 16);
    }
    arena_free(&a);
    arena_free(&h.a);
    free(wall);
    free(foreign);
    return got;
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

int pace_program(char *const *argv, stopwatch *w, err *e)
{
    posix_spawn_file_actions_t a;
    pid_t pid;
    int   status, r;
    posix_spawn_file_actions_init(&a);
    posix_spawn_file_actions_addopen(&a, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&a, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&a, 2, "/dev/null", O_WRONLY, 0);
    stopwatch_start(w);
    r = posix_spawn(&pid, argv[0], &a, NULL, argv, environ);
    if (r == 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    stopwatch_stop(w);
    posix_spawn_file_actions_destroy(&a);
    if (r) return err_set(e, E_IO, "%s: cannot be started: %s", argv[0], strerror(r));
    if (!WIFEXITED(status) || WEXITSTATUS(status)) return err_set(e, E_IO, "%s %s: failed", argv[0], argv[1] ? argv[1] : "");
    return OK;
}

int pace_memory(int (*f)(void *ctx, err *e), void *ctx, double *bytes, err *e)
{
    int           pipe_fd[2], status;
    struct rusage use;
    err           child = { 0 };
    if (pipe(pipe_fd)) return err_set(e, E_IO, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        int r = f(ctx, &child);
        if (r && !child.code) child.code = r;
        _exit(write(pipe_fd[1], &child, sizeof child) == (ssize_t)sizeof child ? 0 : 1);
    }
    close(pipe_fd[1]);
    int r = pid < 0 ? err_set(e, E_IO, "fork: %s", strerror(errno)) : OK;
    if (r == OK && read(pipe_fd[0], &child, sizeof child) != (ssize_t)sizeof child) child = (err){ E_IO, "a process that measures memory died" };
    close(pipe_fd[0]);
    if (r) return r;
    while (wait4(pid, &status, 0, &use) < 0 && errno == EINTR) {}
    *bytes = (double)use.ru_maxrss * 1024;
    if (child.code && e) *e = child;
    return child.code;
}
