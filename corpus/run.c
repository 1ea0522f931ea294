/* run: see run.h. */
#include "corpus/run.h"
#include "corpus/dialogue.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_SKIPPED = 20 /* updates refused one after the other before giving up */ };

typedef struct {
    const run_parts *p;
    const run_opts  *o;
    batch           *mb; /* (accum,) the batches of one update */
    run_held         held[RUN_MAX_SHARDS];
    run_status       s;
    FILE            *log;
    double           started, before; /* clock at the start of this sitting; seconds of earlier ones */
    double           base[RUN_MAX_SHARDS]; /* shares by size */
    int              waited, skipped_now;
    double           rate_t, rate_n; /* for tokens a second: clock and tokens at the last reckoning */
} run;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what a state must agree on -------------------------------------------------------------------------------- */

static void options_line(const run *r, buf *b)
{
    const run_opts   *o = r->o;
    const train_opts *t = r->p->opt;
    buf_fmt(b, "betas=%.17g,%.17g eps=%.17g weight-decay=%.17g decay-all=%d clip=%.17g dropout=%.9g seed=%llu ", t->beta1, t->beta2, t->eps, t->weight_decay,
            t->decay_all, t->clip, (double)t->dropout, (unsigned long long)t->seed);
    buf_fmt(b, "accum=%d schedule=%d lr=%.17g min-lr=%.17g warmup=%ld steps=%ld minutes=%.17g eval-every=%ld eval-tokens=%llu judge=%d patience=%d", o->accum,
            o->sched, o->lr, o->min_ratio, o->warmup, o->steps, o->minutes, o->eval_every, (unsigned long long)o->eval_tokens, o->judge, o->patience);
    for (int k = 0; k < o->n_mix; k++) buf_fmt(b, " mix%d=%.17g..%.17g", k + 1, o->mix[k], o->mix_end[k]);
}

static int state_write(const run *r, buf *b, err *e)
{
    buf_fmt(b, "duet-train 1\nstep %ld\nbest %a %ld\nwaited %d\nseconds %a\nskipped %llu %d\noptions ", r->s.step, r->s.best, r->s.best_step, r->waited,
            r->s.seconds, (unsigned long long)r->s.skipped, r->skipped_now);
    options_line(r, b);
    buf_chr(b, '\n');
    int rc = loader_state(r->p->l, b, e);
    buf_chr(b, '\n');
    return rc ? rc : b->oom ? err_set(e, E_NOMEM, "out of memory") : OK;
}

/* "name value…" -> the value, or an empty view. */
static str state_field(str *rest, const char *name)
{
    str line, want = str_of(name);
    if (!next_line(rest, &line) || !str_starts(line, want) || line.n <= want.n || line.s[want.n] != ' ') return (str){ NULL, 0 };
    return (str){ line.s + want.n + 1, line.n - want.n - 1 };
}

static int options_agree(const run *r, str had, err *e)
{
    buf b = { 0 };
    options_line(r, &b);
    str have = buf_view(&b);
    int rc   = b.oom ? err_set(e, E_NOMEM, "out of memory") : OK;
    if (rc == OK && !str_eq(had, have)) {
        size_t i = 0;
        while (i < had.n && i < have.n && had.s[i] == have.s[i]) i++;
        while (i && had.s[i - 1] != ' ') i--; /* back to the start of the word that differs */
        size_t a = 0, z = 0;
        while (i + a < had.n && had.s[i + a] != ' ') a++;
        while (i + z < have.n && have.s[i + z] != ' ') z++;
        rc = err_set(e, E_ARG, "%s: the run that is to go on had %.*s, now it is %.*s", r->o->checkpoint, (int)a, had.s + i, (int)z, have.s + i);
    }
    buf_free(&b);
    return rc;
}

