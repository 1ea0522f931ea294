/* The command bench: how fast the models run here, beside what the machine can do, measured in the same run.  Program code. */
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dialog/open.h"
#include "eval/commands.h"
#include "eval/limits.h"
#include "eval/pace.h"
#include "eval/synth.h"
#include "eval/workload.h"
#include "models/linear.h"
#include "models/ops.h"

typedef struct {
    open_names   names;
    const char  *make, *size, *lang, *lines;
    opt_list     types, only;
    int          threads, repeats, turns, table, json;
    uint64_t     seed;
    respond_opts o;
    /* opened and found out */
    gpt2          *fwd, *bwd;
    subject        f, b;
    machine_limits limits;
    double         peak; /* bytes */
    json_t        *root; /* what --json prints */
} bench_job;

/* ---- --make ------------------------------------------------------------------------------------------------------ */

static int make_models(const bench_job *j, err *e)
{
    static const char *const usual[] = { "f32", "q8_0", "q4_0" };
    gpt2_config c;
    int n = j->types.n ? j->types.n : 3, r = synth_config(j->size, &c, e);
    if (r == OK && mkdir(j->make, 0777) && access(j->make, W_OK)) r = err_set(e, E_IO, "%s: no folder that can be written to", j->make);
    for (int i = 0; i < n && r == OK; i++) {
        const char *name = j->types.n ? j->types.v[i] : usual[i];
        buf         path = { 0 };
        stopwatch   w;
        buf_fmt(&path, "%s/gpt2-%s-%s.gguf", j->make, j->size, name);
        if (gguf_type_of_name(name) < 0) r = err_set(e, E_ARG, "--type: no type '%s'; there are f32, f16, bf16, q8_0, q4_0", name);
        else if (path.oom) r = err_set(e, E_NOMEM, "out of memory");
        stopwatch_start(&w);
        if (r == OK) r = synth_write(path.s, &c, gguf_type_of_name(name), j->seed, e);
        stopwatch_stop(&w);
        if (r == OK) printf("%s\n", path.s), fprintf(stderr, "%s: %.1f s\n", path.s, w.wall);
        buf_free(&path);
    }
    return r;
}

/* ---- printing ---------------------------------------------------------------------------------------------------- */

static json_t *js_timing(const timing *t)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:i, s:i, s:i}", "median_ms", t->median * 1e3, "min_ms", t->min * 1e3, "max_ms", t->max * 1e3, "cpu_ms", t->cpu * 1e3, "n", t->n,
                     "disturbed", t->disturbed, "dropped", t->dropped);
}

static const char *mark(int disturbed) { return disturbed ? " !" : ""; }

static void put_limits(bench_job *j)
{
    const machine_limits *m = &j->limits;
    json_object_set_new(j->root, "machine",
                        json_pack("{s:i, s:f, s:s, s:f, s:s, s:f, s:f, s:i}", "threads", m->threads, "f32_gflops", m->f32, "f32_by", m->f32_by, "int8_gops", m->i8, "int8_by",
                                  m->i8_by, "memory_gbs", m->memory, "cache_gbs", m->cache, "cache_mib", (int)(m->cache_bytes >> 20)));
    if (j->json) return;
    printf("machine, %d thread%s: f32 %.0f GFLOP/s (%s), int8 %.0f GOP/s (%s), memory %.1f GB/s, cache (%zu MiB) %.0f GB/s\n", m->threads, m->threads == 1 ? "" : "s", m->f32,
           m->f32_by, m->i8, m->i8_by, m->memory, m->cache_bytes >> 20, m->cache);
    fflush(stdout);
}

static double matrices(const subject *s) { return s->blocks_bytes + s->head_bytes; }

/* The least time the figure could have taken here. */
static double floor_of(const bench_job *j, const subject *s, const figure *f)
{
    double peak = s->bytes_wide ? j->limits.i8 : j->limits.f32, speed = matrices(s) < (double)j->limits.cache_bytes ? j->limits.cache : j->limits.memory;
    double a = f->ops / peak * 1e-9, b = f->bytes / speed * 1e-9;
    return a > b ? a : b;
}

