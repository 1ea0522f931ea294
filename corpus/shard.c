/* shard: see shard.h. */
#include "corpus/shard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 72, TAIL = 16 + 64 + 32 + 8, REC_HEAD = 16, TURN_HEAD = 16, VERSION = 1, MAX_TURNS = 1 << 20, MAX_IDS = 1 << 24, MAX_SOURCES = 1 << 16 };
static const char magic[] = "DUETSHD1", magic_end[] = "DUETEND1";

static uint32_t get32(const unsigned char *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static uint64_t get64(const unsigned char *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }
static void     put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> 8 * i);
}
static void put64(unsigned char *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}
static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* ---- writing --------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t at, group, tokens, chars;
    uint32_t turns;
} entry;
struct shard_writer {
    outfile *o;
    sha256   h;
    char    *path;
    double   share;
    uint64_t seed;
    int      n_vocab, id_bytes;
    entry   *v;       /* (n,) what the index will need */
    size_t   n, cap;
    buf      record;  /* the one in the making */
    buf      sources; /* as they go to the file */
    uint32_t n_sources;
};

static int put(shard_writer *w, const void *p, size_t n, err *e)
{
    sha256_add(&w->h, p, n);
    return out_write(w->o, p, n, e);
}

static int put_pad(shard_writer *w, size_t to, err *e)
{
    static const char zero[8];
    size_t            at = (size_t)out_tell(w->o);
    return put(w, zero, up(at, to) - at, e);
}

static void buf_u32(buf *b, uint32_t v)
{
    unsigned char x[4];
    put32(x, v);
    buf_add(b, x, 4);
}
static void buf_pad(buf *b, size_t to)
{
    while (!b->oom && b->n % to) buf_chr(b, 0);
}

int shard_create(shard_writer **out, const char *path, const unsigned char digest[32], int n_vocab, str hint, double share, uint64_t seed, err *e)
{
    *out = NULL;
    if (n_vocab < 1 || n_vocab > 1 << 24) return err_set(e, E_ARG, "%s: a vocabulary of %d", path, n_vocab);
    if (!(share >= 0 && share < 1)) return err_set(e, E_ARG, "held-out share %g: 0 to less than 1 wanted", share);
    if (hint.n > 4096) hint.n = 0; /* only a hint */
    shard_writer *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    w->share    = share;
    w->seed     = seed;
    w->n_vocab  = n_vocab;
    w->id_bytes = n_vocab <= 65536 ? 2 : 4;
    sha256_init(&w->h);
    unsigned char head[HEAD];
    uint64_t      bits;
    memcpy(&bits, &share, 8);
    memcpy(head, magic, 8);
    put32(head + 8, VERSION);
    put32(head + 12, (uint32_t)w->id_bytes);
    put32(head + 16, (uint32_t)n_vocab);
    put32(head + 20, (uint32_t)hint.n);
    memcpy(head + 24, digest, 32);
    put64(head + 56, bits);
    put64(head + 64, seed);
    int rc = out_open(&w->o, path, e);
    if (rc == OK) rc = put(w, head, HEAD, e);
    if (rc == OK) rc = put(w, hint.s, hint.n, e);
    if (rc == OK) rc = put_pad(w, 8, e);
    if (rc) shard_discard(w);
    else *out = w;
    return rc;
}

int shard_source(shard_writer *w, str name, err *e)
{
    if (w->n_sources == MAX_SOURCES) return err_set(e, E_LIMIT, "%s: more than %d sources", w->path, (int)MAX_SOURCES);
    if (name.n > 65535) name.n = 65535;
    buf_u32(&w->sources, (uint32_t)name.n);
    buf_str(&w->sources, name);
    buf_pad(&w->sources, 4);
    w->n_sources++;
    return w->sources.oom ? err_set(e, E_NOMEM, "%s: out of memory", w->path) : OK;
}

static uint32_t count_chars(str s)
{
    uint32_t n = 0, cp;
    for (size_t i = 0; i < s.n; n++) i += utf8_next(s.s + i, s.n - i, &cp);
    return n;
}

