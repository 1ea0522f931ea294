/* testset: see testset.h. */
#include "eval/testset.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "corpus/dialogue.h"

enum { SET_MAX_BYTES = 1 << 30 };

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the test set"); }

static int has_end(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);
    return n >= k && strcmp(path + n - k, end) == 0;
}

static test_item *new_item(testset *t, err *e)
{
    if (t->n == t->cap) {
        int        cap  = t->cap ? 2 * t->cap : 256;
        test_item *item = realloc(t->item, (size_t)cap * sizeof *item);
        if (!item) return no_memory(e), NULL;
        t->item = item;
        t->cap  = cap;
    }
    t->item[t->n] = (test_item){ 0 };
    return &t->item[t->n++];
}

static int copies(testset *t, int n, str **out, err *e)
{
    *out = arena_new(&t->mem, (size_t)n + 1, sizeof **out);
    return *out ? OK : no_memory(e);
}

/* A dialogue: the last turn is the reference. */
static int take_dialogue(void *ctx, const dialogue *d, err *e)
{
    testset   *t = ctx;
    str       *said, *ref;
    if (d->n < 2) return err_set(e, E_FORMAT, "%s:%ld: a dialogue of one turn: there is nothing to answer and to compare with", d->file, d->line);
    test_item *x = new_item(t, e);
    if (!x) return E_NOMEM;
    int r = copies(t, d->n - 1, &said, e);
    if (r == OK) r = copies(t, 1, &ref, e);
    for (int i = 0; i < d->n && r == OK; i++) {
        str *to = i < d->n - 1 ? &said[i] : ref;
        *to     = arena_str(&t->mem, d->turn[i].text, e);
        if (!to->s) r = E_NOMEM;
    }
    if (r == OK) *x = (test_item){ said, d->n - 1, ref, 1 };
    return r;
}

static int take_bytes(testset *t, str bytes, const char *path, long line, int type, err *e)
{
    read_opts   o = { .type = type, .readings = 1 };
    read_counts c = { 0 };
    int         r = dialogue_read_bytes(bytes, path, &o, &c, take_dialogue, t, e);
    if (r && line > 1) err_prefix(e, "line %ld", line);
    return r;
}

/* ---- DialoGPT's references in further fields -------------------------------------------------------------------- */

static int read_tsv_line(testset *t, str line, const char *path, long at, err *e)
{
    buf         pair = { 0 };
    const char *tab  = memchr(line.s, '\t', line.n);
    int         r = OK, first = t->n, n = 0;
    if (!tab) return err_set(e, E_FORMAT, "%s:%ld: no tab: wanted a context and references", path, at);
    str context = { line.s, (size_t)(tab - line.s) }, rest = { tab + 1, line.n - context.n - 1 };
    for (int more = 1; more && r == OK; n++) { /* the reader of dialogues knows how a turn is written: one pair after the other */
        const char *next = memchr(rest.s, '\t', rest.n);
        str         ref  = { rest.s, next ? (size_t)(next - rest.s) : rest.n };
        more             = next != NULL;
        buf_reset(&pair);
        buf_str(&pair, context);
        buf_chr(&pair, '\t');
        buf_str(&pair, ref);
        if (pair.oom) r = no_memory(e);
        if (r == OK) r = take_bytes(t, buf_view(&pair), path, at, INPUT_TSV, e);
        rest.s += ref.n + more;
        rest.n -= ref.n + more;
    }
    if (r == OK) { /* n items of one context become one */
        str *ref;
        r = copies(t, n, &ref, e);
        for (int i = 0; i < n && r == OK; i++) ref[i] = t->item[first + i].ref[0];
        if (r == OK) t->item[first].ref = ref, t->item[first].n_ref = n, t->n = first + 1;
    }
    buf_free(&pair);
    return r;
}

/* ---- DSTC-7's references --------------------------------------------------------------------------------------- */

static int is_number(str s)
{
    int digits = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] >= '0' && s.s[i] <= '9') digits++;
        else if (!strchr("+-.eE", s.s[i]) || !s.s[i]) return 0;
    }
    return digits > 0;
}

static int read_refs_line(testset *t, str line, const char *path, long at, err *e)
{
    int  n = 0, r;
    str *said, *ref;
    for (size_t i = 0; i < line.n; i++) n += line.s[i] == '\t';
    test_item *x = new_item(t, e);
    if (!x) return E_NOMEM;
    r = copies(t, 1, &said, e);
    if (r == OK) r = copies(t, n, &ref, e);
    for (int k = -1; k < n && r == OK; k++) {
        const char *tab  = memchr(line.s, '\t', line.n);
        str         cell = { line.s, tab ? (size_t)(tab - line.s) : line.n };
        const char *bar  = k >= 0 && cell.n ? memchr(cell.s, '|', cell.n) : NULL;
        line.s += cell.n + (tab != NULL);
        line.n -= cell.n + (tab != NULL);
        if (bar && is_number((str){ cell.s, (size_t)(bar - cell.s) })) cell = (str){ bar + 1, cell.n - (size_t)(bar + 1 - cell.s) };
        str *to = k < 0 ? said : &ref[k];
        if (!str_trim(cell).n) r = err_set(e, E_FORMAT, "%s:%ld: %s is empty", path, at, k < 0 ? "the key" : "a reference");
        else if (!(*to = arena_str(&t->mem, cell, e)).s) r = E_NOMEM;
    }
    if (r == OK && n == 0) r = err_set(e, E_FORMAT, "%s:%ld: no tab: wanted a key and references", path, at);
    if (r == OK) *x = (test_item){ said, 1, ref, n };
    return r;
}

