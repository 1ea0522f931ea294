/* The command prune: which dialogues to measure on, which tokens a corpus uses, then models/prune.h.  Program code: parses options, opens shards, prints. */
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus/commands.h"
#include "corpus/dialogue.h"
#include "models/prune.h"

typedef struct {
    const char *in, *out, *part, *loss, *format;
    const char *const *path; /* (n,) shards to measure on */
    opt_list    vocab_from;
    int         n, min_count, drop_characters, threads, json;
    long        tokens;
    uint64_t    seed;
    prune_want  want;
} prune_args;

typedef struct {
    gguf          *g;
    gpt2_config    config;
    tokenizer     *tok;
    gpt2_meta      meta;
    shard         *s[RUN_MAX_SHARDS];
    int            n;
    loader        *l;
    batch         *b;      /* (n_batch,) own the sample */
    train_batch   *sample; /* (n_batch,) views */
    int            n_batch;
    uint64_t      *count;  /* (n_vocab,) of the corpus of --vocab-from */
    unsigned char *keep;   /* (n_vocab,) */
    int            kept;
} prune_job;

static void job_close(prune_job *j)
{
    for (int i = 0; i < j->n_batch; i++) batch_free(&j->b[i]);
    free(j->b);
    free(j->sample);
    free(j->count);
    free(j->keep);
    loader_free(j->l);
    for (int k = 0; k < j->n; k++) shard_close(j->s[k]);
    tokenizer_close(j->tok);
    gguf_close(j->g);
}

static int open_model(prune_job *j, const char *path, err *e)
{
    int rc = gguf_open(&j->g, path, e);
    if (rc == OK) rc = gpt2_read_config(j->g, &j->config, e);
    if (rc == OK) rc = tokenizer_from_gguf(&j->tok, j->g, e);
    if (rc == OK && !j->tok) rc = err_set(e, E_FORMAT, "%s: the model has no vocabulary", path);
    if (rc == OK && tokenizer_size(j->tok) != j->config.n_vocab)
        rc = err_set(e, E_FORMAT, "%s: %d entries in the vocabulary, %d in the model", path, tokenizer_size(j->tok), j->config.n_vocab);
    return rc ? rc : gpt2_read_meta(j->g, j->tok, &j->meta, e);
}

/* ---- the sample ------------------------------------------------------------------------------------------------ */

static int add_batch(prune_job *j, const batch *from, err *e)
{
    batch       *b = realloc(j->b, ((size_t)j->n_batch + 1) * sizeof *b);
    if (b) j->b = b;
    train_batch *v = realloc(j->sample, ((size_t)j->n_batch + 1) * sizeof *v);
    if (v) j->sample = v;
    if (!b || !v) return err_set(e, E_NOMEM, "out of memory for the dialogues to measure on");
    j->b[j->n_batch]      = *from; /* its memory goes along */
    j->sample[j->n_batch] = from->b;
    j->n_batch++;
    return OK;
}

/* One batch into the sample: 1, 0 at the end, < 0. */
static int take_batch(prune_job *j, const prune_args *a, int k, loader_place *place, err *e)
{
    batch b  = { 0 };
    int   rc = place ? loader_held(j->l, k, place, (uint64_t)(a->tokens / j->n + 1), &b, e) : loader_next(j->l, &b, e);
    if (!place && rc == OK) rc = 1;
    if (rc == 1) {
        int r = add_batch(j, &b, e);
        if (r == OK) return 1;
        rc = r;
    }
    batch_free(&b);
    return rc;
}

