/* The command compare: people judge replies, blind, at the terminal or on a form to take away; and what they found.  Program code: parses options, reads and writes
 * files, asks, prints. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "corpus/dialogue.h"
#include "dialog/commands.h"
#include "eval/commands.h"
#include "eval/form.h"
#include "eval/poll.h"

enum { MAX_WORDS = 64, FORM_MAX_BYTES = 1 << 26, FILE_MAX_BYTES = 1 << 30 };

typedef struct {
    const char *word[MAX_WORDS], *set, *out, *judge, *questions, *lang, *html;
    int         n_words, most, json;
    uint64_t    seed;
    /* opened */
    const char *dir;
    study       s;
    ballot     *list;  /* (n,) with room for all that can be added */
    int         n;
    long        torn;
    arena       mem;
} compare_job;

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for a study"); }

static int path_of(compare_job *j, const char *name, const char **out, err *e)
{
    buf b = { 0 };
    buf_fmt(&b, "%s/%s", j->dir, name);
    str copy = b.oom ? (str){ 0 } : arena_str(&j->mem, buf_view(&b), e);
    buf_free(&b);
    *out = copy.s;
    return copy.s ? OK : no_memory(e);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the systems' files ---------------------------------------------------------------------------------------- */

static int ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);
    return n > k && strcmp(path + n - k, end) == 0;
}

static str name_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    return (str){ base, dot && dot > base ? (size_t)(dot - base) : strlen(base) };
}

/* What duet eval left beside its replies says which set they answer. */
static int check_set(const char *path, const testset *t, const char *set, err *e)
{
    buf name = { 0 }, b = { 0 };
    int r    = OK;
    buf_fmt(&name, "%s.settings", path);
    if (name.oom) r = no_memory(e);
    if (r == OK && access(name.s, F_OK) == 0) r = read_file(name.s, 1 << 20, &b, e);
    if (r == OK && b.n > 69 && memcmp(b.s, "set: ", 5) == 0 && memcmp(b.s + 5, t->digest, 64) != 0)
        r = err_set(e, E_ARG, "%s answers another set than %s", path, set);
    buf_free(&name);
    buf_free(&b);
    return r;
}

/* The replies of a file: a line of text each, or the JSONL of duet eval. */
static int read_replies(const char *path, arena *a, str **out, int *n, err *e)
{
    buf b = { 0 };
    str rest, line;
    int r = read_file(path, FILE_MAX_BYTES, &b, e), jsonl = ends_in(path, ".jsonl");
    *n    = 0;
    rest  = buf_view(&b);
    while (r == OK && next_line(&rest, &line)) ++*n;
    if (r == OK && !(*out = arena_new(a, (size_t)*n + 1, sizeof **out))) r = no_memory(e);
    json_t *lines = NULL;
    if (r == OK && jsonl) r = batch_read(path, *n, &lines, e);
    rest = buf_view(&b);
    for (int i = 0; i < *n && r == OK; i++) {
        next_line(&rest, &line);
        (*out)[i] = arena_str(a, jsonl ? batch_reply(lines, i) : line, e);
        if (!(*out)[i].s) r = E_NOMEM;
    }
    json_decref(lines);
    buf_free(&b);
    return r;
}

