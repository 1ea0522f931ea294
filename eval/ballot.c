/* ballot: see ballot.h. */
#include "eval/ballot.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "corpus/dialogue.h"
#include "dialog/json.h"
#include "eval/csv.h"

enum { LOG_MAX_BYTES = 1 << 28, WORD = 40 };

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for judgments"); }

const ballot *ballot_find(const ballot *list, int n, int unit, str judge)
{
    for (int i = 0; i < n; i++)
        if (list[i].unit == unit && str_eq(list[i].judge, judge)) return &list[i];
    return NULL;
}

/* ---- answers as words ------------------------------------------------------------------------------------------ */

int ballot_answer_of(int kind, str w, int swapped, int *answer)
{
    static const struct { const char *word; int kind, answer; } words[] = {
        { "1", STUDY_PAIR, 1 },  { "2", STUDY_PAIR, -1 }, { "=", STUDY_PAIR, 0 }, { "0", STUDY_PAIR, 0 }, { "tie", STUDY_PAIR, 0 }, { "\xEF\xBC\x9D", STUDY_PAIR, 0 },
        { "y", STUDY_SSA, 1 },   { "n", STUDY_SSA, 0 },   { "1", STUDY_SSA, 1 },  { "0", STUDY_SSA, 0 },  { "yes", STUDY_SSA, 1 },  { "no", STUDY_SSA, 0 },
        { "Y", STUDY_SSA, 1 },   { "N", STUDY_SSA, 0 },
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (words[i].kind == kind && str_eq(w, str_of(words[i].word))) {
            *answer = swapped ? -words[i].answer : words[i].answer;
            return 0;
        }
    return -1;
}

static json_t *stored(int kind, int answer) { return kind == STUDY_SSA ? json_boolean(answer) : json_string(answer > 0 ? "a" : answer < 0 ? "b" : "tie"); }

static int stored_answer(int kind, const json_t *v, int *answer)
{
    const char *s = json_string_value(v);
    if (kind == STUDY_SSA) return *answer = json_is_true(v), json_is_boolean(v) ? 0 : -1;
    if (!s) return -1;
    *answer = strcmp(s, "a") == 0 ? 1 : strcmp(s, "b") == 0 ? -1 : 0;
    return *answer || strcmp(s, "tie") == 0 ? 0 : -1;
}

/* ---- reading the log ------------------------------------------------------------------------------------------- */

static int read_unit(const study *s, const json_t *v, int *unit, err *e)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= s->n)
        return err_set(e, E_FORMAT, "no unit of this study: they are numbered 0 to %d", s->n - 1);
    *unit = (int)json_integer_value(v);
    return OK;
}

static int read_judge(const json_t *o, arena *a, str *judge, err *e)
{
    const json_t *v = json_object_get(o, "judge");
    if (!json_is_string(v) || !study_judge_ok((str){ json_string_value(v), json_string_length(v) })) return err_set(e, E_FORMAT, "no \"judge\" with a name");
    *judge = arena_str(a, (str){ json_string_value(v), json_string_length(v) }, e);
    return judge->s ? OK : E_NOMEM;
}

/* One line of the log applied to the list. */
static int apply(const study *s, const json_t *o, arena *a, ballot *list, int *n, err *e)
{
    ballot                x = { .seconds = NAN };
    int                   n_q, undo = json_object_get(o, "undo") != NULL, r = read_unit(s, json_object_get(o, undo ? "undo" : "unit"), &x.unit, e);
    const study_question *q = study_questions(s->kind, &n_q);
    const json_t         *answers = json_object_get(o, "answers"), *seconds = json_object_get(o, "seconds");
    if (r == OK) r = read_judge(o, a, &x.judge, e);
    if (r) return r;
    const ballot *was = ballot_find(list, *n, x.unit, x.judge);
    if (undo) {
        if (!was) return err_set(e, E_FORMAT, "unit %d of %.*s is undone, and was not judged", x.unit, (int)x.judge.n, x.judge.s);
        int at = (int)(was - list);
        memmove(list + at, list + at + 1, (size_t)(*n - at - 1) * sizeof *list);
        --*n;
        return OK;
    }
    if (was) return err_set(e, E_FORMAT, "unit %d was judged by %.*s before", x.unit, (int)x.judge.n, x.judge.s);
    for (int k = 0; k < n_q; k++)
        if (stored_answer(s->kind, json_object_get(answers, q[k].key), &x.answer[k])) return err_set(e, E_FORMAT, "no answer to \"%s\"", q[k].key);
    if (json_is_number(seconds)) x.seconds = json_number_value(seconds);
    list[(*n)++] = x;
    return OK;
}

