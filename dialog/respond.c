/* respond: see respond.h.  Owns the walk of one turn: safety, prompt, N candidates over one shared prefix, their
 * judgement, the choice.  Refuses to know of databases, clocks and terminals.  What is kept between turns (cache, scratch)
 * changes the speed, never the result. */
#include "dialog/respond.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/linear.h"

enum { FORWARD_ROWS = 64 };

struct responder {
    gpt2             *fwd, *bwd;
    const safety     *rules;
    ivec              ban;       /* ids no reply may hold */
    gpt2_cache       *cache;     /* of fwd; sized for the largest turn so far */
    int               n_seq, tail;
    float            *logits;    /* (n_seq, V) */
    int              *drawn;     /* (n_seq, tail) ids of the candidates being decoded */
    int              *live;      /* (n_seq,) candidates that go on */
    unsigned char    *goes_on;   /* (n_seq,) */
    gpt2_batch        batch;     /* (n_seq,) rows */
    int               n_thread;  /* that may draw at once */
    sample_space    **space;     /* (n_thread,) */
    int              *seen;      /* (n_thread, n_ctx + tail) what the repetition penalty covers */
    respond_progress *progress;
    void             *progress_ctx;
    respond_watch     watch;     /* .k -1: nobody */
    char              numerics[128];
};

static int needs_reverse(int mode) { return mode != MODE_FORWARD && mode != MODE_NONE; }

/* ---- opening --------------------------------------------------------------------------------------------------- */

static int check_model(const gpt2 *m, err *e)
{
    if (!gpt2_tokenizer(m)) return err_set(e, E_ARG, "%s: the file holds no vocabulary, so it cannot talk", gpt2_path(m));
    if (!format_name(gpt2_about(m)->fmt.kind))
        return err_set(e, E_ARG, "%s: the file states no dialogue layout (duet.format)", gpt2_path(m));
    return OK;
}

static int check_pair(const gpt2 *fwd, const gpt2 *bwd, err *e)
{
    int r = check_model(fwd, e);
    if (r == OK && bwd) r = check_model(bwd, e);
    if (r) return r;
    /* Import calls every model forward unless told otherwise, so only the word "backward" proves anything. */
    if (gpt2_about(fwd)->role == ROLE_BACKWARD)
        return err_set(e, E_ARG, "%s: a backward model where the forward one belongs (are the two swapped?)", gpt2_path(fwd));
    if (bwd) {
        unsigned char a[32], b[32];
        tokenizer_digest(gpt2_tokenizer(fwd), a);
        tokenizer_digest(gpt2_tokenizer(bwd), b);
        if (memcmp(a, b, sizeof a) != 0)
            return err_set(e, E_ARG, "%s and %s have different vocabularies", gpt2_path(fwd), gpt2_path(bwd));
    }
    return OK;
}

int responder_new(responder **out, gpt2 *fwd, gpt2 *bwd, const safety *rules, err *e)
{
    *out  = NULL;
    int r = check_pair(fwd, bwd, e);
    if (r) return r;
    responder *p = calloc(1, sizeof *p);
    if (!p) return err_set(e, E_NOMEM, "responder: out of memory");
    p->fwd   = fwd;
    p->bwd   = bwd;
    p->rules = rules;
    responder_watch(p, NULL);
    snprintf(p->numerics, sizeof p->numerics, "%s ops", linear_numerics());
    const tokenizer *t = gpt2_tokenizer(fwd);
    int              V = gpt2_cfg(fwd)->n_vocab, known = tokenizer_size(t), sep = gpt2_about(fwd)->fmt.sep;
    for (int id = 0; id < V; id++)
        if (id != sep && (id >= known || tokenizer_is_special(t, id))) ivec_push(&p->ban, id);
    if (p->ban.oom) {
        responder_free(p);
        return err_set(e, E_NOMEM, "responder: out of memory for a vocabulary of %d", V);
    }
    *out = p;
    return OK;
}

static void workspace_free(responder *r)
{
    gpt2_cache_free(r->cache);
    for (int i = 0; r->space && i < r->n_thread; i++) sample_space_free(r->space[i]);
    free(r->space);
    free(r->logits);
    free(r->drawn);
    free(r->live);
    free(r->goes_on);
    free(r->batch.id);
    free(r->batch.seq);
    free(r->batch.pos);
    free(r->batch.want);
    free(r->seen);
    r->cache   = NULL;
    r->space   = NULL;
    r->logits  = NULL;
    r->goes_on = NULL;
    r->drawn = r->live = r->seen = NULL;
    r->batch = (gpt2_batch){ 0 };
    r->n_seq = r->tail = r->n_thread = 0;
}

