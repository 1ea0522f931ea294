/* The command sweep: draw once, rank in many ways, score them all.  Program code: parses options, opens models, writes files, prints. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dialog/commands.h"
#include "dialog/open.h"
#include "eval/commands.h"
#include "eval/sweep_report.h"
#include "eval/tokenise.h"

typedef struct {
    const char *set, *out, *lambda, *n, *mode, *temperature, *tokenise;
    int         limit, threads, listed, json, markdown, kind;
    open_names  names;
    sweep_grid  grid;
    doubt_opts  doubt;
    /* opened */
    testset     items;
    gpt2       *fwd, *bwd;
    arena       mem;
    sweep_plan  plan;
    json_t    **lines;  /* (plan.n_drawing,) */
    sweep_reply **reply; /* (plan.n,) each (items.n,) */
    str        *name;
    const str **hyp;
    str         stock;
    str        *ref;
    int        *ref_at;
} sweep_job;

/* ---- lists of values ------------------------------------------------------------------------------------------- */

/* "a,b,c": each word to `take` until it says no. */
static int each_value(const char *name, const char *list, int (*take)(sweep_grid *g, const char *word), sweep_grid *g, err *e)
{
    char word[32];
    for (const char *p = list; p;) {
        size_t n = strcspn(p, ",");
        if (n == 0 || n >= sizeof word) return err_set(e, E_ARG, "%s: values with commas between them wanted, got '%s'", name, list);
        memcpy(word, p, n);
        word[n] = 0;
        if (take(g, word)) return err_set(e, E_ARG, "%s: '%s' does not belong there, or there are more than %d values", name, word, SWEEP_VALUES);
        p = p[n] ? p + n + 1 : NULL;
    }
    return OK;
}

static int real(const char *word, float *v, int *n)
{
    char *end;
    if (*n == SWEEP_VALUES) return -1;
    v[(*n)++] = strtof(word, &end);
    return end == word || *end ? -1 : 0;
}

static int take_lambda(sweep_grid *g, const char *word) { return real(word, g->lambda, &g->n_lambda); }
static int take_temperature(sweep_grid *g, const char *word) { return real(word, g->temperature, &g->n_temperature); }

static int take_n(sweep_grid *g, const char *word)
{
    char *end;
    if (g->n_n == SWEEP_VALUES) return -1;
    long v = strtol(word, &end, 10);
    g->n[g->n_n++] = (int)v;
    return end == word || *end || v < 1 || v > RESPOND_MAX_CAND ? -1 : 0;
}

static int take_mode(sweep_grid *g, const char *word)
{
    if (g->n_mode == SWEEP_VALUES) return -1;
    return (g->mode[g->n_mode++] = respond_mode_of_name(word)) < 0 ? -1 : 0;
}

/* ---- running --------------------------------------------------------------------------------------------------- */

static int path_of(const sweep_job *j, const char *name, const char *end, buf *b, err *e)
{
    buf_reset(b);
    buf_fmt(b, "%s/%s%s", j->out, name, end);
    return b->oom ? err_set(e, E_NOMEM, "out of memory") : OK;
}

static int draw(sweep_job *j, err *e)
{
    buf path = { 0 };
    int r    = OK;
    for (int k = 0; k < j->plan.n_drawing && r == OK; k++) {
        const sweep_drawing *d = &j->plan.drawing[k];
        char                 name[128];
        snprintf(name, sizeof name, "drawing %s (%d of %d)", d->name, k + 1, j->plan.n_drawing);
        r = path_of(j, d->name, ".jsonl", &path, e);
        if (r == OK) r = set_generate(name, j->fwd, j->bwd, NULL, &j->items, &d->o, j->threads, 0, path.s, e);
        if (r == OK) r = batch_read(path.s, j->items.n, &j->lines[k], e);
    }
    buf_free(&path);
    return r;
}

/* What is said when no candidate is usable: an empty line gets it without any model. */
static int stock_line(sweep_job *j, err *e)
{
    responder *r;
    reply      rep;
    int        got = responder_new(&r, j->fwd, j->bwd, NULL, e);
    if (got == OK) got = respond(r, NULL, 0, STR(""), &j->plan.drawing[0].o, &j->mem, &rep, e);
    if (got == OK) j->stock = rep.text;
    responder_free(r);
    return got;
}

static int choose(sweep_job *j, err *e)
{
    int r = stock_line(j, e);
    for (int p = 0; p < j->plan.n && r == OK; p++) {
        const sweep_point *x   = &j->plan.point[p];
        str               *hyp = arena_new(&j->mem, (size_t)j->items.n, sizeof *hyp);
        j->reply[p]            = arena_new(&j->mem, (size_t)j->items.n, sizeof **j->reply);
        if (!hyp || !j->reply[p]) return err_set(e, E_NOMEM, "out of memory for a sweep");
        for (int i = 0; i < j->items.n && r == OK; i++) {
            r      = sweep_choose(json_array_get(j->lines[x->drawing], (size_t)i), i, &x->o, j->stock, &j->mem, &j->reply[p][i], e);
            hyp[i] = j->reply[p][i].text;
        }
        j->name[p] = str_of(x->name);
        j->hyp[p]  = hyp;
    }
    return r;
}