int ballots_read(const study *s, const char *path, arena *a, ballot **list, int *n, long *torn, err *e)
{
    buf    b = { 0 };
    int    r = OK, at = 0;
    size_t lines = 0, whole = 0;
    *n    = 0;
    *torn = -1;
    *list = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT) return OK;
    r = read_file(path, LOG_MAX_BYTES, &b, e);
    for (size_t i = 0; i < b.n; i++)
        if (b.s[i] == '\n') whole = i + 1, lines++;
    if (r == OK && whole < b.n) *torn = (long)whole;
    if (r == OK && !(*list = arena_new(a, lines + 1, sizeof **list))) r = no_memory(e);
    str rest = { b.s, whole }, line;
    while (r == OK && next_line(&rest, &line)) {
        json_error_t je;
        json_t      *o = json_loadb(line.s, line.n, JSON_REJECT_DUPLICATES, &je);
        at++;
        r = json_is_object(o) ? apply(s, o, a, *list, n, e) : err_set(e, E_FORMAT, "not a JSON object");
        if (r) err_prefix(e, "%s:%d", path, at);
        json_decref(o);
    }
    buf_free(&b);
    return r;
}

/* ---- writing it ------------------------------------------------------------------------------------------------ */

struct ballot_log {
    int  fd;
    char path[];
};

int ballot_log_open(ballot_log **out, const char *path, long torn, err *e)
{
    ballot_log *l = malloc(sizeof *l + strlen(path) + 1);
    *out          = NULL;
    if (!l) return no_memory(e);
    strcpy(l->path, path);
    l->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (l->fd < 0 || (torn >= 0 && ftruncate(l->fd, torn) != 0)) {
        int r = err_set(e, E_IO, "%s: cannot write: %s", path, strerror(errno));
        ballot_log_close(l);
        return r;
    }
    *out = l;
    return OK;
}

void ballot_log_close(ballot_log *l)
{
    if (!l) return;
    if (l->fd >= 0) close(l->fd);
    free(l);
}

/* A whole line in one write; what a failed write left of it is taken back. */
static int put_line(ballot_log *l, json_t *o, err *e)
{
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    off_t was  = lseek(l->fd, 0, SEEK_END);
    int   r    = text ? OK : no_memory(e);
    size_t n   = text ? strlen(text) : 0;
    if (text) text[n] = '\n'; /* in the place of its NUL */
    if (r == OK && (write(l->fd, text, n + 1) != (ssize_t)(n + 1) || fsync(l->fd) != 0)) {
        r = err_set(e, E_IO, "%s: cannot write: %s", l->path, strerror(errno));
        if (was >= 0 && ftruncate(l->fd, was) != 0) err_prefix(e, "(and half a line is left)");
    }
    free(text);
    json_decref(o);
    return r;
}

int ballot_log_add(ballot_log *l, const study *s, const ballot *x, const char *by, const char *at, err *e)
{
    int                   n_q;
    const study_question *q       = study_questions(s->kind, &n_q);
    json_t               *answers = json_object();
    for (int k = 0; k < n_q; k++) json_object_set_new(answers, q[k].key, stored(s->kind, x->answer[k]));
    json_t *o = json_pack("{s:i, s:o, s:o, s:s, s:s}", "unit", x->unit, "judge", js_text(x->judge), "answers", answers, "by", by, "at", at);
    if (o && isfinite(x->seconds)) json_object_set_new(o, "seconds", json_real(x->seconds));
    return put_line(l, o, e);
}

int ballot_log_undo(ballot_log *l, int unit, str judge, const char *at, err *e)
{
    return put_line(l, json_pack("{s:i, s:o, s:s}", "undo", unit, "judge", js_text(judge), "at", at), e);
}

/* ---- forms ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const study   *s;
    arena         *a;
    str            judge;
    char           sheet[65];
    int           *unit;    /* (s->n,) the judge's order */
    unsigned char *swapped; /* (s->n,) */
    unsigned char *seen;    /* (s->n,) */
    ballot        *list;
    int            n;
} form;

/* Whose sheet it is, from the first row. */
static int form_begin(form *f, str sheet, str judge, err *e)
{
    if (!study_judge_ok(judge)) return err_set(e, E_FORMAT, "no judge's name");
    study_sheet(f->s, judge, f->sheet);
    if (!str_eq(sheet, str_of(f->sheet)))
        return err_set(e, E_FORMAT, "another sheet: its digest is %.*s…, that of this study's for %.*s is %.12s…", (int)(sheet.n < 12 ? sheet.n : 12), sheet.s ? sheet.s : "", (int)judge.n,
                       judge.s, f->sheet);
    size_t n   = (size_t)f->s->n;
    f->judge   = arena_str(f->a, judge, e);
    f->unit    = arena_new(f->a, n, sizeof *f->unit);
    f->swapped = arena_new(f->a, n, 1);
    f->seen    = arena_new(f->a, n, 1);
    f->list    = arena_new(f->a, n, sizeof *f->list);
    if (!f->judge.s || !f->unit || !f->swapped || !f->seen || !f->list) return no_memory(e);
    return study_order(f->s, f->judge, f->unit, f->swapped, e);
}

