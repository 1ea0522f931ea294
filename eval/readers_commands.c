/* audit sample: a seeded sample of replies for a person to read, at the terminal or as a table; judgments go into the store; how far
 * readers agree.  Program code. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit_commands.h"
#include "eval/csv.h"
#include "eval/readers.h"

enum { SHOWN_BEFORE = 4 /* turns of context */, TABLE_MAX = 64 << 20 };
static const char keys[JUDGE_LABELS + 1] = "orutx"; /* in the order of JUDGE_… */

/* The sample: replies that a model gave and whose words are still there. */
static int pick(audit_job *j, arena *a, int64_t **id, int *n, err *e)
{
    int64_t *all;
    int      have, r = audit_chosen_turns(j, a, &all, &have, e);
    *n               = 0;
    if (r) return r;
    if (!(*id = arena_new(a, (size_t)have, sizeof **id))) return err_set(e, E_NOMEM, "out of memory for a sample");
    have = readers_sample(all, have, have, j->seed, *id, e); /* all of them, shuffled */
    for (int i = 0; i < have && *n < j->n_sample; i++) {
        arena    mem = { 0 };
        exchange x;
        r = hist_exchange(j->h, (*id)[i], &mem, &x, e);
        if (r == OK && x.r.kind == REPLY_MODEL && !x.forgotten) (*id)[(*n)++] = (*id)[i];
        arena_free(&mem);
        if (r) return r;
    }
    return OK;
}

static int reopen_for_writing(audit_job *j, err *e)
{
    hist_close(j->h);
    j->h = NULL;
    return cmd_open_db(j->db, HIST_WRITE, &j->h, e);
}

static const judgment *judged(const judgment *list, int n, int64_t id, const char *reader)
{
    for (int i = 0; i < n; i++)
        if (list[i].turn == id && str_eq(list[i].reader, str_of(reader))) return &list[i];
    return NULL;
}

/* ---- at the terminal --------------------------------------------------------------------------------------------- */

static int show(audit_job *j, int64_t id, int at, int n, err *e)
{
    arena    a = { 0 };
    exchange x;
    turn    *t;
    int      m, r = hist_exchange(j->h, id, &a, &x, e);
    if (r == OK) r = hist_turns(j->h, x.conv, x.n, &a, &t, &m, e);
    if (r == OK) {
        printf("\n%d of %d, turn %lld\n", at, n, (long long)id);
        for (int i = m > SHOWN_BEFORE ? m - SHOWN_BEFORE : 0; i < m; i++) {
            printf(t[i].speaker ? "        > " : "        < ");
            put_visible(t[i].text);
            putchar('\n');
        }
        printf("  user  < ");
        put_visible(x.r.user_text);
        printf("\n  reply > ");
        put_visible(x.r.text);
        putchar('\n');
    }
    arena_free(&a);
    return r;
}

/* An answer: a label and *note; -1 skip, -2 back, -3 quit (also the end of the input), -4 none of these. */
static int read_answer(char **line, size_t *cap, str *note)
{
    printf("o r u t x s b q? ");
    fflush(stdout);
    ssize_t n = getline(line, cap, stdin);
    if (n < 0) return putchar('\n'), -3;
    str    s = str_trim((str){ *line, (size_t)n });
    size_t k = 0;
    while (k < s.n && s.s[k] != ' ' && s.s[k] != '\t') k++;
    *note = str_trim((str){ s.s + k, s.n - k });
    (*line)[s.s + k - *line] = 0;
    if (k == 1 && strchr(keys, s.s[0])) return (int)(strchr(keys, s.s[0]) - keys);
    if (k == 1 && strchr("sbq", s.s[0])) return -1 - (int)(strchr("sbq", s.s[0]) - "sbq");
    int label = hist_label_of_name(s.s);
    return label >= 0 ? label : -4;
}