void responder_free(responder *r)
{
    if (!r) return;
    workspace_free(r);
    ivec_free(&r->ban);
    free(r);
}

void   responder_set_rules(responder *r, const safety *rules) { r->rules = rules; }
gpt2  *responder_fwd(const responder *r) { return r->fwd; }
gpt2  *responder_bwd(const responder *r) { return r->bwd; }

void responder_on_progress(responder *r, respond_progress *f, void *ctx)
{
    r->progress     = f;
    r->progress_ctx = ctx;
}

void responder_watch(responder *r, const respond_watch *w) { r->watch = w ? *w : (respond_watch){ .k = -1 }; }

/* Everything the token loop needs, allocated before it; grows when the options outgrow it. */
static int workspace(responder *r, int n_cand, int max_new, err *e)
{
    if (r->cache && n_cand <= r->n_seq && max_new <= r->tail) return OK;
    int    V = gpt2_cfg(r->fwd)->n_vocab, ctx = gpt2_cfg(r->fwd)->n_ctx, ok = 1;
    int    n = n_cand > r->n_seq ? n_cand : r->n_seq, tail = max_new > r->tail ? max_new : r->tail;
    int    threads = omp_get_max_threads();
    size_t N = (size_t)n, T, cells, logits, seen;
    if (threads > n) threads = n;
    if (threads < 1) threads = 1;
    T = (size_t)threads;
    workspace_free(r);
    if (mul_size(N, (size_t)tail, &cells) || mul_size(N, (size_t)V, &logits) || mul_size(T, (size_t)ctx + (size_t)tail, &seen))
        return err_set(e, E_LIMIT, "%d candidates of %d tokens are too many", n, tail);
    r->cache = gpt2_cache_new(r->fwd, ctx, n, tail, n > FORWARD_ROWS ? n : FORWARD_ROWS, e);
    if (!r->cache) return e && e->code ? e->code : E_NOMEM;
    r->logits     = calloc(logits, sizeof *r->logits);
    r->drawn      = calloc(cells, sizeof *r->drawn);
    r->live       = calloc(N, sizeof *r->live);
    r->goes_on    = calloc(N, 1);
    r->batch.id   = calloc(N, sizeof(int));
    r->batch.seq  = calloc(N, sizeof(int));
    r->batch.pos  = calloc(N, sizeof(int));
    r->batch.want = calloc(N, 1);
    r->seen       = calloc(seen, sizeof *r->seen);
    r->space      = calloc(T, sizeof *r->space);
    if (r->space) r->n_thread = threads;
    for (int i = 0; i < r->n_thread; i++) ok &= (r->space[i] = sample_space_new(V)) != NULL;
    if (!ok || !r->logits || !r->drawn || !r->live || !r->goes_on || !r->batch.id || !r->batch.seq || !r->batch.pos ||
        !r->batch.want || !r->seen || !r->space) {
        workspace_free(r);
        return err_set(e, E_NOMEM, "out of memory for %d candidates of %d tokens", n, tail);
    }
    memset(r->batch.want, 1, N);
    r->n_seq = n;
    r->tail  = tail;
    return OK;
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static int no_memory(err *e) { return err_set(e, E_NOMEM, "respond: out of memory"); }

static int ids_into(arena *a, const ivec *v, const int **id, int *n, err *e)
{
    int *p = arena_new(a, v->n, sizeof *p);
    if (!p) return no_memory(e);
    if (v->n) memcpy(p, v->v, v->n * sizeof *p);
    *id = p;
    *n  = (int)v->n;
    return OK;
}

static int encode(const responder *r, str text, arena *a, const int **id, int *n, err *e)
{
    ivec v   = { 0 };
    int  got = tokenizer_encode(gpt2_tokenizer(r->fwd), text, &v, e);
    if (got == OK) got = v.oom ? no_memory(e) : ids_into(a, &v, id, n, e);
    ivec_free(&v);
    return got;
}

int respond_turn(responder *r, str text, int speaker, arena *a, turn *out, err *e)
{
    *out = (turn){ .speaker = speaker, .weight = 1 };
    out->text = arena_str(a, text, e);
    if (!out->text.s) return E_NOMEM;
    return encode(r, out->text, a, &out->id, &out->n, e);
}

/* The text of ids, in the arena; bytes that are no UTF-8 (a reply cut inside a character) become U+FFFD; without white
 * space at its ends. */
static int decode(const responder *r, const int *id, int n, arena *a, str *out, err *e)
{
    buf raw = { 0 }, clean = { 0 };
    int got = tokenizer_decode(gpt2_tokenizer(r->fwd), id, (size_t)n, &raw, e);
    if (got == OK) {
        for (size_t i = 0; i < raw.n;) {
            uint32_t cp;
            size_t   k = utf8_next(raw.s + i, raw.n - i, &cp);
            if (cp == UTF8_BAD) buf_str(&clean, STR("\xEF\xBF\xBD"));
            else buf_add(&clean, raw.s + i, k);
            i += k;
        }
        if (raw.oom || clean.oom) got = no_memory(e);
    }
    if (got == OK) {
        *out = arena_str(a, str_trim(buf_view(&clean)), e);
        got  = out->s ? OK : E_NOMEM;
    }
    buf_free(&raw);
    buf_free(&clean);
    return got;
}

static int is_blank(uint32_t cp)
{
    return cp <= 0x20 || cp == 0x7F || cp == 0x85 || cp == 0xA0 || (cp >= 0x2000 && cp <= 0x200F) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x2060 || cp == 0x3000 || cp == 0xFEFF || cp == 0xFFFD;
}

static int is_mark(uint32_t cp) /* punctuation that an echo may gain or lose */
{
    if (cp < 0x80) return !((cp >= '0' && cp <= '9') || (cp >= 'A' && cp <= 'Z') || (cp >= 'a' && cp <= 'z'));
    return is_blank(cp) || (cp >= 0x2010 && cp <= 0x205E) || (cp >= 0x3001 && cp <= 0x3003) || (cp >= 0x3008 && cp <= 0x3011) ||
           (cp >= 0x3014 && cp <= 0x301F) || cp == 0x30FB || (cp >= 0xFF01 && cp <= 0xFF0F) || (cp >= 0xFF1A && cp <= 0xFF20) ||
           (cp >= 0xFF3B && cp <= 0xFF40) || (cp >= 0xFF5B && cp <= 0xFF65);
}

static int is_empty(str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += utf8_next(s.s + i, s.n - i, &cp);
        if (!is_blank(cp)) return 0;
    }
    return 1;
}

