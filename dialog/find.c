/* find: words in the record.  See hist_search in history.h.
 *
 * Two indices: `search` knows runs of three characters (FTS5's trigram tokenizer, which folds case in every script), `gram` knows
 * single characters and pairs (grams.h).  Both only name exchanges; the texts come from the table turn. */
#include "dialog/grams.h"
#include "dialog/store.h"

#include <string.h>

/* ---- the hit in its surroundings -------------------------------------------------------------------------------- */

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

/* One text of a row: a result when the hit is in it and the filter lets the line pass.  marked: SQLite has put marks round it;
 * else look for the query.  Columns: 3 the user's line, 4 the reply, 5 and 6 their verdicts. */
static int look_in(cells *c, int col, int marked, str query, const hist_filter *f, const history_found *row, arena *a, arena *scratch,
                   found *out)
{
    if (f->speaker >= 0 && f->speaker != (col == 4)) return OK;
    if (f->verdict >= 0 && f->verdict != (int)cell_int(c, col + 2, RULE_NONE, RULE_BLOCK)) return c->r;
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
    out->v = store_room(a, out->v, out->n, sizeof *out->v);
    if (!out->v) return store_no_memory(c->h, c->e);
    history_found *hit_  = &out->v[out->n++];
    size_t         after = end + skip <= s.n ? end + skip : s.n, next = marked ? find_bytes(s, after, MARK_ON) : s.n;
    *hit_                = *row;
    hit_->speaker        = col == 4;
    str hit = { s.s + at + skip, end - at - skip };
    return snippet(c->h, (str){ s.s, at }, hit, (str){ s.s + after, next - after }, a, &hit_->snippet, c->e);
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

/* ---- the query -------------------------------------------------------------------------------------------------- */

#define FIELDS(user, said) "SELECT t.id,t.conv,t.created," user "," said ",t.user_action," REPLY_ACTION
#define REPLY_ACTION "coalesce((SELECT action FROM candidate WHERE turn=t.id AND k=t.chosen),0)"
#define PASSES "t.salt IS NOT NULL AND (?4='' OR t.created>=?4) AND (?5='' OR t.created<=?5) AND (?6=0 OR t.conv=?6) AND (?7='' OR " \
               "substr(t.fwd,1,length(?7))=?7 OR substr(t.bwd,1,length(?7))=?7) AND (?8='' OR t.conv IN (SELECT conv FROM tag WHERE "  \
               "name=?8)) AND (?9<0 OR t.user_action=?9 OR " REPLY_ACTION "=?9)"

/* The rows with a verdict on the line or on any candidate, through the indices that know them. */
#define JUDGED(v) "(SELECT id FROM turn WHERE user_action=" v " AND user_action>0 UNION SELECT turn FROM candidate WHERE action=" v " AND action>0)"

/* Where the rows may be that pass by date and conversation, so that an index need not be read to its end: [*lo, *hi], or
 * everything when that would take long to find out. */
static int range_of(history *h, const hist_filter *f, str until, int64_t *lo, int64_t *hi, err *e)
{
    enum { FEW = 10000 }; /* as in the statement */
    static const char by_conv[] = "SELECT count(*),min(id),max(id) FROM (SELECT id FROM turn WHERE conv=? LIMIT 10000)";
    static const char by_day[]  = "SELECT count(*),min(lo),max(hi) FROM day WHERE day>=substr(?,1,10) AND day<=?";
    cells             c         = { .h = h, .e = e, .table = f->conv ? "turn" : "day" };
    *lo                         = 0;
    *hi                         = INT64_MAX;
    if ((!f->conv && !f->since.n && !f->until.n) || !store_has_days(h)) return OK;
    int r = f->conv ? store_query(&c, by_conv, "i", f->conv) : store_query(&c, by_day, "tt", f->since, until.n ? until : STR("~"));
    if (r == OK && (r = store_step(&c)) == 1) {
        int64_t n = cell_int(&c, 0, 0, INT64_MAX);
        if (n == 0) *hi = -1;
        else if (n < FEW || !f->conv) {
            *lo = cell_int(&c, 1, INT64_MIN, INT64_MAX);
            *hi = cell_int(&c, 2, INT64_MIN, INT64_MAX);
        }
        store_done(&c);
        r = c.r;
    }
    return r;
}

/* 1 when the rows with this action are so few that it is best to begin with them. */
static int is_rare(history *h, int action, err *e)
{
    enum { FEW = 2000 }; /* as in the statement */
    static const char sql[] = "SELECT count(*) FROM (SELECT 1 FROM " JUDGED("?1") " LIMIT 2000)";
    cells             c     = { .h = h, .e = e, .table = "turn" };
    if (action <= RULE_NONE || !store_has_days(h)) return 0;
    int r = store_query(&c, sql, "i", (int64_t)action);
    if (r == OK && (r = store_step(&c)) == 1) {
        r = cell_int(&c, 0, 0, FEW) < FEW;
        store_done(&c);
    }
    return c.r ? c.r : r;
}

enum { LONG, SHORT, SCAN };
/* What SQLite is asked for: three characters and more, fewer, fewer in a file without the index for that. */
static int put_query(buf *b, const history *h, str query)
{
    int chars = 0;
    for (size_t i = 0; i < query.n; i++) chars += ((unsigned char)query.s[i] & 0xC0) != 0x80;
    int how = chars >= 3 ? LONG : store_has_grams(h) ? SHORT : SCAN;
    if (how == LONG) put_phrase(b, query);
    if (how == SCAN) put_like(b, query);
    if (how != SHORT) return how;
    buf_chr(b, '"');
    grams_query(b, query);
    buf_chr(b, '"');
    return how;
}

int hist_search(history *h, str query, const hist_filter *f, int limit, arena *a, history_found **list, int *n, err *e)
{
    static const char *const sql[2][3] = { {
        FIELDS("highlight(search,0,?1,?2)", "highlight(search,1,?1,?2)") " FROM search JOIN turn t ON t.id=search.rowid WHERE search MATCH ?3 AND "
        "search.rowid>=?10 AND search.rowid<=?11 AND " PASSES " ORDER BY search.rowid DESC",
        FIELDS("t.user_text", "t.reply_text") " FROM gram JOIN turn t ON t.id=gram.rowid WHERE gram MATCH ?3 AND gram.rowid>=?10 AND "
        "gram.rowid<=?11 AND " PASSES " ORDER BY gram.rowid DESC",
        FIELDS("t.user_text", "t.reply_text") " FROM turn t WHERE t.what<3 AND t.id>=?10 AND t.id<=?11 AND (t.user_text LIKE ?3 ESCAPE '\\' OR "
        "t.reply_text LIKE ?3 ESCAPE '\\') AND " PASSES " ORDER BY t.id DESC",
    }, { /* the same, beginning with the few rows of a verdict */
        FIELDS("highlight(search,0,?1,?2)", "highlight(search,1,?1,?2)") " FROM " JUDGED("?9") " j CROSS JOIN search ON search.rowid=j.id JOIN turn t "
        "ON t.id=j.id WHERE search MATCH ?3 AND j.id>=?10 AND j.id<=?11 AND " PASSES " ORDER BY j.id DESC",
        FIELDS("t.user_text", "t.reply_text") " FROM " JUDGED("?9") " j CROSS JOIN gram ON gram.rowid=j.id JOIN turn t ON t.id=j.id WHERE gram MATCH "
        "?3 AND j.id>=?10 AND j.id<=?11 AND " PASSES " ORDER BY j.id DESC",
    } };
    static const hist_filter all = { .speaker = -1, .verdict = -1 };
    cells   c     = { .h = h, .a = a, .e = e, .table = "turn" };
    buf     pat   = { 0 }, until = { 0 };
    int64_t lo, hi;
    int     rare = 0;
    *list = NULL;
    *n    = 0;
    if (query.n == 0 || query.n > TITLE_MAX || !utf8_valid(query) || memchr(query.s, 0, query.n))
        return err_set(e, E_ARG, "words to look for: 1 to %d bytes of UTF-8, without a NUL", TITLE_MAX);
    if (!f) f = &all;
    if (f->until.n) buf_fmt(&until, "%.*s~", (int)f->until.n, f->until.s); /* behind everything that begins so */
    int how = put_query(&pat, h, query), r = pat.oom || until.oom ? store_no_memory(h, e) : store_begin(h, 0, e);
    if (r) {
        buf_free(&pat);
        buf_free(&until);
        return r;
    }
    r = range_of(h, f, buf_view(&until), &lo, &hi, e);
    if (r == OK) r = rare = is_rare(h, f->verdict, e);
    if (r >= 0)
        r = store_query(&c, sql[rare][how], "tttttittiii", MARK_ON, MARK_OFF, buf_view(&pat), f->since, buf_view(&until), f->conv, f->model, f->tag,
                        (int64_t)f->verdict, lo, hi);
    found out     = { .limit = limit };
    arena scratch = { 0 };
    while (r == OK && (limit <= 0 || out.n < limit) && (r = store_step(&c)) == 1) {
        history_found row = { .turn = cell_int(&c, 0, INT64_MIN, INT64_MAX), .conv = cell_int(&c, 1, INT64_MIN, INT64_MAX) };
        c.id              = row.turn;
        c.a               = a;
        row.created       = cell_text(&c, 2, SHORT_MAX);
        r                 = look_in(&c, 3, how == LONG, query, f, &row, a, &scratch, &out);
        if (r == OK) r = look_in(&c, 4, how == LONG, query, f, &row, a, &scratch, &out);
    }
    store_done(&c);
    arena_free(&scratch);
    buf_free(&pat);
    buf_free(&until);
    *list = out.v;
    *n    = out.n;
    return store_finish(h, r, e);
}