/* Ask about id (m,), of a sample of n; *left = those that were not judged. */
static int ask_each(audit_job *j, const int64_t *id, int m, int n, int *left, err *e)
{
    char  *line = NULL, stamp[32], *done = calloc((size_t)m + 1, 1);
    size_t cap  = 0;
    int    r    = done ? OK : err_set(e, E_NOMEM, "out of memory for a sample");
    *left       = m;
    for (int i = 0; r == OK && i < m;) {
        str note;
        r = show(j, id[i], n - m + i + 1, n, e);
        if (r) break;
        int got = read_answer(&line, &cap, &note);
        if (got == -3) break;
        if (got == -4) puts("none of the letters");
        else if (got == -2) i -= i > 0;
        else if (got == -1) i++;
        else {
            r = hist_judge(j->h, id[i], str_of(j->reader), got, note, cmd_utc(stamp), e);
            *left -= r == OK && !done[i];
            done[i++] = 1;
        }
    }
    free(line);
    free(done);
    return r;
}

static int ask(audit_job *j, err *e)
{
    arena     a = { 0 };
    int64_t  *id;
    judgment *old;
    int       n, n_old, m = 0, left, r = pick(j, &a, &id, &n, e);
    if (r == OK) r = hist_judgments(j->h, &a, &old, &n_old, e);
    for (int i = 0; r == OK && i < n; i++) /* those that wait */
        if (!judged(old, n_old, id[i], j->reader)) id[m++] = id[i];
    if (r == OK && m > 0)
        puts("Judge the reply: o ok, r repetition, u unsafe, t off-topic, x otherwise bad; behind the letter a note, if you like.\n"
             "s skip, b back to the one before, q quit. What is judged is kept at once.");
    if (r == OK && m < n) printf("%d of the %d were judged by you before.\n", n - m, n);
    if (r == OK) r = ask_each(j, id, m, n, &left, e);
    if (r == OK) printf("%d judged now, %d of the sample of %d are left\n", m - left, left, n);
    arena_free(&a);
    return r;
}

/* ---- as a table -------------------------------------------------------------------------------------------------- */

static int export_row(audit_job *j, int64_t id, const judgment *was, buf *b, err *e)
{
    arena    a = { 0 };
    exchange x;
    turn    *t;
    char     number[24], hash[65];
    int      m, r = hist_exchange(j->h, id, &a, &x, e);
    if (r == OK) r = hist_turns(j->h, x.conv, x.n, &a, &t, &m, e);
    if (r == OK) {
        buf before = { 0 };
        for (int i = m > SHOWN_BEFORE ? m - SHOWN_BEFORE : 0; i < m; i++) {
            if (before.n) buf_chr(&before, '\n');
            buf_str(&before, t[i].speaker ? STR("> ") : STR("< "));
            buf_str(&before, t[i].text);
        }
        snprintf(number, sizeof number, "%lld", (long long)id);
        sha256_hex(x.hash, hash);
        csv_cell(b, str_of(number), 1);
        csv_cell(b, (str){ hash, 16 }, 0);
        csv_cell(b, buf_view(&before), 0);
        csv_cell(b, x.r.user_text, 0);
        csv_cell(b, x.r.text, 0);
        csv_cell(b, was ? str_of(hist_label_name(was->label)) : STR(""), 0);
        csv_cell(b, was ? was->note : STR(""), 0);
        csv_end(b);
        b->oom |= before.oom;
        buf_free(&before);
    }
    arena_free(&a);
    return r;
}

static int export_table(audit_job *j, err *e)
{
    static const char *const heads[] = { "turn", "hash", "before", "user", "reply", "label", "note" };
    arena     a = { 0 };
    buf       b = { 0 };
    int64_t  *id;
    judgment *old;
    int       n, n_old, r = pick(j, &a, &id, &n, e);
    if (r == OK) r = hist_judgments(j->h, &a, &old, &n_old, e);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) csv_cell(&b, str_of(heads[i]), i == 0);
    csv_end(&b);
    for (int i = 0; r == OK && i < n; i++) r = export_row(j, id[i], j->reader ? judged(old, n_old, id[i], j->reader) : NULL, &b, e);
    if (r == OK && b.oom) r = err_set(e, E_NOMEM, "out of memory for a table");
    if (r == OK) r = audit_put_file(j->export, buf_view(&b), e);
    if (r == OK) fprintf(stderr, "%d replies; write ok, repetition, unsafe, off-topic or other into the column label, then --import\n", n);
    buf_free(&b);
    arena_free(&a);
    return r;
}