/* The next character that an echo must share, lower-cased; 0 at the end. */
static uint32_t next_word_char(str s, size_t *i)
{
    while (*i < s.n) {
        uint32_t cp;
        *i += utf8_next(s.s + *i, s.n - *i, &cp);
        if (!is_mark(cp)) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    }
    return 0;
}

int respond_is_echo(str user, str text)
{
    size_t   i = 0, j = 0;
    uint32_t a, b;
    int      any = 0;
    do {
        a   = next_word_char(user, &i);
        b   = next_word_char(text, &j);
        any |= a != 0;
    } while (a == b && a);
    return a == b && (any || str_eq(str_trim(user), str_trim(text))); /* lines of punctuation alone: to the letter */
}

static str stock_line(int lang)
{
    return lang ? STR("I am not sure what to say to that. Tell me a little more?")
                : STR("这个我一时不知道怎么回答，能再多说一点吗？");
}

static str refusal(const responder *r, const verdict *v, int lang)
{
    const safety_rule *rule = r->rules && v->rule >= 0 ? safety_rule_at(r->rules, v->rule) : NULL;
    str                own = !rule ? (str){ 0 } : lang ? rule->message_en : rule->message_zh;
    if (own.n) return own;
    return lang ? STR("I would rather not talk about that.") : STR("这个话题我不方便聊，我们换一个吧。");
}

static int judge(const responder *r, str text, int where, arena *a, verdict *v, err *e)
{
    *v = (verdict){ .action = RULE_NONE, .rule = -1 };
    return r->rules ? safety_check(r->rules, text, where, a, v, e) : OK;
}

/* ---- candidates ------------------------------------------------------------------------------------------------ */

typedef struct { /* one turn under way */
    const respond_opts *o;
    int                 max_new; /* clipped */
    turn               *turns;   /* (n,) the history and, last, the user's line */
    int                 n;
    ivec                prompt;
    int                 first;   /* oldest turn in the prompt */
    const candidate    *given;   /* (o->n_cand,) tokens of candidates that are not to be drawn; NULL: draw them */
} walk;

static int clip_new(const responder *r, int max_new)
{
    int half = gpt2_cfg(r->fwd)->n_ctx / 2, back = r->bwd ? gpt2_cfg(r->bwd)->n_ctx / 2 : half;
    if (back < half) half = back;
    if (half < 1) half = 1;
    return max_new < half ? max_new : half;
}

static int tell(const responder *r, int done, int total, int scoring, err *e)
{
    if (!r->progress || r->progress(r->progress_ctx, done, total, scoring) == 0) return OK;
    return err_set(e, E_CANCEL, "stopped");
}