static int write_file(const sweep_job *j, const char *end, str bytes, err *e)
{
    buf path = { 0 };
    int r    = path_of(j, "sweep", end, &path, e);
    if (r == OK) r = out_file(path.s, bytes, e);
    buf_free(&path);
    return r;
}

static int write_down(const sweep_job *j, const sweep_result *s, err *e)
{
    buf     b    = { 0 };
    json_t *root = sweep_json(s, e);
    char   *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    int     r    = text ? write_file(j, ".json", str_of(text), e) : err_set(e, E_NOMEM, "out of memory for JSON");
    if (r == OK && j->json) puts(text);
    free(text);
    json_decref(root);
    if (r == OK) r = sweep_markdown(s, &b, e);
    if (r == OK) r = write_file(j, ".md", buf_view(&b), e);
    if (r == OK && j->markdown) fwrite(b.s, 1, b.n, stdout);
    buf_reset(&b);
    if (r == OK) r = sweep_html(s, j->listed, &b, e);
    if (r == OK) r = write_file(j, ".html", buf_view(&b), e);
    buf_reset(&b);
    if (r == OK && !j->json && !j->markdown) {
        r = sweep_table(s, &b, e);
        if (r == OK) fwrite(b.s, 1, b.n, stdout);
    }
    buf_free(&b);
    return r;
}

static void tell(void *ctx, const char *what, str name)
{
    (void)ctx;
    fprintf(stderr, "\r%s %.*s\033[K", what, (int)name.n, name.s);
}

static int score(sweep_job *j, err *e)
{
    scorecard c;
    buf       models = { 0 };
    int       show = isatty(STDERR_FILENO), r = testset_references(&j->items, &j->ref, &j->ref_at, e);
    if (r == OK && !j->ref_at) fprintf(stderr, "%s: not every item has a reference, so there are only the metrics that need none\n", j->set);
    if (r == OK) r = scorecard_new(&c, j->name, j->hyp, j->plan.n, j->items.n, j->ref, j->ref_at, j->kind, &j->doubt, show ? tell : NULL, NULL, e);
    if (show) fputs("\r\033[K", stderr);
    if (r) return r;
    buf_fmt(&models, "forward %.12s, backward %.12s, set %.12s", gpt2_digest(j->fwd), j->bwd ? gpt2_digest(j->bwd) : "none", j->items.digest);
    sweep_result s = { &j->items, &j->plan, &j->grid.base, j->lines, j->reply, &c, models.oom ? "" : models.s };
    r = write_down(j, &s, e);
    buf_free(&models);
    scorecard_free(&c);
    return r;
}