static void put_figure(bench_job *j, json_t *to, const char *name, const subject *s, const figure *f)
{
    const timing *t = &f->time;
    double sec = t->median, least = floor_of(j, s, f);
    json_t *x  = js_timing(t);
    json_object_set_new(x, "name", json_string(name));
    json_object_set_new(x, "tokens_per_s", json_real(f->tokens / sec));
    json_object_set_new(x, "gops", json_real(f->ops / sec * 1e-9));
    json_object_set_new(x, "gbs", json_real(f->bytes / sec * 1e-9));
    json_object_set_new(x, "of_limit", json_real(least / sec));
    json_object_set_new(x, "hash", json_string(f->hash));
    if (t->lap > 0) json_object_set_new(x, "drawing_ms", json_real(t->lap * 1e3)), json_object_set_new(x, "scoring_ms", json_real((sec - t->lap) * 1e3));
    json_array_append_new(to, x);
    if (j->json) return;
    printf("%-16s %9.1f  [%.1f .. %.1f]%*s %9.0f %8.1f %7.1f %6.0f %%  %s%s", name, sec * 1e3, t->min * 1e3, t->max * 1e3,
           (int)(16 - snprintf(NULL, 0, "[%.1f .. %.1f]", t->min * 1e3, t->max * 1e3)), "", f->tokens / sec, f->ops / sec * 1e-9, f->bytes / sec * 1e-9, 100 * least / sec, f->hash,
           mark(t->disturbed));
    if (t->lap > 0) printf("  %.0f + %.0f ms", t->lap * 1e3, (sec - t->lap) * 1e3);
    putchar('\n');
    fflush(stdout);
}

static void put_head(const bench_job *j)
{
    if (!j->json) printf("%-16s %9s  %-16s %9s %8s %7s %8s  hash\n", "workload", "ms", "[min .. max]", "tok/s", "GOP/s", "GB/s", "of limit");
}

/* A duration of the program itself. */
static void put_time(bench_job *j, const char *key, const char *text, const timing *t)
{
    json_object_set_new(j->root, key, js_timing(t));
    if (!j->json) printf("%-28s %9.1f ms  [%.1f .. %.1f]%s\n", text, t->median * 1e3, t->min * 1e3, t->max * 1e3, mark(t->disturbed));
    fflush(stdout);
}

/* ---- the workloads ----------------------------------------------------------------------------------------------- */

static const workload usual[] = {
    { WORK_PREFILL, 64, 0, 0 },   { WORK_PREFILL, 128, 0, 0 },  { WORK_PREFILL, 512, 0, 0 }, { WORK_DECODE, 1, 64, 64 },
    { WORK_DECODE, 16, 64, 32 },  { WORK_DECODE, 32, 64, 32 },  { WORK_SCORE, 16, 64, 32 },  { WORK_TURN, 16, 64, 32 },
};

static int chosen(const bench_job *j, const char *name)
{
    for (int i = 0; i < j->only.n; i++)
        if (strncmp(name, j->only.v[i], strlen(j->only.v[i])) == 0) return 1;
    return j->only.n == 0;
}

static int run_workloads(bench_job *j, err *e)
{
    json_t *to = json_array();
    int     r  = OK, any = 0;
    json_object_set_new(j->root, "workloads", to);
    for (size_t i = 0; i < sizeof usual / sizeof *usual && r == OK; i++) {
        figure f;
        buf    name = { 0 };
        workload_name(&usual[i], &name);
        if (name.oom) r = err_set(e, E_NOMEM, "out of memory");
        else if (chosen(j, name.s) && workload_fits(&usual[i], j->fwd, j->bwd)) {
            if (!any++) put_head(j);
            r = workload_run(&usual[i], &j->f, j->bwd ? &j->b : NULL, j->repeats, &f, e);
            if (r == OK) put_figure(j, to, name.s, usual[i].kind == WORK_SCORE ? &j->b : &j->f, &f);
        }
        buf_free(&name);
    }
    return r;
}

