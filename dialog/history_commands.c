/* The command history: what is stored, found, carried, forgotten.  Program code: parses options, opens the store, prints. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "dialog/commands.h"
#include "dialog/transfer.h"

enum { FORMAT_TEXT, FORMAT_JSONL, FORMAT_MARKDOWN };
enum { FOUND_MOST = 50 };

typedef struct {
    const char *db, *format, *out, *since, *until, *speaker, *verdict, *model, *tag, *older, *check, *key_file;
    int         json, all, limit, dry, conv, n;
    int         usage;   /* the error is one of the words on the command line */
    int         differs; /* a kept head is not the store's */
    const char *word[64];
    history    *h;
    outfile    *file;    /* export -o */
    arena       mem;
} hist_job;

static int usage(hist_job *j, int r)
{
    j->usage = 1;
    return r;
}

static int word_id(hist_job *j, int i, const char *what, int64_t *id, err *e)
{
    char *end;
    if (i >= j->n) return usage(j, err_set(e, E_ARG, "%s wants the number of a%s", j->word[0], what));
    *id = strtoll(j->word[i], &end, 10);
    if (end == j->word[i] || *end || *id <= 0) return usage(j, err_set(e, E_ARG, "'%s' is no number of a%s", j->word[i], what));
    return OK;
}
static int conv_id(hist_job *j, int i, int64_t *id, err *e) { return word_id(j, i, " conversation", id, e); }

static int no_more(hist_job *j, int most, err *e)
{
    return j->n > most ? usage(j, err_set(e, E_ARG, "%s: one word too many: '%s'", j->word[0], j->word[most])) : OK;
}

static const char *or_empty(const char *s) { return s ? s : ""; }

/* ---- list, show ------------------------------------------------------------------------------------------------- */

static json_t *js_tags(str tags)
{
    json_t *j = json_array();
    while (tags.n) {
        const char *blank = memchr(tags.s, ' ', tags.n);
        size_t      n     = blank ? (size_t)(blank - tags.s) : tags.n;
        json_array_append_new(j, js_text((str){ tags.s, n }));
        n += blank != NULL;
        tags = (str){ tags.s + n, tags.n - n };
    }
    return j;
}

static int run_list(hist_job *j, err *e)
{
    conversation *c;
    int           n = 0, r = no_more(j, 1, e);
    if (r == OK) r = hist_tagged(j->h, str_of(j->tag), j->limit > 0 ? j->limit : 0, &j->mem, &c, &n, e);
    for (int i = 0; r == OK && i < n; i++) {
        if (j->json) {
            r = js_line(json_pack("{s:I, s:o, s:o, s:o, s:i, s:o, s:o}", "id", (json_int_t)c[i].id, "created", js_text(c[i].created),
                                  "title", js_text(c[i].title), "tags", js_tags(c[i].tags), "exchanges", c[i].n_turns, "fwd", js_text(c[i].fwd),
                                  "bwd", js_text(c[i].bwd)), e);
            continue;
        }
        printf("%6lld  %.*s  %4d  ", (long long)c[i].id, (int)c[i].created.n, c[i].created.s, c[i].n_turns);
        put_visible(c[i].title);
        if (c[i].tags.n) {
            fputs("  [", stdout);
            put_visible(c[i].tags);
            putchar(']');
        }
        putchar('\n');
    }
    return r;
}

static int show_json(const exchange *x, err *e)
{
    char hex[65];
    sha256_hex(x->hash, hex);
    json_t *j = js_reply(&x->r, x->seed);
    if (j)
        json_object_update_new(j, json_pack("{s:I, s:I, s:i, s:b, s:b, s:o, s:o, s:o, s:s}", "turn", (json_int_t)x->id,
                                            "conversation", (json_int_t)x->conv, "n", x->n, "undone", x->undone, "forgotten", x->forgotten,
                                            "created", js_text(x->created), "user", js_text(x->r.user_text),
                                            "opts", js_text(x->opts), "hash", hex));
    return js_line(j, e);
}

static void show_plain(const exchange *x, int all)
{
    printf("%d  %.*s  turn %lld%s%s\n", x->n, (int)x->created.n, x->created.s, (long long)x->id, x->undone ? "  (undone)" : "",
           x->forgotten ? "  (forgotten)" : "");
    if (x->forgotten) return;
    fputs("  user  ", stdout);
    put_visible(x->r.user_text);
    printf("\n  %s ", x->r.kind == REPLY_MODEL ? "duet " : x->r.kind == REPLY_REFUSED ? "(refused)" : "(stock)");
    put_visible(x->r.text);
    putchar('\n');
    for (int k = 0; all && k < x->r.n; k++) {
        const candidate *c = &x->r.cand[k];
        printf("  %c%3d  fwd %9.3f  bwd %9.3f  score %9.3f  %-9s  ", k == x->r.chosen ? '>' : ' ', k, c->fwd, c->bwd, c->score,
               respond_fate_name(c->fate));
        put_visible(c->text);
        putchar('\n');
    }
}

