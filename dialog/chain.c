/* chain: see chain.h. */
#include "dialog/chain.h"

#include <math.h>
#include <string.h>

static void put_u64(sha256 *h, uint64_t v)
{
    unsigned char b[8];
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)(v >> 8 * i);
    sha256_add(h, b, sizeof b);
}
static void put_int(sha256 *h, int64_t v) { put_u64(h, (uint64_t)v); }
static void put_f64(sha256 *h, double v)
{
    uint64_t bits = 0x7ff8000000000000u;
    if (v == 0) v = 0; /* -0 compares equal and is written as +0 */
    if (!isnan(v)) memcpy(&bits, &v, sizeof bits);
    put_u64(h, bits);
}
static void put_text(sha256 *h, str s)
{
    put_u64(h, s.n);
    sha256_add(h, s.s, s.n);
}
static void put_ids(sha256 *h, const int *id, int n)
{
    put_int(h, n);
    for (int i = 0; i < n; i++) {
        uint32_t      v    = (uint32_t)id[i];
        unsigned char b[4] = { (unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16), (unsigned char)(v >> 24) };
        sha256_add(h, b, sizeof b);
    }
}
static void put_verdict(sha256 *h, const verdict *v)
{
    put_int(h, v->action);
    put_int(h, v->rule);
    put_int(h, v->n_hit);
    for (int i = 0; i < v->n_hit; i++) {
        put_int(h, v->hit[i].rule);
        put_int(h, v->hit[i].limit);
        put_u64(h, v->hit[i].from);
        put_u64(h, v->hit[i].to);
    }
}

void chain_start(const unsigned char key[CHAIN_KEY], str created, unsigned char out[CHAIN_HASH])
{
    sha256 h;
    sha256_init(&h);
    sha256_add(&h, "duet conversation 1", 19);
    sha256_add(&h, key, CHAIN_KEY);
    put_text(&h, created);
    sha256_end(&h, out);
}

static void said(const chain_row *r, unsigned char out[CHAIN_HASH])
{
    const reply *p = &r->x.r;
    sha256       h;
    sha256_init(&h);
    sha256_add(&h, r->salt, CHAIN_SALT);
    sha256_add(&h, "said", 4);
    put_text(&h, str_of(p->prompt_digest));
    put_text(&h, p->user_text);
    put_ids(&h, p->user_id, p->n_user_id);
    put_verdict(&h, &p->user_v);
    put_int(&h, p->cut);
    put_int(&h, p->evaluated);
    put_text(&h, p->text);
    put_ids(&h, p->id, p->n_id);
    sha256_end(&h, out);
}

static void drawn(const candidate *c, const unsigned char salt[CHAIN_SALT], unsigned char out[CHAIN_HASH])
{
    sha256 h;
    sha256_init(&h);
    sha256_add(&h, salt, CHAIN_SALT);
    sha256_add(&h, "drawn", 5);
    put_text(&h, c->text);
    put_ids(&h, c->id, c->n);
    put_int(&h, c->ended);
    put_int(&h, c->dup_of);
    put_f64(&h, c->fwd);
    put_f64(&h, c->bwd);
    put_int(&h, c->n_source);
    put_f64(&h, c->score);
    put_verdict(&h, &c->v);
    sha256_end(&h, out);
}

void chain_digests(chain_row *r)
{
    if (r->n_said) said(r, r->said);
    for (int k = 0; k < r->x.r.n; k++) drawn(&r->x.r.cand[k], r->c[k].salt, r->c[k].drawn);
}

void chain_hash(const chain_row *r, unsigned char out[CHAIN_HASH])
{
    const exchange *x = &r->x;
    sha256          h;
    sha256_init(&h);
    sha256_add(&h, r->prev, CHAIN_HASH);
    put_int(&h, x->n);
    put_int(&h, r->what);
    put_int(&h, r->target);
    put_int(&h, x->stale);
    put_text(&h, x->opts);
    put_u64(&h, x->seed);
    put_text(&h, str_of(x->r.fwd_digest));
    put_text(&h, str_of(x->r.bwd_digest));
    put_text(&h, str_of(x->r.rules_digest));
    put_text(&h, str_of(x->r.numerics));
    put_int(&h, x->r.chosen);
    put_text(&h, x->created);
    put_f64(&h, x->seconds);
    put_int(&h, r->n_said);
    sha256_add(&h, r->said, (size_t)r->n_said);
    put_int(&h, x->r.n);
    for (int k = 0; k < x->r.n; k++) {
        put_int(&h, k);
        put_int(&h, x->r.cand[k].fate);
        sha256_add(&h, r->c[k].drawn, CHAIN_HASH);
    }
    sha256_end(&h, out);
}

const char *chain_check(const chain_row *r, const unsigned char prev[CHAIN_HASH], int *k)
{
    unsigned char d[CHAIN_HASH];
    *k = -1;
    if (memcmp(r->prev, prev, CHAIN_HASH) != 0) return "prev is not the hash of the row before";
    if (r->n_said && !r->x.forgotten) {
        said(r, d);
        if (memcmp(d, r->said, CHAIN_HASH) != 0) return "what was said (texts, ids, hits or prompt) does not match its digest";
        for (int i = 0; i < r->x.r.n; i++) {
            drawn(&r->x.r.cand[i], r->c[i].salt, d);
            *k = i;
            if (memcmp(d, r->c[i].drawn, CHAIN_HASH) != 0) return "text, ids, scores or hits do not match their digest";
        }
        *k = -1;
    }
    chain_hash(r, d);
    return memcmp(d, r->x.hash, CHAIN_HASH) != 0 ? "the row does not match its hash" : NULL;
}