/* N = 1..64 sequences over prefixes of 32..1000 tokens, 1 and 2 threads: milliseconds a step and tokens a second. */
static int run_table(bench_job *j, err *e)
{
    enum { STEPS = 8 };
    static const int context[] = { 32, 128, 512, 1000 };
    json_t *to = json_array();
    int     r = OK, most = omp_get_max_threads();
    json_object_set_new(j->root, "table", to);
    for (int threads = 1; threads <= 2 && r == OK; threads++) {
        omp_set_num_threads(threads);
        if (!j->json) printf("%sdecode, %d thread%s: ms a step, tokens/s of all sequences\n%10s", threads > 1 ? "\n" : "", threads, threads > 1 ? "s" : "", "sequences");
        for (int i = 0; i < 4 && !j->json; i++) printf("   context %-4d     ", context[i]);
        if (!j->json) putchar('\n');
        for (int n = 1; n <= 64 && r == OK; n *= 2) {
            if (!j->json) printf("%10d", n);
            for (int i = 0; i < 4 && r == OK; i++) {
                workload w = { WORK_DECODE, n, context[i], STEPS };
                figure   f;
                if (!workload_fits(&w, j->fwd, NULL)) continue;
                r = workload_run(&w, &j->f, NULL, j->repeats, &f, e);
                if (r) break;
                json_t *x = js_timing(&f.time);
                json_object_set_new(x, "threads", json_integer(threads));
                json_object_set_new(x, "sequences", json_integer(n));
                json_object_set_new(x, "context", json_integer(context[i]));
                json_object_set_new(x, "tokens_per_s", json_real(f.tokens / f.time.median));
                json_object_set_new(x, "hash", json_string(f.hash));
                json_array_append_new(to, x);
                if (!j->json) printf(" %8.2f %7.0f%-2s ", f.time.median * 1e3 / STEPS, f.tokens / f.time.median, mark(f.time.disturbed));
                fflush(stdout);
            }
            if (!j->json) putchar('\n');
        }
    }
    omp_set_num_threads(most);
    return r;
}

/* ---- what a person waits for ------------------------------------------------------------------------------------- */

/* --model M stands for both directions, as two open models. */
static int open_both(bench_job *j, err *e)
{
    int r = open_models(&j->names, &j->fwd, &j->bwd, e);
    if (r == OK && !j->bwd && j->names.model) r = gpt2_open(&j->bwd, j->names.model, e);
    return r;
}

static void close_both(bench_job *j)
{
    gpt2_close(j->fwd);
    gpt2_close(j->bwd);
    j->fwd = j->bwd = NULL;
}

static int load_once(void *ctx, stopwatch *w, err *e)
{
    bench_job *j = ctx;
    stopwatch_start(w);
    int r = open_both(j, e);
    stopwatch_stop(w);
    close_both(j);
    return r;
}

static int to_prompt(void *ctx, stopwatch *w, err *e)
{
    const bench_job *j = ctx;
    char  self[4096];
    char *argv[10] = { self, "chat", "--private" };
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return err_set(e, E_IO, "/proc/self/exe: cannot be read");
    self[n] = 0;
    if (j->names.models[0]) argv[3] = "--models", argv[4] = (char *)j->names.models[0], argv[5] = (char *)j->names.models[1];
    else if (j->names.name) argv[3] = "--name", argv[4] = (char *)j->names.name;
    return pace_program(argv, w, e);
}

static int turn_alone(void *ctx, err *e)
{
    bench_job     *j = ctx;
    const workload w = { WORK_TURN, 16, 64, 32 };
    figure         f;
    int            r = open_both(j, e);
    if (r == OK && j->bwd && workload_fits(&w, j->fwd, j->bwd)) {
        r = subject_of(&j->f, j->fwd, e);
        if (r == OK) r = subject_of(&j->b, j->bwd, e);
        if (r == OK) r = workload_run(&w, &j->f, &j->b, 1, &f, e);
    }
    return r;
}

static int can_talk(const bench_job *j) { return gpt2_tokenizer(j->fwd) && gpt2_about(j->fwd)->fmt.kind && j->bwd && !j->names.model; }

/* Lines of a file, one turn each; views into b. */
static int read_lines(const char *path, buf *b, str **line, int *n, err *e)
{
    int r = read_file(path, 1 << 24, b, e);
    if (r) return r;
    *line = calloc(b->n + 1, sizeof **line);
    if (!*line) return err_set(e, E_NOMEM, "out of memory");
    for (size_t i = 0, end; i < b->n; i = end + 1) {
        for (end = i; end < b->n && b->s[end] != '\n';) end++;
        str s = str_trim((str){ b->s + i, end - i });
        if (s.n) (*line)[(*n)++] = s;
    }
    return *n ? OK : err_set(e, E_FORMAT, "%s: no line in it", path);
}