static int run(sweep_job *j, err *e)
{
    int r = testset_read(&j->items, j->set, e);
    if (r == OK && j->limit && j->limit < j->items.n) j->items.n = j->limit;
    if (r == OK) r = open_models(&j->names, &j->fwd, &j->bwd, e);
    if (r == OK && mkdir(j->out, 0777) != 0 && errno != EEXIST) r = err_set(e, E_IO, "%s: cannot make the folder: %s", j->out, strerror(errno));
    j->lines = calloc(SWEEP_POINTS, sizeof *j->lines);
    j->reply = calloc(SWEEP_POINTS, sizeof *j->reply);
    j->name  = calloc(SWEEP_POINTS, sizeof *j->name);
    j->hyp   = calloc(SWEEP_POINTS, sizeof *j->hyp);
    if (r == OK && !(j->lines && j->reply && j->name && j->hyp)) r = err_set(e, E_NOMEM, "out of memory for a sweep");
    if (r == OK) r = draw(j, e);
    if (r == OK) r = choose(j, e);
    if (r == OK) r = score(j, e);
    for (int k = 0; j->lines && k < j->plan.n_drawing; k++) json_decref(j->lines[k]);
    free(j->lines);
    free(j->reply);
    free(j->name);
    free(j->hyp);
    free(j->ref);
    free(j->ref_at);
    testset_free(&j->items);
    gpt2_close(j->bwd);
    gpt2_close(j->fwd);
    return r;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int check_words(sweep_job *j, const char *options, err *e)
{
    sweep_grid *g = &j->grid;
    int         r = options ? respond_opts_parse(&g->base, str_of(options), e) : OK;
    if (r) return err_prefix(e, "--options");
    if (!j->set) return err_set(e, E_ARG, "no test set: --set FILE");
    if (!j->out) return err_set(e, E_ARG, "no folder for what comes out: -o DIR");
    if ((j->kind = tokenise_of_name(j->tokenise)) < 0) return err_set(e, E_ARG, "--tokenize: no '%s'; there are %s", j->tokenise, tokenise_names());
    if (j->json && j->markdown) return err_set(e, E_ARG, "--json and --markdown exclude one another");
    if (j->limit < 0 || j->listed < 0) return err_set(e, E_ARG, "--limit and --listed are not negative");
    if (j->threads < 0 || j->threads > 1024) return err_set(e, E_ARG, "--threads: %d is not 1 to 1024", j->threads);
    if (j->doubt.resamples > 1000000 || j->doubt.resamples < 0 || (j->doubt.resamples > 0 && j->doubt.resamples < 20))
        return err_set(e, E_ARG, "--resamples: %d is not 0 or 20 to 1000000", j->doubt.resamples);
    r = each_value("--lambda", j->lambda, take_lambda, g, e);
    if (r == OK) r = each_value("-N", j->n, take_n, g, e);
    if (r == OK) r = each_value("--mode", j->mode, take_mode, g, e);
    if (r == OK) r = each_value("--temperature", j->temperature, take_temperature, g, e);
    if (r == OK) r = open_check(&j->names, e);
    return r == OK ? sweep_plan_new(g, &j->mem, &j->plan, e) : r;
}

int cmd_sweep(int argc, char **argv, err *e)
{
    const char  *options = NULL;
    int          n_pos, status;
    sweep_job    j = { .tokenise = "none", .lambda = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1", .n = "1,2,4,8,16,32", .mode = "forward,bidi,mmi,sampled",
                       .temperature = "0.3,0.5,0.7,1", .listed = 40, .grid.base = respond_defaults(), .doubt = { .resamples = 1000, .level = 0.95, .seed = 1 },
                       .names.prefix = DUET_PREFIX };
    const option list[] = {
        { "--set", OPT_STR, &j.set, "FILE", ".jsonl with references, DialoGPT .tsv, or dialogues, whose last turn is the reference" },
        { "-o", OPT_STR, &j.out, "DIR", "folder for the candidates and the reports; a sweep that was stopped goes on there" },
        { "--limit", OPT_INT, &j.limit, "N", "only the first N items" },
        { "--tokenize", OPT_STR, &j.tokenise, "NAME", "none (split at blanks, the default), mteval, 13a, or zh (Chinese characters apart)" },
        { "the axes", OPT_GROUP, NULL, NULL, NULL },
        { "--lambda", OPT_STR, &j.lambda, "X,X", "of bidi (default 0 to 1 in tenths)" },
        { "-N,--candidates", OPT_STR, &j.n, "N,N", "candidates (1,2,4,8,16,32)" },
        { "--mode", OPT_STR, &j.mode, "M,M", "forward, bidi, mmi, sampled, joint, none (the first four); joint is drawn for itself" },
        { "--temperature", OPT_STR, &j.temperature, "T,T", "of the draw (0.3,0.5,0.7,1); each is a drawing of its own" },
        { "--options", OPT_STR, &options, "LINE", "where the axes cross, and what is not swept: \"mode=bidi n=16 lambda=0.7 seed=1\"; default: the program's" },
        { "--full", OPT_FLAG, &j.grid.full, NULL, "every combination; else one axis at a time leaves the crossing" },
        { "output", OPT_GROUP, NULL, NULL, NULL },
        { "--json", OPT_FLAG, &j.json, NULL, "one object" },
        { "--markdown", OPT_FLAG, &j.markdown, NULL, "a table for a document" },
        { "--listed", OPT_INT, &j.listed, "N", "items shown with all candidates on the page (default 40)" },
        { "--resamples", OPT_INT, &j.doubt.resamples, "N", "for intervals and p-values; 0 = none (default 1000)" },
        { "--seed", OPT_U64, &j.doubt.seed, "S", "of the resampling (default 1)" },
        { "models", OPT_GROUP, NULL, NULL, NULL },
        OPEN_MODEL_OPTIONS(j.names),
        { "--threads", OPT_INT, &j.threads, "N", "contexts answered at once; never changes a reply" },
        { NULL, 0, NULL, NULL, NULL },
    };
    if (cmd_parse(list, "sweep --set FILE -o DIR [options]",
                  "What do lambda, N, the way to rank and the temperature do to the replies of a pair? Candidates are drawn once for each temperature and then\n"
                  "ranked in every way, so that a point of the sweep costs next to nothing. DIR gets the candidates (tT.jsonl), sweep.html, sweep.md and\n"
                  "sweep.json: metrics with intervals, compared with the forward model alone. Replies are drawn without safety rules.",
                  argc, argv, NULL, 0, &n_pos, &status, e))
        return status;
    int r  = check_words(&j, options, e);
    status = r ? EXIT_USAGE : run(&j, e) == OK ? EXIT_OK : EXIT_FAILED;
    arena_free(&j.mem);
    return status;
}
