/* The command rank: hits@1, hits@5, MRR.  Program code. */
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dialog/open.h"
#include "eval/commands.h"
#include "eval/rank.h"

typedef struct {
    const char  *set, *mode;
    open_names   names;
    rank_opts    rank;
    respond_opts o;
    int          json, threads, limit;
    /* opened */
    gpt2        *fwd, *bwd;
    responder   *r;
    testset      items;
    int         *place; /* (n, RANK_MODES) */
} rank_job;

static const char *const mode_names[RANK_MODES] = { "forward", "mmi", "bidi" };

static int wanted(const rank_job *j, int m) { return j->mode ? strcmp(j->mode, mode_names[m]) == 0 : m == RANK_FORWARD || j->bwd; }

static int put_scores(const rank_job *j, int n, err *e)
{
    json_t *root = json_pack("{s:i, s:i, s:I, s:o}", "items", n, "k", j->rank.k, "seed", (json_int_t)j->rank.seed, "modes", json_object());
    if (!j->json) printf("%-8s  hits@1  95 %% interval     hits@5  95 %% interval     MRR     (%d items, 1 true reply of %d)\n", "mode", n, j->rank.k);
    for (int m = 0; m < RANK_MODES; m++) {
        if (!wanted(j, m)) continue;
        rank_scores s = rank_summary(j->place + m, n, RANK_MODES);
        double      lo1, hi1, lo5, hi5;
        doubt_wilson(s.hits1 * n, n, &lo1, &hi1);
        doubt_wilson(s.hits5 * n, n, &lo5, &hi5);
        if (!j->json) printf("%-8s  %.4f  [%.4f, %.4f]  %.4f  [%.4f, %.4f]  %.4f\n", mode_names[m], s.hits1, lo1, hi1, s.hits5, lo5, hi5, s.mrr);
        json_object_set_new(json_object_get(root, "modes"), mode_names[m],
                            json_pack("{s:f, s:[f,f], s:f, s:[f,f], s:f}", "hits@1", s.hits1, "hits@1_interval", lo1, hi1, "hits@5", s.hits5, "hits@5_interval",
                                      lo5, hi5, "mrr", s.mrr));
    }
    char *text = j->json ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    if (text) puts(text);
    int r = j->json && !text ? err_set(e, E_NOMEM, "out of memory for JSON") : OK;
    free(text);
    json_decref(root);
    return r;
}

static int run(rank_job *j, err *e)
{
    arena a = { 0 };
    int   r = testset_read(&j->items, j->set, e), show = isatty(STDERR_FILENO);
    if (r == OK && j->threads) omp_set_num_threads(j->threads);
    if (r == OK) r = open_models(&j->names, &j->fwd, &j->bwd, e);
    if (r == OK) r = responder_new(&j->r, j->fwd, j->bwd, NULL, e);
    if (r == OK && j->mode && strcmp(j->mode, "forward") && !j->bwd) r = err_set(e, E_ARG, "--mode %s ranks with a backward model, and there is none", j->mode);
    int n = j->limit && j->limit < j->items.n ? j->limit : j->items.n;
    if (r == OK && !(j->place = calloc((size_t)n * RANK_MODES + 1, sizeof *j->place))) r = err_set(e, E_NOMEM, "out of memory");
    for (int i = 0; i < n && r == OK; i++) {
        arena_reset(&a);
        r = rank_item(j->r, &j->items, i, &j->rank, &j->o, &a, j->place + i * RANK_MODES, e);
        if (show) fprintf(stderr, "\r%d of %d", i + 1, n);
    }
    if (show) fputs("\r\033[K", stderr);
    if (r == OK) r = put_scores(j, n, e);
    arena_free(&a);
    free(j->place);
    responder_free(j->r);
    gpt2_close(j->bwd);
    gpt2_close(j->fwd);
    testset_free(&j->items);
    return r == OK ? EXIT_OK : EXIT_FAILED;
}

int cmd_rank(int argc, char **argv, err *e)
{
    rank_job     j = { .rank = { .k = 10, .seed = 1 }, .o = respond_defaults(), .names.prefix = DUET_PREFIX };
    int          n_pos;
    const option list[] = {
        { "--set", OPT_STR, &j.set, "FILE", "the test set: .jsonl with references, DialoGPT .tsv, or dialogues, whose last turn is the reply" },
        { "-k", OPT_INT, &j.rank.k, "K", "candidates: the true reply and K - 1 to other contexts (default 10)" },
        { "--mode", OPT_STR, &j.mode, "MODE", "forward, mmi or bidi; default: all that the models can" },
        { "--lambda", OPT_FLOAT, &j.o.lambda, "X", "bidi: X * backward + (1 - X) * forward" },
        { "--gamma", OPT_FLOAT, &j.o.gamma, "X", "bidi: + X for each token of the reply" },
        { "--source-turns", OPT_INT, &j.o.source_turns, "N", "turns the backward model must explain; 0 = all" },
        { "--max-turns", OPT_INT, &j.o.max_turns, "N", "turns of the context the models see; 0 = all that fit" },
        { "--seed", OPT_U64, &j.rank.seed, "S", "of the random replies (default 1)" },
        { "--limit", OPT_INT, &j.limit, "N", "only the first N items (the random replies are those of the whole set)" },
        { "--json", OPT_FLAG, &j.json, NULL, "one object" },
        { "models", OPT_GROUP, NULL, NULL, NULL },
        OPEN_MODEL_OPTIONS(j.names),
        { "--threads", OPT_INT, &j.threads, "N", "threads; never changes a result" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int r = options_parse(list, argc, argv, NULL, 0, &n_pos, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, "rank --set FILE [options]",
                     "Can the models find the reply that was given among random ones? hits@1 and hits@5 are the shares of items where it comes first,\n"
                     "among the first five; MRR is the mean of 1 / place. A candidate that scores the same counts as better.", list);
        fwrite(b.s ? b.s : "", 1, b.n, stdout);
        buf_free(&b);
        return EXIT_OK;
    }
    if (r == OK && !j.set) r = err_set(e, E_ARG, "no test set: --set FILE");
    if (r == OK && (j.rank.k < 2 || j.rank.k > 1000)) r = err_set(e, E_ARG, "-k: %d is not 2 to 1000", j.rank.k);
    if (r == OK && j.mode && strcmp(j.mode, "forward") && strcmp(j.mode, "mmi") && strcmp(j.mode, "bidi"))
        r = err_set(e, E_ARG, "--mode: no mode '%s'; there are forward, mmi, bidi", j.mode);
    if (r == OK) r = open_check(&j.names, e);
    if (r == OK) r = respond_opts_check(&j.o, e);
    if (r == OK && (j.threads < 0 || j.threads > 1024)) r = err_set(e, E_ARG, "--threads: %d is not 1 to 1024", j.threads);
    if (r == OK && j.limit < 0) r = err_set(e, E_ARG, "--limit is not negative");
    return r ? EXIT_USAGE : run(&j, e);
}