/* One row of a table: OK with *label -1 when it is left blank. */
static int read_row(audit_job *j, const csv *c, const int col[4], int64_t *id, int *label, str *note, err *e)
{
    arena    a = { 0 };
    exchange x;
    char     word[32], hash[65], *end;
    str      cell[4];
    for (int i = 0; i < 4; i++) cell[i] = col[i] >= 0 && col[i] < c->n ? csv_plain(str_trim(c->cell[col[i]])) : STR("");
    snprintf(word, sizeof word, "%.*s", (int)(cell[0].n < 31 ? cell[0].n : 31), cell[0].n ? cell[0].s : "");
    *id = strtoll(word, &end, 10);
    if (!word[0] || *end || *id <= 0) return err_set(e, E_FORMAT, "line %d: '%s' is no number of a turn", c->line, word);
    snprintf(word, sizeof word, "%.*s", (int)(cell[2].n < 31 ? cell[2].n : 31), cell[2].n ? cell[2].s : "");
    *note  = cell[3];
    *label = word[0] ? hist_label_of_name(word) : -1;
    if (word[0] && *label < 0) return err_set(e, E_FORMAT, "line %d: no label '%s': ok, repetition, unsafe, off-topic or other", c->line, word);
    if (*label < 0) return OK;
    int r = hist_exchange(j->h, *id, &a, &x, e);
    if (r == OK) {
        sha256_hex(x.hash, hash);
        if (cell[1].n < 8 || cell[1].n > 64 || memcmp(hash, cell[1].s, cell[1].n) != 0)
            r = err_set(e, E_FORMAT, "turn %lld is another one in this store (its hash begins with %.16s)", (long long)*id, hash);
    }
    if (r) err_prefix(e, "line %d", c->line);
    arena_free(&a);
    return r;
}

/* First everything is read and checked, then everything recorded. */
static int import_table(audit_job *j, err *e)
{
    static const char *const heads[] = { "turn", "hash", "label", "note" };
    arena a = { 0 };
    buf   b = { 0 };
    char  stamp[32];
    int   col[4], n = 0, blank = 0, r = read_file(j->import, TABLE_MAX, &b, e);
    for (int pass = 0; r == OK && pass < 2; pass++) {
        csv c;
        csv_open(&c, buf_view(&b));
        r = csv_next(&c, &a, e);
        for (int i = 0; r == 1 && i < 4; i++)
            if ((col[i] = csv_column(&c, heads[i])) < 0 && i < 3) r = err_set(e, E_FORMAT, "line 1: no column '%s'", heads[i]);
        if (r == 0) r = err_set(e, E_FORMAT, "an empty table");
        while (r == 1 && (r = csv_next(&c, &a, e)) == 1) {
            int64_t id;
            int     label = -1;
            str     note;
            int     got = read_row(j, &c, col, &id, &label, &note, e);
            if (got == OK && label >= 0 && pass) got = hist_judge(j->h, id, str_of(j->reader), label, note, cmd_utc(stamp), e);
            if (got) r = got;
            n += pass && label >= 0;
            blank += pass && label < 0;
        }
    }
    if (r) err_prefix(e, "%s", j->import);
    else printf("%d judgments of %s recorded, %d rows left blank\n", n, j->reader, blank);
    buf_free(&b);
    arena_free(&a);
    return r;
}

/* ---- agreement --------------------------------------------------------------------------------------------------- */

