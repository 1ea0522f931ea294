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

enum { LINE_MAX_BYTES = 1 << 30, PER_WORKER = 4 /* contexts between two writes */ };

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

static int answer(responder *r, const testset *t, int item, const respond_opts *o, arena *a, json_t **line, err *e)
{
    const test_item *x = &t->item[item];
    respond_opts     mine = *o;
    turn            *turns = arena_new(a, (size_t)x->n_turn, sizeof *turns);
    reply            rep;
    double           logp = NAN;
    int              tokens = 0, got = turns ? OK : no_memory(e);
    mine.seed = rng_u64(o->seed, (uint64_t)item, 0);
    for (int i = 0; i < x->n_turn && got == OK; i++) {
        got = respond_turn(r, x->turn[i], (x->n_turn - 1 - i) & 1, a, &turns[i], e);
        if (got == OK && turns[i].n == 0) turns[i].hidden = 1;
    }
    if (got == OK) got = respond(r, turns, x->n_turn - 1, x->turn[x->n_turn - 1], &mine, a, &rep, e);
    if (got == OK && x->n_ref) got = score_reference(r, turns, x->n_turn, x->ref[0], &mine, a, &logp, &tokens, e);
    if (got == OK) *line = item_json(item, &rep, mine.seed, logp, tokens);
    return got;
}

/* The line of an item; what is wrong with the item alone becomes its line. */
static int line_of(responder *r, const testset *t, int item, const respond_opts *o, arena *a, char **line, err *e)
{
    json_t *j = NULL;
    err     why = { 0 };
    int     got = answer(r, t, item, o, a, &j, &why);
    if (got == E_LIMIT || got == E_ARG || got == E_FORMAT) {
        j   = json_pack("{s:i, s:s, s:s, s:i, s:[], s:n, s:o}", "item", item, "reply", "", "kind", "error", "chosen", -1, "candidates", "reference", "error", js_text(str_of(why.msg)));
        got = OK;
    }
    *line = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(j);
    if (got) {
        if (e) *e = why;
        return err_prefix(e, "test item %d", item + 1);
    }
    return *line ? OK : no_memory(e);
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

/* Items from … to - 1, each worker on contexts of its own; the lines in order. */
static int run_piece(responder *const *r, int n_r, const testset *t, const respond_opts *o, int from, int to, char **line, err *e)
{
    int worst = OK, at = to;
    for (int i = from; i < to; i++) line[i - from] = NULL;
#pragma omp parallel num_threads(n_r) if (n_r > 1)
    {
        arena a = { 0 };
#pragma omp for schedule(dynamic, 1)
        for (int i = from; i < to; i++) {
            err mine = { 0 };
            int got;
#pragma omp critical(batch_responder)
            got = worst;
            if (got) continue;
            arena_reset(&a);
            got = line_of(r[n_r > 1 ? omp_get_thread_num() : 0], t, i, o, &a, &line[i - from], &mine);
#pragma omp critical(batch_responder)
            if (got && i < at) { /* the first item's error, whoever met it */
                worst = got;
                at    = i;
                if (e) *e = mine;
            }
        }
        arena_free(&a);
    }
    return worst;
}

static int write_piece(FILE *f, const char *part, char **line, int n, err *e)
{
    for (int i = 0; i < n; i++)
        if (fputs(line[i], f) < 0 || fputc('\n', f) < 0) return err_set(e, E_IO, "%s: cannot write: %s", part, strerror(errno));
    return fflush(f) == 0 ? OK : err_set(e, E_IO, "%s: cannot write: %s", part, strerror(errno));
}

int batch_generate(responder *const *r, int n_r, const testset *t, const respond_opts *o, const char *path, batch_progress *f, void *ctx, err *e)
{
    buf   part = { 0 };
    FILE *out  = NULL;
    int   done = 0, got = check_settings(r[0], t, o, path, e), piece = PER_WORKER * n_r;
    if (got || access(path, F_OK) == 0) return got;
    char **line = calloc((size_t)piece, sizeof *line);
    buf_fmt(&part, "%s.part", path);
    if (!line || part.oom) got = no_memory(e);
    if (got == OK) got = open_part(part.s, t->n, &out, &done, e);
    while (got == OK && done < t->n) {
        int to = t->n - done < piece ? t->n : done + piece;
        got = run_piece(r, n_r, t, o, done, to, line, e);
        if (got == OK) got = write_piece(out, part.s, line, to - done, e);
        for (int i = 0; i < to - done; i++) free(line[i]);
        if (got == OK) done = to;
        if (got == OK && f && f(ctx, done, t->n)) got = err_set(e, E_CANCEL, "stopped after %d of %d", done, t->n);
    }
    if (got == OK) got = finish_part(out, part.s, path, e);
    if (out && fclose(out) != 0 && got == OK) got = err_set(e, E_IO, "%s: cannot close it", path);
    free(line);
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