/* A new study from the files, or the very one that is there already. */
static int new_study(compare_job *j, testset *t, err *e)
{
    str         name[STUDY_SYSTEMS], *said[STUDY_SYSTEMS];
    const char *key;
    study       was;
    int         n[STUDY_SYSTEMS], r = testset_read(t, j->set, e);
    for (int i = 0; i < j->n_words && r == OK; i++) {
        name[i] = name_of(j->word[i]);
        r       = check_set(j->word[i], t, j->set, e);
        if (r == OK) r = read_replies(j->word[i], &j->mem, &said[i], &n[i], e);
        if (r == OK && n[i] != n[0]) r = err_set(e, E_FORMAT, "%s has %d replies, %s has %d", j->word[i], n[i], j->word[0], n[0]);
        if (r == OK && n[i] > t->n) r = err_set(e, E_FORMAT, "%s has %d replies, %s has %d items", j->word[i], n[i], j->set, t->n);
    }
    if (r) return r;
    t->n         = n[0]; /* duet eval --limit */
    study_plan p = { strcmp(j->questions, "ssa") == 0, strcmp(j->lang, "zh") == 0, j->most, j->seed, j->n_words, name, (const str *const *)said };
    r            = study_make(&j->s, &p, t, &j->mem, e);
    if (r == OK && mkdir(j->dir, 0777) != 0 && errno != EEXIST) r = err_set(e, E_IO, "%s: cannot make the folder: %s", j->dir, strerror(errno));
    if (r == OK) r = path_of(j, "key.json", &key, e);
    if (r || access(key, F_OK) != 0) return r ? r : study_write(&j->s, key, e);
    r = study_read(&was, key, &j->mem, e);
    if (r == OK && strcmp(was.digest, j->s.digest) != 0) r = err_set(e, E_ARG, "%s: another study is there already; choose another folder, or go on with it: duet compare %s", key, j->dir);
    return r;
}

static int open_study(compare_job *j, err *e)
{
    const char *key;
    int         r = path_of(j, "key.json", &key, e);
    return r ? r : study_read(&j->s, key, &j->mem, e);
}

static int open_ballots(compare_job *j, const char **path, err *e)
{
    ballot *list;
    int     r = path_of(j, "judgments.jsonl", path, e);
    if (r == OK) r = ballots_read(&j->s, *path, &j->mem, &list, &j->n, &j->torn, e);
    if (r) return r;
    if (j->torn >= 0) fprintf(stderr, "%s: the last line was not finished when it was being written: it is left out\n", *path);
    j->list = arena_new(&j->mem, (size_t)j->n + (size_t)j->s.n, sizeof *j->list);
    if (!j->list) return no_memory(e);
    if (j->n) memcpy(j->list, list, (size_t)j->n * sizeof *list);
    return OK;
}

/* ---- at the terminal ------------------------------------------------------------------------------------------- */

typedef struct {
    compare_job          *j;
    ballot_log           *log;
    str                   judge;
    int                  *unit, n_q, given, left; /* the judge's order; judged in this sitting; not yet judged */
    unsigned char        *swapped, *skipped;
    const study_question *q;
    char                 *stash;
    size_t                cap;
    double                since;
} sitting;
enum { SAID_ANSWER, SAID_UNDO, SAID_SKIP, SAID_END, SAID_HELP };

static void help(const sitting *x)
{
    int ssa = x->j->s.kind == STUDY_SSA;
    puts(ssa ? "y or n for each question, together (yy, yn) or one after the other; what is not sensible is not specific:" : "1, 2 or = (a tie) for each question, together (12=) or one after the other:");
    for (int k = 0; k < x->n_q; k++) printf("  %s: %s\n", x->q[k].name[x->j->s.lang], x->q[k].ask[x->j->s.lang]);
    puts("u takes the last judgment back, s leaves this one for later, q stops, ? is this. Each judgment is on the disk as soon as it is given.");
}

static void show(const sitting *x, int at)
{
    const study_unit *u    = &x->j->s.unit[x->unit[at]];
    const study_item *item = &x->j->s.item[u->item];
    printf("\n%d of %d\n", x->j->s.n - x->left + 1, x->j->s.n);
    for (int k = 0; k < item->n_turn; k++) {
        printf((item->n_turn - 1 - k) & 1 ? "    > " : "    < ");
        put_visible(item->turn[k]);
        putchar('\n');
    }
    for (int side = 0; side < 1 + (u->b >= 0); side++) {
        printf(u->b >= 0 ? "  %d " : "  > ", side + 1);
        put_visible(u->reply[side ^ x->swapped[at]]);
        putchar('\n');
    }
}