static void put_readers(const judgment *list, int n, const readers_sum *s)
{
    printf("%-20s %7s", "reader", "judged");
    for (int k = 0; k < JUDGE_LABELS; k++) printf(" %10s", hist_label_name(k));
    putchar('\n');
    for (int i = 0; i < s->n_one; i++) {
        int count[JUDGE_LABELS] = { 0 };
        for (int k = 0; k < n; k++) count[list[k].label] += str_eq(list[k].reader, s->one[i].reader);
        buf b = { 0 };
        buf_visible(&b, s->one[i].reader);
        printf("%-20s %7d", b.s ? b.s : "", s->one[i].n);
        for (int k = 0; k < JUDGE_LABELS; k++) printf(" %10d", count[k]);
        putchar('\n');
        buf_free(&b);
    }
    printf("%-20s %7d", "per 1000", s->n_turns);
    for (int k = 0; k < JUDGE_LABELS; k++) printf(" %10.1f", 1000 * s->share[k]);
    putchar('\n');
    for (int i = 0; i < s->n_pair; i++) {
        const readers_pair *p = &s->pair[i];
        put_visible(s->one[p->a].reader);
        printf(" and ");
        put_visible(s->one[p->b].reader);
        if (p->n == 0) puts(": no exchange that both have judged");
        else printf(": %d both, %.1f %% alike, Cohen's kappa %.3f\n", p->n, 100 * p->observed, p->kappa);
    }
    if (s->n_one < 2) puts("agreement takes two readers");
    else if (isnan(s->alpha)) puts("Krippendorff's alpha: there is nothing to tell apart (one label everywhere, or no exchange judged twice)");
    else printf("Krippendorff's alpha %.3f over %d exchanges with two judgments and more\n", s->alpha, s->n_shared);
}

/* The exchanges on which readers differ; the list is in order of turns. */
static void put_disputes(const judgment *list, int n)
{
    for (int i = 0, to; i < n; i = to) {
        int differ = 0;
        for (to = i; to < n && list[to].turn == list[i].turn; to++) differ |= list[to].label != list[i].label;
        if (!differ) continue;
        printf("turn %lld:", (long long)list[i].turn);
        for (int k = i; k < to; k++) {
            printf(k == i ? " " : ", ");
            put_visible(list[k].reader);
            printf(" %s", hist_label_name(list[k].label));
            if (!list[k].note.n) continue;
            printf(" (");
            put_visible(list[k].note);
            putchar(')');
        }
        putchar('\n');
    }
}

static int agreement_json(const readers_sum *s, err *e)
{
    json_t *one = json_array(), *pairs = json_array(), *share = json_object();
    for (int i = 0; i < s->n_one; i++) json_array_append_new(one, json_pack("{s:o, s:i}", "reader", js_text(s->one[i].reader), "judged", s->one[i].n));
    for (int i = 0; i < s->n_pair; i++)
        json_array_append_new(pairs, json_pack("{s:o, s:o, s:i, s:o, s:o}", "a", js_text(s->one[s->pair[i].a].reader), "b",
                                               js_text(s->one[s->pair[i].b].reader), "both", s->pair[i].n, "alike", js_number(s->pair[i].observed), "kappa",
                                               js_number(s->pair[i].kappa)));
    for (int k = 0; k < JUDGE_LABELS; k++) json_object_set_new(share, hist_label_name(k), json_real(1000 * s->share[k]));
    return js_line(json_pack("{s:i, s:i, s:o, s:o, s:o, s:o}", "turns", s->n_turns, "shared", s->n_shared, "alpha", js_number(s->alpha), "readers", one,
                              "pairs", pairs, "per_1000", share), e);
}

static int agreement(audit_job *j, err *e)
{
    arena       a = { 0 };
    judgment   *list;
    readers_sum s;
    int         n, r = hist_judgments(j->h, &a, &list, &n, e);
    reading    *v    = r == OK ? arena_new(&a, (size_t)n, sizeof *v) : NULL;
    if (r == OK && !v) r = err_set(e, E_NOMEM, "out of memory for judgments");
    for (int i = 0; r == OK && i < n; i++) v[i] = (reading){ list[i].turn, list[i].reader, list[i].label };
    if (r == OK) r = readers_agree(v, n, JUDGE_LABELS, &a, &s, e);
    if (r == OK && j->json) r = agreement_json(&s, e);
    else if (r == OK && n == 0) puts("nobody has judged anything in this store");
    else if (r == OK) {
        put_readers(list, n, &s);
        put_disputes(list, n);
    }
    arena_free(&a);
    return r;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

int audit_run_sample(audit_job *j, int *status, err *e)
{
    int r;
    *status = EXIT_OK;
    if (j->agreement) return agreement(j, e);
    if (j->export) return export_table(j, e);
    r = reopen_for_writing(j, e);
    return r ? r : j->import ? import_table(j, e) : ask(j, e);
}