static int run_talk(bench_job *j, err *e)
{
    responder *p = NULL;
    safety    *s = NULL;
    buf        b = { 0 };
    str       *own = NULL;
    pace       t;
    int        n = 0, r = j->lines ? read_lines(j->lines, &b, &own, &n, e) : OK;
    const str *line = own ? own : pace_lines(j->o.lang, &n);
    if (r == OK) r = open_rules(&j->names, &s, e);
    if (r == OK) r = responder_new(&p, j->fwd, j->bwd, s, e);
    if (r == OK) r = pace_talk(p, &j->o, line, n, j->turns, &t, e);
    if (r == OK) {
        json_object_set_new(j->root, "talk",
                            json_pack("{s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:f, s:f, s:s}", "p50_ms", t.p50 * 1e3, "p95_ms", t.p95 * 1e3, "max_ms", t.max * 1e3, "mean_ms",
                                      t.mean * 1e3, "first_ms", t.first * 1e3, "turns", t.turns, "disturbed", t.disturbed, "tokens", t.tokens, "scored", t.candidates, "hash",
                                      t.hash));
        if (!j->json)
            printf("%-28s %9.1f ms p50, %.1f ms p95, %.1f ms max; first %.1f ms (%d turns of %d candidates, %.0f tokens drawn, %.1f scored)  %s%s\n", "a reply", t.p50 * 1e3,
                   t.p95 * 1e3, t.max * 1e3, t.first * 1e3, t.turns, j->o.n_cand, t.tokens, t.candidates, t.hash, mark(t.disturbed));
    }
    responder_free(p);
    safety_close(s);
    free(own);
    buf_free(&b);
    return r;
}

static int put_models(bench_job *j, err *e)
{
    int r = subject_of(&j->f, j->fwd, e);
    if (r == OK && j->bwd) r = subject_of(&j->b, j->bwd, e);
    if (r) return r;
    json_object_set_new(j->root, "models", json_pack("[s]", gpt2_path(j->fwd)));
    if (j->bwd) json_array_append_new(json_object_get(j->root, "models"), json_string(gpt2_path(j->bwd)));
    json_object_set_new(j->root, "numerics", json_sprintf("%s " OPS_NUMERICS, linear_numerics()));
    json_object_set_new(j->root, "path", json_string(linear_path_name()));
    json_object_set_new(j->root, "matrix_bytes", json_real(matrices(&j->f)));
    if (!j->json)
        printf("%s%s%s: matrices of %.1f MB%s; arithmetic %s " OPS_NUMERICS " on %s\n", gpt2_path(j->fwd), j->bwd ? " and " : "", j->bwd ? gpt2_path(j->bwd) : "", matrices(&j->f) * 1e-6,
               j->bwd ? " each" : "", linear_numerics(), linear_path_name());
    return OK;
}

static int run_program(bench_job *j, err *e)
{
    timing t;
    int    r = OK, pair = j->bwd != NULL;
    if (chosen(j, "load")) {
        close_both(j);
        r = stopwatch_repeat(load_once, j, j->repeats, &t, e);
        if (r == OK) put_time(j, "load", pair ? "load of both models" : "load of the model", &t), r = open_both(j, e);
        if (r == OK) r = subject_of(&j->f, j->fwd, e);
        if (r == OK && j->bwd) r = subject_of(&j->b, j->bwd, e);
    }
    if (r == OK && j->peak > 0) {
        json_object_set_new(j->root, "peak_mb", json_real(j->peak * 1e-6));
        if (!j->json) printf("%-28s %9.1f MB\n", "peak memory of the turn", j->peak * 1e-6);
    }
    if (r == OK && can_talk(j) && chosen(j, "chat")) {
        r = stopwatch_repeat(to_prompt, j, j->repeats, &t, e);
        if (r == OK) put_time(j, "chat", "duet chat, from start to end", &t);
    }
    if (r == OK && can_talk(j) && chosen(j, "talk")) r = run_talk(j, e);
    return r;
}

static int run(bench_job *j, err *e)
{
    int r = OK;
    if (j->threads) omp_set_num_threads(j->threads);
    j->root = json_object();
    if (!j->table && chosen(j, "memory")) r = pace_memory(turn_alone, j, &j->peak, e); /* first: it wants a process without threads */
    if (r == OK) r = open_both(j, e);
    if (r == OK) r = limits_measure(&j->limits, omp_get_max_threads(), e);
    if (r == OK) put_limits(j), r = put_models(j, e);
    if (r == OK && j->table) r = run_table(j, e);
    else if (r == OK && (r = run_program(j, e)) == OK) r = run_workloads(j, e);
    close_both(j);
    if (r == OK && j->json) {
        char *text = json_dumps(j->root, JSON_COMPACT | JSON_REAL_PRECISION(6));
        if (text) puts(text);
        else r = err_set(e, E_NOMEM, "out of memory for JSON");
        free(text);
    }
    json_decref(j->root);
    return r;
}