/* Draw the next token of candidate c (number k) from its logits, with scratch number `at`; returns 1 when it goes on. */
static unsigned char draw(const responder *r, const walk *w, candidate *c, int k, const float *logits, int at)
{
    const respond_opts *o    = w->o;
    int                 V    = gpt2_cfg(r->fwd)->n_vocab, sep = gpt2_about(r->fwd)->fmt.sep;
    int                *ids  = r->drawn + (size_t)k * (size_t)r->tail;
    int                 head = o->rep_scope == PENALTY_SCOPE_ALL ? (int)w->prompt.n : 0;
    int                *seen = r->seen + (size_t)at * ((size_t)gpt2_cfg(r->fwd)->n_ctx + (size_t)r->tail);
    sample_opts         s    = { .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .top_p_rule = o->top_p_rule,
                                 .rep_penalty = o->rep_penalty, .rep_rule = o->rep_rule, .no_repeat = o->no_repeat,
                                 .min_new = o->min_new < w->max_new ? o->min_new : w->max_new, .sep = sep, .ban = r->ban.v,
                                 .n_ban = (int)r->ban.n };
    if (head) memcpy(seen, w->prompt.v, (size_t)head * sizeof(int));
    if (c->n) memcpy(seen + head, ids, (size_t)c->n * sizeof(int));
    double u  = rng_unit(o->seed, (uint64_t)(o->first_cand + k), (uint64_t)c->n);
    int    id = sample_draw(logits, V, &s, seen, head + c->n, ids, c->n, u, r->space[at]);
    if (k == r->watch.k)
        r->watch.draw(r->watch.ctx, &(respond_draw){ c->n, logits, V, &s, seen, ids, head + c->n, c->n, u, id });
    c->fwd += sample_logprob(logits, V, id);
    if (id == sep) {
        c->ended = 1;
        return 0;
    }
    ids[c->n++] = id;
    return c->n < w->max_new;
}

/* One draw for each live candidate; live row i reads logits + i * stride.  Who is done leaves the list.  Draws share
 * nothing, so threads change nothing. */
static int draw_all(responder *r, const walk *w, candidate *cand, int n_live, size_t stride)
{
    int still = 0, threads = omp_get_max_threads() < r->n_thread ? omp_get_max_threads() : r->n_thread;
#pragma omp parallel for schedule(static) num_threads(threads) if (n_live > 1)
    for (int i = 0; i < n_live; i++) {
        int k         = r->live[i];
        r->goes_on[i] = draw(r, w, &cand[k], k, r->logits + (size_t)i * stride, omp_get_thread_num());
    }
    for (int i = 0; i < n_live; i++)
        if (r->goes_on[i]) r->live[still++] = r->live[i];
    return still;
}

/* All candidates of the turn.  The prompt's last position feeds each one's first draw; then one row per live candidate and
 * step. */
static int generate(responder *r, const walk *w, candidate *cand, int *evaluated, err *e)
{
    int N = w->o->n_cand, n_live, P = (int)w->prompt.n, got;
    got = gpt2_sync(r->fwd, r->cache, w->prompt.v, P, r->logits, evaluated, e);
    if (got) return got;
    for (int k = 0; k < N; k++) r->live[k] = k;
    n_live = draw_all(r, w, cand, N, 0);
    while (n_live > 0) {
        got = tell(r, N - n_live, N, 0, e);
        if (got) return got;
        r->batch.n = n_live;
        for (int i = 0; i < n_live; i++) {
            const candidate *c = &cand[r->live[i]];
            r->batch.id[i]  = r->drawn[(size_t)r->live[i] * (size_t)r->tail + (size_t)(c->n - 1)];
            r->batch.seq[i] = r->live[i];
            r->batch.pos[i] = P + c->n - 1;
        }
        got = gpt2_forward(r->fwd, r->cache, &r->batch, r->logits, e);
        if (got) return got;
        n_live = draw_all(r, w, cand, n_live, (size_t)gpt2_cfg(r->fwd)->n_vocab);
    }
    return OK;
}

/* Given tokens take the place of drawn ones. */
static int take(responder *r, const walk *w, candidate *cand, int n, err *e)
{
    for (int k = 0; k < n; k++) {
        if (w->given[k].n < 0 || w->given[k].n > w->max_new)
            return err_set(e, E_ARG, "candidate %d has %d tokens, at most %d can be drawn", k, w->given[k].n, w->max_new);
        cand[k].n     = w->given[k].n;
        cand[k].ended = w->given[k].ended;
        cand[k].fwd   = NAN;
        if (cand[k].n) memcpy(r->drawn + (size_t)k * (size_t)r->tail, w->given[k].id, (size_t)cand[k].n * sizeof(int));
    }
    return OK;
}

