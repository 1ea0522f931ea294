/* chat: see chat.h.  The only library file that talks to a terminal.  Keeps no words of its own: what it shows of an exchange it reads
 * back from the store. */
#define _GNU_SOURCE /* wcwidth */
#include "dialog/chat.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include <readline/history.h>
#include <readline/readline.h>

enum { LINE_MAX_BYTES = 1 << 20, LIST_MAX = 20 };

typedef struct {
    const chat_opts *o;
    respond_opts     opts;
    int64_t          conv;    /* 0 until the first line is stored */
    int64_t          last;    /* the exchange shown last, 0 none */
    uint64_t         count;   /* exchanges drawn in this session: the seed's counter */
    str              stored;  /* the last line as it was stored; empty when none was */
    int              en, tty, color, told_redaction;
    arena            mem;     /* one turn */
    buf              out;
    char            *stash;   /* plain input: getline's buffer */
    size_t           stash_cap;
    double           started; /* of the spinner */
} session;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static str utc(char out[32])
{
    struct timespec t;
    struct tm       tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return str_of(out);
}

/* ---- showing --------------------------------------------------------------------------------------------------- */

enum { C_USER, C_BOT, C_DIM, C_BAD, C_OFF };
static const char *const colors[] = { "\033[1;32m", "\033[1;36m", "\033[2m", "\033[33m", "\033[0m" };
static const char *paint(const session *s, int c) { return s->color ? colors[c] : ""; }
static const char *tr(const session *s, const char *zh, const char *en) { return s->en ? en : zh; }

/* Columns that a terminal needs for UTF-8 text that went through buf_visible. */
static int columns(str t)
{
    int w = 0;
    for (size_t i = 0; i < t.n;) {
        uint32_t cp;
        i += utf8_next(t.s + i, t.n - i, &cp);
        int k = cp == UTF8_BAD ? 1 : wcwidth((wchar_t)cp);
        w += k > 0 ? k : 0;
    }
    return w;
}

static void say_text(session *s, str t)
{
    buf_reset(&s->out);
    buf_visible(&s->out, t);
    fwrite(s->out.s ? s->out.s : "", 1, s->out.n, stdout);
}

static void note(session *s, const char *text) { printf("%s%s%s\n", paint(s, C_DIM), text, paint(s, C_OFF)); }
static void complain(session *s, const err *e)
{
    printf("%s%s%s\n", paint(s, C_BAD), e->msg[0] ? e->msg : "unknown error", paint(s, C_OFF));
}

static void show_reply(session *s, const reply *r)
{
    if (s->tty) printf("%s%s%s ", paint(s, C_BOT), tr(s, "小对>", "duet>"), paint(s, C_OFF));
    if (r->kind != REPLY_MODEL) fputs(paint(s, C_BAD), stdout);
    say_text(s, r->text);
    printf("%s\n", r->kind != REPLY_MODEL ? paint(s, C_OFF) : "");
}

static const char *fate_name(const session *s, const candidate *c)
{
    static const char *const zh[] = { "可用", "空", "重复", "拦下", "学舌", "无分" };
    static const char *const en[] = { "ok", "empty", "duplicate", "blocked", "echo", "no score" };
    return c->fate >= 0 && c->fate < 6 ? tr(s, zh[c->fate], en[c->fate]) : "?";
}

/* Text in a column `width` columns wide, on the left. */
static void cell(const char *t, int width)
{
    printf("%s%*s", t, width > columns(str_of(t)) ? width - columns(str_of(t)) : 0, "");
}
static void number(double x)
{
    if (isnan(x)) printf("%9s", "-");
    else printf("%9.2f", x);
}

