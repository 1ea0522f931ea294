/* batch: see batch.h. */
#include "eval/batch.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "corpus/dialogue.h"
#include "dialog/json.h"
#include "eval/tokenise.h"

enum { LINE_MAX_BYTES = 1 << 30, TOGETHER_MAX = 16, TOGETHER = 8 /* more win nothing on the shipped pair: keys and values leave the caches */, TOGETHER_BYTES = 256 << 20 };

static int no_memory(err *e) { return err_set(e, E_NOMEM, "batch: out of memory"); }

/* ---- settings files -------------------------------------------------------------------------------------------- */

/* A path of the settings file, relative to its folder. */
static int path_value(const char *file, str value, arena *a, const char **out, err *e)
{
    buf         b     = { 0 };
    const char *slash = strrchr(file, '/');
    if (value.n && value.s[0] != '/' && slash) buf_add(&b, file, (size_t)(slash - file) + 1);
    buf_str(&b, value);
    str copy = b.oom ? (str){ 0 } : arena_str(a, buf_view(&b), e);
    buf_free(&b);
    *out = copy.s;
    return copy.s ? OK : no_memory(e);
}

static int name_ok(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", s.s[i])) return 0;
    return s.n > 0 && s.n <= 64 && s.s[0] != '.';
}

static int setting(system_spec *s, const char *file, str key, str value, arena *a, err *e)
{
    if (str_eq(key, STR("name"))) {
        if (!name_ok(value)) return err_set(e, E_FORMAT, "a name is letters, digits, . _ - and no . in front, at most 64");
        s->name = arena_str(a, value, e);
        return s->name.s ? OK : E_NOMEM;
    }
    if (str_eq(key, STR("options"))) return respond_opts_parse(&s->opts, value, e);
    if (str_eq(key, STR("forward"))) return path_value(file, value, a, &s->forward, e);
    if (str_eq(key, STR("backward"))) return path_value(file, value, a, &s->backward, e);
    if (str_eq(key, STR("replies"))) return path_value(file, value, a, &s->replies, e);
    if (str_eq(key, STR("rules"))) return str_eq(value, STR("none")) ? OK : path_value(file, value, a, &s->rules, e);
    return err_set(e, E_FORMAT, "no setting '%.*s'; there are name, forward, backward, options, rules, replies", (int)key.n, key.s);
}

int system_read(system_spec *s, const char *path, arena *a, err *e)
{
    buf  bytes = { 0 };
    str  rest, line;
    *s    = (system_spec){ .opts = respond_defaults() };
    int r = read_file(path, 1 << 20, &bytes, e), n = 0;
    rest  = buf_view(&bytes);
    while (r == OK && next_line(&rest, &line)) {
        n++;
        str         x     = str_trim(line);
        const char *colon = x.n ? memchr(x.s, ':', x.n) : NULL;
        if (!x.n || x.s[0] == '#') continue;
        if (!colon) r = err_set(e, E_FORMAT, "'%.*s' is no \"key: value\"", (int)(x.n < 60 ? x.n : 60), x.s);
        else r = setting(s, path, str_trim((str){ x.s, (size_t)(colon - x.s) }), str_trim((str){ colon + 1, x.n - (size_t)(colon + 1 - x.s) }), a, e);
        if (r) err_prefix(e, "%s:%d", path, n);
    }
    if (r == OK && !s->name.s) {
        const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
        r = setting(s, path, STR("name"), (str){ base, dot && dot > base ? (size_t)(dot - base) : strlen(base) }, a, e);
        if (r) err_prefix(e, "%s", path);
    }
    if (r == OK && (s->replies != NULL) == (s->forward != NULL)) r = err_set(e, E_FORMAT, "%s: wanted either forward: MODEL or replies: FILE", path);
    buf_free(&bytes);
    return r;
}

/* ---- one item -------------------------------------------------------------------------------------------------- */

static json_t *item_json(int item, const reply *r, uint64_t seed, double ref_logp, int ref_tokens)
{
    json_t *j   = js_reply(r, seed);
    json_t *ref = ref_tokens ? json_pack("{s:o, s:i}", "logp", js_real(ref_logp), "tokens", ref_tokens) : json_null();
    if (!j) return json_decref(ref), NULL;
    json_object_set_new(j, "item", json_integer(item));
    json_object_set_new(j, "reference", ref);
    return j;
}