/* The record of a dialogue into w->record; the totals into *x. */
static int build_record(shard_writer *w, const turn *t, int n, uint64_t group, entry *x, err *e)
{
    buf *b = &w->record;
    buf_reset(b);
    buf_u32(b, (uint32_t)n);
    buf_u32(b, w->n_sources ? w->n_sources - 1 : 0);
    buf_u32(b, (uint32_t)group);
    buf_u32(b, (uint32_t)(group >> 32));
    for (int i = 0; i < n; i++) {
        uint32_t bits, chars = count_chars(t[i].text);
        if (t[i].n < 1 || t[i].n > MAX_IDS) return err_set(e, E_ARG, "%s: turn %d has %d tokens", w->path, i + 1, t[i].n);
        if (!(t[i].weight >= 0) || !isfinite(t[i].weight)) return err_set(e, E_ARG, "%s: turn %d has weight %g", w->path, i + 1, (double)t[i].weight);
        memcpy(&bits, &t[i].weight, 4);
        buf_u32(b, (uint32_t)t[i].n);
        buf_u32(b, chars);
        buf_u32(b, bits);
        buf_u32(b, (uint32_t)(t[i].speaker & 1));
        x->tokens += (uint64_t)t[i].n + 1;
        x->chars += chars;
    }
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < t[i].n; k++) {
            int           id = t[i].id[k];
            unsigned char c[4];
            if (id < 0 || id >= w->n_vocab) return err_set(e, E_ARG, "%s: id %d, the vocabulary has %d", w->path, id, w->n_vocab);
            put32(c, (uint32_t)id);
            buf_add(b, c, (size_t)w->id_bytes);
        }
    }
    buf_pad(b, 4);
    return b->oom ? err_set(e, E_NOMEM, "%s: out of memory", w->path) : OK;
}

int shard_add(shard_writer *w, const turn *t, int n, uint64_t group, err *e)
{
    entry x = { .at = out_tell(w->o), .group = group, .turns = (uint32_t)n };
    if (n < 1 || n > MAX_TURNS) return err_set(e, E_ARG, "%s: a dialogue of %d turns", w->path, n);
    int rc = build_record(w, t, n, group, &x, e);
    if (rc) return rc;
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 1024;
        entry *v   = cap < SIZE_MAX / sizeof *v ? realloc(w->v, cap * sizeof *v) : NULL;
        if (!v) return err_set(e, E_NOMEM, "%s: out of memory for %zu dialogues", w->path, cap);
        w->v   = v;
        w->cap = cap;
    }
    rc = put(w, w->record.s, w->record.n, e);
    if (rc == OK) w->v[w->n++] = x;
    return rc;
}

/* The draw below which a group is held out: the share, or just above the least draw when no group falls below it. */
static double held_limit(const shard_writer *w)
{
    double least = 1, most = 0;
    for (size_t i = 0; i < w->n; i++) {
        double u = rng_unit(w->seed, w->v[i].group, 0);
        if (u < least) least = u;
        if (u > most) most = u;
    }
    if (w->share == 0 || least < w->share || least == most) return w->share; /* one group alone is for training */
    return nextafter(least, 1);
}

int shard_finish(shard_writer *w, shard_part part[2], err *e)
{
    unsigned char x[TAIL];
    shard_part    total[2] = { { 0 } };
    double        limit    = held_limit(w);
    int           rc       = put_pad(w, 8, e);
    put64(x, out_tell(w->o));
    unsigned char n_src[8] = { 0 };
    put32(n_src, w->n_sources);
    if (rc == OK) rc = put(w, n_src, 8, e);
    if (rc == OK && w->sources.n) rc = put(w, w->sources.s, w->sources.n, e);
    if (rc == OK) rc = put_pad(w, 8, e);
    put64(x + 8, out_tell(w->o));
    for (int p = PART_TRAIN; p <= PART_HELD; p++) {
        for (size_t i = 0; rc == OK && i < w->n; i++) {
            const entry *v = &w->v[i];
            if ((rng_unit(w->seed, v->group, 0) < limit) != (p == PART_HELD)) continue;
            unsigned char at[8];
            put64(at, v->at);
            rc = put(w, at, 8, e);
            total[p].dialogues++;
            total[p].turns += v->turns;
            total[p].tokens += v->tokens;
            total[p].chars += v->chars;
        }
        put64(x + 16 + 32 * p, total[p].dialogues);
        put64(x + 24 + 32 * p, total[p].turns);
        put64(x + 32 + 32 * p, total[p].tokens);
        put64(x + 40 + 32 * p, total[p].chars);
    }
    if (rc) return rc;
    sha256_add(&w->h, x, 80);
    sha256_end(&w->h, x + 80);
    memcpy(x + 112, magic_end, 8);
    rc = out_write(w->o, x, TAIL, e);
    if (rc == OK) rc = out_commit(w->o, e);
    if (rc) return rc;
    w->o = NULL;
    if (part) memcpy(part, total, sizeof total);
    shard_discard(w);
    return OK;
}