static void show_candidates(session *s, const reply *r, const char *mode)
{
    if (r->kind == REPLY_REFUSED) {
        note(s, tr(s, "（上一句在规则处停下，没有候选）", "(the line was stopped by a rule: there were no candidates)"));
        return;
    }
    printf("%s  #  ", paint(s, C_DIM));
    cell(tr(s, "判定", "verdict"), 10);
    printf("%s  %s\n%s", tr(s, "     正向     反向     得分", "  forward  reverse    score"), tr(s, "文本", "text"), paint(s, C_OFF));
    for (int k = 0; k < r->n; k++) {
        const candidate *c = &r->cand[k];
        printf("%s%s%2d  ", k == r->chosen ? paint(s, C_BOT) : c->fate ? paint(s, C_DIM) : "", k == r->chosen ? ">" : " ", k + 1);
        cell(fate_name(s, c), 10);
        number(c->fwd);
        number(c->bwd);
        number(c->score);
        printf("  ");
        say_text(s, c->text);
        if (c->fate == CAND_DUPLICATE) printf(" (= %d)", c->dup_of + 1);
        if (!c->ended) printf(" …");
        printf("%s\n", paint(s, C_OFF));
    }
    printf("%s%s%s%s\n", paint(s, C_DIM), tr(s, "正向 = log P(回复|上文)，反向 = log P(你的话|回复)；排序方式 ",
           "forward = log P(reply | context), reverse = log P(your line | reply); ranked by "), mode, paint(s, C_OFF));
}

/* ---- the spinner and Ctrl-C ------------------------------------------------------------------------------------ */

static int progress(void *ctx, int done, int total, int scoring)
{
    static const char *const wheel[] = { "⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏" };
    session                 *s = ctx;
    double                   t = now() - s->started;
    if (s->tty && t > 0.15)
        fprintf(stdout, "\r\033[K%s%s %s %d/%d%s", paint(s, C_DIM), wheel[(int)(t * 12) % 10],
                scoring ? tr(s, "反向打分", "scoring") : tr(s, "想好了", "candidates"), done, total, paint(s, C_OFF)),
            fflush(stdout);
    return interrupted;
}

/* What is typed while a reply is being made stays in the terminal's queue for readline, which shows it; here it would run into the spinner. */
static void echo(const session *s, int on)
{
    struct termios t;
    if (!s->tty || tcgetattr(STDIN_FILENO, &t) != 0) return;
    t.c_lflag = on ? t.c_lflag | ECHO : t.c_lflag & ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static int on_signal_in_readline(void)
{
    if (!interrupted) return 0;
    interrupted = 0;
    rl_crlf();
    rl_replace_line("", 0);
    rl_on_new_line();
    rl_redisplay();
    return 0;
}

/* ---- commands -------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int (*run)(session *s, str arg, err *e); /* OK, <0 an error to show, 1 = leave */
    const char *arg, *zh, *en;
} slash;
static const slash slashes[];

static int load_last(session *s, exchange *x, err *e)
{
    if (!s->last) return err_set(e, E_ARG, "%s", tr(s, "这次对话还没有回复", "there is no reply in this conversation yet"));
    return hist_exchange(s->o->h, s->last, &s->mem, x, e);
}

static int do_help(session *s, str arg, err *e)
{
    (void)arg, (void)e;
    for (const slash *c = slashes; c->name; c++) {
        char head[64];
        snprintf(head, sizeof head, "%s %s", c->name, c->arg);
        printf("  ");
        cell(head, 20);
        printf("%s\n", tr(s, c->zh, c->en));
    }
    note(s, tr(s, "  Ctrl-C 停下正在生成的回复，Ctrl-D 离开", "  Ctrl-C stops a reply that is being made, Ctrl-D leaves"));
    return OK;
}

static int do_candidates(session *s, str arg, err *e)
{
    (void)arg;
    exchange     x;
    respond_opts o;
    int          r = load_last(s, &x, e);
    if (r == OK) r = respond_opts_parse(&o, x.opts, e);
    if (r == OK) show_candidates(s, &x.r, respond_mode_name(o.mode));
    return r;
}

/* The settings line with one key changed; an unknown key is added, so that the parser names it. */
static void with_key(buf *out, str line, str key, str value)
{
    while (line.n) {
        const char *sp = memchr(line.s, ' ', line.n);
        str         w  = { line.s, sp ? (size_t)(sp - line.s) : line.n };
        if (!(w.n > key.n && w.s[key.n] == '=' && memcmp(w.s, key.s, key.n) == 0)) {
            buf_str(out, w);
            buf_chr(out, ' ');
        }
        line.s += w.n + (sp != NULL);
        line.n -= w.n + (sp != NULL);
    }
    buf_str(out, key);
    buf_chr(out, '=');
    buf_str(out, value);
}