/* ---- the front ---------------------------------------------------------------------------------------------------- */

static int check(bench_job *j, err *e)
{
    if (j->repeats < 1 || j->repeats > STOPWATCH_MAX) return err_set(e, E_ARG, "--repeats: %d is not 1 to %d", j->repeats, STOPWATCH_MAX);
    if (j->threads < 0 || j->threads > 1024) return err_set(e, E_ARG, "--threads: %d is not 1 to 1024", j->threads);
    if (j->turns < 1 || j->turns > 100000) return err_set(e, E_ARG, "--turns: %d is not 1 to 100000", j->turns);
    if (j->lang && strcmp(j->lang, "zh") && strcmp(j->lang, "en")) return err_set(e, E_ARG, "--lang: no language '%s'; there are zh, en", j->lang);
    if (!j->make && (j->types.n || j->size != NULL)) return err_set(e, E_ARG, "--size and --type belong to --make");
    j->o.lang = j->lang && strcmp(j->lang, "en") == 0;
    if (!j->size) j->size = "124M";
    return open_check(&j->names, e);
}

static int measure(int argc, char **argv, err *e)
{
    bench_job    j = { .o = respond_defaults(), .repeats = 5, .turns = 60, .seed = 1, .names.prefix = DUET_PREFIX };
    int          n_pos;
    const option list[] = {
        OPEN_OPTIONS(j.names),
        { "measuring", OPT_GROUP, NULL, NULL, NULL },
        { "--threads", OPT_INT, &j.threads, "N", "threads; never changes a result" },
        { "--repeats", OPT_INT, &j.repeats, "N", "quiet repeats of each workload, after one to warm up (default 5)" },
        { "--only", OPT_STRS, &j.only, "WORD", "only what begins with this: load, memory, chat, talk, prefill, decode, score, turn, \"decode 16\" …" },
        { "--table", OPT_FLAG, &j.table, NULL, "instead: decoding with 1 to 64 sequences over prefixes of 32 to 1000 tokens, with 1 and 2 threads" },
        { "--turns", OPT_INT, &j.turns, "N", "replies of the talk (default 60)" },
        { "--lines", OPT_STR, &j.lines, "FILE", "what is said in it, a line each; default: lines of the program's own" },
        { "--lang", OPT_STR, &j.lang, "LANG", "language of those: zh (default) or en" },
        { "--json", OPT_FLAG, &j.json, NULL, "one object" },
        { "models with random weights", OPT_GROUP, NULL, NULL, NULL },
        { "--make", OPT_STR, &j.make, "DIR", "write gpt2-SIZE-TYPE.gguf into DIR and do nothing else; --model measures them" },
        { "--size", OPT_STR, &j.size, "SIZE", "124M (default), 345M, 774M, 1558M" },
        { "--type", OPT_STRS, &j.types, "TYPE", "of the matrices, again and again; default: f32, q8_0 and q4_0" },
        { "--seed", OPT_U64, &j.seed, "S", "of the weights (default 1)" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int r = options_parse(list, argc, argv, NULL, 0, &n_pos, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, "bench [options]",
                     "How fast the models run here, beside what this machine can do at most, measured in the same run.  \"of limit\" is the least time that\n"
                     "arithmetic or memory allow, over the time it took; GOP/s and GB/s are those of an implementation that wastes nothing.  Figures are medians\n"
                     "with their range; repeats that other processes disturbed are taken again, and \"!\" marks what stayed disturbed.  The hash is that of the\n"
                     "results: equal hashes, equal bits.  With --model M, M is both the forward and the reverse model.", list);
        fwrite(b.s ? b.s : "", 1, b.n, stdout);
        buf_free(&b);
        return EXIT_OK;
    }
    if (r == OK) r = check(&j, e);
    if (r) return EXIT_USAGE;
    return (j.make ? make_models(&j, e) : run(&j, e)) == OK ? EXIT_OK : EXIT_FAILED;
}

/* Benchmarks of their own: "duet bench WORD …". */
static const command parts[] = {
    { NULL, NULL, NULL },
};

int cmd_bench(int argc, char **argv, err *e)
{
    for (const command *c = parts; argc > 0 && c->name; c++)
        if (strcmp(argv[0], c->name) == 0) return c->run(argc - 1, argv + 1, e);
    return measure(argc, argv, e);
}
