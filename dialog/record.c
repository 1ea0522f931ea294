/* record: the rows of the chain: exchanges, undos, forgets.  Appending with verification before COMMIT, loading, what feeds a
 * model, verifying.  See history.h; the bytes that are hashed are chain.h's, the tables history.c's. */
#include "dialog/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURN_COLS "id,conv,n,what,target,stale,opts,seed,fwd,bwd,rules,numerics,chosen,n_cand,created,seconds,said,prev,hash," \
                  "salt,prompt,user_text,user_ids,user_action,user_rule,cut,evaluated,reply_text,reply_ids"
#define CAND_COLS "k,fate,drawn,salt,text,ids,ended,dup_of,fwd,bwd,n_source,score,action,rule"
#define IS_UNDONE "EXISTS(SELECT 1 FROM turn u WHERE u.conv=turn.conv AND u.what=16 AND u.target=turn.n)"

/* ---- loading: one routine for reading, for the check before COMMIT and for the audit ----------------------------- */

/* Columns 0 to 18, which stay when the words are forgotten. */
static void load_open(cells *c, chain_row *row)
{
    exchange *x = &row->x;
    x->conv     = cell_int(c, 1, INT64_MIN, INT64_MAX);
    x->n        = (int)cell_int(c, 2, 1, INT32_MAX);
    row->what   = (int)cell_int(c, 3, 0, ROW_FORGET);
    if (row->what > REPLY_STOCK && row->what < ROW_UNDO) cell_bad(c, 3, "unknown kind of row");
    row->target       = (int)cell_int(c, 4, 0, x->n - 1);
    x->stale          = (int)cell_int(c, 5, 0, 1);
    x->opts           = cell_text(c, 6, SHORT_MAX);
    x->seed           = (uint64_t)cell_int(c, 7, INT64_MIN, INT64_MAX);
    x->r.fwd_digest   = cell_cstr(c, 8, SHORT_MAX);
    x->r.bwd_digest   = cell_cstr(c, 9, SHORT_MAX);
    x->r.rules_digest = cell_cstr(c, 10, SHORT_MAX);
    x->r.numerics     = cell_cstr(c, 11, SHORT_MAX);
    x->r.n            = (int)cell_int(c, 13, 0, CAND_MAX);
    x->r.chosen       = (int)cell_int(c, 12, -1, x->r.n - 1);
    x->r.kind         = row->what;
    x->created        = cell_text(c, 14, SHORT_MAX);
    x->seconds        = cell_real(c, 15);
    row->n_said       = row->what <= REPLY_STOCK ? CHAIN_HASH : 0;
    if (row->n_said) cell_bytes(c, 16, row->said, CHAIN_HASH);
    else if (!cell_null(c, 16)) cell_bad(c, 16, "not empty in a row that is no exchange");
    cell_bytes(c, 17, row->prev, CHAIN_HASH);
    cell_bytes(c, 18, x->hash, CHAIN_HASH);
}

static void all_null(cells *c, int from, int to, const char *why)
{
    for (int col = from; col <= to; col++)
        if (!cell_null(c, col)) cell_bad(c, col, why);
}

/* Columns 19 to 28, the words. */
static void load_words(cells *c, chain_row *row)
{
    reply *p       = &row->x.r;
    p->text        = STR("");
    p->user_text   = STR("");
    p->user_v.rule = -1;
    if (!row->n_said) {
        all_null(c, 19, 28, "not empty in a row that is no exchange");
        return;
    }
    row->x.forgotten = cell_null(c, 19);
    if (row->x.forgotten) {
        all_null(c, 19, 28, "not empty though the exchange is forgotten");
        return;
    }
    cell_bytes(c, 19, row->salt, CHAIN_SALT);
    snprintf(p->prompt_digest, sizeof p->prompt_digest, "%s", cell_cstr(c, 20, (int)sizeof p->prompt_digest - 1));
    p->user_text     = cell_text(c, 21, TEXT_MAX);
    p->user_id       = cell_ids(c, 22, &p->n_user_id);
    p->user_v.action = (int)cell_int(c, 23, RULE_NONE, RULE_BLOCK);
    p->user_v.rule   = (int)cell_int(c, 24, -1, INT32_MAX);
    p->cut           = (int)cell_int(c, 25, 0, INT32_MAX);
    p->evaluated     = (int)cell_int(c, 26, 0, INT32_MAX);
    p->text          = cell_text(c, 27, TEXT_MAX);
    p->id            = cell_ids(c, 28, &p->n_id);
}