static int do_set(session *s, str arg, err *e)
{
    buf b = { 0 }, changed = { 0 };
    int r = respond_opts_format(&s->opts, &b) ? err_set(e, E_NOMEM, "out of memory") : OK;
    if (r == OK && arg.n) {
        size_t       k = strcspn(arg.s, "= ");
        respond_opts o;
        str          key = { arg.s, k < arg.n ? k : arg.n }, value = { arg.s + key.n, arg.n - key.n };
        value = str_trim(value);
        if (value.n && value.s[0] == '=') value = str_trim((str){ value.s + 1, value.n - 1 });
        with_key(&changed, buf_view(&b), key, value);
        r = changed.oom ? err_set(e, E_NOMEM, "out of memory") : respond_opts_parse(&o, buf_view(&changed), e);
        if (r == OK) {
            s->opts = o;
            buf_reset(&b);
            r = respond_opts_format(&s->opts, &b) ? err_set(e, E_NOMEM, "out of memory") : OK;
        }
    }
    if (r == OK) note(s, b.s);
    buf_free(&b);
    buf_free(&changed);
    return r;
}

/* Point s->last at the newest exchange of the conversation that is not undone. */
static int find_last(session *s, err *e)
{
    exchange *x;
    int       n, r = hist_exchanges(s->o->h, s->conv, &s->mem, &x, &n, e);
    s->last = 0;
    for (int i = 0; r == OK && i < n; i++)
        if (!x[i].undone && !x[i].forgotten) s->last = x[i].id;
    return r;
}

static int do_undo(session *s, str arg, err *e)
{
    (void)arg;
    char    t[32];
    int64_t gone;
    if (!s->conv) return err_set(e, E_ARG, "%s", tr(s, "没有可以撤回的", "there is nothing to undo"));
    int r = hist_undo(s->o->h, s->conv, utc(t), &gone, e);
    if (r == OK) r = find_last(s, e);
    if (r == OK) note(s, tr(s, "（撤回了上一轮；记录仍在，模型不再看到它）", "(the last exchange is undone: kept on record, no longer seen by the model)"));
    return r;
}

static int answer(session *s, str line, err *e);

static int do_retry(session *s, str arg, err *e)
{
    (void)arg;
    exchange x;
    buf      line = { 0 };
    char     t[32];
    int64_t  gone;
    int      r = load_last(s, &x, e);
    if (r) return r;
    buf_str(&line, x.r.user_text);
    r = line.oom ? err_set(e, E_NOMEM, "out of memory") : hist_undo(s->o->h, s->conv, utc(t), &gone, e);
    if (r == OK) r = find_last(s, e);
    if (r == OK) r = answer(s, buf_view(&line), e);
    buf_free(&line);
    return r;
}

static void tell_copy(void *ctx, const char *path, int64_t exchanges, const char *failed)
{
    session *s = ctx;
    if (!failed && !exchanges) return;
    printf("%s%s ", paint(s, failed ? C_BAD : C_DIM), tr(s, "备份", "backup"));
    say_text(s, str_of(path));
    printf("%s%s%s\n", failed ? tr(s, "：没能改动，里面仍有原文：", ": not changed, it still has the words: ")
                              : tr(s, "：也忘掉了", ": forgotten there too"), failed ? failed : "", paint(s, C_OFF));
}

/* Which exchange: none said, the last one; a number as /history shows it; all. */
static int which_to_forget(session *s, str arg, int *n, err *e)
{
    exchange x;
    int      r;
    *n = 0;
    if (str_eq(arg, STR("all"))) return OK;
    if (arg.n == 0) {
        r  = load_last(s, &x, e);
        *n = r == OK ? x.n : 0;
        return r;
    }
    for (size_t i = 0; i < arg.n; i++) {
        if (arg.s[i] < '0' || arg.s[i] > '9' || i > 8)
            return err_set(e, E_ARG, tr(s, "/forget 要一个轮次号码或 all，不是 '%.*s'", "/forget wants the number of an exchange or all, not '%.*s'"),
                           arg.n < 40 ? (int)arg.n : 40, arg.s);
        *n = *n * 10 + (arg.s[i] - '0');
    }
    return *n ? OK : err_set(e, E_ARG, "%s", tr(s, "轮次从 1 数起", "exchanges are counted from 1"));
}