/* log P of the first reference and its separator under the forward model; one longer than half of the context is cut. */
static int score_reference(responder *r, const turn *turns, int n, str ref, const respond_opts *o, arena *a, double *logp, int *tokens, err *e)
{
    turn         t;
    respond_opts f    = *o;
    int          most = gpt2_cfg(responder_fwd(r))->n_ctx / 2, got = respond_turn(r, ref, 1, a, &t, e);
    if (responder_bwd(r) && gpt2_cfg(responder_bwd(r))->n_ctx / 2 < most) most = gpt2_cfg(responder_bwd(r))->n_ctx / 2;
    candidate    c    = { .id = t.id, .n = t.n < most ? t.n : most, .ended = t.n <= most, .fate = CAND_OK, .dup_of = -1, .v = { .rule = -1 } };
    *tokens           = 0;
    if (got || turns[n - 1].n == 0) return got; /* a line without a token cannot be answered */
    f.mode = MODE_FORWARD;
    got    = respond_score(r, turns, n, &c, 1, &f, e);
    *logp   = c.fwd;
    *tokens = c.n + c.ended;
    return got;
}

typedef struct { /* an item under way */
    turn        *turns; /* (n_turn,) */
    respond_opts opts;
    reply        rep;
    double       logp;
    int          tokens;
    err          e;
} item_work;

/* Its turns and options; the job that asks for its reply. */
static int prepare(responder *r, const testset *t, int item, const respond_opts *o, arena *a, item_work *w, respond_job *job)
{
    const test_item *x = &t->item[item];
    int              got;
    *w       = (item_work){ .opts = *o, .turns = arena_new(a, (size_t)x->n_turn, sizeof *w->turns), .logp = NAN };
    w->opts.seed = rng_u64(o->seed, (uint64_t)item, 0);
    got      = w->turns ? OK : no_memory(&w->e);
    for (int i = 0; i < x->n_turn && got == OK; i++) {
        got = respond_turn(r, x->turn[i], (x->n_turn - 1 - i) & 1, a, &w->turns[i], &w->e);
        if (got == OK && w->turns[i].n == 0) w->turns[i].hidden = 1;
    }
    *job = (respond_job){ .hist = w->turns, .n = x->n_turn - 1, .user = x->turn[x->n_turn - 1], .o = &w->opts, .a = a, .out = &w->rep };
    return got;
}

/* The line of an item; what is wrong with the item alone becomes its line. */
static int line_of(int item, const item_work *w, char **line, err *e)
{
    json_t *j = NULL;
    int     got = w->e.code;
    if (got == OK) {
        j = item_json(item, &w->rep, w->opts.seed, w->logp, w->tokens);
    } else if (got == E_LIMIT || got == E_ARG || got == E_FORMAT) {
        j   = json_pack("{s:i, s:s, s:s, s:i, s:[], s:n, s:o}", "item", item, "reply", "", "kind", "error", "chosen", -1, "candidates", "reference", "error", js_text(str_of(w->e.msg)));
        got = OK;
    }
    *line = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(j);
    if (got) {
        if (e) *e = w->e;
        return err_prefix(e, "test item %d", item + 1);
    }
    return *line ? OK : no_memory(e);
}