/* Texts and fates: empty, equal to an earlier one, blocked, an echo. */
static int look_at(const responder *r, candidate *cand, int n, str user, arena *a, err *e)
{
    for (int k = 0; k < n; k++) {
        candidate *c = &cand[k];
        int       *ids = arena_new(a, (size_t)c->n, sizeof *ids);
        if (!ids) return no_memory(e);
        if (c->n) memcpy(ids, r->drawn + (size_t)k * (size_t)r->tail, (size_t)c->n * sizeof *ids);
        c->id   = ids;
        int got = decode(r, c->id, c->n, a, &c->text, e);
        if (got) return got;
        for (int j = 0; j < k && c->dup_of < 0; j++)
            if (cand[j].dup_of < 0 && cand[j].n == c->n && memcmp(cand[j].id, ids, (size_t)c->n * sizeof *ids) == 0)
                c->dup_of = j;
        if (is_empty(c->text)) {
            c->fate   = CAND_EMPTY;
            c->dup_of = -1;
        } else if (c->dup_of >= 0) {
            c->fate = CAND_DUPLICATE;
            c->v    = cand[c->dup_of].v;
        } else {
            got = judge(r, c->text, WHERE_REPLY, a, &c->v, e);
            if (got) return got;
            c->fate = c->v.action == RULE_BLOCK ? CAND_BLOCKED : respond_is_echo(user, c->text) ? CAND_ECHO : CAND_OK;
        }
    }
    return OK;
}

/* ---- scoring --------------------------------------------------------------------------------------------------- */

static int is_usable(const candidate *c) { return c->fate == CAND_OK || c->fate == CAND_ECHO; }

/* Rows laid end to end for gpt2_score. */
typedef struct {
    ivec         ids;
    int         *n, *from; /* (rows,) */
    const int  **row;      /* (rows,) into ids.v, set when ids is complete */
    double      *logp;     /* (rows,) */
    double     **tok;      /* (rows,) into tok_v */
    double      *tok_v;
    int          rows;
} score_job;

static int job_new(score_job *j, int rows, err *e)
{
    size_t n = (size_t)rows;
    *j       = (score_job){ .rows = rows };
    j->n     = calloc(n, sizeof *j->n);
    j->from  = calloc(n, sizeof *j->from);
    j->row   = calloc(n, sizeof *j->row);
    j->logp  = calloc(n, sizeof *j->logp);
    j->tok   = calloc(n, sizeof *j->tok);
    return j->n && j->from && j->row && j->logp && j->tok ? OK : no_memory(e);
}

static void job_free(score_job *j)
{
    ivec_free(&j->ids);
    free(j->n);
    free(j->from);
    free(j->row);
    free(j->logp);
    free(j->tok);
    free(j->tok_v);
}

static int job_run(score_job *j, const gpt2 *m, int per_token, err *e)
{
    if (j->ids.oom) return no_memory(e);
    if (per_token && !(j->tok_v = calloc(j->ids.n, sizeof *j->tok_v))) return no_memory(e);
    size_t at = 0;
    for (int i = 0; i < j->rows; at += (size_t)j->n[i++]) {
        j->row[i] = j->ids.v + at;
        j->tok[i] = per_token ? j->tok_v + at : NULL;
    }
    return gpt2_score(m, j->row, j->n, j->from, j->rows, j->logp, per_token ? j->tok : NULL, e);
}

/* bwd and n_source of every usable candidate; joint: also score.  turns (n,): those kept in the prompt, the line to answer
 * last. Row of candidate c: c + separator, then the source; c is masked (from = first source token).  In joint mode c's
 * own tokens count too. */
static int score_reverse(const responder *r, const turn *turns, int n, candidate *cand, int n_cand, const respond_opts *o, err *e)
{
    const format *f = &gpt2_about(r->bwd)->fmt;
    int           rows = 0, longest = 0, ctx = gpt2_cfg(r->bwd)->n_ctx, joint = o->mode == MODE_JOINT;
    for (int k = 0; k < n_cand; k++) {
        if (!is_usable(&cand[k])) continue;
        rows++;
        if (cand[k].n > longest) longest = cand[k].n;
    }
    if (rows == 0) return OK;
    score_job j;
    int       got = job_new(&j, rows, e), i = 0;
    for (int k = 0; k < n_cand && got == OK; k++) {
        if (!is_usable(&cand[k])) continue;
        size_t start = j.ids.n;
        /* The same room for everybody's source: scores against different sources cannot be compared. */
        got = format_reverse(f, turns, n, o->source_turns, cand[k].id, cand[k].n, ctx - (longest - cand[k].n), &j.ids,
                             &j.from[i], e);
        if (got) break;
        j.n[i] = (int)(j.ids.n - start);
        j.from[i] -= (int)start;
        cand[k].n_source = j.n[i] - j.from[i];
        if (joint) j.from[i] = 1;
        i++;
    }
    if (got == OK) got = job_run(&j, r->bwd, joint || r->watch.k >= 0, e);
    i = 0;
    for (int k = 0; k < n_cand && got == OK; k++) {
        if (!is_usable(&cand[k])) continue;
        int first = j.n[i] - cand[k].n_source; /* token of the source */
        if (k == r->watch.k) r->watch.source(r->watch.ctx, j.row[i] + first, j.tok[i] + first, cand[k].n_source);
        cand[k].bwd = j.logp[i];
        if (joint) {
            double sum = 0;
            for (int t = first; t < j.n[i]; t++) sum += j.tok[i][t];
            cand[k].bwd   = sum;
            cand[k].score = j.logp[i] / (j.n[i] - 1);
        }
        i++;
    }
    job_free(&j);
    return got;
}