static int run_show(hist_job *j, err *e)
{
    int64_t      id;
    exchange    *x;
    conversation c;
    int          n, r = conv_id(j, 1, &id, e);
    if (r == OK) r = no_more(j, 2, e);
    if (r == OK) r = hist_get(j->h, id, &j->mem, &c, e);
    if (r == OK) r = hist_exchanges(j->h, id, &j->mem, &x, &n, e);
    for (int i = 0; r == OK && i < n; i++) {
        if (j->json) r = show_json(&x[i], e);
        else show_plain(&x[i], j->all);
    }
    return r;
}

/* ---- search ----------------------------------------------------------------------------------------------------- */

/* The beginning of a moment, as far as it is written: 2026, 2026-11-24, 2026-11-24T15:04:05Z. */
static int read_moment(hist_job *j, const char *option_, const char *s, str *out, err *e)
{
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    size_t            n      = strlen(or_empty(s)), good = 0;
    *out                     = str_of(s);
    while (good < n && good < sizeof form - 1 && (form[good] == 'd' ? s[good] >= '0' && s[good] <= '9' : s[good] == form[good])) good++;
    if (!s || (good == n && (n == 4 || n == 7 || n == 10 || n == 13 || n == 16 || n >= 19))) return OK;
    return usage(j, err_set(e, E_ARG, "%s: '%s' is no date; 2026-11, 2026-11-24 and 2026-11-24T15:04:05Z are (UTC)", option_, s));
}

/* --model: the beginning of a digest, or the file itself. */
static int read_model(hist_job *j, str *out, err *e)
{
    struct stat   st;
    filemap       m;
    sha256        hash;
    unsigned char digest[32];
    char          hex[65];
    *out = str_of(j->model);
    if (!j->model || stat(j->model, &st) != 0 || !S_ISREG(st.st_mode)) return OK;
    int r = map_open(&m, j->model, e);
    if (r) return r;
    sha256_init(&hash);
    sha256_add(&hash, m.p, m.n);
    sha256_end(&hash, digest);
    map_close(&m);
    sha256_hex(digest, hex);
    *out = arena_str(&j->mem, str_of(hex), e);
    return out->s ? OK : E_NOMEM;
}

static int read_filter(hist_job *j, hist_filter *f, err *e)
{
    *f    = (hist_filter){ .speaker = -1, .verdict = -1, .conv = j->conv, .tag = str_of(j->tag) };
    int r = read_moment(j, "--since", j->since, &f->since, e);
    if (r == OK) r = read_moment(j, "--until", j->until, &f->until, e);
    if (r == OK) r = read_model(j, &f->model, e);
    if (r == OK && j->speaker) {
        if (strcmp(j->speaker, "user") == 0) f->speaker = 0;
        else if (strcmp(j->speaker, "bot") == 0 || strcmp(j->speaker, "duet") == 0) f->speaker = 1;
        else r = usage(j, err_set(e, E_ARG, "--speaker: '%s' is neither user nor bot", j->speaker));
    }
    for (int k = RULE_NONE; r == OK && j->verdict && k <= RULE_BLOCK; k++)
        if (strcmp(j->verdict, safety_action_name(k)) == 0) f->verdict = k;
    if (r == OK && j->verdict && f->verdict < 0)
        r = usage(j, err_set(e, E_ARG, "--verdict: '%s' is none of none, flag, warn, redact, block", j->verdict));
    return r;
}

/* The hit stands between \1 and \2 in a snippet: brackets on a line, left out in JSON. */
static int put_found(const hist_job *j, const history_found *f, err *e)
{
    buf plain = { 0 };
    int r     = OK;
    for (size_t k = 0; k < f->snippet.n; k++) {
        char c = f->snippet.s[k];
        if (c != 1 && c != 2) buf_chr(&plain, c);
        else if (!j->json) buf_chr(&plain, c == 1 ? '[' : ']');
    }
    if (j->json) {
        r = js_line(json_pack("{s:I, s:I, s:s, s:o, s:o}", "conversation", (json_int_t)f->conv, "turn", (json_int_t)f->turn, "speaker",
                              f->speaker ? "bot" : "user", "created", js_text(f->created), "text", js_text(buf_view(&plain))), e);
    } else {
        printf("%6lld  %.*s  %-4s  ", (long long)f->conv, (int)f->created.n, f->created.s, f->speaker ? "duet" : "user");
        put_visible(buf_view(&plain));
        putchar('\n');
    }
    buf_free(&plain);
    return r;
}