static int do_forget(session *s, str arg, err *e)
{
    char t[32], line[200];
    int  n, count = 0;
    if (!s->conv) return err_set(e, E_ARG, "%s", tr(s, "这次对话还是空的", "this conversation is empty"));
    int r = which_to_forget(s, arg, &n, e);
    if (r == OK) r = hist_forget(s->o->h, s->conv, n, utc(t), &count, e);
    if (r && count == 0) return r;
    if (s->tty) clear_history(); /* readline's memory has the words too */
    int q = hist_forget_copies(s->o->h, s->conv, &n, 1, STR(""), str_of(t), tell_copy, s, r ? NULL : e);
    if (r == OK) r = q;
    q = find_last(s, r ? NULL : e);
    if (r == OK) r = q;
    snprintf(line, sizeof line, s->en ? "(%d exchange%s forgotten: the words are gone, their digests stay, so the record still verifies)"
                                      : "（忘掉了 %d 轮%s：原文已抹去，只留摘要，记录仍可验证）", count, s->en && count != 1 ? "s" : "");
    note(s, line);
    return r;
}

static int do_new(session *s, str arg, err *e)
{
    (void)arg, (void)e;
    s->conv = s->last = 0;
    note(s, tr(s, "（新的对话）", "(a new conversation)"));
    return OK;
}

/* Conversation in progress: its words into readline's memory, its last lines on the screen. */
static int resume(session *s, int64_t conv, err *e)
{
    conversation c;
    exchange    *x;
    int          n, r = hist_get(s->o->h, conv, &s->mem, &c, e);
    if (r == OK) r = hist_exchanges(s->o->h, conv, &s->mem, &x, &n, e);
    if (r) return r;
    s->conv = conv;
    s->last = 0;
    for (int i = 0; i < n; i++) {
        if (x[i].undone || x[i].forgotten) continue;
        s->last = x[i].id;
        if (s->tty && memchr(x[i].r.user_text.s, 0, x[i].r.user_text.n) == NULL) add_history(x[i].r.user_text.s);
        if (i < n - 3) continue;
        printf("%s%s%s ", paint(s, C_USER), tr(s, "你>", "you>"), paint(s, C_OFF));
        say_text(s, x[i].r.user_text);
        putchar('\n');
        show_reply(s, &x[i].r);
    }
    char line[160];
    snprintf(line, sizeof line, s->en ? "(conversation %lld goes on, %d exchanges)" : "（接着第 %lld 号对话，共 %d 轮）", (long long)conv, c.n_turns);
    note(s, line);
    return OK;
}

static int do_resume(session *s, str arg, err *e)
{
    if (arg.n) {
        char  digits[24], *end;
        size_t k = arg.n < sizeof digits - 1 ? arg.n : sizeof digits - 1;
        memcpy(digits, arg.s, k);
        digits[k]    = 0;
        long long id = strtoll(digits, &end, 10);
        if (end == digits || *end || id < 1 || k < arg.n)
            return err_set(e, E_ARG, tr(s, "/resume 要一个对话号码，不是 '%s'", "/resume wants the number of a conversation, not '%s'"), digits);
        return resume(s, id, e);
    }
    conversation *c;
    int           n, r = hist_list(s->o->h, LIST_MAX, &s->mem, &c, &n, e);
    if (r) return r;
    if (n == 0) note(s, tr(s, "（还没有存下的对话）", "(no stored conversations yet)"));
    for (int i = 0; i < n; i++) {
        printf("%s%5lld%s  %.*s  %3d  ", paint(s, C_BOT), (long long)c[i].id, paint(s, C_OFF), (int)c[i].created.n, c[i].created.s, c[i].n_turns);
        say_text(s, c[i].title);
        putchar('\n');
    }
    if (n) note(s, tr(s, "/resume 号码 接着那次对话", "/resume NUMBER goes on with one"));
    return OK;
}