/* fwd of given replies, teacher-forced. */
static int score_forward(const responder *r, const ivec *prompt, candidate *cand, int n_cand, err *e)
{
    int rows = 0, i = 0, sep = gpt2_about(r->fwd)->fmt.sep;
    for (int k = 0; k < n_cand; k++) rows += is_usable(&cand[k]);
    if (rows == 0) return OK;
    score_job j;
    int       got = job_new(&j, rows, e);
    for (int k = 0; k < n_cand && got == OK; k++) {
        if (!is_usable(&cand[k])) continue;
        ivec_add(&j.ids, prompt->v, prompt->n);
        ivec_add(&j.ids, cand[k].id, (size_t)cand[k].n);
        if (cand[k].ended) ivec_push(&j.ids, sep);
        j.from[i] = (int)prompt->n;
        j.n[i++]  = (int)prompt->n + cand[k].n + (cand[k].ended != 0);
    }
    if (got == OK) got = job_run(&j, r->fwd, 0, e);
    i = 0;
    for (int k = 0; k < n_cand && got == OK; k++)
        if (is_usable(&cand[k])) cand[k].fwd = j.logp[i++];
    job_free(&j);
    return got;
}

static int check_mode(const responder *r, int mode, err *e)
{
    if (r->bwd || !needs_reverse(mode)) return OK;
    return err_set(e, E_ARG,
                   "mode %s ranks with a backward model, and there is none beside %s (modes forward and none need none)",
                   respond_mode_name(mode), gpt2_path(r->fwd));
}

/* The prompt of w->turns into w->prompt; a last turn too long for it is cut in w->turns too, so that both models see the same. */
static int make_prompt(const responder *r, walk *w, int *cut, err *e)
{
    int max_turns = w->o->max_turns, got;
    got = format_prompt(&gpt2_about(r->fwd)->fmt, w->turns, w->n, max_turns, gpt2_cfg(r->fwd)->n_ctx - w->max_new, &w->prompt,
                        &w->first, cut, e);
    if (got) return got;
    turn *last = &w->turns[w->n - 1];
    if (*cut) {
        last->id += *cut;
        last->n -= *cut;
    }
    return OK;
}

int respond_score(responder *r, const turn *turns, int n, candidate *cand, int n_cand, const respond_opts *o, err *e)
{
    int got = respond_opts_check(o, e), longest = 1, cut;
    if (got == OK) got = check_mode(r, o->mode, e);
    if (got) return got;
    if (n < 1 || turns[n - 1].hidden) return err_set(e, E_ARG, "respond: no line to answer");
    for (int k = 0; k < n_cand; k++) {
        candidate *c = &cand[k];
        c->fwd = c->bwd = c->score = NAN;
        if (c->n > longest) longest = c->n;
    }
    if (longest > clip_new(r, longest))
        return err_set(e, E_LIMIT, "a reply of %d tokens is more than half of the context", longest);
    walk w = { .o = o, .max_new = longest + 1, .n = n, .turns = malloc((size_t)n * sizeof *w.turns) };
    if (!w.turns) return no_memory(e);
    memcpy(w.turns, turns, (size_t)n * sizeof *turns);
    if (clip_new(r, o->max_new) > w.max_new) w.max_new = clip_new(r, o->max_new); /* the prompt that respond would have made */
    got = make_prompt(r, &w, &cut, e);
    if (got == OK) got = score_forward(r, &w.prompt, cand, n_cand, e);
    if (got == OK && needs_reverse(o->mode)) got = score_reverse(r, w.turns + w.first, n - w.first, cand, n_cand, o, e);
    ivec_free(&w.prompt);
    free(w.turns);
    return got;
}

/* ---- the choice ------------------------------------------------------------------------------------------------ */

