/* loader: see loader.h. */
#include "corpus/loader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHARDS = 64 };
static const uint64_t JOIN_STREAM = UINT64_C(1) << 40; /* of the RNG, behind every place of a shard */

typedef struct {
    const shard *s;
    uint64_t     epoch, pos; /* training dialogue number pos of the epoch's order */
    int          turn;       /* first turn of the next row */
    int          context;    /* 1: that turn was a target of the row before */
    double       share, credit;
} source;
struct loader {
    loader_opts    o;
    source        *v; /* (n,) */
    int            n;
    uint64_t       left_out;
    shard_dialogue d;
    ivec           id; /* the row in hand */
    fvec           weight;
    double         row_target, row_chars;
    int            row_begins; /* it begins its dialogue */
};

uint64_t shuffled(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i)
{
    int half = 1;
    while (half < 32 && (uint64_t)1 << 2 * half < n) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t a = i >> half, b = i & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t f = rng_u64(seed, stream, round << 32 | b) & mask, t = b;
            b          = a ^ f;
            a          = t;
        }
        i = a << half | b;
    } while (i >= n);
    return i;
}

void batch_free(batch *b)
{
    ivec_free(&b->id);
    ivec_free(&b->len);
    fvec_free(&b->weight);
    *b = (batch){ 0 };
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static size_t cost(const loader *l, int k) { return (size_t)l->d.turn[k].n + 1; }
static size_t bos_cost(const loader *l) { return l->o.fmt.bos >= 0; }

/* The row that starts at turn *from of the dialogue in hand (*context: that turn was a target before) into l->id, l->weight; *from and *context move to the
 * next row, *from == d.n at the end.  1 a row with targets, 0 none here, <0. */
static int next_row(loader *l, int *from, int *context, err *e)
{
    size_t len = bos_cost(l), limit = (size_t)l->o.n_ctx;
    int    a = *from, n = l->d.n, z = a, overlap;
    while (z < n && cost(l, z) <= limit - len) len += cost(l, z++);
    if (z == a) { /* the turn alone is too long */
        l->left_out++;
        *from    = a + 1;
        *context = 0;
        return 0;
    }
    overlap    = z < n && z - a > 1 && cost(l, z) <= limit - bos_cost(l) - cost(l, z - 1);
    int before = *context;
    *from      = z < n && overlap ? z - 1 : z;
    *context   = overlap;
    if (z - a == 1 && (before || !l->o.loss_all)) return 0; /* one turn is nothing but context */

    l->id.n = l->weight.n = 0;
    int rc = format_train(&l->o.fmt, l->d.turn + a, z - a, l->o.reversed, l->o.loss_all, &l->id, &l->weight, e);
    if (rc) return rc;
    if (l->o.reversed ? overlap : before) { /* the first turn of the row is a target of the other row that holds it */
        size_t k = bos_cost(l) + cost(l, l->o.reversed ? z - 1 : a);
        for (size_t i = 0; i < k && i < l->weight.n; i++) l->weight.v[i] = 0;
    }
    l->row_target = l->row_chars = 0;
    for (size_t i = 0; i < l->weight.n; i++) l->row_target += (double)l->weight.v[i];
    size_t at = bos_cost(l);
    for (int i = 0; i < z - a; i++) { /* turns in the order of the row; a turn is a target when its end is */
        int k = l->o.reversed ? z - 1 - i : a + i;
        at += cost(l, k);
        if (at <= l->weight.n && l->weight.v[at - 1] > 0) l->row_chars += l->d.chars[k] + 1;
    }
    return l->row_target > 0;
}

static void batch_reset(batch *b)
{
    b->id.n = b->len.n = b->weight.n = 0;
    b->n_target = b->chars = 0;
}

static int fits(const loader *l, const batch *b)
{
    return l->id.n <= (size_t)l->o.max_tok - b->id.n && b->len.n < (size_t)l->o.max_seq;
}

/* join: the row goes on where the last one of the batch ends, without a beginning of its own. */
static int batch_add(loader *l, batch *b, int join, err *e)
{
    size_t from = join ? bos_cost(l) : 0;
    ivec_add(&b->id, l->id.v + from, l->id.n - from);
    if (join) b->len.v[b->len.n - 1] += (int)(l->id.n - from);
    else ivec_push(&b->len, (int)l->id.n);
    for (size_t i = from; i < l->weight.n; i++) fvec_push(&b->weight, l->weight.v[i]);
    b->n_target += l->row_target;
    b->chars += l->row_chars;
    return b->id.oom || b->len.oom || b->weight.oom ? err_set(e, E_NOMEM, "out of memory for a batch") : OK;
}

static void batch_view(batch *b)
{
    b->b = (train_batch){ (int)b->id.n, (int)b->len.n, b->id.v, b->len.v, b->weight.v };
}

/* ---- training -------------------------------------------------------------------------------------------------- */

/* The next row of source k into l->id; *after = the source's place behind it.  Skips what has no target; a whole epoch of that is an error. */
static int source_row(loader *l, int k, source *after, err *e)
{
    source        *s = after;
    const uint64_t n = shard_about(l->v[k].s, PART_TRAIN)->dialogues;
    *s               = l->v[k];
    for (uint64_t seen = 0; seen <= n;) {
        int rc = shard_get(s->s, PART_TRAIN, shuffled(l->o.seed, (uint64_t)k << 40 | s->epoch, n, s->pos), &l->d, e);
        if (rc) return rc;
        while (s->turn < l->d.n) {
            l->row_begins = s->turn == 0;
            rc            = next_row(l, &s->turn, &s->context, e);
            if (rc) return rc < 0 ? rc : OK;
        }
        seen++;
        s->turn = s->context = 0;
        if (++s->pos == n) s->pos = 0, s->epoch++;
    }
    return err_set(e, E_FORMAT, "%s: no target tokens: every row is context only%s", shard_path(s->s), l->o.reversed ? " in reversed order" : "");
}

/* Does the row that was just built, of the dialogue at place `pos` of an order, go on in the last row of the batch?  A pure function of the place, so that a
 * resumed run decides alike. */
static int joins(const loader *l, const batch *b, uint64_t seed, uint64_t order, uint64_t pos)
{
    return l->o.join > 0 && b->len.n > 0 && l->row_begins && (size_t)b->len.v[b->len.n - 1] + l->id.n - bos_cost(l) <= (size_t)l->o.n_ctx &&
           rng_unit(seed, order, JOIN_STREAM + pos) < l->o.join;
}

/* When a row ends its dialogue the place moves on at the next call; epochs count what was begun. */
int loader_next(loader *l, batch *b, err *e)
{
    batch_reset(b);
    for (;;) {
        int best = 0;
        for (int k = 1; k < l->n; k++)
            if (l->v[best].share <= 0 || (l->v[k].share > 0 && l->v[k].credit > l->v[best].credit)) best = k;
        source   after;
        uint64_t left_out = l->left_out;
        int      rc       = source_row(l, best, &after, e);
        if (rc) return rc;
        if (b->id.n && !fits(l, b)) {
            l->left_out = left_out; /* the row is built again for the next batch */
            break;
        }
        rc = batch_add(l, b, joins(l, b, l->o.seed, (uint64_t)best << 40 | after.epoch, after.pos), e);
        if (rc) return rc;
        l->v[best] = after;
        for (int k = 0; k < l->n; k++) l->v[k].credit += l->v[k].share * (double)l->id.n;
        l->v[best].credit -= (double)l->id.n;
    }
    batch_view(b);
    return OK;
}

double loader_epochs(const loader *l, int k)
{
    uint64_t n = shard_about(l->v[k].s, PART_TRAIN)->dialogues;
    return (double)l->v[k].epoch + (n ? (double)l->v[k].pos / (double)n : 0);
}
uint64_t loader_left_out(const loader *l) { return l->left_out; }

int loader_mix(loader *l, const double *share, err *e)
{
    double sum = 0;
    for (int k = 0; k < l->n; k++) {
        if (!(share[k] >= 0) || !isfinite(share[k])) return err_set(e, E_ARG, "the share of shard %d is %g", k + 1, share[k]);
        sum += share[k];
    }
    if (!(sum > 0) || !isfinite(sum)) return err_set(e, E_ARG, "the shares add up to %g", sum);
    for (int k = 0; k < l->n; k++) l->v[k].share = share[k] / sum;
    return OK;
}

/* ---- held-out -------------------------------------------------------------------------------------------------- */

int loader_held(loader *l, int k, loader_place *p, uint64_t limit_tok, batch *b, err *e)
{
    const shard   *s = l->v[k].s;
    const uint64_t n = shard_about(s, PART_HELD)->dialogues;
    batch_reset(b);
    while (p->pos < n && (!limit_tok || p->tokens < limit_tok)) {
        int rc = shard_get(s, PART_HELD, shuffled(0, 0, n, p->pos), &l->d, e);
        if (rc) return rc;
        while (p->turn < l->d.n) {
            int from      = p->turn, context = p->context;
            l->row_begins = from == 0;
            rc            = next_row(l, &from, &context, e);
            if (rc < 0) return rc;
            if (rc && b->id.n && !fits(l, b)) {
                batch_view(b);
                return 1;
            }
            p->turn    = from;
            p->context = context;
            if (!rc) continue;
            p->tokens += l->id.n;
            rc = batch_add(l, b, joins(l, b, 0, 0, p->pos), e);
            if (rc) return rc;
        }
        p->turn = p->context = 0;
        p->pos++;
    }
    batch_view(b);
    return b->id.n > 0;
}

/* ---- life and state -------------------------------------------------------------------------------------------- */

int loader_new(loader **out, const shard *const *shards, int n, const loader_opts *o, err *e)
{
    *out = NULL;
    if (n < 1 || n > MAX_SHARDS) return err_set(e, E_ARG, "%d shards: 1 to %d wanted", n, (int)MAX_SHARDS);
    if (o->n_ctx < 4) return err_set(e, E_ARG, "rows of %d tokens: at least 4 wanted", o->n_ctx);
    if (!(o->join >= 0 && o->join <= 1)) return err_set(e, E_ARG, "the share of joined dialogues is %g, 0 to 1 wanted", o->join);
    if (o->max_tok < o->n_ctx || o->max_seq < 1)
        return err_set(e, E_ARG, "a batch of %d tokens, %d rows cannot hold a row of %d tokens", o->max_tok, o->max_seq, o->n_ctx);
    loader *l = calloc(1, sizeof *l);
    if (!l || !(l->v = calloc((size_t)n, sizeof *l->v))) {
        free(l);
        return err_set(e, E_NOMEM, "out of memory");
    }
    l->o     = *o;
    l->n     = n;
    int rc   = OK;
    double share[MAX_SHARDS];
    for (int k = 0; rc == OK && k < n; k++) {
        const shard *s = shards[k];
        l->v[k].s      = s;
        share[k]       = (double)shard_about(s, PART_TRAIN)->tokens;
        if (memcmp(shard_tokenizer(s), shard_tokenizer(shards[0]), 32) != 0 || shard_n_vocab(s) != shard_n_vocab(shards[0]))
            rc = err_set(e, E_ARG, "%s and %s were made with different tokenizers", shard_path(shards[0]), shard_path(s));
        else if (!shard_about(s, PART_TRAIN)->dialogues) rc = err_set(e, E_FORMAT, "%s: no training dialogues", shard_path(s));
    }
    if (rc == OK) rc = loader_mix(l, share, e);
    for (int k = 0; rc == OK && k < n; k++) {
        source after;
        rc = source_row(l, k, &after, e);
    }
    l->left_out = 0;
    if (rc) loader_free(l);
    else *out = l;
    return rc;
}

void loader_free(loader *l)
{
    if (!l) return;
    shard_dialogue_free(&l->d);
    ivec_free(&l->id);
    fvec_free(&l->weight);
    free(l->v);
    free(l);
}

/* What the state belongs to: the shards' checksums and every option that changes the rows. */
static void fingerprint(const loader *l, char hex[65])
{
    sha256        h;
    unsigned char d[32];
    int64_t       o[] = { l->o.fmt.kind, l->o.fmt.bos, l->o.fmt.sep, l->o.reversed, l->o.loss_all, l->o.n_ctx, l->o.max_tok, l->o.max_seq, (int64_t)l->o.seed };
    sha256_init(&h);
    sha256_add(&h, o, sizeof o);
    sha256_add(&h, &l->o.join, sizeof l->o.join);
    for (int k = 0; k < l->n; k++) sha256_add(&h, shard_sha256(l->v[k].s), 32);
    sha256_end(&h, d);
    sha256_hex(d, hex);
}

int loader_state(const loader *l, buf *out, err *e)
{
    char hex[65];
    fingerprint(l, hex);
    buf_fmt(out, "loader 1 %s %llu", hex, (unsigned long long)l->left_out);
    for (int k = 0; k < l->n; k++)
        buf_fmt(out, " %llu,%llu,%d,%d,%a", (unsigned long long)l->v[k].epoch, (unsigned long long)l->v[k].pos, l->v[k].turn, l->v[k].context, l->v[k].credit);
    return out->oom ? err_set(e, E_NOMEM, "out of memory") : OK;
}

static int take_u64(const char **p, char end, uint64_t *v)
{
    char *q;
    if (**p < '0' || **p > '9') return -1;
    *v = strtoull(*p, &q, 10);
    if (*q != end) return -1;
    *p = q + (end != 0);
    return 0;
}

int loader_restore(loader *l, str state, err *e)
{
    char  hex[65], *text = malloc(state.n + 1);
    int   rc             = OK;
    if (!text) return err_set(e, E_NOMEM, "out of memory");
    memcpy(text, state.s, state.n);
    text[state.n] = 0;
    fingerprint(l, hex);
    const char *p = text;
    source     *v = calloc((size_t)l->n, sizeof *v);
    uint64_t    left_out = 0;
    if (!v) rc = err_set(e, E_NOMEM, "out of memory");
    else if (strncmp(p, "loader 1 ", 9) != 0) rc = err_set(e, E_FORMAT, "this is no state of a loader");
    else if (strncmp(p + 9, hex, 64) != 0) rc = err_set(e, E_ARG, "the state belongs to other shards or other batch options");
    else {
        p += 73;
        int good = *p++ == ' ' && take_u64(&p, ' ', &left_out) == 0;
        for (int k = 0; good && k < l->n; k++) {
            uint64_t from, context;
            char    *q;
            v[k] = l->v[k];
            good = take_u64(&p, ',', &v[k].epoch) == 0 && take_u64(&p, ',', &v[k].pos) == 0 && take_u64(&p, ',', &from) == 0 && take_u64(&p, ',', &context) == 0;
            if (!good) break;
            v[k].credit  = strtod(p, &q);
            good         = q != p && isfinite(v[k].credit) && *q == (k + 1 < l->n ? ' ' : 0) && v[k].pos < shard_about(v[k].s, PART_TRAIN)->dialogues &&
                   from <= INT32_MAX && context <= 1;
            v[k].turn    = (int)from;
            v[k].context = (int)context;
            p            = q + 1;
        }
        if (!good) rc = err_set(e, E_FORMAT, "the state of the loader is damaged");
    }
    if (rc == OK) {
        memcpy(l->v, v, (size_t)l->n * sizeof *v);
        l->left_out = left_out;
    }
    free(v);
    free(text);
    return rc;
}