static int do_history(session *s, str arg, err *e)
{
    (void)arg;
    exchange *x;
    int       n;
    if (!s->conv) return err_set(e, E_ARG, "%s", tr(s, "这次对话还是空的", "this conversation is empty"));
    int r = hist_exchanges(s->o->h, s->conv, &s->mem, &x, &n, e);
    for (int i = 0; r == OK && i < n; i++) {
        printf("%s%4d %.*s%s%s\n", paint(s, C_DIM), x[i].n, (int)x[i].created.n, x[i].created.s,
               x[i].forgotten ? tr(s, " （已忘掉）", " (forgotten)") : x[i].undone ? tr(s, " （已撤回）", " (undone)") : "", paint(s, C_OFF));
        if (x[i].forgotten) continue;
        printf("     %s ", tr(s, "你>", "you>"));
        say_text(s, x[i].r.user_text);
        printf("\n     %s ", tr(s, "小对>", "duet>"));
        say_text(s, x[i].r.text);
        putchar('\n');
    }
    return r;
}

/* The conversation as text, one utterance a line: what `duet prep` reads. */
static int do_save(session *s, str arg, err *e)
{
    exchange *x;
    outfile  *f;
    int       n, lines = 0;
    if (!arg.n) return err_set(e, E_ARG, "%s", tr(s, "/save 要一个文件名", "/save wants a file name"));
    if (!s->conv) return err_set(e, E_ARG, "%s", tr(s, "这次对话还是空的", "this conversation is empty"));
    str path = arena_str(&s->mem, arg, e);
    if (!path.s) return E_NOMEM;
    int r = hist_exchanges(s->o->h, s->conv, &s->mem, &x, &n, e);
    if (r == OK) r = out_open(&f, path.s, e);
    if (r) return r;
    for (int i = 0; r == OK && i < n; i++) {
        if (x[i].undone || x[i].forgotten || x[i].r.kind == REPLY_REFUSED) continue;
        buf_reset(&s->out);
        buf_visible(&s->out, x[i].r.user_text);
        buf_chr(&s->out, '\n');
        buf_visible(&s->out, x[i].r.text);
        buf_chr(&s->out, '\n');
        r = s->out.oom ? err_set(e, E_NOMEM, "out of memory") : out_write(f, s->out.s, s->out.n, e);
        lines += 2;
    }
    if (r == OK) r = out_commit(f, e);
    if (r) {
        out_abort(f);
        return r;
    }
    char line[64];
    snprintf(line, sizeof line, s->en ? "(%d lines written)" : "（写下了 %d 行）", lines);
    note(s, line);
    return OK;
}

static int do_quit(session *s, str arg, err *e)
{
    (void)s, (void)arg, (void)e;
    return 1;
}

static const slash slashes[] = {
    { "/help", do_help, "", "这张表", "this table" },
    { "/candidates", do_candidates, "", "上一句回复的全部候选和两个分数", "all candidates of the last reply, with both scores" },
    { "/retry", do_retry, "", "同一句话，换一个种子再答", "answer the same line again with another seed" },
    { "/undo", do_undo, "", "撤回上一轮", "take the last exchange back" },
    { "/forget", do_forget, "[N|all]", "忘掉上一轮、第 N 轮或整个对话：原文抹去，备份里也是", "forget the last exchange, number N, or all: the words are erased, in backups too" },
    { "/set", do_set, "[key value]", "看或改设置，如 /set n 8、/set mode bidi", "show or change settings: /set n 8, /set mode bidi" },
    { "/new", do_new, "", "开始新的对话", "begin a new conversation" },
    { "/resume", do_resume, "[N]", "列出存下的对话，或接着第 N 号", "list the stored conversations, or go on with number N" },
    { "/history", do_history, "", "这次对话的记录", "the record of this conversation" },
    { "/save", do_save, "FILE", "把这次对话存成文本", "write this conversation to a text file" },
    { "/quit", do_quit, "", "离开", "leave" },
    { NULL, NULL, NULL, NULL, NULL },
};

static int dispatch(session *s, str line, err *e)
{
    const char *sp   = memchr(line.s, ' ', line.n);
    size_t      k    = sp ? (size_t)(sp - line.s) : line.n;
    str         arg  = sp ? str_trim((str){ sp, line.n - k }) : STR("");
    const slash *hit = NULL;
    int          n   = 0;
    for (const slash *c = slashes; c->name; c++) {
        if (strlen(c->name) == k && memcmp(c->name, line.s, k) == 0) {
            hit = c;
            n   = 1;
            break;
        }
        if (k > 1 && strlen(c->name) > k && memcmp(c->name, line.s, k) == 0) hit = c, n++;
    }
    if (n == 1) return hit->run(s, arg, e);
    return err_set(e, E_ARG, tr(s, "没有命令 %.*s，/help 列出全部", "no command %.*s; /help lists them"), (int)(k < 40 ? k : 40), line.s);
}

