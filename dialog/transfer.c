/* transfer: see transfer.h. */
#include "dialog/transfer.h"
#include "dialog/record.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = { "model", "refused", "stock" };
enum { N_FATES = CAND_NAN + 1 };

/* ---- out -------------------------------------------------------------------------------------------------------- */

static json_t *put_hex(const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = p;
    buf                  t = { 0 };
    for (size_t i = 0; i < n; i++) {
        buf_chr(&t, digits[b[i] >> 4]);
        buf_chr(&t, digits[b[i] & 15]);
    }
    json_t *j = t.oom ? NULL : json_stringn(t.s ? t.s : "", t.n);
    buf_free(&t);
    return j;
}
static json_t *put_text(str s) { return utf8_valid(s) ? json_stringn(s.n ? s.s : "", s.n) : json_pack("{s:o}", "hex", put_hex(s.s, s.n)); }
static json_t *put_real(double x)
{
    return isnan(x) ? json_null() : isinf(x) ? json_string(x > 0 ? "inf" : "-inf") : json_real(x);
}
static json_t *put_ids(const int *id, int n)
{
    json_t *j = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(j, json_integer(id[i]));
    return j;
}
static json_t *put_verdict(const verdict *v)
{
    json_t *hits = json_array();
    for (int i = 0; i < v->n_hit; i++)
        json_array_append_new(hits, json_pack("[i,i,I,I]", v->hit[i].rule, v->hit[i].limit, (json_int_t)v->hit[i].from, (json_int_t)v->hit[i].to));
    return json_pack("{s:s, s:i, s:o}", "action", safety_action_name(v->action), "rule", v->rule, "hits", hits);
}

static json_t *put_candidate(const candidate *d, const chain_cand *s, int forgotten)
{
    json_t *j = json_pack("{s:s, s:o}", "fate", respond_fate_name(d->fate), "drawn", put_hex(s->drawn, CHAIN_HASH));
    if (!forgotten && j)
        json_object_update_new(j, json_pack("{s:o, s:o, s:b, s:i, s:o, s:o, s:i, s:o, s:o, s:o}", "text", put_text(d->text), "ids",
                                            put_ids(d->id, d->n), "ended", d->ended, "dup_of", d->dup_of, "fwd", put_real(d->fwd), "bwd",
                                            put_real(d->bwd), "n_source", d->n_source, "score", put_real(d->score), "verdict",
                                            put_verdict(&d->v), "salt", put_hex(s->salt, CHAIN_SALT)));
    return j;
}

static json_t *put_judgments(const judgment *list, int n, int64_t turn_)
{
    json_t *j = json_array();
    for (int i = 0; i < n; i++)
        if (list[i].turn == turn_)
            json_array_append_new(j, json_pack("{s:o, s:s, s:o, s:o}", "reader", put_text(list[i].reader), "label", hist_label_name(list[i].label),
                                               "note", put_text(list[i].note), "created", put_text(list[i].created)));
    return j;
}

/* What an exchange has beyond other rows; all but the digests is gone when it is forgotten. */
static json_t *put_exchange(const chain_row *row, int undone, json_t *judgments)
{
    const reply *p     = &row->x.r;
    json_t      *cands = json_array();
    for (int k = 0; k < p->n; k++) json_array_append_new(cands, put_candidate(&p->cand[k], &row->c[k], row->x.forgotten));
    json_t *j = json_pack("{s:b, s:b, s:o, s:o, s:o}", "forgotten", row->x.forgotten, "undone", undone, "said", put_hex(row->said, CHAIN_HASH),
                          "candidates", cands, "judgments", judgments);
    if (j && !row->x.forgotten)
        json_object_update_new(j, json_pack("{s:o, s:o, s:o, s:i, s:i, s:s, s:o, s:o, s:o}", "user", put_text(p->user_text), "user_ids",
                                            put_ids(p->user_id, p->n_user_id), "user_verdict", put_verdict(&p->user_v), "cut", p->cut,
                                            "evaluated", p->evaluated, "prompt", p->prompt_digest, "reply", put_text(p->text), "reply_ids",
                                            put_ids(p->id, p->n_id), "salt", put_hex(row->salt, CHAIN_SALT)));
    return j;
}