static void load_candidate(cells *c, chain_row *row, int k)
{
    candidate  *d = &row->x.r.cand[k];
    chain_cand *s = &row->c[k];
    d->fate       = (int)cell_int(c, 1, CAND_OK, CAND_NAN);
    cell_bytes(c, 2, s->drawn, CHAIN_HASH);
    d->text   = STR("");
    d->dup_of = d->v.rule = -1;
    d->fwd = d->bwd = d->score = NAN;
    if (row->x.forgotten) {
        all_null(c, 3, 13, "not empty though the exchange is forgotten");
        return;
    }
    cell_bytes(c, 3, s->salt, CHAIN_SALT);
    d->text     = cell_text(c, 4, TEXT_MAX);
    d->id       = cell_ids(c, 5, &d->n);
    d->ended    = (int)cell_int(c, 6, 0, 1);
    d->dup_of   = (int)cell_int(c, 7, -1, row->x.r.n - 1);
    d->fwd      = cell_real(c, 8);
    d->bwd      = cell_real(c, 9);
    d->n_source = (int)cell_int(c, 10, 0, INT32_MAX);
    d->score    = cell_real(c, 11);
    d->v.action = (int)cell_int(c, 12, RULE_NONE, RULE_BLOCK);
    d->v.rule   = (int)cell_int(c, 13, -1, INT32_MAX);
}

static int load_candidates(history *h, arena *a, chain_row *row, err *e)
{
    static const char sql[] = "SELECT " CAND_COLS " FROM candidate WHERE turn=? ORDER BY k";
    cells             c     = { .h = h, .a = a, .e = e, .table = "candidate of turn", .id = row->x.id };
    int               n     = row->x.r.n, k = 0, r;
    row->x.r.cand           = arena_new(a, (size_t)n, sizeof *row->x.r.cand);
    row->c                  = arena_new(a, (size_t)n, sizeof *row->c);
    if (!row->x.r.cand || !row->c) return store_no_memory(h, e);
    if ((r = store_query(&c, sql, "i", row->x.id))) return r;
    while ((r = store_step(&c)) == 1) {
        if (k == n || cell_int(&c, 0, INT64_MIN, INT64_MAX) != k) break;
        load_candidate(&c, row, k++);
    }
    store_done(&c);
    if (r < 0 || c.r) return r < 0 ? r : c.r;
    if (r == 0 && k == n) return OK;
    if (k == n) return err_set(e, E_FORMAT, "%s: turn %lld has more than its %d candidates", store_path(h), (long long)row->x.id, n);
    return err_set(e, E_FORMAT, "%s: turn %lld: candidate %d is missing", store_path(h), (long long)row->x.id, k);
}

static int load_hits(history *h, arena *a, chain_row *row, err *e)
{
    static const char count[] = "SELECT count(*) FROM hit WHERE turn=?";
    static const char sql[]   = "SELECT k,i,rule,capped,first,last FROM hit WHERE turn=? ORDER BY k,i";
    cells             c       = { .h = h, .a = a, .e = e, .table = "hit of turn", .id = row->x.id };
    int64_t           all, i = 0;
    int               r = store_query(&c, count, "i", row->x.id);
    if (r == OK) r = store_step(&c);
    if (r < 0) return r;
    all = cell_int(&c, 0, 0, HIT_MAX);
    if (all && row->x.forgotten) cell_bad(&c, 0, "there are hits though the exchange is forgotten");
    store_done(&c);
    if (c.r || all == 0) return c.r;
    safety_hit *hit = arena_new(a, (size_t)all, sizeof *hit);
    if (!hit) return store_no_memory(h, e);
    if ((r = store_query(&c, sql, "i", row->x.id))) return r;
    for (; (r = store_step(&c)) == 1 && i < all; i++) {
        int k = (int)cell_int(&c, 0, -1, row->x.r.n - 1);
        if (c.r) continue; /* the next step ends the loop */
        verdict *v = k < 0 ? &row->x.r.user_v : &row->x.r.cand[k].v;
        if (v->n_hit == 0) v->hit = &hit[i];
        cell_int(&c, 1, v->n_hit, v->n_hit);
        v->n_hit++;
        hit[i].rule  = (int)cell_int(&c, 2, 0, INT32_MAX);
        hit[i].limit = (int)cell_int(&c, 3, 0, 1);
        hit[i].from  = (size_t)cell_int(&c, 4, 0, INT32_MAX);
        hit[i].to    = (size_t)cell_int(&c, 5, (int64_t)hit[i].from, INT32_MAX);
    }
    store_done(&c);
    return r < 0 ? r : c.r;
}