/* A line: one character for each question that is still open, or a command.  *have answers are there. */
static int read_answers(sitting *x, int at, ballot *b, int *have, int *said, err *e)
{
    str line;
    int ssa = x->j->s.kind == STUDY_SSA, r;
    for (int k = *have; k < x->n_q; k++) printf("%s%s", k > *have ? ", " : "", x->q[k].name[x->j->s.lang]);
    printf(ssa ? " (y n)? " : " (1 2 =)? ");
    fflush(stdout);
    r = cmd_next_line(stdin, &x->stash, &x->cap, &line, e);
    if (r < 0) return r;
    *said = r == 0 ? SAID_END : SAID_ANSWER;
    if (r == 0) return putchar('\n'), OK;
    line = str_trim(line);
    if (line.n == 1 && strchr("usqh?", line.s[0])) {
        *said = line.s[0] == 'u' ? SAID_UNDO : line.s[0] == 's' ? SAID_SKIP : line.s[0] == 'q' ? SAID_END : SAID_HELP;
        return OK;
    }
    int k = *have, answer[STUDY_QUESTIONS];
    for (size_t i = 0; i < line.n; ) {
        uint32_t cp;
        size_t   w = utf8_next(line.s + i, line.n - i, &cp);
        if (line.s[i] != ' ' && line.s[i] != ',') {
            if (k == x->n_q || ballot_answer_of(x->j->s.kind, (str){ line.s + i, w }, x->swapped[at], &answer[k])) {
                puts(k == x->n_q ? "more answers than questions" : ssa ? "y or n wanted; ? for help" : "1, 2 or = wanted; ? for help");
                return OK;
            }
            k++;
        }
        i += w;
    }
    for (; *have < k; ++*have) b->answer[*have] = answer[*have];
    if (ssa && *have > 0 && !b->answer[0]) b->answer[1] = 0, *have = x->n_q;
    return OK;
}

/* The last judgment of this judge is taken back; its place in the order, or -1. */
static int undo(sitting *x, err *e)
{
    compare_job *j = x->j;
    char         stamp[32];
    int          k = j->n - 1, at = 0, r;
    while (k >= 0 && !str_eq(j->list[k].judge, x->judge)) k--;
    if (k < 0) return puts("there is nothing to take back"), -1;
    r = ballot_log_undo(x->log, j->list[k].unit, x->judge, cmd_utc(stamp).s, e);
    if (r) return r;
    while (x->unit[at] != j->list[k].unit) at++;
    memmove(j->list + k, j->list + k + 1, (size_t)(j->n - k - 1) * sizeof *j->list);
    j->n--;
    x->left++;
    x->given -= x->given > 0;
    puts("taken back; judge it again, or s for later");
    return at;
}

/* One unit until it is answered, skipped or left.  *next: the place to go on at, -1: the next open one. */
static int ask(sitting *x, int at, int *said, int *next, err *e)
{
    ballot b    = { .unit = x->unit[at], .judge = x->judge };
    char   stamp[32];
    int    have = 0, r = OK;
    *next = -1;
    show(x, at);
    x->since = seconds();
    while (have < x->n_q) {
        r = read_answers(x, at, &b, &have, said, e);
        if (r || *said == SAID_END) return r;
        if (*said == SAID_HELP) help(x);
        if (*said == SAID_SKIP) return x->skipped[at] = 1, OK;
        if (*said != SAID_UNDO) continue;
        err why = { 0 };
        int back = have ? at : undo(x, &why); /* what was answered of this unit goes first */
        if (why.code) return e ? *e = why, why.code : why.code;
        if (back >= 0) return *next = back, OK;
    }
    b.seconds = round(10 * (seconds() - x->since)) / 10;
    r = ballot_log_add(x->log, &x->j->s, &b, "terminal", cmd_utc(stamp).s, e);
    if (r) return r;
    x->j->list[x->j->n++] = b;
    x->given++;
    x->left--;
    return OK;
}

static int next_open(const sitting *x, int skipped)
{
    for (int at = 0; at < x->j->s.n; at++)
        if (x->skipped[at] == skipped && !ballot_find(x->j->list, x->j->n, x->unit[at], x->judge)) return at;
    return -1;
}