static int run_search(hist_job *j, err *e)
{
    buf            q = { 0 };
    hist_filter    f;
    history_found *found = NULL;
    int            n = 0, most = j->limit < 0 ? FOUND_MOST : j->limit, r;
    if (j->n < 2) return usage(j, err_set(e, E_ARG, "search wants words to look for"));
    for (int i = 1; i < j->n; i++) buf_fmt(&q, "%s%s", i > 1 ? " " : "", j->word[i]);
    r = q.oom ? err_set(e, E_NOMEM, "out of memory") : read_filter(j, &f, e);
    if (r == OK) r = hist_search(j->h, buf_view(&q), &f, most ? most + 1 : 0, &j->mem, &found, &n, e);
    buf_free(&q);
    for (int i = 0; r == OK && i < n && (most == 0 || i < most); i++) r = put_found(j, &found[i], e);
    if (r == OK && most && n > most) fprintf(stderr, "the newest %d; there are more (--limit N, 0 = all)\n", most);
    return r;
}

/* ---- head ------------------------------------------------------------------------------------------------------- */

static int put_head(hist_job *j, int64_t conv, err *e)
{
    unsigned char hash[32];
    char          hex[65];
    int           n, r = hist_head(j->h, conv, &n, hash, e);
    if (r) return r;
    sha256_hex(hash, hex);
    if (j->json) return js_line(json_pack("{s:I, s:i, s:s}", "conversation", (json_int_t)conv, "rows", n, "hash", hex), e);
    printf("%lld %d %s\n", (long long)conv, n, hex);
    return OK;
}

/* Is what was kept, "conversation rows hash", still so?  A chain may have grown since; its row of that number may not differ. */
static int check_head(hist_job *j, str line, const char *file, long at, err *e)
{
    long long     conv;
    int           n, end = 0, now = 0;
    char          kept[65], hex[65] = "";
    unsigned char hash[32];
    str           copy = arena_str(&j->mem, line, e);
    if (!copy.s) return E_NOMEM;
    if (sscanf(copy.s, "%lld %d %64[0-9a-f] %n", &conv, &n, kept, &end) != 3 || (size_t)end != copy.n || n < 0 || strlen(kept) != 64)
        return err_set(e, E_FORMAT, "%s:%ld: not 'conversation rows hash', as head prints it", file, at);
    int r = n ? hist_hash(j->h, conv, n, hash, e) : hist_head(j->h, conv, &now, hash, e);
    if (r != OK && r != E_ARG) return r;
    if (r == OK) sha256_hex(hash, hex);
    const char *what = r == E_ARG ? "the row is not there any more" : n && strcmp(hex, kept) ? "the row has another hash" : NULL;
    j->differs |= what != NULL;
    if (what && !j->json) printf("%s:%ld: conversation %lld, row %d: %s\n", file, at, conv, n, what);
    if (j->json)
        return js_line(json_pack("{s:I, s:i, s:b, s:s}", "conversation", (json_int_t)conv, "row", n, "holds", !what, "what", or_empty(what)), e);
    return OK;
}

static int run_check(hist_job *j, err *e)
{
    FILE  *f;
    char  *stash = NULL;
    size_t cap   = 0;
    long   at    = 0;
    str    line;
    int    r = cmd_open_input(j->check, &f, e);
    if (r) return r;
    while ((r = cmd_next_line(f, &stash, &cap, &line, e)) == 1) {
        at++;
        if (line.n && (r = check_head(j, line, j->check, at, e))) break;
    }
    free(stash);
    if (f != stdin) fclose(f);
    if (r == OK && !j->differs && !j->json) printf("%ld kept head%s: every one is still there\n", at, at == 1 ? "" : "s");
    return r;
}

/* The last hash of each conversation (or of one), to be kept elsewhere: only that can show a tail that was cut off. */
static int run_head(hist_job *j, err *e)
{
    conversation *c;
    int64_t       only = 0;
    int           n, r = no_more(j, 2, e);
    if (r == OK && j->check) return run_check(j, e);
    if (r == OK && j->n > 1) {
        r = conv_id(j, 1, &only, e);
        return r == OK ? put_head(j, only, e) : r;
    }
    if (r == OK) r = hist_list(j->h, 0, &j->mem, &c, &n, e);
    for (int i = n - 1; r == OK && i >= 0; i--) r = put_head(j, c[i].id, e);
    return r;
}

/* ---- export, import --------------------------------------------------------------------------------------------- */

static int put_out(void *ctx, str s, err *e)
{
    hist_job *j = ctx;
    if (j->file) return out_write(j->file, s.s, s.n, e);
    return fwrite(s.s, 1, s.n, stdout) == s.n ? OK : err_set(e, E_IO, "cannot write to stdout");
}
static int put_out_line(void *ctx, str s, err *e)
{
    int r = put_out(ctx, s, e);
    return r == OK ? put_out(ctx, STR("\n"), e) : r;
}

/* Only what the models said themselves is training text: not what was undone, refused, answered with a stock line, forgotten. */
static int teaches(const exchange *x) { return !x->undone && !x->forgotten && x->r.kind == REPLY_MODEL; }

/* Text as one line: control characters become blanks. */
static void put_one_line(buf *b, str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t   k = utf8_next(s.s + i, s.n - i, &cp);
        if (cp < 32 || (cp >= 127 && cp < 160)) buf_chr(b, ' ');
        else buf_add(b, s.s + i, k);
        i += k;
    }
}

