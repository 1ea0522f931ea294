/* shelf: conversations as a list, their titles, and finding words in them.  See history.h. */
#include "dialog/store.h"

#include <string.h>

/* ---- conversations --------------------------------------------------------------------------------------------- */

#define LAST_OF(col) "coalesce((SELECT " col " FROM turn WHERE conv=c.id AND what<3 ORDER BY n DESC LIMIT 1),'')"
#define COUNT "(SELECT count(*) FROM turn t WHERE t.conv=c.id AND t.what<3 AND NOT EXISTS(SELECT 1 FROM turn u WHERE u.conv=t.conv AND " \
              "u.what=16 AND u.target=t.n))"
#define CONV_COLS "c.id,c.title,c.created," LAST_OF("fwd") "," LAST_OF("bwd") "," COUNT

int hist_new(history *h, str title, int64_t *id, err *e)
{
    static const char sql[] = "INSERT INTO conversation(key,title,created) VALUES(?,?,strftime('%Y-%m-%dT%H:%M:%SZ','now'))";
    unsigned char     key[16];
    if (title.n > TITLE_MAX) return err_set(e, E_LIMIT, "%s: a title of %zu bytes, at most %d", store_path(h), title.n, TITLE_MAX);
    random_bytes(key, sizeof key);
    int r = store_begin(h, 1, e);
    if (r) return r;
    r   = store_run(h, e, sql, "bt", key, (int)sizeof key, title);
    *id = store_last_id(h);
    r   = store_finish(h, r, e);
    if (r == OK) store_note(h, *id, 0);
    return r;
}

static void load_conversation(cells *c, conversation *v)
{
    v->id      = cell_int(c, 0, INT64_MIN, INT64_MAX);
    c->id      = v->id;
    v->title   = cell_text(c, 1, SHORT_MAX);
    v->created = cell_text(c, 2, SHORT_MAX);
    v->fwd     = cell_text(c, 3, SHORT_MAX);
    v->bwd     = cell_text(c, 4, SHORT_MAX);
    v->n_turns = (int)cell_int(c, 5, 0, INT32_MAX);
}

/* Room for one more in a growing array of the arena. */
static void *room(arena *a, void *old, int n, size_t size)
{
    if (n < 16 ? n != 0 : n & (n - 1)) return old; /* grows at 0, 16, 32, 64… */
    void *p = n > INT32_MAX / 4 ? NULL : arena_new(a, n ? 2 * (size_t)n : 16, size);
    if (p && n) memcpy(p, old, (size_t)n * size);
    return p;
}

int hist_list(history *h, int limit, arena *a, conversation **list, int *n, err *e)
{
    static const char sql[] = "SELECT " CONV_COLS " FROM conversation c ORDER BY coalesce((SELECT created FROM turn WHERE conv=c.id "
                              "ORDER BY n DESC LIMIT 1),c.created) DESC,coalesce((SELECT max(id) FROM turn WHERE conv=c.id),0) DESC,"
                              "c.id DESC LIMIT ?";
    cells             c     = { .h = h, .a = a, .e = e, .table = "conversation" };
    int               r     = store_query(&c, sql, "i", limit > 0 ? (int64_t)limit : (int64_t)-1);
    *list                   = NULL;
    *n                      = 0;
    while (r == OK && (r = store_step(&c)) == 1) {
        r     = OK;
        *list = room(a, *list, *n, sizeof **list);
        if (!*list) r = store_no_memory(h, e);
        else load_conversation(&c, &(*list)[(*n)++]);
    }
    store_done(&c);
    return r;
}

int hist_get(history *h, int64_t conv, arena *a, conversation *v, err *e)
{
    static const char sql[] = "SELECT " CONV_COLS " FROM conversation c WHERE c.id=?";
    cells             c     = { .h = h, .a = a, .e = e, .table = "conversation", .id = conv };
    int               r     = store_query(&c, sql, "i", conv);
    if (r == OK && (r = store_step(&c)) == 0)
        return err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    if (r < 0) return r;
    load_conversation(&c, v);
    store_done(&c);
    return c.r;
}