static int sit(sitting *x, err *e)
{
    int at = next_open(x, 0), said = SAID_ANSWER, r = OK, next;
    if (at >= 0) help(x);
    while (at >= 0 && said != SAID_END && r == OK) {
        r = ask(x, at, &said, &next, e);
        if (r || said == SAID_END) break;
        at = next >= 0 ? next : next_open(x, 0);
        if (at < 0 && next_open(x, 1) >= 0) { /* what was left for later */
            memset(x->skipped, 0, (size_t)x->j->s.n);
            at = next_open(x, 0);
        }
    }
    if (r == OK) printf("%d judged now, %d of %d left. What was found: duet compare report %s\n", x->given, x->left, x->j->s.n, x->j->dir);
    return r;
}

static int judge_here(compare_job *j, err *e)
{
    const char *path;
    sitting     x = { .j = j, .judge = str_of(j->judge) };
    size_t      n = (size_t)j->s.n;
    int         r = open_ballots(j, &path, e);
    x.q       = study_questions(j->s.kind, &x.n_q);
    x.unit    = arena_new(&j->mem, n, sizeof *x.unit);
    x.swapped = arena_new(&j->mem, n, 1);
    x.skipped = arena_new(&j->mem, n, 1);
    if (r == OK && (!x.unit || !x.swapped || !x.skipped)) r = no_memory(e);
    if (r == OK) r = study_order(&j->s, x.judge, x.unit, x.swapped, e);
    if (r == OK) r = ballot_log_open(&x.log, path, j->torn, e);
    if (r == OK) {
        x.left = j->s.n;
        for (int i = 0; i < j->n; i++) x.left -= str_eq(j->list[i].judge, x.judge);
        r = sit(&x, e);
    }
    ballot_log_close(x.log);
    free(x.stash);
    return r;
}

/* ---- forms, the report ------------------------------------------------------------------------------------------ */

static int put_file(const char *path, str bytes, err *e)
{
    outfile *f = NULL;
    if (strcmp(path, "-") == 0) return fwrite(bytes.s, 1, bytes.n, stdout) == bytes.n ? OK : err_set(e, E_IO, "cannot write to stdout");
    int r = out_open(&f, path, e);
    if (r == OK) r = out_write(f, bytes.s, bytes.n, e);
    if (r == OK) r = out_commit(f, e);
    else out_abort(f);
    return r;
}

static int make_form(compare_job *j, err *e)
{
    buf b = { 0 };
    int r = open_study(j, e), csv = ends_in(j->out, ".csv");
    if (r == OK) r = csv ? form_csv(&j->s, str_of(j->judge), &b, e) : form_html(&j->s, str_of(j->judge), &b, e);
    if (r == OK) r = put_file(j->out, buf_view(&b), e);
    if (r == OK)
        fprintf(stderr, "%s: %d units for %s. It names no system; %s/key.json does: keep that. What comes back: duet compare read %s FILE\n", j->out, j->s.n, j->judge, j->dir, j->dir);
    buf_free(&b);
    return r;
}

static int same_answers(const ballot *a, const ballot *b) { return memcmp(a->answer, b->answer, sizeof a->answer) == 0; }