/* A turn a line; a blank line before every conversation but the first. */
static void text_of(buf *b, const exchange *x, int n, int *written)
{
    int any = 0;
    for (int i = 0; i < n; i++) {
        if (!teaches(&x[i])) continue;
        if (!any++ && (*written)++) buf_chr(b, '\n');
        put_one_line(b, x[i].r.user_text);
        buf_chr(b, '\n');
        put_one_line(b, x[i].r.text);
        buf_chr(b, '\n');
    }
}

/* Text that Markdown shows as it is. */
static void put_escaped(buf *b, str s)
{
    buf v = { 0 };
    buf_visible(&v, s);
    for (size_t i = 0; i < v.n; i++) {
        if (v.s[i] && strchr("\\`*_{}[]<>()#+-.!|~&", v.s[i])) buf_chr(b, '\\');
        buf_chr(b, v.s[i]);
    }
    b->oom |= v.oom;
    buf_free(&v);
}

static void markdown_of(buf *b, const conversation *c, const exchange *x, int n, int *written)
{
    if ((*written)++) buf_chr(b, '\n');
    buf_fmt(b, "## %lld: ", (long long)c->id);
    put_escaped(b, c->title);
    buf_fmt(b, "\n\n*%.*s, %d exchange%s", (int)c->created.n, c->created.s, c->n_turns, c->n_turns == 1 ? "" : "s");
    if (c->tags.n) buf_str(b, STR(", tags: "));
    put_escaped(b, c->tags);
    buf_str(b, STR("*\n"));
    for (int i = 0; i < n; i++) {
        const char *note = x[i].forgotten ? " *(forgotten)*" : x[i].undone ? " *(undone)*" : x[i].r.kind == REPLY_REFUSED ? " *(refused)*"
                           : x[i].r.kind == REPLY_STOCK ? " *(stock reply)*" : "";
        buf_fmt(b, "\n**%d.**%s\n", x[i].n, note);
        if (x[i].forgotten) continue;
        buf_str(b, STR("\n> **User:** "));
        put_escaped(b, x[i].r.user_text);
        buf_str(b, STR("\n>\n> **Duet:** "));
        put_escaped(b, x[i].r.text);
        buf_chr(b, '\n');
    }
}

static int export_one(hist_job *j, const conversation *c, int form, int *written, err *e)
{
    exchange *x;
    buf       b = { 0 };
    int       n, r;
    if (form == FORMAT_JSONL) return hist_dump(j->h, c->id, put_out_line, j, e);
    r = hist_exchanges(j->h, c->id, &j->mem, &x, &n, e);
    if (r == OK && form == FORMAT_TEXT) text_of(&b, x, n, written);
    if (r == OK && form == FORMAT_MARKDOWN) markdown_of(&b, c, x, n, written);
    if (r == OK) r = b.oom ? err_set(e, E_NOMEM, "out of memory") : b.n ? put_out(j, buf_view(&b), e) : OK;
    buf_free(&b);
    return r;
}

static int export_format(hist_job *j, int *form, err *e)
{
    static const struct {
        const char *name, *end;
        int         form;
    } all[] = { { "text", ".txt", FORMAT_TEXT }, { "jsonl", ".jsonl", FORMAT_JSONL }, { "markdown", ".md", FORMAT_MARKDOWN } };
    const char *dot = j->out ? strrchr(j->out, '.') : NULL;
    *form = j->json ? FORMAT_JSONL : FORMAT_TEXT;
    for (int i = 0; i < 3; i++) {
        if (!j->format && dot && strcmp(dot, all[i].end) == 0) *form = all[i].form;
        if (!j->format || strcmp(j->format, all[i].name)) continue;
        *form = all[i].form;
        return OK;
    }
    return j->format ? usage(j, err_set(e, E_ARG, "--format: '%s' is none of text, jsonl, markdown", j->format)) : OK;
}

static int export_all(hist_job *j, int form, err *e)
{
    int           r = OK, n = 0, written = 0;
    conversation *c, one;
    arena         list = { 0 };
    for (int i = 1; r == OK && i < j->n; i++) {
        int64_t id = 0;
        r          = conv_id(j, i, &id, e);
        if (r == OK) r = hist_get(j->h, id, &j->mem, &one, e);
        if (r == OK) r = export_one(j, &one, form, &written, e);
    }
    if (r || j->n > 1) return r;
    r = hist_tagged(j->h, str_of(j->tag), 0, &list, &c, &n, e);
    for (int i = n - 1; r == OK && i >= 0; i--) { /* oldest first */
        arena_reset(&j->mem);
        r = export_one(j, &c[i], form, &written, e);
    }
    arena_free(&list);
    return r;
}

static int run_export(hist_job *j, err *e)
{
    int form, r = export_format(j, &form, e);
    if (r == OK && j->out && strcmp(j->out, "-") != 0) r = out_open(&j->file, j->out, e);
    if (r == OK) r = export_all(j, form, e);
    if (r == OK && j->file && (r = out_commit(j->file, e)) == OK) j->file = NULL;
    out_abort(j->file);
    return r;
}