/* a ranks before b: NaN last, then the index (a < b is the caller's order). */
static int better(double a, double b) { return isnan(b) ? !isnan(a) : a > b; }

static int ranks_before(const candidate *a, const candidate *b)
{
    if (better(a->score, b->score)) return 1;
    if (better(b->score, a->score)) return 0;
    return better(a->fwd, b->fwd);
}

static double score_of(const candidate *c, const respond_opts *o)
{
    switch (o->mode) {
    case MODE_MMI: return c->bwd;
    case MODE_BIDI: return (double)o->lambda * c->bwd + (1 - (double)o->lambda) * c->fwd + (double)o->gamma * c->n;
    case MODE_JOINT: return c->score;
    case MODE_SAMPLED: return c->n_source > 0 ? c->bwd / c->n_source : NAN;
    case MODE_FORWARD: return c->n + c->ended > 0 ? c->fwd / (c->n + c->ended) : NAN;
    default: return NAN;
    }
}

/* One of the candidates of a fate, with probability softmax(score / mmi_temperature). */
static int draw_one(const candidate *cand, int n, int fate, const respond_opts *o, int *chosen, err *e)
{
    sample_space *s = sample_space_new(n);
    float        *x = malloc((size_t)n * sizeof *x);
    if (s && x) {
        sample_opts so = { .temperature = o->mmi_temperature, .rep_penalty = 1, .sep = -1 };
        for (int k = 0; k < n; k++) x[k] = cand[k].fate == fate ? (float)cand[k].score : -INFINITY;
        int id = sample_draw(x, n, &so, NULL, 0, NULL, 0, rng_unit(o->seed, RESPOND_CHOICE_STREAM, (uint64_t)o->first_cand), s);
        if (cand[id].fate == fate) *chosen = id; /* else all scores are -inf: the ranking stays */
    }
    int got = s && x ? OK : no_memory(e);
    sample_space_free(s);
    free(x);
    return got;
}

int respond_rank(candidate *cand, int n, const respond_opts *o, int *chosen, err *e)
{
    static const int order[] = { CAND_OK, CAND_ECHO, CAND_NAN };
    for (int k = 0; k < n; k++) {
        candidate *c = &cand[k];
        if (!is_usable(c)) continue;
        c->score = score_of(c, o);
        if (isnan(c->score) && o->mode != MODE_NONE) c->fate = CAND_NAN;
    }
    for (int k = 0; k < n; k++)
        if (cand[k].fate == CAND_DUPLICATE && cand[k].dup_of >= 0 && cand[k].dup_of < n) {
            const candidate *d = &cand[cand[k].dup_of];
            cand[k].fwd        = d->fwd;
            cand[k].bwd        = d->bwd;
            cand[k].n_source   = d->n_source;
            cand[k].score      = d->score;
        }
    *chosen = -1;
    for (int i = 0; i < 3 && *chosen < 0; i++) {
        for (int k = 0; k < n; k++) {
            if (cand[k].fate != order[i]) continue;
            if (*chosen < 0 || (o->mode != MODE_NONE && ranks_before(&cand[k], &cand[*chosen]))) *chosen = k;
        }
        if (*chosen >= 0 && o->mode == MODE_SAMPLED && order[i] != CAND_NAN) return draw_one(cand, n, order[i], o, chosen, e);
    }
    return OK;
}

/* ---- one turn -------------------------------------------------------------------------------------------------- */

/* SHA-256 of the ids as 32-bit little-endian numbers. */
static void digest_ids(const ivec *ids, char out[65])
{
    sha256        h;
    unsigned char d[32];
    sha256_init(&h);
    for (size_t i = 0; i < ids->n; i++) {
        uint32_t x = (uint32_t)ids->v[i];
        sha256_add(&h, (unsigned char[]){ (unsigned char)x, (unsigned char)(x >> 8), (unsigned char)(x >> 16),
                                          (unsigned char)(x >> 24) }, 4);
    }
    sha256_end(&h, d);
    sha256_hex(d, out);
}

/* History and line as turns with ids; turns without a token are hidden from the models. */
static int gather_turns(responder *r, const turn *hist, int n, const reply *out, arena *a, walk *w, err *e)
{
    w->n     = n + 1;
    w->turns = arena_new(a, (size_t)n + 1, sizeof *w->turns);
    if (!w->turns) return no_memory(e);
    for (int i = 0; i < n; i++) {
        turn *t = &w->turns[i];
        *t      = hist[i];
        if (!t->id && t->text.n && !t->hidden) {
            int got = encode(r, t->text, a, &t->id, &t->n, e);
            if (got) return got;
        }
        if (t->n == 0) t->hidden = 1;
    }
    w->turns[n] = (turn){ .text = out->user_text, .id = out->user_id, .n = out->n_user_id, .weight = 1 };
    return OK;
}