/* All files are read and checked before anything is recorded. */
static int read_forms(compare_job *j, err *e)
{
    const char *path;
    ballot_log *log = NULL;
    char        stamp[32];
    int         r = open_study(j, e), old = 0, first;
    if (r == OK) r = open_ballots(j, &path, e);
    if (r) return r;
    first       = j->n;
    ballot *all = arena_new(&j->mem, (size_t)j->n + (size_t)j->s.n * (size_t)j->n_words, sizeof *all);
    if (!all) return no_memory(e);
    if (j->n) memcpy(all, j->list, (size_t)j->n * sizeof *all);
    for (int f = 1; f < j->n_words && r == OK; f++) {
        buf     b = { 0 };
        ballot *list;
        int     n = 0;
        r         = read_file(j->word[f], FORM_MAX_BYTES, &b, e);
        if (r == OK) r = ballots_from_form(&j->s, buf_view(&b), j->word[f], &j->mem, &list, &n, e);
        for (int i = 0; i < n && r == OK; i++) {
            const ballot *was = ballot_find(all, j->n, list[i].unit, list[i].judge);
            if (!was) all[j->n++] = list[i];
            else if (same_answers(was, &list[i])) old++;
            else r = err_set(e, E_ARG, "%s: %.*s has judged one of these before, and otherwise (%s, unit %d)", j->word[f], (int)list[i].judge.n, list[i].judge.s, path, list[i].unit);
        }
        buf_free(&b);
    }
    if (r == OK) r = ballot_log_open(&log, path, j->torn, e);
    for (int i = first; i < j->n && r == OK; i++) r = ballot_log_add(log, &j->s, &all[i], "form", cmd_utc(stamp).s, e);
    ballot_log_close(log);
    if (r == OK) printf("%d judgments recorded%s\n", j->n - first, old ? "" : ".");
    if (r == OK && old) printf("%d were there already, the same.\n", old);
    return r;
}