typedef struct {
    FILE  *f;
    char  *stash;
    size_t cap;
} line_source;
static int next_of_file(void *ctx, str *line, err *e)
{
    line_source *s = ctx;
    return cmd_next_line(s->f, &s->stash, &s->cap, line, e);
}

static int run_import(hist_job *j, err *e)
{
    line_source s = { 0 };
    hist_loaded l;
    if (j->n < 2) return usage(j, err_set(e, E_ARG, "import wants a file that export --format jsonl wrote, or -"));
    int r = no_more(j, 2, e);
    if (r == OK) r = cmd_open_input(j->word[1], &s.f, e);
    if (r == OK && (r = hist_load(j->h, next_of_file, &s, &l, e))) err_prefix(e, "%s: nothing imported", j->word[1]);
    if (s.f && s.f != stdin) fclose(s.f);
    free(s.stash);
    if (r == OK && j->json)
        return js_line(json_pack("{s:I, s:I, s:I, s:I}", "conversations", (json_int_t)l.conversations, "rows", (json_int_t)l.rows, "known",
                                 (json_int_t)l.known, "erased", (json_int_t)l.erased), e);
    if (r == OK)
        printf("%lld new conversation%s, %lld row%s added, %lld there already\n", (long long)l.conversations, l.conversations == 1 ? "" : "s",
               (long long)l.rows, l.rows == 1 ? "" : "s", (long long)l.known);
    return r;
}

/* ---- titles and tags -------------------------------------------------------------------------------------------- */

static int run_title(hist_job *j, err *e)
{
    int64_t id = 0;
    int     r  = conv_id(j, 1, &id, e);
    if (r) return r;
    if (j->n != 3) return usage(j, err_set(e, E_ARG, "title wants a number and the title as one word (quote it)"));
    return hist_set_title(j->h, id, str_of(j->word[2]), e);
}

static int set_tags(hist_job *j, int on, err *e)
{
    int64_t id = 0;
    int     r  = conv_id(j, 1, &id, e);
    if (r == OK && j->n < 3) r = usage(j, err_set(e, E_ARG, "%s wants a number and one tag or more", j->word[0]));
    for (int i = 2; r == OK && i < j->n; i++) r = hist_tag(j->h, id, str_of(j->word[i]), on, NULL, e);
    return r;
}
static int run_tag(hist_job *j, err *e) { return set_tags(j, 1, e); }
static int run_untag(hist_job *j, err *e) { return set_tags(j, 0, e); }

/* ---- forgetting ------------------------------------------------------------------------------------------------- */

typedef struct {
    json_t *list; /* NULL: on lines */
    int     failed;
} copies;

static void tell_copy(void *ctx, const char *path, int64_t exchanges, const char *failed)
{
    copies *c = ctx;
    c->failed += failed != NULL;
    if (c->list) {
        json_array_append_new(c->list, json_pack("{s:o, s:I, s:o}", "path", js_text(str_of(path)), "forgotten", (json_int_t)exchanges, "error",
                                                 failed ? js_text(str_of(failed)) : json_null()));
        return;
    }
    if (!failed && exchanges == 0) return;
    fputs("backup ", stdout);
    put_visible(str_of(path));
    if (failed) printf(": NOT changed, it still has the words: %s\n", failed);
    else printf(": %lld exchange%s forgotten\n", (long long)exchanges, exchanges == 1 ? "" : "s");
}

/* The same in the backups, and the line about it all. */
static int forget_copies(hist_job *j, int64_t conv, const int *n, int n_n, str before, int64_t exchanges, int64_t convs, err *e)
{
    copies c = { .list = j->json ? json_array() : NULL };
    char   t[32];
    int    r;
    if (!j->json && exchanges == 0) puts("nothing to forget there");
    else if (!j->json)
        printf("%lld exchange%s of %lld conversation%s forgotten: gone from the store, its indices and its log; the chain still verifies\n",
               (long long)exchanges, exchanges == 1 ? "" : "s", (long long)convs, convs == 1 ? "" : "s");
    r = hist_forget_copies(j->h, conv, n, n_n, before, cmd_utc(t), tell_copy, &c, e);
    if (!j->json && r == OK && exchanges) puts("exports and copies made by hand are not known here");
    if (j->json) {
        json_t *o = json_pack("{s:I, s:I, s:o}", "forgotten", (json_int_t)exchanges, "conversations", (json_int_t)convs, "backups", c.list);
        int     s = js_line(o, e);
        r         = r ? r : s;
    }
    return r == OK && c.failed ? err_set(e, E_IO, "%d backup%s could not be changed and still ha%s the words", c.failed, c.failed == 1 ? "" : "s",
                                         c.failed == 1 ? "s" : "ve") : r;
}