/* ---- one exchange ---------------------------------------------------------------------------------------------- */

static int answer(session *s, str line, err *e)
{
    turn        *hist = NULL;
    int          n = 0, r = OK;
    reply        rep;
    respond_opts o = s->opts;
    char         t[32];
    o.seed     = rng_u64(s->opts.seed, s->count++, (uint64_t)s->conv);
    s->started = now();
    if (s->conv) r = hist_turns(s->o->h, s->conv, 0, &s->mem, &hist, &n, e);
    interrupted = 0;
    echo(s, 0);
    if (r == OK) r = respond(s->o->r, hist, n, line, &o, &s->mem, &rep, e);
    echo(s, 1);
    if (s->tty) printf("\r\033[K");
    if (r == E_CANCEL) {
        interrupted = 0;
        note(s, tr(s, "（停下了，这句没有记下）", "(stopped; the line was not recorded)"));
        return OK;
    }
    if (r == OK && !s->conv) r = hist_new(s->o->h, STR(""), &s->conv, e);
    if (r == OK) r = hist_append(s->o->h, s->conv, &rep, &o, utc(t), now() - s->started, &s->last, e);
    if (r != OK) return r;
    s->stored = rep.user_text;
    show_reply(s, &rep);
    if (rep.cut)
        note(s, tr(s, "（这句太长，只读了后面的部分）", "(the line is longer than the model can read: only its end was used)"));
    if (!str_eq(rep.user_text, line) && !s->told_redaction) {
        s->told_redaction = 1;
        note(s, tr(s, "（个人信息已用标签代替，没有存下原文）", "(personal data was replaced by a label; the original was not stored)"));
    }
    return OK;
}

/* What the store does not keep, readline's memory does not keep either: the line as it was stored takes the place of the line as
 * it was typed. */
