/* duet eval --set: replies of several systems to a test set, their scores, the report.  Program code: opens models, shows progress, writes files. */
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "corpus/dialogue.h"
#include "eval/commands.h"
#include "eval/report.h"

enum { MAX_SYSTEMS = 64, MAX_WORKERS = 64, DIFFERENT_ITEMS = 20 };

typedef struct {
    system_spec spec;
    json_t     *lines; /* NULL: replies from elsewhere */
    buf         text;  /* of those */
    str        *hyp;   /* (n,) */
    buf         settings;
    perplexities ppl;
} one_system;
typedef struct {
    const set_options *o;
    testset    set;
    one_system system[MAX_SYSTEMS];
    arena      mem;
    str       *ref;
    int       *ref_at;
} set_job;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int out_path(const set_job *j, const char *name, const char *end, buf *b, err *e)
{
    buf_reset(b);
    buf_fmt(b, "%s/%s%s", j->o->out, name, end);
    return b->oom ? err_set(e, E_NOMEM, "out of memory") : OK;
}

/* ---- progress -------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    double      started, last;
    int         first; /* items that were there when it started, -1 before the first call */
} shown;

/* On a terminal a line that is written over; elsewhere one line in half a minute. */
static int show(void *ctx, int done, int total)
{
    shown   *j = ctx;
    double   now = seconds(), spent = now - j->started;
    int      tty = isatty(STDERR_FILENO);
    if (j->first < 0) j->first = done; /* the speed is that of this run, not of what was there */
    double each = done > j->first ? spent / (done - j->first) : 0, left = each * (total - done);
    if (now - j->last < (tty ? 0.2 : 30) && done < total) return 0;
    j->last = now;
    fprintf(stderr, "%s%s: %d of %d", tty ? "\r" : "", j->name, done, total);
    if (each > 0) fprintf(stderr, ", %.2f s each, %d:%02d:%02d left", each, (int)(left / 3600), (int)(left / 60) % 60, (int)left % 60);
    fputs(tty ? "\033[K" : "\n", stderr);
    if (tty && done == total) fputc('\n', stderr);
    return 0;
}