/* ---- JSONL ----------------------------------------------------------------------------------------------------- */

static int text_of(testset *t, const json_t *j, str *out, const char *path, long at, const char *what, err *e)
{
    if (!json_is_string(j)) return err_set(e, E_FORMAT, "%s:%ld: %s is no string", path, at, what);
    *out = arena_str(&t->mem, (str){ json_string_value(j), json_string_length(j) }, e);
    return out->s ? OK : E_NOMEM;
}

static int read_object(testset *t, const json_t *o, const char *path, long at, err *e)
{
    const json_t *history = json_object_get(o, "history"), *many = json_object_get(o, "references"), *one = json_object_get(o, "reference");
    str          *said, *ref;
    if (history && !json_is_array(history)) return err_set(e, E_FORMAT, "%s:%ld: \"history\" is no array", path, at);
    if (many && !json_is_array(many)) return err_set(e, E_FORMAT, "%s:%ld: \"references\" is no array", path, at);
    int        n = (int)json_array_size(history), n_ref = many ? (int)json_array_size(many) : one != NULL, r = OK;
    test_item *x = new_item(t, e);
    if (!x) return E_NOMEM;
    r = copies(t, n + 1, &said, e);
    if (r == OK) r = copies(t, n_ref, &ref, e);
    for (int i = 0; i < n && r == OK; i++) r = text_of(t, json_array_get(history, (size_t)i), &said[i], path, at, "a turn of \"history\"", e);
    if (r == OK) r = text_of(t, json_object_get(o, "text"), &said[n], path, at, "\"text\"", e);
    for (int i = 0; i < n_ref && r == OK; i++) r = text_of(t, many ? json_array_get(many, (size_t)i) : one, &ref[i], path, at, "a reference", e);
    if (r == OK) *x = (test_item){ said, n + 1, ref, n_ref };
    return r;
}

static int read_json_line(testset *t, str line, const char *path, long at, err *e)
{
    json_error_t je;
    json_t      *o = json_loadb(line.s, line.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!o) return err_set(e, E_FORMAT, "%s:%ld: not JSON: %s", path, at, je.text);
    int r = json_is_object(o) && json_object_get(o, "text") ? read_object(t, o, path, at, e) : take_bytes(t, line, path, at, INPUT_JSONL, e);
    json_decref(o);
    return r;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

int testset_read(testset *t, const char *path, err *e)
{
    buf           bytes = { 0 };
    unsigned char d[32];
    sha256        h;
    int           lines = has_end(path, ".jsonl") || has_end(path, ".ndjson"), tsv = has_end(path, ".tsv");
    *t    = (testset){ .keyed = has_end(path, ".refs.txt") };
    int r = read_file(path, SET_MAX_BYTES, &bytes, e);
    if (r) return r;
    sha256_init(&h);
    sha256_add(&h, bytes.s ? bytes.s : "", bytes.n);
    sha256_end(&h, d);
    sha256_hex(d, t->digest);
    if (lines || tsv || t->keyed) {
        str  rest = buf_view(&bytes), line;
        long at   = 0;
        if (str_starts(rest, STR("\xEF\xBB\xBF"))) rest.s += 3, rest.n -= 3;
        while (r == OK && next_line(&rest, &line)) {
            at++;
            if (!str_trim(line).n) continue;
            r = tsv ? read_tsv_line(t, line, path, at, e) : t->keyed ? read_refs_line(t, line, path, at, e) : read_json_line(t, line, path, at, e);
        }
    } else {
        read_opts   o = { .type = INPUT_AUTO, .readings = 1 };
        read_counts c = { 0 };
        r = dialogue_read(path, &o, &c, take_dialogue, t, e);
    }
    buf_free(&bytes);
    if (r == OK && t->n == 0) r = err_set(e, E_FORMAT, "%s: no test items", path);
    if (r) testset_free(t);
    return r;
}

void testset_free(testset *t)
{
    free(t->item);
    arena_free(&t->mem);
    *t = (testset){ 0 };
}

int testset_references(const testset *t, str **ref, int **at, err *e)
{
    size_t n = 0;
    int    all = 1;
    for (int i = 0; i < t->n; i++) {
        n += (size_t)t->item[i].n_ref;
        all &= t->item[i].n_ref > 0;
    }
    if (n > 1u << 30) return err_set(e, E_LIMIT, "%zu references are too many", n);
    *ref = calloc(n + 1, sizeof **ref);
    *at  = calloc((size_t)t->n + 1, sizeof **at);
    if (!*ref || !*at) {
        free(*ref);
        free(*at);
        return no_memory(e);
    }
    for (int i = 0; i < t->n; i++) {
        for (int k = 0; k < t->item[i].n_ref; k++) (*ref)[(*at)[i] + k] = t->item[i].ref[k];
        (*at)[i + 1] = (*at)[i] + t->item[i].n_ref;
    }
    if (!all) {
        free(*at);
        *at = NULL;
    }
    return OK;
}