int record_load(history *h, int64_t id, arena *a, chain_row *row, err *e)
{
    static const char sql[] = "SELECT " TURN_COLS " FROM turn WHERE id=?";
    cells             c     = { .h = h, .a = a, .e = e, .table = "turn", .id = id };
    *row                    = (chain_row){ .x.id = id };
    int r                   = store_query(&c, sql, "i", id);
    if (r == OK && (r = store_step(&c)) == 0) return err_set(e, E_ARG, "%s: there is no turn %lld", store_path(h), (long long)id);
    if (r < 0) return r;
    load_open(&c, row);
    load_words(&c, row);
    store_done(&c);
    r = c.r;
    if (r == OK) r = load_candidates(h, a, row, e);
    if (r == OK) r = load_hits(h, a, row, e);
    return r;
}

int record_check(history *h, const chain_row *row, const unsigned char prev[CHAIN_HASH], err *e)
{
    int         k;
    const char *what = chain_check(row, prev, &k);
    if (!what) return OK;
    if (k >= 0) return err_set(e, E_FORMAT, "%s: turn %lld, candidate %d: %s", store_path(h), (long long)row->x.id, k, what);
    return err_set(e, E_FORMAT, "%s: turn %lld: %s", store_path(h), (long long)row->x.id, what);
}

static int key_and_day(history *h, int64_t conv, unsigned char key[CHAIN_KEY], arena *a, str *created, err *e)
{
    static const char sql[] = "SELECT key,created FROM conversation WHERE id=?";
    cells             c     = { .h = h, .a = a, .e = e, .table = "conversation", .id = conv };
    int               r     = store_query(&c, sql, "i", conv);
    if (r == OK && (r = store_step(&c)) == 0)
        return err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    if (r < 0) return r;
    cell_bytes(&c, 0, key, CHAIN_KEY);
    *created = cell_text(&c, 1, SHORT_MAX);
    store_done(&c);
    return c.r;
}

int record_key(history *h, int64_t conv, unsigned char key[CHAIN_KEY], err *e)
{
    arena a = { 0 };
    str   created;
    int   r = key_and_day(h, conv, key, &a, &created, e);
    arena_free(&a);
    return r;
}

int record_start(history *h, int64_t conv, unsigned char hash[CHAIN_HASH], err *e)
{
    arena         a = { 0 };
    unsigned char key[CHAIN_KEY];
    str           created;
    int           r = key_and_day(h, conv, key, &a, &created, e);
    if (r == OK) chain_start(key, created, hash);
    arena_free(&a);
    return r;
}

int record_last(history *h, int64_t conv, int *n, unsigned char hash[CHAIN_HASH], err *e)
{
    static const char sql[] = "SELECT n,hash FROM turn WHERE conv=? ORDER BY n DESC LIMIT 1";
    cells             c     = { .h = h, .e = e, .table = "conversation", .id = conv };
    *n                      = 0;
    int r                   = record_start(h, conv, hash, e);
    if (r == OK) r = store_query(&c, sql, "i", conv);
    if (r || (r = store_step(&c)) <= 0) return r;
    *n = (int)cell_int(&c, 0, 1, INT32_MAX - 1);
    cell_bytes(&c, 1, hash, CHAIN_HASH);
    store_done(&c);
    return c.r;
}

/* ---- appending ------------------------------------------------------------------------------------------------- */

static int put_hits(history *h, int64_t id, int k, const verdict *v, err *e)
{
    static const char sql[] = "INSERT INTO hit(turn,k,i,rule,capped,first,last) VALUES(?,?,?,?,?,?,?)";
    int               r     = OK;
    for (int i = 0; i < v->n_hit && r == OK; i++)
        r = store_run(h, e, sql, "iiiiiii", id, (int64_t)k, (int64_t)i, (int64_t)v->hit[i].rule, (int64_t)v->hit[i].limit,
                      (int64_t)v->hit[i].from, (int64_t)v->hit[i].to);
    return r;
}

/* Forgotten: the columns behind `drawn` stay NULL. */
static int put_candidate(history *h, int64_t id, int k, int forgotten, const candidate *d, const chain_cand *s, err *e)
{
    static const char sql[] = "INSERT INTO candidate(turn," CAND_COLS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    int r = store_run(h, e, sql, forgotten ? "iiib" : "iiibbtbiiddidii", id, (int64_t)k, (int64_t)d->fate, s->drawn, (int)CHAIN_HASH, s->salt, (int)CHAIN_SALT,
                      d->text, d->id, d->n * 4, (int64_t)d->ended, (int64_t)d->dup_of, d->fwd, d->bwd, (int64_t)d->n_source, d->score,
                      (int64_t)d->v.action, (int64_t)d->v.rule);
    return r == OK ? put_hits(h, id, k, &d->v, e) : r;
}