static int report(compare_job *j, err *e)
{
    const char *path;
    poll        p;
    buf         b = { 0 };
    int         r = open_study(j, e);
    if (r == OK) r = open_ballots(j, &path, e);
    if (r == OK && j->n == 0) r = err_set(e, E_ARG, "%s: nobody has judged anything yet", j->dir);
    if (r == OK) r = poll_count(&j->s, j->list, j->n, &j->mem, &p, e);
    if (r == OK && j->html) {
        r = poll_html(&p, j->list, j->n, &b, e);
        if (r == OK) r = put_file(j->html, buf_view(&b), e);
    }
    buf_reset(&b);
    if (r == OK && j->json) {
        json_t *root = poll_json(&p, e);
        r            = root ? js_line(root, e) : E_NOMEM;
    } else if (r == OK) {
        r = poll_text(&p, &b, e);
        if (r == OK) fwrite(b.s, 1, b.n, stdout);
    }
    buf_free(&b);
    return r;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int start(compare_job *j, err *e)
{
    testset t = { 0 };
    int     fresh = j->set != NULL, r = fresh ? new_study(j, &t, e) : open_study(j, e);
    if (r == OK && fresh) {
        printf("%s/key.json: %d units of %d systems", j->dir, j->s.n, j->s.n_system);
        if (j->s.n_same) printf(", %d more with equal replies", j->s.n_same);
        printf(". It says who said what: keep it from the judges.\n");
        if (!j->judge) printf("Judge here: duet compare %s --judge NAME; elsewhere: duet compare form %s --judge NAME -o form.html\n", j->dir, j->dir);
    }
    if (r == OK && j->judge) r = judge_here(j, e);
    testset_free(&t);
    return r;
}

typedef int action(compare_job *j, err *e);

/* Which subcommand; usage errors. */
static int check_words(compare_job *j, action **run, err *e)
{
    static const struct { const char *word; action *run; } subs[] = { { "form", make_form }, { "read", read_forms }, { "report", report } };
    *run = start;
    for (size_t i = 0; i < sizeof subs / sizeof subs[0] && j->n_words; i++)
        if (strcmp(j->word[0], subs[i].word) == 0) {
            *run = subs[i].run;
            memmove(j->word, j->word + 1, (size_t)--j->n_words * sizeof *j->word);
            break;
        }
    if (!j->n_words) return err_set(e, E_ARG, *run == start ? "whose replies? FILE FILE… --set FILE -o DIR; or the folder of a study" : "which study? its folder");
    if (strcmp(j->questions, "dialogpt") && strcmp(j->questions, "ssa")) return err_set(e, E_ARG, "--questions: '%s' is neither dialogpt nor ssa", j->questions);
    if (strcmp(j->lang, "zh") && strcmp(j->lang, "en")) return err_set(e, E_ARG, "--lang: '%s' is neither zh nor en", j->lang);
    if (j->judge && !study_judge_ok(str_of(j->judge))) return err_set(e, E_ARG, "--judge: a name of 1 to 64 bytes, without blanks at its ends and control characters");
    if (j->most < 0) return err_set(e, E_ARG, "--units is not negative");
    int fresh = *run == start && j->set;
    if (fresh && !j->out) return err_set(e, E_ARG, "no folder for the study: -o DIR");
    if (fresh && j->n_words > STUDY_SYSTEMS) return err_set(e, E_ARG, "more than %d systems", STUDY_SYSTEMS);
    if (!fresh && *run == start && j->n_words > 1) return err_set(e, E_ARG, "which lines do they answer? --set FILE");
    if (!fresh && *run != read_forms && j->n_words > 1) return err_set(e, E_ARG, "what is '%s' for?", j->word[1]);
    if (*run == start && !fresh && !j->judge) return err_set(e, E_ARG, "who judges? --judge NAME");
    if (*run == make_form && !j->judge) return err_set(e, E_ARG, "whose form? --judge NAME: each judge has an order of their own");
    if (*run == make_form && !j->out) return err_set(e, E_ARG, "where to? -o FILE.html or -o FILE.csv");
    if (*run == read_forms && j->n_words < 2) return err_set(e, E_ARG, "which files? duet compare read DIR FILE…");
    j->dir = fresh ? j->out : j->word[0];
    return OK;
}

int cmd_compare(int argc, char **argv, err *e)
{
    compare_job  j = { .questions = "dialogpt", .lang = "en", .seed = 1, .torn = -1 };
    action      *run;
    int          status;
    const option list[] = {
        { "--judge", OPT_STR, &j.judge, "NAME", "who judges; the name and the seed give the order and the sides" },
        { "a new study", OPT_GROUP, NULL, NULL, NULL },
        { "--set", OPT_STR, &j.set, "FILE", "the test set that the replies answer" },
        { "-o", OPT_STR, &j.out, "DIR", "folder for the study; form: the file" },
        { "--questions", OPT_STR, &j.questions, "KIND", "dialogpt: two replies side by side, relevance, informativeness, human-likeness (the default); ssa: one, sensible, specific" },
        { "--units", OPT_INT, &j.most, "N", "things to judge; 0 = all" },
        { "--lang", OPT_STR, &j.lang, "LANG", "zh or en: what judges are addressed in" },
        { "--seed", OPT_U64, &j.seed, "S", "of choice, order and sides (default 1)" },
        { "report", OPT_GROUP, NULL, NULL, NULL },
        { "--json", OPT_FLAG, &j.json, NULL, "one object" },
        { "--html", OPT_STR, &j.html, "FILE", "a page with every judgment too" },
        { NULL, 0, NULL, NULL, NULL },
    };
    if (cmd_parse(list,
                  "compare A B [C…] --set FILE -o DIR [options]\n       duet compare DIR --judge NAME\n       duet compare form DIR --judge NAME -o FILE.html|FILE.csv\n"
                  "       duet compare read DIR FILE…\n       duet compare report DIR [--json] [--html FILE]",
                  "People judge replies without knowing whose they are. A, B, …: the NAME.jsonl of duet eval, or texts with a reply a line. DIR gets key.json, which says who said\n"
                  "what and stays with you, and judgments.jsonl, to which each judgment is added the moment it is given; stop and go on whenever you like. A form is one HTML\n"
                  "page that works without a network (or a table), for judges who are elsewhere; read takes what they send back. report: wins, ties and losses with intervals,\n"
                  "the sign test, how far the judges agree.",
                  argc, argv, j.word, MAX_WORDS, &j.n_words, &status, e))
        return status;
    int r  = check_words(&j, &run, e);
    status = r ? EXIT_USAGE : run(&j, e) == OK ? EXIT_OK : EXIT_FAILED;
    arena_free(&j.mem);
    return status;
}