static int state_read(run *r, str state, err *e)
{
    str  rest = state, line;
    char text[160];
    int  good = next_line(&rest, &line) && str_eq(line, STR("duet-train 1"));
    str  step = state_field(&rest, "step"), best = state_field(&rest, "best"), waited = state_field(&rest, "waited"),
        seconds = state_field(&rest, "seconds"), skipped = state_field(&rest, "skipped"), options = state_field(&rest, "options");
    unsigned long long n_skipped = 0;
    good = good && step.n && best.n && waited.n && seconds.n && skipped.n && options.n && next_line(&rest, &line);
    if (good) { /* the numbers in one string, since the views are not terminated */
        snprintf(text, sizeof text, "%.*s %.*s %.*s %.*s %.*s", (int)step.n, step.s, (int)best.n, best.s, (int)waited.n, waited.s, (int)seconds.n,
                 seconds.s, (int)skipped.n, skipped.s);
        good = sscanf(text, "%ld %lf %ld %d %lf %llu %d", &r->s.step, &r->s.best, &r->s.best_step, &r->waited, &r->before, &n_skipped, &r->skipped_now) == 7 &&
               r->s.step >= 0 && r->before >= 0 && isfinite(r->before);
    }
    if (!good) return err_set(e, E_FORMAT, "%s: its training state is missing or damaged (is it a checkpoint of `duet train`?)", r->o->checkpoint);
    r->s.skipped = n_skipped;
    int rc       = options_agree(r, options, e);
    if (rc == OK && (rc = loader_restore(r->p->l, line, e)) != OK) err_prefix(e, "%s", r->o->checkpoint);
    return rc;
}

/* ---- log ------------------------------------------------------------------------------------------------------- */

static int is_csv(const char *path)
{
    size_t n = strlen(path);
    return n >= 4 && strcmp(path + n - 4, ".csv") == 0;
}

/* The step a log line belongs to, or -1. */
static long log_step(str line)
{
    size_t i = str_starts(line, STR("{\"step\":")) ? 8 : 0;
    long   v = 0;
    if (i >= line.n || line.s[i] < '0' || line.s[i] > '9') return -1;
    for (; i < line.n && line.s[i] >= '0' && line.s[i] <= '9' && v < 1L << 60; i++) v = v * 10 + (line.s[i] - '0');
    return v;
}

/* A fresh log, or the old one without what came after the checkpoint (those steps are done again) and without a last line that was cut. */
static int log_open(run *r, int resume, err *e)
{
    const char *path    = r->o->log;
    str         heading = is_csv(path ? path : "") ? STR("step,lr,loss,norm,tokens_s,seconds,ppl,best") : STR("");
    buf         old     = { 0 };
    outfile    *f       = NULL;
    struct stat st;
    if (!path) return OK;
    int rc = resume && stat(path, &st) == 0 ? read_file(path, (size_t)1 << 32, &old, e) : OK;
    if (rc == OK) rc = out_open(&f, path, e);
    if (rc == OK && heading.n) rc = out_write(f, heading.s, heading.n, e);
    if (rc == OK && heading.n) rc = out_write(f, "\n", 1, e);
    str rest = buf_view(&old), line;
    while (rest.n && rest.s[rest.n - 1] != '\n') rest.n--;
    while (rc == OK && next_line(&rest, &line)) {
        long step = log_step(line);
        if (step < 0 || step > r->s.step) continue;
        rc = out_write(f, line.s, line.n, e);
        if (rc == OK) rc = out_write(f, "\n", 1, e);
    }
    if (rc == OK) rc = out_commit(f, e);
    if (rc) out_abort(f);
    buf_free(&old);
    if (rc == OK && !(r->log = fopen(path, "ab"))) rc = err_set(e, E_IO, "%s: cannot write: %s", path, strerror(errno));
    return rc;
}

static int log_flush(run *r, err *e)
{
    if (fflush(r->log) != 0 || ferror(r->log)) return err_set(e, E_IO, "%s: cannot write: %s", r->o->log, strerror(errno));
    return OK;
}

static int log_update(run *r, err *e)
{
    const run_status *s = &r->s;
    if (!r->log) return OK;
    if (is_csv(r->o->log)) fprintf(r->log, "%ld,%.6g,%.6f,%.4f,%.0f,%.2f,,\n", s->step, s->lr, s->loss, s->norm, s->tokens_s, s->seconds);
    else
        fprintf(r->log, "{\"step\":%ld,\"lr\":%.6g,\"loss\":%.6f,\"norm\":%.4f,\"tokens_s\":%.0f,\"seconds\":%.2f}\n", s->step, s->lr, s->loss, s->norm,
                s->tokens_s, s->seconds);
    return log_flush(r, e);
}