static int put_turn(history *h, const chain_row *row, err *e)
{
    static const char sql[] = "INSERT INTO turn(" TURN_COLS ") VALUES(NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    const exchange   *x     = &row->x;
    const reply      *p     = &x->r;
    const char       *types = !row->n_said ? "iiiiititttt" "iitdnbb" : x->forgotten ? "iiiiititttt" "iitdbbb" : "iiiiititttt" "iitdbbb" "bttbiiiitb";
    if (!row->n_said)
        return store_run(h, e, sql, types, x->conv, (int64_t)x->n, (int64_t)row->what, (int64_t)row->target, (int64_t)0, x->opts,
                         (int64_t)x->seed, str_of(p->fwd_digest), str_of(p->bwd_digest), str_of(p->rules_digest), str_of(p->numerics),
                         (int64_t)p->chosen, (int64_t)0, x->created, x->seconds, row->prev, (int)CHAIN_HASH, x->hash, (int)CHAIN_HASH);
    return store_run(h, e, sql, types, x->conv, (int64_t)x->n, (int64_t)row->what, (int64_t)row->target, (int64_t)x->stale, x->opts,
                     (int64_t)x->seed, str_of(p->fwd_digest), str_of(p->bwd_digest), str_of(p->rules_digest), str_of(p->numerics),
                     (int64_t)p->chosen, (int64_t)p->n, x->created, x->seconds, row->said, (int)CHAIN_HASH, row->prev, (int)CHAIN_HASH,
                     x->hash, (int)CHAIN_HASH, row->salt, (int)CHAIN_SALT, str_of(p->prompt_digest), p->user_text, p->user_id,
                     p->n_user_id * 4, (int64_t)p->user_v.action, (int64_t)p->user_v.rule, (int64_t)p->cut, (int64_t)p->evaluated,
                     p->text, p->id, p->n_id * 4);
}

int record_put(history *h, const chain_row *row, int64_t *id, err *e)
{
    static const char index[] = "INSERT INTO search(rowid,user_text,reply_text) VALUES(?,?,?)";
    static const char grams[] = "INSERT INTO gram(rowid,chars) VALUES(?,grams(?,?))";
    static const char day[]   = "INSERT INTO day VALUES(substr(?2,1,10),?1,?1) ON CONFLICT(day) DO UPDATE SET lo=min(lo,?1),hi=max(hi,?1)";
    arena             a       = { 0 };
    chain_row         back;
    const exchange   *x      = &row->x;
    int               worded = row->n_said && !x->forgotten;
    int               r      = put_turn(h, row, e);
    *id                      = store_last_id(h);
    if (r == OK) r = store_run(h, e, day, "it", *id, x->created);
    if (r == OK && worded) r = put_hits(h, *id, -1, &x->r.user_v, e);
    for (int k = 0; k < x->r.n && r == OK; k++) r = put_candidate(h, *id, k, x->forgotten, &x->r.cand[k], &row->c[k], e);
    if (r == OK && worded) r = store_run(h, e, index, "itt", *id, x->r.user_text, x->r.text);
    if (r == OK && worded) r = store_run(h, e, grams, "itt", *id, x->r.user_text, x->r.text);
    if (r == OK) {
        r = record_load(h, *id, &a, &back, e);
        if (r == OK) r = record_check(h, &back, row->prev, e);
        if (r == OK && memcmp(back.x.hash, x->hash, CHAIN_HASH) != 0)
            r = err_set(e, E_FORMAT, "%s: turn %lld: another row came back than was written", store_path(h), (long long)*id);
        if (r == E_FORMAT || r == E_ARG) {
            err_prefix(e, "not stored, what was written cannot be read back");
            r = e ? (e->code = E_DB) : E_DB;
        }
    }
    arena_free(&a);
    return r;
}

/* Link the row to the conversation's last and store it.  In a transaction; x.conv, what, target, n_said and the reply are filled
 * in, salts drawn.  *id = its id. */
static int put_row(history *h, chain_row *row, int64_t *id, err *e)
{
    int r = record_last(h, row->x.conv, &row->x.n, row->prev, e);
    if (r) return r;
    row->x.n++;
    chain_digests(row);
    chain_hash(row, row->x.hash);
    return record_put(h, row, id, e);
}