static int run_forget(hist_job *j, err *e)
{
    int64_t conv = 0, one = 0;
    int     n[64] = { 0 }, count = 0, all = 0, r = conv_id(j, 1, &conv, e), n_n = j->n > 2 ? j->n - 2 : 1;
    char    t[32];
    for (int i = 2; r == OK && i < j->n; i++) {
        r        = word_id(j, i, "n exchange", &one, e);
        n[i - 2] = one > INT32_MAX ? INT32_MAX : (int)one;
    }
    for (int i = 0; r == OK && i < n_n; i++) {
        r = hist_forget(j->h, conv, n[i], cmd_utc(t), &count, e);
        all += count;
    }
    if (all == 0) return r;
    int s = forget_copies(j, conv, n, n_n, STR(""), all, 1, r ? NULL : e); /* what is forgotten here must go there, whatever comes after */
    return r ? r : s;
}

/* "90d", "12w", "6m", "2y", or a day: the moment before which everything is old. */
static int read_age(hist_job *j, char out[32], err *e)
{
    char      *end;
    struct tm  tm;
    time_t     now = time(NULL);
    const char *s  = or_empty(j->older);
    long        n  = strtol(s, &end, 10);
    int         is_age = end > s && n >= 0 && n < 100000 && end[0] && !end[1] && strchr("dwmy", end[0]);
    str         day;
    if (!j->older) return usage(j, err_set(e, E_ARG, "purge wants --older-than, as in --older-than 90d or --older-than 2026-01-31"));
    if (!is_age) {
        if (read_moment(j, "--older-than", s, &day, NULL))
            return usage(j, err_set(e, E_ARG, "--older-than: '%s' is neither an age (90d, 12w, 6m, 2y) nor a day (2026-01-31)", s));
        snprintf(out, 32, "%s", s);
        return OK;
    }
    gmtime_r(&now, &tm);
    if (*end == 'd' || *end == 'w') tm.tm_mday -= (int)n * (*end == 'w' ? 7 : 1);
    else if (*end == 'm') tm.tm_mon -= (int)n;
    else tm.tm_year -= (int)n;
    now = timegm(&tm);
    gmtime_r(&now, &tm);
    if (tm.tm_year < 0) return usage(j, err_set(e, E_ARG, "--older-than: '%s' is before all calendars here", s));
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return OK;
}

static int run_purge(hist_job *j, err *e)
{
    char    before[32], t[32];
    int64_t exchanges = 0, convs = 0;
    int     r = no_more(j, 1, e);
    if (r == OK) r = read_age(j, before, e);
    if (r == OK) r = hist_purge(j->h, str_of(before), j->dry, cmd_utc(t), &exchanges, &convs, e);
    if (!j->dry && (r == OK || exchanges > 0)) {
        int s = forget_copies(j, 0, NULL, 0, str_of(before), exchanges, convs, r ? NULL : e);
        return r ? r : s;
    }
    if (r) return r;
    if (j->json)
        return js_line(json_pack("{s:I, s:I, s:s, s:b}", "would_forget", (json_int_t)exchanges, "conversations", (json_int_t)convs, "before", before,
                                 "dry_run", 1), e);
    printf("%lld exchange%s of %lld conversation%s are from before %s and would be forgotten\n", (long long)exchanges, exchanges == 1 ? "" : "s",
           (long long)convs, convs == 1 ? "" : "s", before);
    return OK;
}

/* ---- the whole file --------------------------------------------------------------------------------------------- */

static int run_backup(hist_job *j, err *e)
{
    struct stat st;
    char        t[32];
    if (j->n < 2) return usage(j, err_set(e, E_ARG, "backup wants the name of the new file"));
    int r = no_more(j, 2, e);
    if (r == OK) r = hist_backup(j->h, j->word[1], cmd_utc(t), e);
    if (r == OK && stat(j->word[1], &st) != 0) r = err_set(e, E_IO, "%s: cannot be seen", j->word[1]);
    if (r == OK && j->json) return js_line(json_pack("{s:o, s:I}", "path", js_text(str_of(j->word[1])), "bytes", (json_int_t)st.st_size), e);
    if (r == OK) {
        put_visible(str_of(j->word[1]));
        printf(": %lld bytes\n", (long long)st.st_size);
    }
    return r;
}

static int run_vacuum(hist_job *j, err *e)
{
    int64_t before, after;
    int     r = no_more(j, 1, e);
    if (r == OK) r = hist_vacuum(j->h, &before, &after, e);
    if (r == OK && j->json) return js_line(json_pack("{s:I, s:I}", "before", (json_int_t)before, "after", (json_int_t)after), e);
    if (r == OK) printf("%lld bytes before, %lld after\n", (long long)before, (long long)after);
    return r;
}

static json_t *js_counts(const hist_count *c, int n)
{
    json_t *j = json_object();
    for (int i = 0; i < n; i++) {
        buf key = { 0 };
        buf_visible(&key, c[i].key);
        json_object_set_new(j, key.s ? key.s : "", json_integer(c[i].n));
        buf_free(&key);
    }
    return j;
}
static json_t *js_verdicts(const int64_t v[5])
{
    json_t *j = json_object();
    for (int k = RULE_NONE; k <= RULE_BLOCK; k++) json_object_set_new(j, safety_action_name(k), json_integer(v[k]));
    return j;
}
static json_t *js_seconds(double x) { return x == x ? json_real(x) : json_null(); }