static void json_text(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', f);
        if ((unsigned char)*s < 32) fprintf(f, "\\u%04x", (unsigned)*s);
        else fputc(*s, f);
    }
    fputc('"', f);
}

static int log_look(run *r, err *e)
{
    const run_status *s = &r->s;
    if (!r->log) return OK;
    if (is_csv(r->o->log)) {
        fprintf(r->log, "%ld,,,,,%.2f,%.6f,%.6f\n", s->step, s->seconds, s->ppl, s->best);
        return log_flush(r, e);
    }
    fprintf(r->log, "{\"step\":%ld,\"seconds\":%.2f,\"ppl\":%.6f,\"best\":%.6f,\"best_step\":%ld,\"held\":[", s->step, s->seconds, s->ppl, s->best, s->best_step);
    for (int k = 0; k < s->n; k++) {
        const run_held *h = &s->held[k];
        fprintf(r->log, "%s{\"shard\":", k ? "," : "");
        json_text(r->log, shard_path(r->p->shards[k]));
        fprintf(r->log, ",\"nll\":%.6f,\"ppl\":%.6f,\"ppl_char\":%.6f,\"targets\":%.0f,\"epochs\":%.3f}", h->nll / h->targets, exp(h->nll / h->targets),
                exp(h->nll / h->chars), h->targets, loader_epochs(r->p->l, k));
    }
    fputs("]}\n", r->log);
    return log_flush(r, e);
}

/* ---- held-out -------------------------------------------------------------------------------------------------- */

static int check_held(const run_held *h, const shard *s, err *e)
{
    if (!(h->targets > 0))
        return err_set(e, E_FORMAT, "%s: the held-out part is empty (of %llu dialogues none gives a target); prep more data or a greater --valid",
                       shard_path(s), (unsigned long long)shard_about(s, PART_HELD)->dialogues);
    return isfinite(h->nll) ? OK : err_set(e, E_LIMIT, "%s: the held-out loss is not finite", shard_path(s));
}

int run_look(const run_parts *p, int k, uint64_t limit_tok, run_held *h, err *e)
{
    loader_place place = { 0 };
    batch        b     = { 0 };
    int          rc;
    *h = (run_held){ 0 };
    while ((rc = loader_held(p->l, k, &place, limit_tok, &b, e)) == 1) {
        double nll, targets;
        rc = trainer_eval(p->t, &b.b, &nll, &targets, NULL, NULL, e);
        if (rc) break;
        h->nll += nll;
        h->targets += targets;
        h->chars += b.chars;
    }
    batch_free(&b);
    return rc ? rc : check_held(h, p->shards[k], e);
}

/* One batch: its sequences are scored from their second token on, and what has a weight counts. */
static int score_batch(const gpt2 *m, const batch *b, run_held *h, err *e)
{
    int         n = b->b.n_seq, rc = OK, at = 0;
    const int **ids  = malloc((size_t)n * sizeof *ids);
    int        *from = malloc((size_t)n * sizeof *from);
    double     *sum = malloc((size_t)n * sizeof *sum), *logp = malloc((size_t)b->b.n_tok * sizeof *logp), **tok = malloc((size_t)n * sizeof *tok);
    if (!ids || !from || !sum || !logp || !tok) rc = err_set(e, E_NOMEM, "out of memory for %d sequences", n);
    for (int k = 0; rc == OK && k < n; at += b->b.len[k++]) {
        ids[k]  = b->b.id + at;
        tok[k]  = logp + at;
        from[k] = 1;
    }
    if (rc == OK) rc = gpt2_score(m, ids, b->b.len, from, n, sum, tok, e);
    for (int t = 0; rc == OK && t < b->b.n_tok; t++) {
        if (b->b.weight[t] > 0) h->nll -= (double)b->b.weight[t] * logp[t];
        h->targets += (double)b->b.weight[t];
    }
    h->chars += b->chars;
    free(ids), free(from), free(sum), free(logp), free(tok);
    return rc;
}

int run_score(const gpt2 *m, loader *l, const shard *about, int k, uint64_t limit_tok, run_held *h, err *e)
{
    loader_place place = { 0 };
    batch        b     = { 0 };
    int          rc;
    *h = (run_held){ 0 };
    while ((rc = loader_held(l, k, &place, limit_tok, &b, e)) == 1)
        if ((rc = score_batch(m, &b, h, e)) != OK) break;
    batch_free(&b);
    return rc ? rc : check_held(h, about, e);
}