static int too_big(const reply *p)
{
    size_t hits = p->user_v.n_hit > 0 ? (size_t)p->user_v.n_hit : 0;
    if (p->n > CAND_MAX || p->user_text.n > TEXT_MAX || p->text.n > TEXT_MAX || p->n_user_id > IDS_MAX || p->n_id > IDS_MAX) return 1;
    for (int k = 0; k < p->n; k++) {
        if (p->cand[k].text.n > TEXT_MAX || p->cand[k].n > IDS_MAX) return 1;
        hits += p->cand[k].v.n_hit > 0 ? (size_t)p->cand[k].v.n_hit : 0;
    }
    return hits > HIT_MAX;
}

str record_title(str line, char t[RECORD_TITLE])
{
    size_t n = 0, at = 0;
    int    chars = 0;
    while (at < line.n && chars < RECORD_TITLE / 4) {
        uint32_t cp;
        at += utf8_next(line.s + at, line.n - at, &cp);
        if (cp == UTF8_BAD) cp = 0xFFFD;
        if (cp <= 32 || (cp >= 127 && cp < 160)) cp = ' ';
        if (cp == ' ' && (n == 0 || t[n - 1] == ' ')) continue;
        n += utf8_put(cp, t + n);
        chars++;
    }
    while (n && t[n - 1] == ' ') n--;
    return (str){ t, n };
}

int hist_append(history *h, int64_t conv, const reply *p, const respond_opts *o, str created, double seconds, int64_t *id, err *e)
{
    if (p->kind < REPLY_MODEL || p->kind > REPLY_STOCK) return err_set(e, E_ARG, "%s: reply of unknown kind %d", store_path(h), p->kind);
    if (too_big(p)) return err_set(e, E_LIMIT, "%s: an exchange too big to store (texts 16 MiB, %d candidates)", store_path(h), CAND_MAX);
    static const char sql[] = "UPDATE conversation SET title=? WHERE id=? AND title=''";
    char      title[RECORD_TITLE];
    buf       opts = { 0 };
    int       seen, r = respond_opts_format(o, &opts);
    chain_row row  = { .what = p->kind, .n_said = CHAIN_HASH };
    row.c          = calloc((size_t)p->n + 1, sizeof *row.c);
    if (r || opts.oom || !row.c) {
        buf_free(&opts);
        free(row.c);
        return store_no_memory(h, e);
    }
    row.x                = (exchange){ .conv = conv, .created = created, .seconds = seconds, .opts = buf_view(&opts), .seed = o->seed };
    row.x.r              = *p;
    row.x.r.fwd_digest   = p->fwd_digest ? p->fwd_digest : "";
    row.x.r.bwd_digest   = p->bwd_digest ? p->bwd_digest : "";
    row.x.r.rules_digest = p->rules_digest ? p->rules_digest : "";
    row.x.r.numerics     = p->numerics ? p->numerics : "";
    random_bytes(row.salt, sizeof row.salt);
    for (int k = 0; k < p->n; k++) random_bytes(row.c[k].salt, sizeof row.c[k].salt);

    r = store_begin(h, 1, e);
    if (r == OK) {
        int           n;
        unsigned char hash[CHAIN_HASH];
        r = record_last(h, conv, &n, hash, e);
        if (r == OK) {
            row.x.stale = store_noted(h, conv, &seen) && seen != n;
            r           = put_row(h, &row, id, e);
        }
        if (r == OK && p->kind != REPLY_REFUSED) r = store_run(h, e, sql, "ti", record_title(p->user_text, title), conv);
        r = store_finish(h, r, e);
    }
    if (r == OK && !row.x.stale) store_note(h, conv, row.x.n);
    buf_free(&opts);
    free(row.c);
    return r;
}

int record_mark(history *h, int64_t conv, int what, int target, str created, err *e)
{
    int64_t   id;
    int       seen;
    chain_row row = { .what = what, .target = target };
    row.x         = (exchange){ .conv = conv, .created = created, .opts = STR(""), .seconds = NAN };
    row.x.r       = (reply){ .kind = what, .chosen = -1, .fwd_digest = "", .bwd_digest = "", .rules_digest = "", .numerics = "" };
    int r         = put_row(h, &row, &id, e);
    if (r == OK && store_noted(h, conv, &seen) && seen == row.x.n - 1) store_note(h, conv, row.x.n);
    return r;
}