static int stats_json(const hist_numbers *s, const hist_copy *b, int n_b, err *e)
{
    json_t *backups = json_array();
    for (int i = 0; i < n_b; i++)
        json_array_append_new(backups, json_pack("{s:o, s:o}", "path", js_text(b[i].path), "created", js_text(b[i].created)));
    json_t *j = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "conversations", (json_int_t)s->conversations, "exchanges",
                          (json_int_t)s->exchanges, "undone", (json_int_t)s->undone, "forgotten", (json_int_t)s->forgotten, "refused",
                          (json_int_t)s->refused, "stock", (json_int_t)s->stock, "stale", (json_int_t)s->stale, "candidates",
                          (json_int_t)s->candidates, "judgments", (json_int_t)s->judgments);
    if (j)
        json_object_update_new(j, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o}", "first", js_text(s->first), "last",
                                            js_text(s->last), "seconds_p50", js_seconds(s->p50), "seconds_p95", js_seconds(s->p95),
                                            "user_verdicts", js_verdicts(s->user), "reply_verdicts", js_verdicts(s->reply), "by_month",
                                            js_counts(s->month, s->n_month), "by_forward_model", js_counts(s->fwd, s->n_fwd), "bytes",
                                            (json_int_t)s->bytes, "unused_bytes", (json_int_t)s->free_bytes, "backups", backups));
    return js_line(j, e);
}

static void put_verdicts(const char *whose, const int64_t v[5])
{
    printf("%-22s", whose);
    for (int k = RULE_NONE; k <= RULE_BLOCK; k++) printf("%s %lld%s", safety_action_name(k), (long long)v[k], k < RULE_BLOCK ? ", " : "\n");
}

static int run_stats(hist_job *j, err *e)
{
    hist_numbers s;
    hist_copy   *b;
    int          n_b = 0, r = no_more(j, 1, e);
    if (r == OK) r = hist_stats(j->h, &j->mem, &s, e);
    if (r == OK) r = hist_backups(j->h, &j->mem, &b, &n_b, e);
    if (r || j->json) return r ? r : stats_json(&s, b, n_b, e);
    printf("%-22s%lld\n", "conversations", (long long)s.conversations);
    printf("%-22s%lld: %lld refused, %lld stock replies, %lld undone, %lld forgotten, %lld stale\n", "exchanges", (long long)s.exchanges,
           (long long)s.refused, (long long)s.stock, (long long)s.undone, (long long)s.forgotten, (long long)s.stale);
    printf("%-22s%lld\n%-22s%lld\n", "candidates", (long long)s.candidates, "judgments", (long long)s.judgments);
    put_verdicts("on users' lines", s.user);
    put_verdicts("on replies", s.reply);
    if (s.p50 == s.p50) printf("%-22shalf within %.3f, 95 %% within %.3f\n", "seconds a reply", s.p50, s.p95);
    if (s.first.n) printf("%-22s%.*s to %.*s\n", "from", (int)s.first.n, s.first.s, (int)s.last.n, s.last.s);
    for (int i = 0; i < s.n_month; i++) {
        printf("%-22s", i ? "" : "by month");
        put_visible(s.month[i].key);
        printf("  %lld\n", (long long)s.month[i].n);
    }
    for (int i = 0; i < s.n_fwd; i++) {
        printf("%-22s", i ? "" : "by forward model");
        put_visible((str){ s.fwd[i].key.s, s.fwd[i].key.n < 16 ? s.fwd[i].key.n : 16 });
        printf("  %lld\n", (long long)s.fwd[i].n);
    }
    printf("%-22s%lld, %lld of them unused\n", "bytes", (long long)s.bytes, (long long)s.free_bytes);
    for (int i = 0; i < n_b; i++) {
        printf("%-22s%.*s  ", i ? "" : "backups", (int)b[i].created.n, b[i].created.s);
        put_visible(b[i].path);
        putchar('\n');
    }
    return OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int (*run)(hist_job *j, err *e);
    int flags;
} verbs[] = {
    { "list", run_list, HIST_READ },     { "show", run_show, HIST_READ },      { "search", run_search, HIST_READ },
    { "stats", run_stats, HIST_READ },   { "head", run_head, HIST_READ },      { "export", run_export, HIST_READ },
    { "import", run_import, HIST_WRITE }, { "backup", run_backup, HIST_WRITE }, { "title", run_title, HIST_WRITE },
    { "tag", run_tag, HIST_WRITE },      { "untag", run_untag, HIST_WRITE },   { "forget", run_forget, HIST_WRITE },
    { "purge", run_purge, HIST_WRITE },  { "vacuum", run_vacuum, HIST_WRITE },
};
enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static const char about[] =
    "The stored conversations.\n\n"
    "  list                   conversations, newest first\n"
    "  show ID                what was said in one\n"
    "  search WORDS           lines with these words as they stand, newest first\n"
    "  stats                  the store in figures\n"
    "  head [ID]              the last hash of each chain: keep it elsewhere, and head --check FILE shows a tail that was cut off\n"
    "  export [ID...]         as training text, as a record that import takes back (jsonl), or to read (markdown)\n"
    "  import FILE            take an exported record in, if its chain holds; what is there already is passed over\n"
    "  backup FILE            a copy of the store while it is in use\n"
    "  title ID TEXT          name a conversation\n"
    "  tag ID NAME...         and untag ID NAME...\n"
    "  forget ID [N...]       erase the words of a conversation, or of its exchanges N, here and in the backups; the chain still verifies\n"
    "  purge                  forget everything --older-than an age or a day\n"
    "  vacuum                 give unused room in the file back";