/* Shares at `fraction` of the run, or by size. */
static void shares_at(const run *r, double fraction, double *share)
{
    for (int k = 0; k < r->p->n; k++)
        share[k] = r->o->n_mix ? r->o->mix[k] + fraction * (r->o->mix_end[k] - r->o->mix[k]) : r->base[k];
}

static int save(run *r, err *e)
{
    buf b  = { 0 };
    int rc = state_write(r, &b, e);
    if (rc == OK) rc = trainer_save(r->p->t, r->o->checkpoint, r->p->tok, r->p->meta, buf_view(&b), 0, e);
    buf_free(&b);
    return rc;
}

/* Look at all held-out parts; keep the model when it is the best so far. */
static int look(run *r, err *e)
{
    double share[RUN_MAX_SHARDS], sum = 0, mean = 0;
    shares_at(r, 1, share);
    for (int k = 0; k < r->p->n; k++) {
        int rc = run_look(r->p, k, r->o->eval_tokens, &r->held[k], e);
        if (rc) return rc;
        if (r->o->judge) share[k] = k + 1 == r->o->judge;
        sum += share[k];
        mean += share[k] * r->held[k].nll / r->held[k].targets;
    }
    r->s.ppl    = exp(mean / sum);
    r->s.looked = 1;
    r->waited++;
    const int better = r->s.ppl < r->s.best;
    if (better || r->o->keep_last) {
        int rc = trainer_save(r->p->t, r->o->out, r->p->tok, r->p->meta, (str){ "", 0 }, 1, e);
        if (rc) return rc;
    }
    if (better) {
        r->s.best      = r->s.ppl;
        r->s.best_step = r->s.step;
        r->waited      = 0;
    }
    return log_look(r, e);
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

static double fraction_done(const run *r)
{
    double f = r->o->steps ? (double)r->s.step / (double)r->o->steps : r->s.seconds / (60 * r->o->minutes);
    return f < 1 ? f : 1;
}

static int update(run *r, err *e)
{
    const run_opts *o = r->o;
    double          share[RUN_MAX_SHARDS], targets = 0, nll = 0, tokens = 0;
    int             rc = OK;
    shares_at(r, r->s.fraction, share);
    rc = loader_mix(r->p->l, share, e);
    for (int i = 0; rc == OK && i < o->accum; i++) {
        rc = loader_next(r->p->l, &r->mb[i], e);
        targets += r->mb[i].n_target;
        tokens += (double)r->mb[i].id.n;
    }
    for (int i = 0; rc == OK && i < o->accum; i++) { /* the loss is the mean over all targets of the update, not a mean of means */
        double x, n;
        rc = trainer_backward(r->p->t, &r->mb[i].b, 1 / targets, &x, &n, e);
        nll += x;
    }
    if (rc) return rc;
    long total = o->steps;
    if (!total) { /* by the clock: the number of updates there will be, as it looks now */
        double f = r->s.fraction;
        total    = f > 0 ? (long)((double)r->s.step / f) + 1 : 1000000;
    }
    r->s.lr   = train_lr(o->sched, o->lr, r->s.step, o->warmup, total, o->min_ratio, r->p->config->n_embd);
    r->s.loss = nll / targets;
    rc        = trainer_update(r->p->t, r->s.lr, &r->s.norm, e);
    if (rc == E_ARG && ++r->skipped_now < MAX_SKIPPED) { /* the gradient was not finite: leave this update out */
        r->s.skipped++;
        rc = OK;
    } else if (rc == OK) {
        r->skipped_now = 0;
    }
    r->s.step++;
    r->s.tokens += tokens;
    return rc;
}

static void reckon(run *r)
{
    double t     = now();
    r->s.seconds = r->before + t - r->started;
    if (t - r->rate_t >= 2 || r->s.tokens_s == 0) { /* tokens a second over the last seconds */
        r->s.tokens_s = (r->s.tokens - r->rate_n) / (t - r->rate_t > 1e-9 ? t - r->rate_t : 1e-9);
        r->rate_t     = t;
        r->rate_n     = r->s.tokens;
    }
    r->s.fraction = fraction_done(r);
}

static int loop(run *r, run_watch *watch, void *ctx, err *e)
{
    const run_opts *o  = r->o;
    int             rc = OK, stop = 0;
    if (r->s.step == 0) { /* also refuses a held-out part without targets before any work is done */
        rc = look(r, e);
        if (rc == OK && watch) stop = watch(ctx, &r->s);
    }
    r->rate_t = now();
    while (rc == OK && !stop && r->s.fraction < 1 && !(o->patience && r->waited >= o->patience)) {
        r->s.looked = 0;
        rc          = update(r, e);
        reckon(r);
        if (rc == OK) rc = log_update(r, e);
        if (rc == OK && (r->s.step % o->eval_every == 0 || r->s.fraction >= 1)) {
            double t = now();
            rc       = look(r, e);
            r->rate_t += now() - t; /* looking is not training */
            if (rc == OK) rc = save(r, e);
        }
        if (rc == OK && watch) stop = watch(ctx, &r->s);
    }
    if (rc) return rc;
    r->s.stopped_early = o->patience && r->waited >= o->patience;
    if (!stop) return OK;
    rc = save(r, e);
    return rc ? rc : err_set(e, E_CANCEL, "stopped at step %ld", r->s.step);
}

static int check(const run_parts *p, const run_opts *o, err *e)
{
    if (o->accum < 1 || o->eval_every < 1) return err_set(e, E_ARG, "batches to an update and updates between looks: at least 1 wanted");
    if (o->steps < 0 || (o->steps == 0 && !(o->minutes > 0))) return err_set(e, E_ARG, "neither a number of updates nor minutes given");
    if (!(o->lr > 0) || !(o->min_ratio >= 0 && o->min_ratio <= 1) || o->warmup < 0)
        return err_set(e, E_ARG, "learning rate %g, least ratio %g, warm-up %ld", o->lr, o->min_ratio, o->warmup);
    if (p->n < 1 || p->n > RUN_MAX_SHARDS) return err_set(e, E_ARG, "%d shards: 1 to %d wanted", p->n, (int)RUN_MAX_SHARDS);
    if (o->n_mix && o->n_mix != p->n) return err_set(e, E_ARG, "%d shares for %d shards", o->n_mix, p->n);
    if (o->judge < 0 || o->judge > p->n) return err_set(e, E_ARG, "judge %d: there are %d shards", o->judge, p->n);
    for (int k = 0; k < p->n; k++)
        if (!shard_about(p->shards[k], PART_HELD)->dialogues)
            return err_set(e, E_FORMAT, "%s: the held-out part is empty; prep it with --valid", shard_path(p->shards[k]));
    return OK;
}

int run_train(const run_parts *p, const run_opts *o, int resume, run_watch *watch, void *ctx, run_status *last, err *e)
{
    int rc = check(p, o, e);
    if (rc) return rc;
    run *r = calloc(1, sizeof *r);
    if (!r || !(r->mb = calloc((size_t)o->accum, sizeof *r->mb))) {
        free(r);
        return err_set(e, E_NOMEM, "out of memory");
    }
    r->p       = p;
    r->o       = o;
    r->s       = (run_status){ .steps = o->steps, .best = INFINITY, .ppl = INFINITY, .n = p->n, .held = r->held };
    for (int k = 0; k < p->n; k++) r->base[k] = (double)shard_about(p->shards[k], PART_TRAIN)->tokens;
    if (resume) {
        buf state = { 0 };
        rc        = trainer_resume(p->t, o->checkpoint, &state, e);
        if (rc == OK) rc = state_read(r, buf_view(&state), e);
        buf_free(&state);
    }
    if (rc == OK) rc = log_open(r, resume, e);
    r->started = now();
    if (rc == OK) {
        reckon(r);
        r->s.tokens_s = 0;
        rc            = loop(r, watch, ctx, e);
    }
    if (r->log && fclose(r->log) != 0 && rc == OK) rc = err_set(e, E_IO, "%s: cannot close: %s", o->log, strerror(errno));
    if (last) {
        *last      = r->s;
        last->held = NULL;
    }
    for (int i = 0; i < o->accum; i++) batch_free(&r->mb[i]);
    free(r->mb);
    free(r);
    return rc;
}