static int say(const responder *r, reply *out, int kind, str text, arena *a, err *e)
{
    out->kind   = kind;
    out->chosen = -1;
    out->text   = text;
    return encode(r, text, a, &out->id, &out->n_id, e);
}

/* What a candidate drew is judged and scored as it was drawn; what leaves with the record has its redacted spans blanked out, in words and in
 * tokens, whether it was chosen, blocked or neither.  The same draws give the same record again. */
static int protect(const responder *r, reply *out, arena *a, err *e)
{
    for (int k = 0; k < out->n; k++) {
        candidate *c = &out->cand[k];
        if (c->v.action < RULE_REDACT) continue;
        str drawn = c->text;
        int got   = safety_redact(r->rules, drawn, &c->v, a, &c->text, e);
        if (got == OK && c->text.s != drawn.s) got = encode(r, c->text, a, &c->id, &c->n, e);
        if (got) return got;
    }
    return OK;
}

/* The chosen candidate becomes the reply. */
static void show(reply *out)
{
    const candidate *c = &out->cand[out->chosen];
    out->kind = REPLY_MODEL;
    out->text = c->text;
    out->id   = c->id;
    out->n_id = c->n;
}

static int answer(responder *r, walk *w, arena *a, reply *out, err *e)
{
    const respond_opts *o = w->o;
    int got = make_prompt(r, w, &out->cut, e);
    if (got) return got;
    digest_ids(&w->prompt, out->prompt_digest);
    got = workspace(r, o->n_cand, w->max_new, e);
    if (got) return got;
    out->n    = o->n_cand;
    out->cand = arena_new(a, (size_t)o->n_cand, sizeof *out->cand);
    if (!out->cand) return no_memory(e);
    for (int k = 0; k < out->n; k++) out->cand[k] = (candidate){ .dup_of = -1, .bwd = NAN, .score = NAN, .v = { .rule = -1 } };
    got = w->given ? take(r, w, out->cand, out->n, e) : generate(r, w, out->cand, &out->evaluated, e);
    if (got == OK) got = look_at(r, out->cand, out->n, out->user_text, a, e);
    if (got == OK && w->given) got = score_forward(r, &w->prompt, out->cand, out->n, e);
    if (got == OK) got = tell(r, out->n, out->n, 1, e);
    if (got == OK && needs_reverse(o->mode))
        got = score_reverse(r, w->turns + w->first, w->n - w->first, out->cand, out->n, o, e);
    if (got == OK) got = respond_rank(out->cand, out->n, o, &out->chosen, e);
    if (got == OK) got = protect(r, out, a, e);
    if (got) return got;
    if (out->chosen < 0) return say(r, out, REPLY_STOCK, stock_line(o->lang), a, e);
    show(out);
    return OK;
}

int respond_given(responder *r, const turn *hist, int n, str user, const respond_opts *o, const candidate *given, arena *a, reply *out, err *e)
{
    *out    = (reply){ .chosen = -1, .user_v = { .rule = -1 } };
    int got = respond_opts_check(o, e);
    if (got == OK) got = check_mode(r, o->mode, e);
    if (got) return got;
    out->fwd_digest   = gpt2_digest(r->fwd);
    out->bwd_digest   = r->bwd ? gpt2_digest(r->bwd) : "";
    out->rules_digest = r->rules ? safety_digest(r->rules) : "";
    out->numerics     = r->numerics;

    out->user_text = arena_str(a, user, e);
    if (!out->user_text.s) return E_NOMEM;
    got = judge(r, out->user_text, WHERE_USER, a, &out->user_v, e);
    if (got == OK && out->user_v.action >= RULE_REDACT)
        got = safety_redact(r->rules, out->user_text, &out->user_v, a, &out->user_text, e);
    if (got == OK) got = encode(r, out->user_text, a, &out->user_id, &out->n_user_id, e);
    if (got) return got;
    if (out->user_v.action == RULE_BLOCK) return say(r, out, REPLY_REFUSED, refusal(r, &out->user_v, o->lang), a, e);
    if (out->n_user_id == 0) return say(r, out, REPLY_STOCK, stock_line(o->lang), a, e);

    walk w = { .o = o, .max_new = clip_new(r, o->max_new), .given = given };
    got    = gather_turns(r, hist, n, out, a, &w, e);
    if (got == OK) got = answer(r, &w, a, out, e);
    ivec_free(&w.prompt);
    return got;
}

int respond(responder *r, const turn *hist, int n, str user, const respond_opts *o, arena *a, reply *out, err *e)
{
    return respond_given(r, hist, n, user, o, NULL, a, out, e);
}