/* The lines of items from … from + n - 1, all of whose replies are drawn side by side.  An error leaves the lines of the items before it. */
static int lines_of(responder *r, const testset *t, int from, int n, const respond_opts *o, arena *a, char **line, err *e)
{
    item_work   *w   = arena_new(a, (size_t)n, sizeof *w);
    respond_job *job = arena_new(a, (size_t)n, sizeof *job);
    int         *of  = arena_new(a, (size_t)n, sizeof *of), k = 0, got = OK;
    if (!w || !job || !of) return no_memory(e);
    for (int i = 0; i < n; i++)
        if (prepare(r, t, from + i, o, a, &w[i], &job[k]) == OK) of[k++] = i;
    respond_many(r, job, k, NULL);
    for (int q = 0; q < k; q++) {
        const test_item *x = &t->item[from + of[q]];
        item_work       *i = &w[of[q]];
        i->e = job[q].e;
        if (i->e.code == OK && x->n_ref) score_reference(r, i->turns, x->n_turn, x->ref[0], &i->opts, a, &i->logp, &i->tokens, &i->e);
    }
    for (int i = 0; i < n && got == OK; i++) got = line_of(from + i, &w[i], &line[i], e);
    return got;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static int settings_text(responder *r, const testset *t, const respond_opts *o, const char *rules, const char *numerics, buf *b, err *e)
{
    buf_fmt(b, "set: %s\nitems: %d\nforward: %s\nbackward: %s\nrules: %s\noptions: ", t->digest, t->n, gpt2_digest(responder_fwd(r)),
            responder_bwd(r) ? gpt2_digest(responder_bwd(r)) : "none", rules && *rules ? rules : "none");
    respond_opts_format(o, b);
    buf_fmt(b, "\narithmetic: %s\n", numerics);
    return b->oom ? no_memory(e) : OK;
}

/* What made the file: written before it, compared when it is there. */
static int check_settings(responder *r, const testset *t, const respond_opts *o, const char *path, err *e)
{
    buf      want = { 0 }, have = { 0 }, name = { 0 };
    outfile *f = NULL;
    arena    a = { 0 };
    reply    rep; /* an empty line costs nothing and tells the rules and the arithmetic */
    int      got = respond(r, NULL, 0, STR(""), o, &a, &rep, e);
    if (got == OK) got = settings_text(r, t, o, rep.rules_digest, rep.numerics, &want, e);
    buf_fmt(&name, "%s.settings", path);
    if (got == OK && name.oom) got = no_memory(e);
    if (got == OK && access(name.s, F_OK) == 0) {
        got = read_file(name.s, 1 << 20, &have, e);
        if (got == OK && !str_eq(buf_view(&have), buf_view(&want)))
            got = err_set(e, E_ARG, "%s: the replies there were made with another set, models, rules or options: choose another folder or remove them", path);
    } else if (got == OK) {
        got = out_open(&f, name.s, e);
        if (got == OK) got = out_write(f, want.s, want.n, e);
        if (got == OK) got = out_commit(f, e);
        else out_abort(f);
    }
    buf_free(&want);
    buf_free(&have);
    buf_free(&name);
    arena_free(&a);
    return got;
}

/* Whole lines of the .part file stay; *n of them. */
static int open_part(const char *part, int most, FILE **f, int *n, err *e)
{
    buf    b = { 0 };
    size_t keep = 0;
    *n = 0;
    if (access(part, F_OK) == 0) {
        int r = read_file(part, LINE_MAX_BYTES, &b, e);
        if (r) return r;
        for (size_t i = 0; i < b.n && *n < most; i++)
            if (b.s[i] == '\n') keep = i + 1, ++*n;
        buf_free(&b);
        if (truncate(part, (off_t)keep) != 0) return err_set(e, E_IO, "%s: cannot cut an unfinished line: %s", part, strerror(errno));
    }
    *f = fopen(part, "ab");
    return *f ? OK : err_set(e, E_IO, "%s: cannot open it for writing: %s", part, strerror(errno));
}

static int finish_part(FILE *f, const char *part, const char *path, err *e)
{
    if (fflush(f) != 0 || fsync(fileno(f)) != 0) return err_set(e, E_IO, "%s: cannot write: %s", part, strerror(errno));
    if (rename(part, path) != 0) return err_set(e, E_IO, "%s: cannot rename it to %s: %s", part, path, strerror(errno));
    return OK;
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

typedef struct { /* shared by the workers; touched by one at a time */
    const testset *t;
    int            workers, together;
    int            next, written; /* items that somebody took; lines in the file */
    char         **line;          /* (t->n,) those that wait for the ones before them */
    FILE          *f;
    const char    *part;
    batch_progress *progress;
    void          *ctx;
    int            code, at;      /* the first item's error, whoever met it; the progress function's is behind all of them */
    err            e;
} batch_run;

static void fail(batch_run *b, int code, int at, const err *why)
{
    if (b->code && at >= b->at) return;
    b->code = code;
    b->at   = at;
    b->e    = *why;
}

/* The next items for a worker: less than it could have when few are left, so that everybody has some. */
static int take(batch_run *b, int *from)
{
    int left = b->t->n - b->next, n = (left + 2 * b->workers - 1) / (2 * b->workers);
    if (b->code) return 0;
    if (n > b->together) n = b->together;
    *from = b->next;
    b->next += n;
    return n;
}

/* Lines (n,) of items from … are there; those that are due are written, in order. */
static void give(batch_run *b, int from, int n, char **line, int code, const err *why)
{
    err e = { 0 };
    int ok = 1, before = b->written;
    for (int i = 0; i < n; i++) b->line[from + i] = line[i];
    if (code) {
        while (n > 0 && !line[n - 1]) n--;
        fail(b, code, from + n, why);
    }
    for (char **l; b->written < b->t->n && *(l = &b->line[b->written]) && ok; b->written++) {
        ok = fputs(*l, b->f) >= 0 && fputc('\n', b->f) >= 0;
        free(*l);
        *l = NULL;
    }
    if (!ok || fflush(b->f) != 0) fail(b, err_set(&e, E_IO, "%s: cannot write: %s", b->part, strerror(errno)), -1, &e);
    else if (b->written > before && b->progress && b->progress(b->ctx, b->written, b->t->n) && !b->code)
        fail(b, err_set(&e, E_CANCEL, "stopped after %d of %d", b->written, b->t->n), b->t->n, &e);
}

/* Every worker on items of its own. */
static void run_all(batch_run *b, responder *const *r, const respond_opts *o)
{
#pragma omp parallel num_threads(b->workers) if (b->workers > 1)
    {
        arena a = { 0 };
        char *line[TOGETHER_MAX];
        for (;;) {
            err e = { 0 };
            int from = 0, n, code;
#pragma omp critical(batch_run)
            n = take(b, &from);
            if (n == 0) break;
            memset(line, 0, sizeof line);
            arena_reset(&a);
            code = lines_of(r[b->workers > 1 ? omp_get_thread_num() : 0], b->t, from, n, o, &a, line, &e);
#pragma omp critical(batch_run)
            give(b, from, n, line, code, &e);
        }
        arena_free(&a);
    }
}

int batch_together(const responder *r, const respond_opts *o)
{
    size_t fit = TOGETHER_BYTES / respond_job_bytes(r, o);
    return fit > TOGETHER ? TOGETHER : fit < 1 ? 1 : (int)fit;
}

int batch_generate(responder *const *r, int n_r, int together, const testset *t, const respond_opts *o, const char *path, batch_progress *f, void *ctx, err *e)
{
    buf       part = { 0 };
    batch_run b    = { .t = t, .workers = n_r, .together = together ? together : batch_together(r[0], o), .progress = f, .ctx = ctx };
    int       got  = together < 0 || together > TOGETHER_MAX ? err_set(e, E_ARG, "%d contexts at once, wanted 1 to %d", together, TOGETHER_MAX) : check_settings(r[0], t, o, path, e);
    if (got || access(path, F_OK) == 0) return got;
    b.line = calloc((size_t)t->n + 1, sizeof *b.line);
    buf_fmt(&part, "%s.part", path);
    b.part = part.s;
    if (!b.line || part.oom) got = no_memory(e);
    if (got == OK) got = open_part(part.s, t->n, &b.f, &b.written, e);
    b.next = b.written;
    if (got == OK && f && f(ctx, b.written, t->n)) got = err_set(e, E_CANCEL, "stopped after %d of %d", b.written, t->n);
    if (got == OK) {
        run_all(&b, r, o);
        if ((got = b.code) && e) *e = b.e;
    }
    if (got == OK) got = finish_part(b.f, part.s, path, e);
    if (b.f && fclose(b.f) != 0 && got == OK) got = err_set(e, E_IO, "%s: cannot close it", path);
    for (int i = 0; b.line && i < t->n; i++) free(b.line[i]);
    free(b.line);
    buf_free(&part);
    return got;
}

/* ---- reading it back ------------------------------------------------------------------------------------------- */

int batch_read(const char *path, int n, json_t **lines, err *e)
{
    buf  b = { 0 };
    str  rest, line;
    *lines = json_array();
    int r  = *lines ? read_file(path, LINE_MAX_BYTES, &b, e) : no_memory(e), at = 0;
    rest   = buf_view(&b);
    while (r == OK && next_line(&rest, &line)) {
        json_error_t je;
        json_t      *o = json_loadb(line.s, line.n, JSON_ALLOW_NUL, &je);
        at++;
        if (!json_is_string(json_object_get(o, "reply"))) r = err_set(e, E_FORMAT, "%s:%d: no JSON object with a \"reply\"", path, at);
        if (r == OK && json_array_append(*lines, o) != 0) r = no_memory(e);
        json_decref(o);
    }
    if (r == OK && at != n) r = err_set(e, E_FORMAT, "%s: %d lines, %d wanted", path, at, n);
    buf_free(&b);
    if (r) {
        json_decref(*lines);
        *lines = NULL;
    }
    return r;
}

str batch_reply(const json_t *lines, int i)
{
    const json_t *s = json_object_get(json_array_get(lines, (size_t)i), "reply");
    return (str){ json_string_value(s), json_string_length(s) };
}

static double characters(str s)
{
    double n = 0;
    for (size_t i = 0; i < s.n; n++) {
        uint32_t cp;
        i += utf8_next(s.s + i, s.n - i, &cp);
    }
    return n;
}

int batch_perplexities(const json_t *lines, const testset *t, int kind, perplexities *p, err *e)
{
    double nll = 0, tokens = 0, items = 0, mean = 0, chars = 0, words = 0;
    buf    b   = { 0 };
    for (int i = 0; i < t->n; i++) {
        const json_t *r = json_object_get(json_array_get(lines, (size_t)i), "reference"), *logp = json_object_get(r, "logp");
        double        n = json_number_value(json_object_get(r, "tokens"));
        str           w, rest;
        if (!json_is_number(logp) || n <= 0) continue;
        nll -= json_number_value(logp);
        mean -= json_number_value(logp) / n;
        tokens += n;
        items++;
        chars += characters(t->item[i].ref[0]);
        buf_reset(&b);
        tokenise(kind, t->item[i].ref[0], &b);
        rest = buf_view(&b);
        while (tokenise_next(&rest, &w)) words++;
    }
    int r = b.oom ? no_memory(e) : OK;
    buf_free(&b);
    *p = items > 0 ? (perplexities){ exp(nll / tokens), exp(mean / items), exp(nll / chars), exp(nll / words) } : (perplexities){ NAN, NAN, NAN, NAN };
    return r;
}