/* A store that is to be read or changed must be there: only import may begin one. */
static int open_for(hist_job *j, int v, err *e)
{
    history *probe;
    int      r = OK;
    if (verbs[v].flags == HIST_WRITE && verbs[v].run != run_import) {
        r = cmd_open_db(j->db, HIST_READ, &probe, e);
        if (r == OK) hist_close(probe);
    }
    return r == OK ? cmd_open_db(j->db, verbs[v].flags, &j->h, e) : r;
}

int cmd_history(int argc, char **argv, err *e)
{
    hist_job     j = { .limit = -1 };
    int          status, v = 0;
    const option list[] = {
        { "--db", OPT_STR, &j.db, "FILE", "the store; default: duet/history.db in the user's data folder" },
        KEY_OPTION(j.key_file),
        { "--json", OPT_FLAG, &j.json, NULL, "an object a line" },
        { "--all", OPT_FLAG, &j.all, NULL, "show: with every candidate" },
        { "--limit", OPT_INT, &j.limit, "N", "list, search: at most N (search: 50 when not given); 0 = all" },
        { "--tag", OPT_STR, &j.tag, "NAME", "list, search, export: conversations with this tag" },
        { "search", OPT_GROUP, NULL, NULL, NULL },
        { "--since", OPT_STR, &j.since, "DATE", "not older (UTC): 2026, 2026-11, 2026-11-24, 2026-11-24T15:04" },
        { "--until", OPT_STR, &j.until, "DATE", "not younger; that month, day or minute is included" },
        { "--speaker", OPT_STR, &j.speaker, "WHO", "user or bot" },
        { "--verdict", OPT_STR, &j.verdict, "NAME", "lines with this verdict: none, flag, warn, redact, block" },
        { "--model", OPT_STR, &j.model, "M", "a model's file, or the beginning of its digest" },
        { "--conversation", OPT_INT, &j.conv, "ID", "in this one alone" },
        { "other verbs", OPT_GROUP, NULL, NULL, NULL },
        { "--format", OPT_STR, &j.format, "NAME", "export: text (for duet prep), jsonl or markdown; default: by the end of -o's name, else text" },
        { "--out,-o", OPT_STR, &j.out, "FILE", "export: there, whole or not at all" },
        { "--check", OPT_STR, &j.check, "FILE", "head: are these lines, kept from an earlier head, still true? Exit status 3 if not" },
        { "--older-than", OPT_STR, &j.older, "AGE", "purge: 90d, 12w, 6m, 2y, or what is before a day: 2026-01-31" },
        { "--dry-run", OPT_FLAG, &j.dry, NULL, "purge: only say how much" },
        { NULL, 0, NULL, NULL, NULL },
    };
    if (cmd_parse(list, "history VERB [WORDS...] [options]", about, argc, argv, j.word, 64, &j.n, &status, e)) return status;
    if (cmd_refuse_key(j.key_file, e)) return EXIT_USAGE;
    while (j.n > 0 && v < N_VERBS && strcmp(j.word[0], verbs[v].name) != 0) v++;
    if (j.n == 0 || v == N_VERBS) {
        buf b = { 0 };
        for (int i = 0; i < N_VERBS; i++) buf_fmt(&b, "%s%s", i == 0 ? "" : i == N_VERBS - 1 ? " or " : ", ", verbs[i].name);
        if (j.n == 0) err_set(e, E_ARG, "what of it? %s", b.oom ? "" : b.s);
        else err_set(e, E_ARG, "no '%.40s' here: %s", j.word[0], b.oom ? "" : b.s);
        buf_free(&b);
        return EXIT_USAGE;
    }
    if (j.limit < -1 || j.conv < 0) {
        err_set(e, E_ARG, "--limit and --conversation are not negative");
        return EXIT_USAGE;
    }
    int r = open_for(&j, v, e);
    if (r == OK) r = verbs[v].run(&j, e);
    hist_close(j.h);
    arena_free(&j.mem);
    return r ? j.usage ? EXIT_USAGE : EXIT_FAILED : j.differs ? EXIT_DIFFERS : EXIT_OK;
}