static void tell(void *ctx, const char *what, str name)
{
    (void)ctx;
    fprintf(stderr, "%s %.*s\n", what, (int)name.n, name.s);
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

int set_generate(const char *name, gpt2 *fwd, gpt2 *bwd, const safety *rules, const testset *t, const respond_opts *o, int threads, int together, const char *path, err *e)
{
    responder *r[MAX_WORKERS] = { NULL };
    shown      s = { .name = name, .started = seconds(), .first = -1 };
    int        n = threads ? threads : omp_get_max_threads(), got = OK;
    if (n > MAX_WORKERS) n = MAX_WORKERS;
    if (n > t->n) n = t->n;
    if (t->keyed) return err_set(e, E_ARG, "%s: a file of references holds no lines that models could answer: score replies from elsewhere on it", name);
    for (int k = 0; k < n && got == OK; k++) got = responder_new(&r[k], fwd, bwd, rules, e);
    if (got == OK) got = batch_generate(r, n, together, t, o, path, show, &s, e);
    for (int k = 0; k < n; k++) responder_free(r[k]);
    return got;
}

static int generate(set_job *j, one_system *s, const char *path, err *e)
{
    gpt2   *fwd = NULL, *bwd = NULL;
    safety *rules = NULL;
    int     got   = gpt2_open(&fwd, s->spec.forward, e);
    if (got == OK && s->spec.backward) got = gpt2_open(&bwd, s->spec.backward, e);
    if (got == OK && s->spec.rules) got = safety_open(&rules, &s->spec.rules, 1, e);
    if (got == OK) got = set_generate(s->spec.name.s, fwd, bwd, rules, &j->set, &s->spec.opts, j->o->threads, j->o->together, path, e);
    safety_close(rules);
    gpt2_close(bwd);
    gpt2_close(fwd);
    return got;
}

static int from_models(set_job *j, one_system *s, err *e)
{
    buf path = { 0 };
    int r    = out_path(j, s->spec.name.s, ".jsonl", &path, e);
    if (r == OK) r = generate(j, s, path.s, e);
    if (r == OK) r = batch_read(path.s, j->set.n, &s->lines, e);
    for (int i = 0; i < j->set.n && r == OK; i++) s->hyp[i] = batch_reply(s->lines, i);
    if (r == OK) r = batch_perplexities(s->lines, &j->set, j->o->kind, &s->ppl, e);
    if (r == OK) r = respond_opts_format(&s->spec.opts, &s->settings);
    buf_free(&path);
    return r;
}

static int from_file(set_job *j, one_system *s, err *e)
{
    str line, rest;
    int n = 0, r = read_file(s->spec.replies, 1 << 30, &s->text, e);
    rest = buf_view(&s->text);
    while (r == OK && next_line(&rest, &line)) {
        if (n < j->set.n) s->hyp[n] = line;
        n++;
    }
    if (r == OK && n != j->set.n) r = err_set(e, E_FORMAT, "%s: %d lines, the set has %d items", s->spec.replies, n, j->set.n);
    buf_fmt(&s->settings, "replies of %s", s->spec.replies);
    s->ppl = (perplexities){ NAN, NAN, NAN, NAN };
    return r;
}

static int read_systems(set_job *j, err *e)
{
    int r = OK;
    for (int k = 0; k < j->o->n && r == OK; k++) {
        one_system *s = &j->system[k];
        r = system_read(&s->spec, j->o->systems[k], &j->mem, e);
        for (int q = 0; q < k && r == OK; q++)
            if (str_eq(j->system[q].spec.name, s->spec.name)) r = err_set(e, E_ARG, "%s and %s are both named %s", j->o->systems[q], j->o->systems[k], s->spec.name.s);
        if (r == OK && !(s->hyp = calloc((size_t)j->set.n + 1, sizeof *s->hyp))) r = err_set(e, E_NOMEM, "out of memory");
    }
    return r;
}

/* ---- what is written ------------------------------------------------------------------------------------------- */

static int write_file(const set_job *j, const char *end, str bytes, err *e)
{
    buf path = { 0 };
    int r    = out_path(j, "report", end, &path, e);
    if (r == OK) r = out_file(path.s, bytes, e);
    buf_free(&path);
    return r;
}

static void add_perplexities(const set_job *j, json_t *root)
{
    json_t *all = json_object();
    for (int k = 0; k < j->o->n; k++) {
        const perplexities *p = &j->system[k].ppl;
        if (isnan(p->token)) continue;
        json_object_set_new(all, j->system[k].spec.name.s, json_pack("{s:f, s:f, s:f, s:f}", "token", p->token, "item", p->item, "character", p->character, "word", p->word));
    }
    json_object_set_new(root, "reference_perplexity", all);
}

static int write_reports(const set_job *j, const scorecard *c, err *e)
{
    report_system sys[MAX_SYSTEMS];
    buf           b = { 0 };
    json_t       *root = scorecard_json(c, e);
    int           r = root ? OK : E_NOMEM;
    for (int k = 0; k < j->o->n; k++) sys[k] = (report_system){ j->system[k].lines, j->system[k].settings.s, j->system[k].ppl, j->system[k].lines ? &j->system[k].spec.opts : NULL };
    if (root) add_perplexities(j, root);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    if (r == OK) r = text ? write_file(j, ".json", str_of(text), e) : err_set(e, E_NOMEM, "out of memory for JSON");
    if (r == OK && j->o->json) puts(text);
    free(text);
    json_decref(root);
    if (r == OK) r = scorecard_markdown(c, &b, e);
    if (r == OK) r = write_file(j, ".md", buf_view(&b), e);
    if (r == OK && j->o->markdown) fwrite(b.s, 1, b.n, stdout);
    buf_reset(&b);
    if (r == OK) r = report_html("Duet evaluation", c, &j->set, sys, DIFFERENT_ITEMS, j->o->listed, &b, e);
    if (r == OK) r = write_file(j, ".html", buf_view(&b), e);
    buf_reset(&b);
    if (r == OK && !j->o->json && !j->o->markdown) {
        r = scorecard_table(c, &b, e);
        if (r == OK) fwrite(b.s, 1, b.n, stdout);
    }
    buf_free(&b);
    return r;
}

static int score(set_job *j, err *e)
{
    str        name[MAX_SYSTEMS];
    const str *hyp[MAX_SYSTEMS];
    scorecard  c;
    int        r = testset_references(&j->set, &j->ref, &j->ref_at, e);
    for (int k = 0; k < j->o->n; k++) {
        name[k] = j->system[k].spec.name;
        hyp[k]  = j->system[k].hyp;
    }
    if (r == OK && !j->ref_at) fprintf(stderr, "%s: not every item has a reference, so there are only the metrics that need none\n", j->o->set);
    if (r == OK) r = scorecard_new(&c, name, hyp, j->o->n, j->set.n, j->ref, j->ref_at, j->o->kind, &j->o->doubt, isatty(STDERR_FILENO) ? tell : NULL, NULL, e);
    if (r) return r;
    r = write_reports(j, &c, e);
    scorecard_free(&c);
    return r;
}

int eval_set(const set_options *o, err *e)
{
    set_job *j = calloc(1, sizeof *j);
    if (!j) return err_set(e, E_NOMEM, "out of memory");
    j->o  = o;
    int r = testset_read(&j->set, o->set, e);
    if (r == OK && o->limit && o->limit < j->set.n) j->set.n = o->limit;
    if (r == OK) r = read_systems(j, e);
    if (r == OK && mkdir(o->out, 0777) != 0 && errno != EEXIST) r = err_set(e, E_IO, "%s: cannot make the folder: %s", o->out, strerror(errno));
    for (int k = 0; k < o->n && r == OK; k++) r = j->system[k].spec.replies ? from_file(j, &j->system[k], e) : from_models(j, &j->system[k], e);
    if (r == OK) r = score(j, e);
    for (int k = 0; k < o->n; k++) {
        json_decref(j->system[k].lines);
        buf_free(&j->system[k].text);
        buf_free(&j->system[k].settings);
        free(j->system[k].hyp);
    }
    free(j->ref);
    free(j->ref_at);
    testset_free(&j->set);
    arena_free(&j->mem);
    free(j);
    return r;
}