int hist_undo(history *h, int64_t conv, str created, int64_t *undone, err *e)
{
    static const char sql[] = "SELECT id,n FROM turn WHERE conv=? AND what<3 AND salt IS NOT NULL AND NOT " IS_UNDONE " ORDER BY n DESC LIMIT 1";
    cells             c     = { .h = h, .e = e, .table = "conversation", .id = conv };
    int64_t           id    = 0;
    int               n     = 0, seen, noted, r = store_begin(h, 1, e);
    if (r) return r;
    noted = store_noted(h, conv, &seen);
    r     = store_query(&c, sql, "i", conv);
    if (r == OK && (r = store_step(&c)) == 1) {
        id = cell_int(&c, 0, INT64_MIN, INT64_MAX);
        n  = (int)cell_int(&c, 1, 1, INT32_MAX);
        store_done(&c);
        r = c.r;
        if (r == OK) r = record_mark(h, conv, ROW_UNDO, n, created, e);
    } else if (r == OK) r = err_set(e, E_ARG, "%s: nothing to undo in conversation %lld", store_path(h), (long long)conv);
    r = store_finish(h, r, e);
    if (r != OK && noted) store_note(h, conv, seen);
    if (r == OK && undone) *undone = id;
    return r;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static int load_exchange(history *h, int64_t id, arena *a, exchange *x, err *e)
{
    static const char sql[] = "SELECT " IS_UNDONE " FROM turn WHERE id=?";
    cells             c     = { .h = h, .e = e, .table = "turn", .id = id };
    chain_row         row;
    int               r = record_load(h, id, a, &row, e);
    if (r == OK && row.what > REPLY_STOCK) r = err_set(e, E_ARG, "%s: turn %lld is no exchange", store_path(h), (long long)id);
    if (r == OK) r = store_query(&c, sql, "i", id);
    if (r || (r = store_step(&c)) < 0) return r;
    row.x.undone = r == 1 && cell_int(&c, 0, 0, 1);
    store_done(&c);
    *x = row.x;
    return c.r;
}

int hist_exchange(history *h, int64_t id, arena *a, exchange *x, err *e)
{
    int r = store_begin(h, 0, e);
    return r ? r : store_finish(h, load_exchange(h, id, a, x, e), e);
}

int record_ids(cells *c, arena *a, int64_t **ids, int *n)
{
    size_t cap = 0;
    int    r;
    *ids = NULL;
    *n   = 0;
    while ((r = store_step(c)) == 1) {
        if ((size_t)*n == cap) {
            cap         = cap ? 2 * cap : 64;
            int64_t *up = arena_new(a, cap, sizeof *up);
            if (!up || *n > INT32_MAX / 4) {
                store_done(c);
                return store_no_memory(c->h, c->e);
            }
            if (*n) memcpy(up, *ids, (size_t)*n * sizeof *up);
            *ids = up;
        }
        (*ids)[(*n)++] = cell_int(c, 0, INT64_MIN, INT64_MAX);
    }
    return r;
}

int hist_turn_ids(history *h, int limit, arena *a, int64_t **ids, int *n, err *e)
{
    static const char sql[] = "SELECT id FROM (SELECT id FROM turn WHERE what<3 ORDER BY id DESC LIMIT ?) ORDER BY id";
    cells             c     = { .h = h, .e = e, .table = "turn" };
    int               r     = store_query(&c, sql, "i", limit > 0 ? (int64_t)limit : (int64_t)-1);
    return r ? r : record_ids(&c, a, ids, n);
}

int record_rows(history *h, int64_t conv, int all, arena *a, int64_t **ids, int *n, err *e)
{
    static const char sql[] = "SELECT id FROM turn WHERE conv=? AND (what<3 OR ?) ORDER BY n";
    cells             c     = { .h = h, .e = e, .table = "conversation", .id = conv };
    int               r     = store_query(&c, sql, "ii", conv, (int64_t)all);
    return r ? r : record_ids(&c, a, ids, n);
}

int hist_exchanges(history *h, int64_t conv, arena *a, exchange **list, int *n, err *e)
{
    int64_t      *ids;
    unsigned char start[CHAIN_HASH];
    int           r = store_begin(h, 0, e);
    if (r) return r;
    r = record_start(h, conv, start, e);
    if (r == OK) r = record_rows(h, conv, 0, a, &ids, n, e);
    if (r == OK && !(*list = arena_new(a, (size_t)*n, sizeof **list))) r = store_no_memory(h, e);
    for (int i = 0; r == OK && i < *n; i++) r = load_exchange(h, ids[i], a, &(*list)[i], e);
    return store_finish(h, r, e);
}

/* Two turns from a row of user_text, user_ids, reply_text, reply_ids in columns 2 to 5. */
static void load_turns(cells *c, turn *t)
{
    int what    = (int)cell_int(c, 1, 0, REPLY_STOCK);
    t[0].weight = t[1].weight = 1;
    t[0].hidden = t[1].hidden = what == REPLY_REFUSED;
    t[1].speaker = 1;
    t[0].text    = cell_text(c, 2, TEXT_MAX);
    t[0].id      = cell_ids(c, 3, &t[0].n);
    t[1].text    = cell_text(c, 4, TEXT_MAX);
    t[1].id      = cell_ids(c, 5, &t[1].n);
}

int hist_turns(history *h, int64_t conv, int before, arena *a, turn **list, int *n, err *e)
{
    static const char sql[] = "SELECT id,what,user_text,user_ids,reply_text,reply_ids FROM turn WHERE conv=?1 AND n<?2 AND what<3 "
                              "AND salt IS NOT NULL AND NOT EXISTS(SELECT 1 FROM turn u WHERE u.conv=?1 AND u.what=16 AND "
                              "u.target=turn.n AND u.n<?2) ORDER BY n";
    unsigned char     hash[CHAIN_HASH];
    int64_t          *ids;
    int               last, most, r = store_begin(h, 0, e);
    if (r) return r;
    r  = record_last(h, conv, &last, hash, e);
    *n = 0;
    if (r == OK) r = record_rows(h, conv, 0, a, &ids, &most, e);
    if (r == OK && !(*list = arena_new(a, 2 * (size_t)most, sizeof **list))) r = store_no_memory(h, e);
    if (r == OK) {
        cells c = { .h = h, .a = a, .e = e, .table = "conversation", .id = conv };
        r       = store_query(&c, sql, "ii", conv, before > 0 ? (int64_t)before : INT64_MAX);
        while (r == OK && (r = store_step(&c)) == 1) {
            load_turns(&c, *list + *n);
            *n += 2;
            r = OK;
        }
    }
    r = store_finish(h, r, e);
    if (r == OK && before <= 0) store_note(h, conv, last);
    return r;
}

int hist_head(history *h, int64_t conv, int *n, unsigned char hash[32], err *e)
{
    int r = store_begin(h, 0, e);
    return r ? r : store_finish(h, record_last(h, conv, n, hash, e), e);
}

int hist_hash(history *h, int64_t conv, int n, unsigned char hash[32], err *e)
{
    static const char sql[] = "SELECT hash FROM turn WHERE conv=? AND n=?";
    cells             c     = { .h = h, .e = e, .table = "conversation", .id = conv };
    int               r     = store_query(&c, sql, "ii", conv, (int64_t)n);
    if (r == OK && (r = store_step(&c)) == 0)
        return err_set(e, E_ARG, "%s: conversation %lld has no row %d", store_path(h), (long long)conv, n);
    if (r < 0) return r;
    cell_bytes(&c, 0, hash, CHAIN_HASH);
    store_done(&c);
    return c.r;
}

/* ---- verifying ------------------------------------------------------------------------------------------------- */

enum { V_EXCHANGE = 1, V_UNDONE = 2, V_ERASED = 4, V_FORGET = 8 };

/* What an undo or forget row may be about; marks[i] is about row i + 1. */
static int check_mark(history *h, const chain_row *row, unsigned char *marks, err *e)
{
    int t = row->target, n = row->x.n;
    if (row->what == ROW_UNDO) {
        if (t == 0 || (marks[t - 1] & (V_EXCHANGE | V_UNDONE)) != V_EXCHANGE)
            return err_set(e, E_FORMAT, "%s: turn %lld undoes row %d, which is no exchange that could be undone", store_path(h),
                           (long long)row->x.id, t);
        marks[t - 1] |= V_UNDONE;
    } else if (row->what == ROW_FORGET) {
        for (int i = t ? t - 1 : 0; i < (t ? t : n - 1); i++) marks[i] |= V_FORGET;
    } else if (t) return err_set(e, E_FORMAT, "%s: turn %lld is an exchange with a target", store_path(h), (long long)row->x.id);
    return OK;
}

int record_verify(history *h, int64_t conv, int64_t *bad, int64_t *n_checked, err *e)
{
    arena          ids_mem = { 0 }, a = { 0 };
    unsigned char  prev[CHAIN_HASH], *marks = NULL;
    int64_t       *ids = NULL;
    int            n = 0, r = record_rows(h, conv, 1, &ids_mem, &ids, &n, e);
    if (r == OK && n) *bad = ids[0]; /* a conversation row that cannot be read shows at its first turn */
    if (r == OK) r = record_start(h, conv, prev, e);
    if (r == OK && !(marks = arena_new(&ids_mem, (size_t)n, 1))) r = store_no_memory(h, e);
    for (int i = 0; i < n && r == OK; i++) {
        chain_row row;
        arena_reset(&a);
        *bad = ids[i];
        r    = record_load(h, ids[i], &a, &row, e);
        if (r) break;
        if (row.x.n != i + 1)
            r = err_set(e, E_FORMAT, "%s: turn %lld is row %d of its conversation; row %d is missing", store_path(h), (long long)ids[i],
                        row.x.n, i + 1);
        if (r == OK) r = record_check(h, &row, prev, e);
        if (r == OK) r = check_mark(h, &row, marks, e);
        if (r) break;
        marks[i] |= (unsigned char)((row.n_said ? V_EXCHANGE : 0) | (row.x.forgotten ? V_ERASED : 0));
        memcpy(prev, row.x.hash, CHAIN_HASH);
        ++*n_checked;
    }
    for (int i = 0; i < n && r == OK; i++) {
        *bad = ids[i];
        if ((marks[i] & (V_EXCHANGE | V_ERASED | V_FORGET)) == (V_EXCHANGE | V_FORGET))
            r = err_set(e, E_FORMAT, "%s: turn %lld was forgotten, but its words are there", store_path(h), (long long)ids[i]);
        if ((marks[i] & (V_ERASED | V_FORGET)) == V_ERASED)
            r = err_set(e, E_FORMAT, "%s: turn %lld: the words were erased, and no forget row says so", store_path(h), (long long)ids[i]);
    }
    arena_free(&ids_mem);
    arena_free(&a);
    if (r == OK) *bad = 0;
    return r;
}

/* Rows that belong to nothing, and the file itself.  As record_verify. */
static int verify_file(history *h, int64_t *bad, err *e)
{
    static const char turns[] = "SELECT id FROM turn WHERE conv NOT IN (SELECT id FROM conversation) LIMIT 1";
    static const char rows[]  = "SELECT turn FROM (SELECT turn FROM candidate UNION ALL SELECT turn FROM hit) WHERE turn NOT IN "
                                "(SELECT id FROM turn) LIMIT 1";
    static const char check[] = "PRAGMA integrity_check(1)";
    arena             a       = { 0 };
    cells             c       = { .h = h, .a = &a, .e = e, .table = "row" };
    int               r       = store_query(&c, turns, "");
    if (r == OK && (r = store_step(&c)) == 1) {
        *bad = cell_int(&c, 0, INT64_MIN, INT64_MAX);
        r    = err_set(e, E_FORMAT, "%s: turn %lld belongs to no conversation", store_path(h), (long long)*bad);
        store_done(&c);
        return r;
    }
    *bad = -1;
    if (r == OK) r = store_query(&c, rows, "");
    if (r == OK && (r = store_step(&c)) == 1) {
        r = err_set(e, E_FORMAT, "%s: there are candidates or hits of turn %lld, which is not there", store_path(h),
                    (long long)cell_int(&c, 0, INT64_MIN, INT64_MAX));
        store_done(&c);
        return r;
    }
    if (r == OK) r = store_query(&c, check, "");
    if (r == OK && (r = store_step(&c)) == 1) {
        str said = cell_text(&c, 0, TEXT_MAX);
        r        = c.r;
        if (r == OK && !str_eq(said, STR("ok"))) r = err_set(e, E_FORMAT, "%s: the file is damaged: %s", store_path(h), said.s);
        store_done(&c);
    }
    arena_free(&a);
    if (r == OK) *bad = 0;
    return r;
}

int hist_verify(history *h, int64_t conv, arena *a, int64_t *bad, str *what, int64_t *n_checked, err *e)
{
    static const char sql[] = "SELECT id FROM conversation WHERE ?1=0 OR id=?1 ORDER BY id";
    err               local = { 0 };
    cells             c     = { .h = h, .e = &local, .table = "conversation" };
    int64_t          *convs;
    int               n = 0, r = store_begin(h, 0, e);
    if (r) return r;
    *bad       = 0;
    *n_checked = 0;
    *what      = STR("");
    r          = store_query(&c, sql, "i", conv);
    if (r == OK) r = record_ids(&c, a, &convs, &n);
    if (r == OK && conv && n == 0) {
        store_finish(h, E_ARG, NULL);
        return err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    }
    for (int i = 0; i < n && r == OK; i++) r = record_verify(h, convs[i], bad, n_checked, &local);
    if (r == OK && conv == 0) r = verify_file(h, bad, &local);
    if (r == E_FORMAT || (r == E_DB && store_is_damaged(h))) {
        if (*bad == 0) *bad = -1;
        *what = arena_str(a, str_of(local.msg), e);
        r     = what->s ? OK : E_NOMEM;
    } else if (r) {
        if (e) *e = local;
    }
    return store_finish(h, r, e);
}