void shard_discard(shard_writer *w)
{
    if (!w) return;
    out_abort(w->o);
    buf_free(&w->record);
    buf_free(&w->sources);
    free(w->v);
    free(w->path);
    free(w);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

struct shard {
    filemap              m;
    char                *path;
    int                  n_vocab, id_bytes;
    str                  hint;
    uint64_t             first, sources, index; /* offsets: first record, sources, index */
    uint32_t             n_sources;
    str                 *source; /* (n_sources,) */
    shard_part           part[2];
    const unsigned char *sha;
};

static int broken(const shard *s, uint64_t at, err *e, const char *what)
{
    return err_set(e, E_FORMAT, "%s: byte %llu: %s", s->path, (unsigned long long)at, what);
}

static int read_head(shard *s, err *e)
{
    const unsigned char *p = s->m.p;
    size_t               n = s->m.n;
    if (n < 8 || memcmp(p, magic, 8) != 0) return err_set(e, E_FORMAT, "%s: this is no Duet shard (make one with `duet prep`)", s->path);
    if (n < HEAD + TAIL) return err_set(e, E_FORMAT, "%s: cut off after %zu bytes", s->path, n);
    if (get32(p + 8) != VERSION) return err_set(e, E_FORMAT, "%s: shard version %u, %d wanted", s->path, get32(p + 8), (int)VERSION);
    if (memcmp(p + n - 8, magic_end, 8) != 0) return err_set(e, E_FORMAT, "%s: the end is missing: the file is cut off or has bytes behind it", s->path);
    uint32_t width = get32(p + 12), vocab = get32(p + 16), hint = get32(p + 20);
    if (width != 2 && width != 4) return broken(s, 12, e, "ids of neither 2 nor 4 bytes");
    if (vocab < 1 || vocab > 1u << 24 || (width == 2 && vocab > 65536)) return broken(s, 16, e, "the size of the vocabulary is out of range");
    if (hint > n - HEAD - TAIL) return broken(s, 20, e, "the tokenizer's name is longer than the file");
    s->id_bytes = (int)width;
    s->n_vocab  = (int)vocab;
    s->hint     = (str){ (const char *)p + HEAD, hint };
    s->first    = up(HEAD + hint, 8);
    return OK;
}

static int read_tail(shard *s, err *e)
{
    const unsigned char *p = s->m.p, *x = p + s->m.n - TAIL;
    uint64_t             end = s->m.n - TAIL;
    unsigned char        d[32];
    sha256               h;
    sha256_init(&h);
    sha256_add(&h, p, s->m.n - TAIL + 80);
    sha256_end(&h, d);
    if (memcmp(d, x + 80, 32) != 0) return err_set(e, E_FORMAT, "%s: the checksum does not match: the file is damaged", s->path);
    s->sha     = x + 80;
    s->sources = get64(x);
    s->index   = get64(x + 8);
    for (int k = 0; k < 2; k++) {
        const unsigned char *q = x + 16 + 32 * k;
        s->part[k]             = (shard_part){ get64(q), get64(q + 8), get64(q + 16), get64(q + 24) };
    }
    if (s->sources < s->first || s->sources > end || s->index < s->sources || s->index > end || s->index - s->sources < 8)
        return broken(s, end, e, "offsets of sources and index are out of range");
    uint64_t room = (end - s->index) / 8;
    if ((end - s->index) % 8 || s->part[0].dialogues > room || s->part[1].dialogues != room - s->part[0].dialogues)
        return broken(s, end, e, "the index does not hold as many dialogues as the tail says");
    for (uint64_t i = 0; i < room; i++) {
        uint64_t at = get64(p + s->index + 8 * i);
        if (at < s->first || at > s->sources || s->sources - at < REC_HEAD) return broken(s, s->index + 8 * i, e, "a dialogue lies outside the records");
    }
    return OK;
}

static int read_sources(shard *s, err *e)
{
    const unsigned char *p = s->m.p;
    uint64_t             at = s->sources + 8;
    s->n_sources = get32(p + s->sources);
    if (s->n_sources > MAX_SOURCES || s->n_sources > (s->index - at) / 4) return broken(s, s->sources, e, "more sources than there is room for");
    s->source = calloc(s->n_sources + 1u, sizeof *s->source);
    if (!s->source) return err_set(e, E_NOMEM, "%s: out of memory", s->path);
    for (uint32_t i = 0; i < s->n_sources; i++) {
        if (s->index - at < 4) return broken(s, at, e, "the sources are cut off");
        uint32_t n = get32(p + at);
        if (n > s->index - at - 4) return broken(s, at, e, "the name of a source is cut off");
        s->source[i] = (str){ (const char *)p + at + 4, n };
        uint64_t step = up(4 + (size_t)n, 4);
        if (step > s->index - at) return broken(s, at, e, "the name of a source is cut off");
        at += step;
    }
    return OK;
}

int shard_open(shard **out, const char *path, err *e)
{
    *out     = NULL;
    shard *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    int rc = map_open(&s->m, path, e);
    if (rc == OK) rc = read_head(s, e);
    if (rc == OK) rc = read_tail(s, e);
    if (rc == OK) rc = read_sources(s, e);
    if (rc) shard_close(s);
    else *out = s;
    return rc;
}

void shard_close(shard *s)
{
    if (!s) return;
    map_close(&s->m);
    free(s->source);
    free(s->path);
    free(s);
}

const char          *shard_path(const shard *s) { return s->path; }
const shard_part    *shard_about(const shard *s, int part) { return &s->part[part]; }
int                  shard_n_vocab(const shard *s) { return s->n_vocab; }
const unsigned char *shard_tokenizer(const shard *s) { return s->m.p + 24; }
str                  shard_hint(const shard *s) { return s->hint; }
const unsigned char *shard_sha256(const shard *s) { return s->sha; }
uint32_t             shard_n_sources(const shard *s) { return s->n_sources; }
str                  shard_source_name(const shard *s, uint32_t i) { return i < s->n_sources ? s->source[i] : STR(""); }

int shard_get(const shard *s, int part, uint64_t i, shard_dialogue *d, err *e)
{
    if (part < 0 || part > 1 || i >= s->part[part].dialogues) return err_set(e, E_ARG, "%s: no dialogue %llu in part %d", s->path, (unsigned long long)i, part);
    const unsigned char *p    = s->m.p;
    uint64_t             at   = get64(p + s->index + 8 * (i + (part ? s->part[0].dialogues : 0)));
    uint64_t             left = s->sources - at - REC_HEAD; /* the index was checked at opening */
    uint32_t             n    = get32(p + at);
    if (n < 1 || n > MAX_TURNS || n > left / TURN_HEAD) return broken(s, at, e, "the number of turns is out of range");
    if ((int)n > d->cap) {
        turn *t = realloc(d->turn, n * sizeof *t);
        if (t) d->turn = t;
        int *c = realloc(d->chars, n * sizeof *c);
        if (c) d->chars = c;
        if (!t || !c) return err_set(e, E_NOMEM, "%s: out of memory", s->path);
        d->cap = (int)n;
    }
    d->n      = (int)n;
    d->source = get32(p + at + 4);
    d->group  = get64(p + at + 8);
    d->ids.n  = 0;
    const unsigned char *head = p + at + REC_HEAD, *ids = head + (size_t)n * TURN_HEAD;
    left -= (uint64_t)n * TURN_HEAD;
    uint64_t total = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t n_ids = get32(head + k * TURN_HEAD), chars = get32(head + k * TURN_HEAD + 4), bits = get32(head + k * TURN_HEAD + 8);
        float    w;
        memcpy(&w, &bits, 4);
        if (n_ids < 1 || n_ids > MAX_IDS || n_ids > left / (unsigned)s->id_bytes - total) return broken(s, at, e, "the ids of a turn are cut off");
        if (!(w >= 0) || !isfinite(w) || chars > INT32_MAX) return broken(s, at, e, "the weight or length of a turn is out of range");
        d->turn[k]  = (turn){ .n = (int)n_ids, .weight = w, .speaker = (int)(get32(head + k * TURN_HEAD + 12) & 1) };
        d->chars[k] = (int)chars;
        total += n_ids;
    }
    for (uint64_t k = 0; k < total; k++) {
        uint32_t id = s->id_bytes == 2 ? ids[2 * k] | (uint32_t)ids[2 * k + 1] << 8 : get32(ids + 4 * k);
        if (id >= (uint32_t)s->n_vocab) return broken(s, at, e, "an id outside the vocabulary");
        ivec_push(&d->ids, (int)id);
    }
    if (d->ids.oom) return err_set(e, E_NOMEM, "%s: out of memory", s->path);
    for (size_t k = 0, from = 0; k < n; from += (size_t)d->turn[k++].n) d->turn[k].id = d->ids.v + from;
    return OK;
}

void shard_dialogue_free(shard_dialogue *d)
{
    free(d->turn);
    free(d->chars);
    ivec_free(&d->ids);
    *d = (shard_dialogue){ 0 };
}