static void keep_as_stored(session *s, str line, err *e)
{
    if (!s->stored.s || str_eq(s->stored, line)) return;
    str         as  = arena_str(&s->mem, s->stored, e);
    HIST_ENTRY *old = as.s && history_length > 0 ? replace_history_entry(history_length - 1, as.s, NULL) : NULL;
    if (old) free_history_entry(old);
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

static const respond_opts *completing; /* readline's callbacks take no context */

static char *next_completion(const char *text, int state)
{
    static int  i;
    static char key[64];
    size_t      n = strlen(text);
    if (state == 0) i = 0;
    if (text[0] == '/') {
        for (; slashes[i].name; i++)
            if (strncmp(slashes[i].name, text, n) == 0) return strdup(slashes[i++].name);
        return NULL;
    }
    buf b = { 0 }; /* behind /set: the keys of the settings line */
    respond_opts_format(completing, &b);
    char *hit = NULL;
    int   k   = 0;
    for (char *save = NULL, *w = b.s ? strtok_r(b.s, " ", &save) : NULL; w && !hit; w = strtok_r(NULL, " ", &save), k++) {
        size_t len = strcspn(w, "=");
        if (k < i || len >= sizeof key || len < n || strncmp(w, text, n)) continue;
        memcpy(key, w, len);
        key[len] = 0;
        hit      = strdup(key);
        i        = k + 1;
    }
    buf_free(&b);
    return hit;
}

static char **complete(const char *text, int start, int end)
{
    (void)end;
    rl_attempted_completion_over = strncmp(rl_line_buffer, "/save ", 6) != 0;
    if (start == 0 ? text[0] == '/' : strncmp(rl_line_buffer, "/set ", 5) == 0) return rl_completion_matches(text, next_completion);
    return NULL;
}

/* One line into *line (memory of the session or readline's, in *owned); 1 line, 0 end of input, <0 error. */
static int read_line(session *s, str *line, char **owned, err *e)
{
    *owned = NULL;
    if (s->tty) {
        char prompt[64];
        snprintf(prompt, sizeof prompt, s->color ? "\001%s\002%s\001%s\002 " : "%s%s%s ", paint(s, C_USER), tr(s, "你>", "you>"), paint(s, C_OFF));
        *owned = readline(prompt);
        if (!*owned) return 0;
        *line = str_of(*owned);
        if (line->n > LINE_MAX_BYTES) return err_set(e, E_LIMIT, "a line of %zu bytes; at most %d are read", line->n, LINE_MAX_BYTES);
        return 1;
    }
    ssize_t n = getline(&s->stash, &s->stash_cap, stdin);
    if (n < 0) return ferror(stdin) ? err_set(e, E_IO, "cannot read stdin") : 0;
    if (n > LINE_MAX_BYTES) return err_set(e, E_LIMIT, "a line of %zd bytes; at most %d are read", n, LINE_MAX_BYTES);
    *line = (str){ s->stash, (size_t)n };
    return 1;
}

/* Line ends and tabs inside a pasted line become spaces; the rest stays as typed. */
static str one_line(session *s, str line, err *e)
{
    str t = arena_str(&s->mem, line, e);
    for (size_t i = 0; t.s && i < t.n; i++)
        if (t.s[i] == '\n' || t.s[i] == '\r' || t.s[i] == '\t') ((char *)t.s)[i] = ' ';
    return t.s ? str_trim(t) : t;
}

static int loop(session *s, err *e)
{
    for (;;) {
        str   line;
        char *owned;
        err   local = { 0 };
        int   r     = read_line(s, &line, &owned, &local);
        if (r == 0) {
            if (s->tty) putchar('\n');
            return OK;
        }
        arena_reset(&s->mem);
        if (r > 0) {
            line = one_line(s, line, &local);
            r    = line.s ? OK : E_NOMEM;
        }
        if (r == OK && line.n) {
            if (s->tty && owned) add_history(line.s);
            s->stored = STR("");
            r         = line.s[0] == '/' ? dispatch(s, line, &local) : answer(s, line, &local);
            if (s->tty && owned && r == OK && line.s[0] != '/' && s->stored.n) keep_as_stored(s, line, &local);
        }
        free(owned);
        if (r == 1) return OK;
        if (r < 0) complain(s, &local);
        if (fflush(stdout) != 0) return err_set(e, E_IO, "cannot write to stdout");
        if (r == E_DB || r == E_IO || r == E_NOMEM)
            if (!s->tty) { /* nobody is there to try again */
                *e = local;
                return r;
            }
    }
}

int chat_run(const chat_opts *o, err *e)
{
    session s = { .o = o, .opts = o->opts, .en = o->opts.lang == 1, .tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) };
    s.color   = o->color >= 0 ? o->color : s.tty;
    struct sigaction old, sa = { .sa_handler = on_interrupt };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, &old);
    responder_on_progress(o->r, progress, &s);
    if (s.tty) {
        completing                       = &s.opts;
        rl_catch_signals                 = 0;
        rl_signal_event_hook             = on_signal_in_readline;
        rl_attempted_completion_function = complete;
        rl_readline_name                 = "duet";
        if (o->banner) note(&s, o->banner);
        note(&s, o->is_private ? tr(&s, "私密对话：什么也不存。/help 看命令，Ctrl-D 离开。", "A private chat: nothing is kept. /help lists the commands, Ctrl-D leaves.")
                               : tr(&s, "/help 看命令，Ctrl-D 离开。", "/help lists the commands, Ctrl-D leaves."));
    }
    int r = OK;
    if (o->conv < 0) {
        conversation *c;
        int           n;
        r = hist_list(o->h, 1, &s.mem, &c, &n, e);
        if (r == OK && n == 0) r = err_set(e, E_ARG, "there is no stored conversation to resume");
        if (r == OK) r = resume(&s, c[0].id, e);
    } else if (o->conv > 0) {
        r = resume(&s, o->conv, e);
    }
    if (r == OK) r = loop(&s, e);
    responder_on_progress(o->r, NULL, NULL);
    sigaction(SIGINT, &old, NULL);
    arena_free(&s.mem);
    buf_free(&s.out);
    free(s.stash);
    return r;
}