static json_t *put_row(const chain_row *row, int undone, json_t *judgments)
{
    const exchange *x = &row->x;
    char            seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)x->seed);
    const char *what = row->n_said ? kinds[row->what] : row->what == ROW_UNDO ? "undo" : "forget";
    json_t     *j    = json_pack("{s:i, s:s, s:i, s:b, s:o, s:s, s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:o}", "n", x->n, "what", what, "target", row->target, "stale", x->stale, "opts",
                                 put_text(x->opts), "seed", seed, "forward_model", put_text(str_of(x->r.fwd_digest)), "backward_model",
                                 put_text(str_of(x->r.bwd_digest)), "rules", put_text(str_of(x->r.rules_digest)), "numerics",
                                 put_text(str_of(x->r.numerics)), "chosen", x->r.chosen, "created", put_text(x->created), "seconds",
                                 put_real(x->seconds), "prev", put_hex(row->prev, CHAIN_HASH), "hash", put_hex(x->hash, CHAIN_HASH));
    if (j && row->n_said) json_object_update_new(j, put_exchange(row, undone, judgments));
    else json_decref(judgments);
    return j;
}

static int put_line(json_t *j, transfer_put *put, void *ctx, err *e)
{
    char *s = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(j);
    int r = s ? put(ctx, str_of(s), e) : err_set(e, E_NOMEM, "out of memory for a line of JSON");
    free(s);
    return r;
}

static json_t *put_head(const conversation *c, const unsigned char key[CHAIN_KEY])
{
    json_t *tags = json_array();
    for (str t = c->tags; t.n;) {
        const char *blank = memchr(t.s, ' ', t.n);
        size_t      n     = blank ? (size_t)(blank - t.s) : t.n;
        json_array_append_new(tags, put_text((str){ t.s, n }));
        n += blank != NULL;
        t = (str){ t.s + n, t.n - n };
    }
    return json_pack("{s:I, s:o, s:o, s:o, s:o}", "conversation", (json_int_t)c->id, "created", put_text(c->created), "title",
                     put_text(c->title), "tags", tags, "key", put_hex(key, CHAIN_KEY));
}

static void put_turns(json_t *turns, const reply *p)
{
    json_array_append_new(turns, json_pack("{s:s, s:o}", "speaker", "user", "text", put_text(p->user_text)));
    json_array_append_new(turns, json_pack("{s:s, s:o}", "speaker", "bot", "text", put_text(p->text)));
}

static int dump(history *h, int64_t conv, transfer_put *put, void *ctx, err *e)
{
    static const char sql[] = "SELECT target FROM turn WHERE conv=? AND what=16";
    arena             a = { 0 }, one = { 0 };
    cells             c = { .h = h, .e = e, .table = "conversation", .id = conv };
    conversation      v;
    unsigned char     key[CHAIN_KEY];
    int64_t          *ids, *undone = NULL;
    judgment         *judged = NULL;
    json_t           *rows = json_array(), *turns = json_array(), *j = NULL;
    int               n = 0, n_undone = 0, n_judged = 0, r = hist_get(h, conv, &a, &v, e);
    if (r == OK) r = record_key(h, conv, key, e);
    if (r == OK) r = record_rows(h, conv, 1, &a, &ids, &n, e);
    if (r == OK) r = store_judgments(h, conv, &a, &judged, &n_judged, e);
    if (r == OK) r = store_query(&c, sql, "i", conv);
    if (r == OK) r = record_ids(&c, &a, &undone, &n_undone);
    for (int i = 0; r == OK && i < n; i++) {
        chain_row row;
        int       is_undone = 0;
        arena_reset(&one);
        if ((r = record_load(h, ids[i], &one, &row, e))) break;
        for (int k = 0; k < n_undone; k++) is_undone |= undone[k] == row.x.n;
        if (row.what == REPLY_MODEL && !is_undone && !row.x.forgotten) put_turns(turns, &row.x.r);
        json_array_append_new(rows, put_row(&row, is_undone, put_judgments(judged, n_judged, ids[i])));
    }
    if (r == OK && (j = put_head(&v, key))) json_object_update_new(j, json_pack("{s:O, s:O}", "turns", turns, "rows", rows));
    if (r == OK) r = (int)json_array_size(rows) == n ? put_line(j, put, ctx, e) : store_no_memory(h, e);
    json_decref(rows);
    json_decref(turns);
    arena_free(&one);
    arena_free(&a);
    return r;
}