static int take_sample(prune_job *j, const prune_args *a, err *e)
{
    int rc = OK;
    for (int k = 0; rc == OK && k < a->n; k++) {
        rc = shard_open(&j->s[k], a->path[k], e);
        if (rc == OK) j->n = k + 1;
    }
    if (rc == OK) rc = tokenizer_fits(j->tok, j->s, j->n, a->in, e);
    if (rc == OK && (a->format || !j->meta.fmt.kind)) rc = format_for(j->tok, a->format, &j->meta.fmt, e);
    int         max_tok = j->config.n_ctx > 512 ? j->config.n_ctx : 512;
    loader_opts o = { .fmt = j->meta.fmt, .reversed = j->meta.role == ROLE_BACKWARD, .loss_all = strcmp(a->loss, "all") == 0, .n_ctx = j->config.n_ctx,
                      .max_tok = max_tok, .max_seq = max_tok / 8 + 1, .seed = a->seed };
    if (rc == OK) rc = loader_new(&j->l, (const shard *const *)j->s, j->n, &o, e);
    if (rc) return rc;
    if (strcmp(a->part, "train") == 0) {
        for (long tokens = 0; tokens < a->tokens; tokens += j->sample[j->n_batch - 1].n_tok)
            if ((rc = take_batch(j, a, 0, NULL, e)) < 0) return rc;
        return OK;
    }
    for (int k = 0; k < j->n; k++) {
        loader_place place = { 0 };
        while ((rc = take_batch(j, a, k, &place, e)) == 1) {}
        if (rc < 0) return rc;
    }
    if (!j->n_batch) return err_set(e, E_FORMAT, "%s: the held-out part is empty; prep it with --valid, or measure with --part train", a->path[0]);
    return OK;
}

/* ---- the tokens of a corpus ------------------------------------------------------------------------------------ */

static int count_dialogue(void *ctx, const dialogue *d, err *e)
{
    prune_job *j   = ctx;
    ivec       ids = { 0 };
    int        rc  = OK;
    for (int i = 0; rc == OK && i < d->n; i++) rc = tokenizer_encode(j->tok, d->turn[i].text, &ids, e);
    if (rc) err_prefix(e, "%s:%ld", d->file, d->line);
    for (size_t i = 0; rc == OK && i < ids.n; i++) j->count[ids.v[i]]++;
    ivec_free(&ids);
    return rc;
}

static int count_shard(prune_job *j, const char *path, const char *model, err *e)
{
    shard         *s = NULL;
    shard_dialogue d = { 0 };
    int            rc = shard_open(&s, path, e);
    if (rc == OK) rc = tokenizer_fits(j->tok, &s, 1, model, e);
    for (int part = PART_TRAIN; rc == OK && part <= PART_HELD; part++)
        for (uint64_t i = 0; rc == OK && i < shard_about(s, part)->dialogues; i++) {
            rc = shard_get(s, part, i, &d, e);
            for (int t = 0; rc == OK && t < d.n; t++)
                for (int q = 0; q < d.turn[t].n; q++) j->count[d.turn[t].id[q]]++;
        }
    shard_dialogue_free(&d);
    shard_close(s);
    return rc;
}

static int is_shard(const char *path)
{
    char  head[8] = "";
    FILE *f       = fopen(path, "rb");
    int   yes     = f && fread(head, 1, sizeof head, f) == sizeof head && memcmp(head, "DUETSHD1", sizeof head) == 0;
    if (f) fclose(f);
    return yes;
}