int hist_set_title(history *h, int64_t conv, str title, err *e)
{
    static const char sql[] = "UPDATE conversation SET title=? WHERE id=?";
    if (title.n > TITLE_MAX) return err_set(e, E_LIMIT, "%s: a title of %zu bytes, at most %d", store_path(h), title.n, TITLE_MAX);
    int r = store_begin(h, 1, e);
    if (r) return r;
    r = store_run(h, e, sql, "ti", title, conv);
    if (r == OK && store_changes(h) == 0) r = err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    return store_finish(h, r, e);
}

/* ---- finding ---------------------------------------------------------------------------------------------------- */

/* Noncharacters that SQLite puts round a hit; a text has no business containing them, and one that does is shown wrongly, no
 * worse. */
static const str MARK_ON = { "\xEF\xB7\x90", 3 }, MARK_OFF = { "\xEF\xB7\x91", 3 };
enum { AROUND = 30 /* characters shown before and after a hit */, WORDS_MAX = 400 /* bytes of a hit shown */ };

static size_t find_bytes(str s, size_t from, str what)
{
    for (; from <= s.n && what.n <= s.n - from; from++)
        if (memcmp(s.s + from, what.s, what.n) == 0) return from;
    return s.n;
}
static char fold(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
static size_t find_folded(str s, str what)
{
    for (size_t at = 0; at <= s.n && what.n <= s.n - at; at++) {
        size_t i = 0;
        while (i < what.n && fold(s.s[at + i]) == fold(what.s[i])) i++;
        if (i == what.n) return at;
    }
    return s.n;
}

/* Text without the two bytes that mark the hit. */
static void put_plain(buf *b, str s)
{
    for (size_t i = 0; i < s.n; i++) buf_chr(b, s.s[i] == 1 || s.s[i] == 2 ? ' ' : s.s[i]);
}

/* left ‖ 1 ‖ hit ‖ 2 ‖ right, cut to AROUND characters on either side. */
static int snippet(history *h, str left, str hit, str right, arena *a, str *out, err *e)
{
    size_t from = left.n, to = 0;
    buf    b = { 0 };
    for (int i = 0; i < AROUND && from > 0; i++)
        do from--;
        while (from > 0 && ((unsigned char)left.s[from] & 0xC0) == 0x80);
    for (int i = 0; i < AROUND && to < right.n; i++) {
        uint32_t cp;
        to += utf8_next(right.s + to, right.n - to, &cp);
    }
    if (from > 0) buf_str(&b, STR("…"));
    put_plain(&b, (str){ left.s + from, left.n - from });
    buf_chr(&b, 1);
    size_t shown = hit.n;
    if (shown > WORDS_MAX)
        for (shown = WORDS_MAX; shown > 0 && ((unsigned char)hit.s[shown] & 0xC0) == 0x80;) shown--;
    put_plain(&b, (str){ hit.s, shown });
    if (shown < hit.n) buf_str(&b, STR("…"));
    buf_chr(&b, 2);
    put_plain(&b, (str){ right.s, to });
    if (to < right.n) buf_str(&b, STR("…"));
    *out  = b.oom ? (str){ NULL, 0 } : arena_str(a, buf_view(&b), e);
    int r = out->s ? OK : store_no_memory(h, e);
    buf_free(&b);
    return r;
}

typedef struct {
    history_found *v;
    int            n, limit;
} found;

/* One text of a row: a result when the hit is in it.  marked: SQLite has put marks round it; else look for the query. */
static int look_in(cells *c, int col, int marked, str query, const history_found *row, arena *a, arena *scratch, found *out)
{
    arena_reset(scratch);
    c->a     = scratch;
    str    s = cell_text(c, col, TEXT_MAX);
    size_t at, end, skip = marked ? MARK_ON.n : 0;
    if (c->r) return c->r;
    if (marked) {
        at  = find_bytes(s, 0, MARK_ON);
        end = at < s.n ? find_bytes(s, at + skip, MARK_OFF) : s.n;
    } else {
        at  = find_folded(s, query);
        end = at < s.n ? at + query.n : s.n;
    }
    if (at == s.n || (out->limit > 0 && out->n == out->limit)) return OK;
    out->v = room(a, out->v, out->n, sizeof *out->v);
    if (!out->v) return store_no_memory(c->h, c->e);
    history_found *f     = &out->v[out->n++];
    size_t         after = end + skip <= s.n ? end + skip : s.n, next = marked ? find_bytes(s, after, MARK_ON) : s.n;
    *f                   = *row;
    f->speaker           = col == 4;
    str hit = { s.s + at + skip, end - at - skip };
    return snippet(c->h, (str){ s.s, at }, hit, (str){ s.s + after, next - after }, a, &f->snippet, c->e);
}

/* The query as one phrase of FTS5: in double quotes, those inside doubled. */
static void put_phrase(buf *b, str q)
{
    buf_chr(b, '"');
    for (size_t i = 0; i < q.n; i++) {
        if (q.s[i] == '"') buf_chr(b, '"');
        buf_chr(b, q.s[i]);
    }
    buf_chr(b, '"');
}
static void put_like(buf *b, str q)
{
    buf_chr(b, '%');
    for (size_t i = 0; i < q.n; i++) {
        if (strchr("%_\\", q.s[i])) buf_chr(b, '\\');
        buf_chr(b, q.s[i]);
    }
    buf_chr(b, '%');
}

int hist_search(history *h, str query, int limit, arena *a, history_found **list, int *n, err *e)
{
    static const char sql_long[]  = "SELECT t.id,t.conv,t.created,highlight(search,0,?1,?2),highlight(search,1,?1,?2) FROM search "
                                    "JOIN turn t ON t.id=search.rowid WHERE search MATCH ?3 AND t.salt IS NOT NULL "
                                    "ORDER BY search.rowid DESC";
    static const char sql_short[] = "SELECT id,conv,created,user_text,reply_text FROM turn WHERE what<3 AND salt IS NOT NULL AND "
                                    "(user_text LIKE ?1 ESCAPE '\\' OR reply_text LIKE ?1 ESCAPE '\\') ORDER BY id DESC";
    cells c     = { .h = h, .a = a, .e = e, .table = "turn" };
    buf   pat   = { 0 };
    int   chars = 0, r;
    *list       = NULL;
    *n          = 0;
    if (query.n == 0 || query.n > TITLE_MAX || !utf8_valid(query) || memchr(query.s, 0, query.n))
        return err_set(e, E_ARG, "words to look for: 1 to %d bytes of UTF-8, without a NUL", TITLE_MAX);
    for (size_t i = 0; i < query.n; i++) chars += ((unsigned char)query.s[i] & 0xC0) != 0x80;
    int marked = chars >= 3;
    if (marked) put_phrase(&pat, query);
    else put_like(&pat, query);
    if (pat.oom) r = store_no_memory(h, e);
    else if (marked) r = store_query(&c, sql_long, "ttt", MARK_ON, MARK_OFF, buf_view(&pat));
    else r = store_query(&c, sql_short, "t", buf_view(&pat));
    found out     = { .limit = limit };
    arena scratch = { 0 };
    while (r == OK && (limit <= 0 || out.n < limit) && (r = store_step(&c)) == 1) {
        history_found row = { .turn = cell_int(&c, 0, INT64_MIN, INT64_MAX), .conv = cell_int(&c, 1, INT64_MIN, INT64_MAX) };
        c.id              = row.turn;
        c.a               = a;
        row.created       = cell_text(&c, 2, SHORT_MAX);
        r                 = look_in(&c, 3, marked, query, &row, a, &scratch, &out);
        if (r == OK) r = look_in(&c, 4, marked, query, &row, a, &scratch, &out);
    }
    store_done(&c);
    arena_free(&scratch);
    buf_free(&pat);
    *list = out.v;
    *n    = out.n;
    return r;
}