int hist_dump(history *h, int64_t conv, transfer_put *put, void *ctx, err *e)
{
    int r = store_begin(h, 0, e);
    return r ? r : store_finish(h, dump(h, conv, put, ctx, e), e);
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

/* Fields of one object.  The first failure is kept; after it everything gives zeros.  Nothing that is read lives longer than `a`. */
typedef struct {
    const json_t *o;
    arena        *a;
    err          *e;
    int           r;
} fields;

static void bad(fields *f, const char *name, const char *why)
{
    if (f->r == OK) f->r = err_set(f->e, E_FORMAT, "\"%s\": %s", name, why);
}
static const json_t *field(fields *f, const char *name)
{
    const json_t *j = f->r ? NULL : json_object_get(f->o, name);
    if (!j) bad(f, name, "is missing");
    return j;
}
static int64_t get_int(fields *f, const char *name, int64_t lo, int64_t hi)
{
    const json_t *j = field(f, name);
    if (j && (!json_is_integer(j) || json_integer_value(j) < lo || json_integer_value(j) > hi)) bad(f, name, "not a whole number in range");
    return f->r ? 0 : json_integer_value(j);
}
static int get_bool(fields *f, const char *name)
{
    const json_t *j = field(f, name);
    if (j && !json_is_boolean(j)) bad(f, name, "neither true nor false");
    return f->r ? 0 : json_is_true(j);
}
static double get_real(fields *f, const char *name)
{
    const json_t *j = field(f, name);
    if (!j || json_is_null(j)) return NAN;
    if (json_is_number(j)) return json_number_value(j);
    const char *s = json_is_string(j) ? json_string_value(j) : "";
    if (strcmp(s, "inf") && strcmp(s, "-inf")) bad(f, name, "not a number");
    return s[0] == '-' ? -INFINITY : INFINITY;
}

static int nibble(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }
static int unhex(str s, unsigned char *out)
{
    for (size_t i = 0; i + 1 < s.n; i += 2) {
        int hi = nibble(s.s[i]), lo = nibble(s.s[i + 1]);
        if (hi < 0 || lo < 0) return -1;
        out[i / 2] = (unsigned char)(hi << 4 | lo);
    }
    return s.n % 2 ? -1 : 0;
}
static str string_of(const json_t *j) { return json_is_string(j) ? (str){ json_string_value(j), json_string_length(j) } : (str){ NULL, 0 }; }

static void get_bytes(fields *f, const char *name, unsigned char *out, size_t n)
{
    str s = string_of(field(f, name));
    if (f->r == OK && (s.n != 2 * n || unhex(s, out))) bad(f, name, "not hex of the right length");
}
static str get_text(fields *f, const char *name, size_t most)
{
    const json_t *j = field(f, name);
    str           s = string_of(j), hex = string_of(json_object_get(j, "hex"));
    if (f->r) return STR("");
    if (!s.s && hex.s) {
        char *p = arena_new(f->a, hex.n / 2 + 1, 1);
        if (p && unhex(hex, (unsigned char *)p) == 0) s = (str){ p, hex.n / 2 };
    }
    if (!s.s) bad(f, name, "not a text");
    else if (s.n > most) bad(f, name, "too long");
    if (f->r) return STR("");
    s = arena_str(f->a, s, f->e);
    if (!s.s) f->r = E_NOMEM;
    return f->r ? STR("") : s;
}
static const char *get_cstr(fields *f, const char *name, size_t most)
{
    str s = get_text(f, name, most);
    if (memchr(s.s, 0, s.n)) bad(f, name, "a NUL in it");
    return s.s;
}
static const json_t *get_array(fields *f, const char *name, size_t most)
{
    const json_t *j = field(f, name);
    if (j && !json_is_array(j)) bad(f, name, "not a list");
    else if (json_array_size(j) > most) bad(f, name, "too long a list");
    return f->r ? NULL : j;
}
static const int *get_ids(fields *f, const char *name, int *n)
{
    const json_t *j  = get_array(f, name, IDS_MAX);
    size_t        m  = json_array_size(j);
    int          *id = f->r ? NULL : arena_new(f->a, m, sizeof *id);
    if (f->r == OK && !id) f->r = err_set(f->e, E_NOMEM, "out of memory");
    for (size_t i = 0; f->r == OK && i < m; i++) {
        const json_t *v = json_array_get(j, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX) bad(f, name, "not a token id");
        else id[i] = (int)json_integer_value(v);
    }
    *n = f->r ? 0 : (int)m;
    return f->r ? NULL : id;
}
/* Index of a word among names. */
static int get_name(fields *f, const char *name, const char *(*name_of)(int), int count)
{
    str s = string_of(field(f, name));
    for (int i = 0; s.s && i < count; i++)
        if (str_eq(s, str_of(name_of(i)))) return i;
    bad(f, name, "an unknown word");
    return 0;
}

static void get_verdict(fields *f, const char *name, verdict *v)
{
    fields        g    = { .o = field(f, name), .a = f->a, .e = f->e, .r = f->r };
    v->action          = get_name(&g, "action", safety_action_name, RULE_BLOCK + 1);
    v->rule            = (int)get_int(&g, "rule", -1, INT32_MAX);
    const json_t *hits = get_array(&g, "hits", HIT_MAX);
    size_t        n    = json_array_size(hits);
    v->hit             = g.r || n == 0 ? NULL : arena_new(f->a, n, sizeof *v->hit);
    if (n && g.r == OK && !v->hit) g.r = err_set(f->e, E_NOMEM, "out of memory");
    for (size_t i = 0; g.r == OK && i < n; i++) {
        json_int_t    x[4];
        const json_t *h = json_array_get(hits, i);
        for (size_t k = 0; k < 4; k++) {
            const json_t *w = json_array_get(h, k);
            x[k]            = json_is_integer(w) ? json_integer_value(w) : -1;
            if (x[k] < 0 || x[k] > INT32_MAX) bad(&g, "hits", "not four numbers in range");
        }
        if (g.r == OK) v->hit[i] = (safety_hit){ (int)x[0], (int)x[1], (size_t)x[2], (size_t)x[3] };
    }
    v->n_hit = g.r ? 0 : (int)n;
    f->r     = g.r;
}

static void get_candidate(fields *f, chain_row *row, int k)
{
    candidate  *d = &row->x.r.cand[k];
    chain_cand *s = &row->c[k];
    d->fate       = get_name(f, "fate", respond_fate_name, N_FATES);
    get_bytes(f, "drawn", s->drawn, CHAIN_HASH);
    if (row->x.forgotten) return;
    d->text     = get_text(f, "text", TEXT_MAX);
    d->id       = get_ids(f, "ids", &d->n);
    d->ended    = get_bool(f, "ended");
    d->dup_of   = (int)get_int(f, "dup_of", -1, row->x.r.n - 1);
    d->fwd      = get_real(f, "fwd");
    d->bwd      = get_real(f, "bwd");
    d->n_source = (int)get_int(f, "n_source", 0, INT32_MAX);
    d->score    = get_real(f, "score");
    get_verdict(f, "verdict", &d->v);
    get_bytes(f, "salt", s->salt, CHAIN_SALT);
}

static void get_exchange(fields *f, chain_row *row)
{
    reply        *p  = &row->x.r;
    const json_t *cs = get_array(f, "candidates", CAND_MAX);
    p->n             = (int)json_array_size(cs);
    p->chosen        = (int)get_int(f, "chosen", -1, p->n - 1);
    row->x.forgotten = get_bool(f, "forgotten");
    get_bytes(f, "said", row->said, CHAIN_HASH);
    p->cand = arena_new(f->a, (size_t)p->n, sizeof *p->cand);
    row->c  = arena_new(f->a, (size_t)p->n, sizeof *row->c);
    if (f->r == OK && (!p->cand || !row->c)) f->r = err_set(f->e, E_NOMEM, "out of memory");
    for (int k = 0; f->r == OK && k < p->n; k++) {
        fields g = { .o = json_array_get(cs, (size_t)k), .a = f->a, .e = f->e };
        get_candidate(&g, row, k);
        if (g.r == E_FORMAT) err_prefix(f->e, "candidate %d", k);
        f->r = g.r;
    }
    if (f->r || row->x.forgotten) return;
    p->user_text = get_text(f, "user", TEXT_MAX);
    p->user_id   = get_ids(f, "user_ids", &p->n_user_id);
    get_verdict(f, "user_verdict", &p->user_v);
    p->cut       = (int)get_int(f, "cut", 0, INT32_MAX);
    p->evaluated = (int)get_int(f, "evaluated", 0, INT32_MAX);
    snprintf(p->prompt_digest, sizeof p->prompt_digest, "%s", get_cstr(f, "prompt", sizeof p->prompt_digest - 1));
    p->text = get_text(f, "reply", TEXT_MAX);
    p->id   = get_ids(f, "reply_ids", &p->n_id);
    get_bytes(f, "salt", row->salt, CHAIN_SALT);
}

static void get_row(fields *f, int64_t conv, chain_row *row)
{
    exchange *x    = &row->x;
    str       what = string_of(field(f, "what"));
    char     *end;
    *row           = (chain_row){ .x.conv = conv, .what = -1 };
    x->r           = (reply){ .user_v.rule = -1, .chosen = -1 };
    for (int k = 0; k < 3; k++)
        if (what.s && str_eq(what, str_of(kinds[k]))) row->what = k;
    if (what.s && str_eq(what, STR("undo"))) row->what = ROW_UNDO;
    if (what.s && str_eq(what, STR("forget"))) row->what = ROW_FORGET;
    if (row->what < 0) bad(f, "what", "an unknown kind of row");
    row->n_said       = row->what <= REPLY_STOCK ? CHAIN_HASH : 0;
    x->r.kind         = row->what;
    x->n              = (int)get_int(f, "n", 1, INT32_MAX - 1);
    row->target       = (int)get_int(f, "target", 0, x->n - 1);
    x->stale          = get_bool(f, "stale");
    x->opts           = get_text(f, "opts", SHORT_MAX);
    const char *seed  = get_cstr(f, "seed", 20);
    x->seed           = strtoull(seed, &end, 10);
    if (end == seed || *end) bad(f, "seed", "not a number");
    x->r.fwd_digest   = get_cstr(f, "forward_model", SHORT_MAX);
    x->r.bwd_digest   = get_cstr(f, "backward_model", SHORT_MAX);
    x->r.rules_digest = get_cstr(f, "rules", SHORT_MAX);
    x->r.numerics     = get_cstr(f, "numerics", SHORT_MAX);
    x->created        = get_text(f, "created", SHORT_MAX);
    x->seconds        = get_real(f, "seconds");
    get_bytes(f, "prev", row->prev, CHAIN_HASH);
    get_bytes(f, "hash", x->hash, CHAIN_HASH);
    if (row->n_said && f->r == OK) get_exchange(f, row);
    else x->r.chosen = (int)get_int(f, "chosen", -1, -1);
}

/* The conversation that is being taken in. */
typedef struct {
    history      *h;
    hist_loaded  *out;
    int64_t       conv;  /* its number here */
    int           n;     /* rows it has here */
    int           grown; /* some of them are new */
    unsigned char prev[CHAIN_HASH];
    arena         mem;
} intake;

static int load_tags(intake *t, fields *f, err *e)
{
    const json_t *tags = get_array(f, "tags", SHORT_MAX);
    int           r    = f->r;
    for (size_t i = 0; r == OK && i < json_array_size(tags); i++) {
        str s = string_of(json_array_get(tags, i));
        r     = store_put_tag(t->h, t->conv, s.s ? s : STR(""), 1, NULL, e);
        if (r == E_ARG) r = err_set(e, E_FORMAT, "\"tags\": one that is none");
    }
    return r;
}

/* Find the conversation by its key, or make it. */
static int load_head(intake *t, fields *f, err *e)
{
    static const char find[] = "SELECT id FROM conversation WHERE key=?";
    static const char make[] = "INSERT INTO conversation(key,title,created) VALUES(?,?,?)";
    unsigned char     key[CHAIN_KEY];
    cells             c     = { .h = t->h, .e = e, .table = "conversation" };
    str               title = get_text(f, "title", TITLE_MAX), created = get_text(f, "created", SHORT_MAX);
    get_bytes(f, "key", key, sizeof key);
    int r = f->r ? f->r : store_query(&c, find, "b", key, (int)sizeof key);
    if (r == OK && (r = store_step(&c)) == 1) t->conv = cell_int(&c, 0, 1, INT64_MAX);
    int is_new = r == OK;
    store_done(&c);
    if (r == 1) r = c.r;
    if (r == OK && is_new) {
        r       = store_run(t->h, e, make, "btt", key, (int)sizeof key, title, created);
        t->conv = store_last_id(t->h);
        t->out->conversations++;
    }
    if (r == OK) r = record_last(t->h, t->conv, &t->n, t->prev, e);
    return r == OK ? load_tags(t, f, e) : r;
}

static int load_judgments(intake *t, fields *f, int64_t id, err *e)
{
    const json_t *list = get_array(f, "judgments", 10000);
    int           r    = f->r;
    for (size_t i = 0; r == OK && i < json_array_size(list); i++) {
        fields g      = { .o = json_array_get(list, i), .a = f->a, .e = e };
        str    reader = get_text(&g, "reader", SHORT_MAX), note = get_text(&g, "note", SHORT_MAX), created = get_text(&g, "created", SHORT_MAX);
        int    label  = get_name(&g, "label", hist_label_name, JUDGE_LABELS);
        r             = g.r;
        if (r == OK) r = store_put_judgment(t->h, id, reader, label, note, created, e);
        if (r == E_ARG) r = err_set(e, E_FORMAT, "\"judgments\": one that is none");
    }
    return r;
}

static int load_row(intake *t, fields *f, err *e)
{
    chain_row     row;
    unsigned char here[CHAIN_HASH];
    const char   *what;
    int64_t       id;
    int           k, count = 0, r = OK;
    get_row(f, t->conv, &row);
    if (f->r) return f->r;
    if (row.x.n <= t->n) { /* it is here */
        r = hist_hash(t->h, t->conv, row.x.n, here, e);
        if (r == OK && memcmp(here, row.x.hash, CHAIN_HASH) != 0)
            r = err_set(e, E_FORMAT, "this conversation is in the store already, with another row there");
        t->out->known++;
        return r;
    }
    if (row.x.n != t->n + 1) return err_set(e, E_FORMAT, "\"n\" is %d behind a row %d", row.x.n, t->n);
    if ((what = chain_check(&row, t->prev, &k)) != NULL)
        return k < 0 ? err_set(e, E_FORMAT, "%s", what) : err_set(e, E_FORMAT, "candidate %d: %s", k, what);
    if (row.what == ROW_FORGET) r = record_erase(t->h, t->conv, row.target, &count, e);
    if (r == OK) r = record_put(t->h, &row, &id, e);
    if (r == OK && row.n_said) r = load_judgments(t, f, id, e);
    t->n     = row.x.n;
    t->grown = 1;
    t->out->rows++;
    t->out->erased += count;
    memcpy(t->prev, row.x.hash, CHAIN_HASH);
    return r;
}

/* The rows hold together one by one; in the end also as a whole: every erasure announced, every undo of something. */
static int load_rows(intake *t, fields *f, err *e)
{
    const json_t *rows = get_array(f, "rows", INT32_MAX);
    int64_t       where, n = 0;
    int           r = f->r;
    t->grown        = 0;
    for (size_t i = 0; r == OK && i < json_array_size(rows); i++) {
        fields g = { .o = json_array_get(rows, i), .a = &t->mem, .e = e };
        arena_reset(&t->mem);
        if ((r = load_row(t, &g, e))) err_prefix(e, "row %zu", i + 1);
    }
    return r == OK && t->grown ? record_verify(t->h, t->conv, &where, &n, e) : r;
}

static int load_line(intake *t, str line, err *e)
{
    json_error_t je;
    json_t      *j = json_loadb(line.s, line.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!j) return err_set(e, E_FORMAT, "not JSON: %s", je.text);
    fields f = { .o = j, .a = &t->mem, .e = e };
    int    r = json_object_get(j, "key") && json_object_get(j, "rows")
                   ? load_head(t, &f, e)
                   : err_set(e, E_FORMAT, "no record of a conversation (\"key\" and \"rows\"), as export --format jsonl writes it");
    if (r == OK) r = load_rows(t, &f, e);
    json_decref(j);
    return r;
}

int hist_load(history *h, transfer_next *next, void *ctx, hist_loaded *out, err *e)
{
    intake t = { .h = h, .out = out };
    str    line;
    *out     = (hist_loaded){ 0 };
    int r    = store_begin(h, 1, e);
    if (r) return r;
    while ((r = next(ctx, &line, e)) == 1) {
        out->lines++;
        if (str_trim(line).n == 0) continue;
        if ((r = load_line(&t, line, e)) == OK) continue;
        err_prefix(e, "line %lld", (long long)out->lines);
        break;
    }
    arena_free(&t.mem);
    return record_finish(h, r, &out->erased, e);
}