static int count_tokens(prune_job *j, const prune_args *a, err *e)
{
    read_opts   o = { .readings = 40, .seed = a->seed };
    read_counts c = { 0 };
    size_t      V = (size_t)j->config.n_vocab;
    int         rc = OK;
    j->count = calloc(V, sizeof *j->count);
    j->keep  = calloc(V, 1);
    if (!j->count || !j->keep) return err_set(e, E_NOMEM, "out of memory for %zu tokens", V);
    for (int i = 0; rc == OK && i < a->vocab_from.n; i++) {
        const char *path = a->vocab_from.v[i];
        rc = is_shard(path) ? count_shard(j, path, a->in, e) : dialogue_read(path, &o, &c, count_dialogue, j, e);
    }
    for (size_t i = 0; i < V; i++) {
        j->keep[i] = j->count[i] >= (uint64_t)a->min_count;
        j->kept += j->keep[i];
    }
    if (rc == OK && !j->kept) rc = err_set(e, E_ARG, "--vocab-from: no token comes up %d times", a->min_count);
    return rc;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static void show_try(void *ctx, const prune_shape *s, const int *layer)
{
    (void)ctx;
    fprintf(stderr, "  tried: layers");
    for (int i = 0; i < s->n_layer; i++) fprintf(stderr, " %d", layer[i]);
    fprintf(stderr, ", %d heads of %d, inner %d: %zu parameters, ppl %.3f\n", s->n_head, s->n_embd / s->n_head, s->n_inner, s->params, exp(s->nll));
}

static json_t *shape_json(const prune_shape *s, int vocab)
{
    return json_pack("{s:i,s:i,s:i,s:i,s:i,s:I,s:o}", "n_layer", s->n_layer, "n_head", s->n_head, "n_embd", s->n_embd, "n_inner", s->n_inner, "n_vocab", vocab,
                     "params", (json_int_t)s->params, "ppl", isfinite(s->nll) ? json_real(exp(s->nll)) : json_null());
}

static void print_json(const prune_report *r)
{
    json_t *v = json_object(), *layers = json_array();
    for (int i = 0; i < r->to.n_layer; i++) json_array_append_new(layers, json_integer(r->layer[i]));
    json_object_set_new(v, "from", shape_json(&r->from, r->vocab_from));
    json_object_set_new(v, "to", shape_json(&r->to, r->vocab_to));
    json_object_set_new(v, "layers_kept", layers);
    json_dumpf(v, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(v);
}

static void print_row(const char *name, double from, double to)
{
    printf("%-12s %10.0f %10.0f", name, from, to);
    if (from == to) putchar('\n');
    else printf("   -%.1f %%\n", 100 * (from - to) / from);
}

static void print_report(const prune_report *r, const char *out)
{
    printf("%-12s %10s %10s\n", "", "before", "after");
    print_row("layers", r->from.n_layer, r->to.n_layer);
    print_row("heads", r->from.n_head, r->to.n_head);
    print_row("channels", r->from.n_embd, r->to.n_embd);
    print_row("inner", r->from.n_inner, r->to.n_inner);
    print_row("vocabulary", r->vocab_from, r->vocab_to);
    print_row("parameters", (double)r->from.params, (double)r->to.params);
    if (isfinite(r->from.nll)) printf("%-12s %10.3f %10.3f   on the dialogues measured, before any fine-tune\n", "perplexity", exp(r->from.nll), exp(r->to.nll));
    if (r->to.n_layer < r->from.n_layer) {
        printf("layers kept ");
        for (int i = 0; i < r->to.n_layer; i++) printf(" %d", r->layer[i]);
        putchar('\n');
    }
    if (r->vocab_to < r->vocab_from) printf("next: duet prep DIALOGUES -o SHARD --tokenizer %s (shards of the old vocabulary do not fit it)\n", out);
    if (isfinite(r->from.nll)) printf("next: duet train SHARD --init %s -o BETTER.gguf --steps N\n", out);
}

static int check(const prune_args *a, err *e)
{
    int measured = a->want.share != 0 || a->want.layers != 0 || a->want.heads != 0 || a->want.inner != 0;
    if (!a->out) return err_set(e, E_ARG, "-o OUT.gguf is missing");
    if (!measured && !a->vocab_from.n) return err_set(e, E_ARG, "nothing to take out: --share, --layers, --heads, --inner or --vocab-from wanted");
    if (measured && !a->n) return err_set(e, E_ARG, "a shard (from duet prep) with dialogues to measure on is wanted");
    if (strcmp(a->part, "held") != 0 && strcmp(a->part, "train") != 0) return err_set(e, E_ARG, "--part '%s': held or train wanted", a->part);
    if (strcmp(a->loss, "all") != 0 && strcmp(a->loss, "reply") != 0) return err_set(e, E_ARG, "--loss '%s': all or reply wanted", a->loss);
    if (a->tokens < 1) return err_set(e, E_ARG, "--tokens %ld: at least 1 wanted", a->tokens);
    if (a->min_count < 1) return err_set(e, E_ARG, "--min-count %d: at least 1 wanted", a->min_count);
    if ((a->drop_characters || a->min_count > 1) && !a->vocab_from.n) return err_set(e, E_ARG, "--min-count and --drop-characters want --vocab-from");
    if (a->want.share != 0 && !(a->want.share > 0 && a->want.share < 1)) return err_set(e, E_ARG, "--share %g: more than 0 and less than 1 wanted", a->want.share);
    return OK;
}

static int run_prune(const prune_args *a, prune_job *j, err *e)
{
    prune_report report;
    int          rc = open_model(j, a->in, e);
    if (rc == OK && a->n) rc = take_sample(j, a, e);
    if (rc == OK && a->vocab_from.n) rc = count_tokens(j, a, e);
    prune_data data = { j->sample, j->n_batch, j->keep, a->drop_characters, show_try, NULL };
    if (rc == OK) rc = prune_file(a->in, a->out, &a->want, &data, &report, e);
    if (rc) return rc;
    if (a->json) print_json(&report);
    else print_report(&report, a->out);
    prune_report_free(&report);
    return OK;
}

int cmd_prune(int argc, char **argv, err *e)
{
    const char *pos[1 + RUN_MAX_SHARDS];
    int         n = 0;
    prune_args  a = { .part = "held", .loss = "reply", .min_count = 1, .tokens = 8192, .seed = 1 };
    const option o[] = {
        { "-o,--output", OPT_STR, &a.out, "OUT.gguf", "the file to write (needed)" },
        { "what goes (X below 1: that share, rounded; X from 1 on: so many)", OPT_GROUP, NULL, NULL, NULL },
        { "--share", OPT_DOUBLE, &a.want.share, "X", "at least this share of all parameters; how many layers, heads and columns is found by trying" },
        { "--layers", OPT_DOUBLE, &a.want.layers, "X", "of the layers" },
        { "--heads", OPT_DOUBLE, &a.want.heads, "X", "of every layer's heads, and the same part of the channels" },
        { "--inner", OPT_DOUBLE, &a.want.inner, "X", "of every layer's FFN columns" },
        { "--vocab-from", OPT_STRS, &a.vocab_from, "PATH", "tokens that a shard, or dialogues as duet prep reads them, do not use; again and again" },
        { "--min-count", OPT_INT, &a.min_count, "N", "tokens used less often go too (1)" },
        { "--drop-characters", OPT_FLAG, &a.drop_characters, NULL, "wordpiece: unused characters too; a text that has one gets [UNK] (kept, but for this)" },
        { "what it is measured on", OPT_GROUP, NULL, NULL, NULL },
        { "--part", OPT_STR, &a.part, "held|train", "part of the shards (held)" },
        { "--tokens", OPT_LONG, &a.tokens, "N", "about so many tokens (8192)" },
        { "--loss", OPT_STR, &a.loss, "all|reply", "what counts, as in train (reply)" },
        { "--format", OPT_STR, &a.format, "F", "dialogpt or cls_sep (as the model says)" },
        { "--seed", OPT_U64, &a.seed, "S", "of the choice from the training part (1)" },
        { "--threads", OPT_INT, &a.threads, "N", "(all cores)" },
        { "--json", OPT_FLAG, &a.json, NULL, "the report as JSON" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int rc = parsed(options_parse(o, argc, argv, pos, 1 + RUN_MAX_SHARDS, &n, e), "prune IN.gguf [SHARD…] -o OUT.gguf [options]",
                    "Take the least important layers, attention heads, FFN columns and vocabulary entries out of a model, as measured on dialogues.  The result is\n"
                    "an ordinary GGUF; `duet train --init OUT.gguf` on the same shards makes good most of what was lost.\n\n"
                    "example: duet prune big.gguf talk.shard -o small.gguf --share 0.25", o);
    if (rc >= 0) return rc;
    if (!n) return usage_error(e, "IN.gguf is missing%s", "");
    a.in   = pos[0];
    a.path = pos + 1;
    a.n    = n - 1;
    if (check(&a, e)) return EXIT_USAGE;
    if (a.threads > 0) omp_set_num_threads(a.threads);
    prune_job j = { 0 };
    rc          = run_prune(&a, &j, e);
    job_close(&j);
    return status_of(rc);
}