/* number: 1… in the judge's order.  words (n_q,): empty all: passed over. */
static int form_row(form *f, str number, const str *words, int n_words, double seconds, err *e)
{
    char                  digits[16], *end;
    int                   n_q, any = 0;
    const study_question *q = study_questions(f->s->kind, &n_q);
    snprintf(digits, sizeof digits, "%.*s", (int)(number.n < 15 ? number.n : 15), number.s ? number.s : "");
    long at = strtol(digits, &end, 10);
    if (!digits[0] || *end || at < 1 || at > f->s->n) return err_set(e, E_FORMAT, "no item '%s': there are 1 to %d", digits, f->s->n);
    for (int k = 0; k < n_words; k++) any |= words[k].n > 0;
    if (!any) return OK;
    if (f->seen[at - 1]++) return err_set(e, E_FORMAT, "item %ld is there twice", at);
    ballot x = { f->unit[at - 1], f->judge, { 0 }, seconds };
    for (int k = 0; k < n_q; k++) {
        str w = k < n_words ? words[k] : (str){ 0 };
        if (f->s->kind == STUDY_SSA && k == 1 && !w.n && !x.answer[0]) continue; /* what makes no sense is not specific */
        if (!w.n) return err_set(e, E_FORMAT, "item %ld: \"%s\" is not answered", at, q[k].key);
        if (ballot_answer_of(f->s->kind, w, f->swapped[at - 1], &x.answer[k]))
            return err_set(e, E_FORMAT, "item %ld: '%.*s' is no answer to \"%s\" (%s)", at, (int)(w.n < 20 ? w.n : 20), w.s, q[k].key, f->s->kind == STUDY_SSA ? "y or n" : "1, 2 or tie");
    }
    if (f->s->kind == STUDY_SSA && !x.answer[0]) x.answer[1] = 0;
    f->list[f->n++] = x;
    return OK;
}

static int read_csv_form(form *f, str bytes, err *e)
{
    int                   n_q, col[3 + STUDY_QUESTIONS], r;
    const study_question *q = study_questions(f->s->kind, &n_q);
    csv                   c;
    csv_open(&c, bytes);
    r = csv_next(&c, f->a, e);
    if (r == 0) return err_set(e, E_FORMAT, "an empty table");
    for (int k = 0; r == 1 && k < 3 + n_q; k++) {
        const char *name = k == 0 ? "sheet" : k == 1 ? "judge" : k == 2 ? "item" : q[k - 3].key;
        if ((col[k] = csv_column(&c, name)) < 0) r = err_set(e, E_FORMAT, "no column '%s'", name);
    }
    while (r >= 0 && (r = csv_next(&c, f->a, e)) == 1) {
        str cell[3 + STUDY_QUESTIONS];
        for (int k = 0; k < 3 + n_q; k++) cell[k] = col[k] < c.n ? csv_plain(str_trim(c.cell[col[k]])) : (str){ 0 };
        r = f->judge.s ? OK : form_begin(f, cell[0], cell[1], e);
        if (r == OK && !str_eq(cell[1], f->judge)) r = err_set(e, E_FORMAT, "a second judge");
        if (r == OK && !str_eq(cell[0], str_of(f->sheet))) r = err_set(e, E_FORMAT, "another sheet than in the rows before");
        if (r == OK) r = form_row(f, cell[2], cell + 3, n_q, NAN, e);
        if (r) err_prefix(e, "line %d", c.line);
    }
    return r < 0 ? r : OK;
}

static str text_at(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return (str){ json_string_value(v), json_string_length(v) };
}

static int read_json_form(form *f, str bytes, err *e)
{
    json_error_t je;
    json_t      *root = json_loadb(bytes.s, bytes.n, JSON_REJECT_DUPLICATES, &je), *answers = json_object_get(root, "answers");
    int          r    = root ? OK : err_set(e, E_FORMAT, "line %d: not JSON: %s", je.line, je.text);
    if (r == OK && !json_is_array(answers)) r = err_set(e, E_FORMAT, "no list of \"answers\"");
    if (r == OK) r = form_begin(f, text_at(root, "sheet"), text_at(root, "judge"), e);
    for (size_t i = 0; i < json_array_size(answers) && r == OK; i++) {
        const json_t *o = json_array_get(answers, i), *given = json_object_get(o, "answers"), *number = json_object_get(o, "item"), *seconds = json_object_get(o, "seconds");
        char          digits[24] = "";
        str           words[STUDY_QUESTIONS] = { { 0 } };
        if (json_is_integer(number)) snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(number));
        for (int k = 0; k < STUDY_QUESTIONS; k++) {
            const json_t *v = json_array_get(given, (size_t)k);
            words[k]        = (str){ json_string_value(v), json_string_length(v) };
        }
        r = form_row(f, str_of(digits), words, STUDY_QUESTIONS, json_is_number(seconds) ? json_number_value(seconds) : NAN, e);
    }
    json_decref(root); /* its texts were only looked at */
    return r;
}

int ballots_from_form(const study *s, str bytes, const char *name, arena *a, ballot **list, int *n, err *e)
{
    form f    = { .s = s, .a = a };
    str  rest = str_trim(str_starts(bytes, STR("\xEF\xBB\xBF")) ? (str){ bytes.s + 3, bytes.n - 3 } : bytes);
    int  r    = rest.n && rest.s[0] == '{' ? read_json_form(&f, rest, e) : read_csv_form(&f, bytes, e);
    *list     = f.list;
    *n        = f.n;
    return r ? err_prefix(e, "%s", name) : OK;
}
