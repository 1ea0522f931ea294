/* vocab: vocabulary files.  vocab.json + merges.txt (byte-level BPE) and vocab.txt (WordPiece), read strictly and written.
 *
 * What is accepted beyond the plain form: a byte order mark at the start, CRLF line ends, a last line without its end, merges.txt
 * without the "#version" line; in vocab.txt blank lines (empty tokens, which never match but keep the numbering) and duplicates
 * (the last id wins, as in the reference).  Lines end at LF only: U+2028 is a token of real vocabularies.
 * What is refused: ids that are not 0..n-1 each once, tokens outside the byte alphabet that are not <|special|>, missing single bytes,
 * merges whose parts or result are no tokens, a merges.txt that reaches none of the longer tokens, control characters, invalid UTF-8. */
#include "models/tokenizer_impl.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* "dir/name" when path is a folder, else path. */
static int file_in(buf *b, const char *path, const char *name, err *e)
{
    struct stat st;
    buf_str(b, str_of(path));
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) buf_fmt(b, "/%s", name);
    return b->oom ? err_set(e, E_NOMEM, "%s: out of memory", path) : OK;
}

/* `name` in the folder of the file `path`. */
static int file_beside(buf *b, const char *path, const char *name, err *e)
{
    const char *slash = strrchr(path, '/');
    if (slash) buf_add(b, path, (size_t)(slash - path) + 1);
    buf_str(b, str_of(name));
    return b->oom ? err_set(e, E_NOMEM, "%s: out of memory", path) : OK;
}

static int open_text(filemap *m, str *text, const char *path, err *e)
{
    int r = map_open(m, path, e);
    if (r) return r;
    if (m->n > MAX_VOCAB_FILE) {
        r = err_set(e, E_LIMIT, "%s: %zu bytes, the limit for a vocabulary file is %d", path, m->n, MAX_VOCAB_FILE);
        map_close(m);
        return r;
    }
    *text = (str){ (const char *)m->p, m->n };
    if (str_starts(*text, STR("\xEF\xBB\xBF"))) *text = (str){ text->s + 3, text->n - 3 };
    return OK;
}

/* The next line without its LF or CRLF; 0 at the end.  What follows the last LF is a line if it is not empty. */
static int next_line(str *text, str *line)
{
    if (text->n == 0) return 0;
    const char *lf = memchr(text->s, '\n', text->n);
    size_t      n  = lf ? (size_t)(lf - text->s) : text->n, used = lf ? n + 1 : n;
    *line = (str){ text->s, n };
    if (n && line->s[n - 1] == '\r') line->n--;
    *text = (str){ text->s + used, text->n - used };
    return 1;
}

/* ---- vocab.json and merges.txt --------------------------------------------------------------------------------- */

static int fill_from_json(tokenizer *t, json_t *root, const char *path, err *e)
{
    const char *key;
    json_t     *value;
    int         r;
    json_object_foreach(root, key, value) {
        str s = str_of(key);
        if (!json_is_integer(value)) return err_set(e, E_FORMAT, "%s: the id of \"%s\" is no integer", path, show_str(s).s);
        json_int_t id = json_integer_value(value);
        if (id < 0 || id >= t->n)
            return err_set(e, E_FORMAT, "%s: the id of \"%s\" is %lld, with %d tokens it must be 0..%d", path, show_str(s).s, (long long)id,
                           t->n, t->n - 1);
        if (t->tok[id].s)
            return err_set(e, E_FORMAT, "%s: \"%s\" and \"%s\" have the same id %lld", path, show_str(t->tok[id]).s, show_str(s).s, (long long)id);
        if ((r = tok_set(t, (int)id, s, path, e)) != OK) return r;
    }
    return OK; /* n keys with n different ids in 0..n-1: no holes */
}

static int read_json(tokenizer **t, const char *path, err *e)
{
    filemap      m;
    str          text;
    json_error_t je;
    int          r = open_text(&m, &text, path, e);
    if (r) return r;
    json_t *root = json_loadb(text.n ? text.s : "", text.n, JSON_REJECT_DUPLICATES, &je);
    map_close(&m);
    if (!root) return err_set(e, E_FORMAT, "%s:%d: %s", path, je.line, je.text);
    if (!json_is_object(root)) r = err_set(e, E_FORMAT, "%s: not a JSON object of token: id", path);
    else if ((r = tok_new(t, TOK_BPE, 0, json_object_size(root), path, e)) == OK) r = fill_from_json(*t, root, path, e);
    json_decref(root);
    return r == OK ? tok_index(*t, path, e) : r;
}

static int read_merges_txt(tokenizer *t, const char *path, err *e)
{
    filemap m;
    str     text, line;
    size_t  n = 1, no = 0;
    int     r = open_text(&m, &text, path, e);
    if (r) return r;
    for (size_t i = 0; i < text.n; i++) n += text.s[i] == '\n';
    r = bpe_reserve(t, n, path, e);
    while (r == OK && next_line(&text, &line))
        if (no++ > 0 || !str_starts(line, STR("#version"))) r = bpe_add_merge(t, line, 1, path, no, e);
    map_close(&m);
    if (r == OK && t->n_merges == 0)
        for (int id = 0; id < t->n; id++)
            if (t->bytes[id].n > 1) return err_set(e, E_FORMAT, "%s: no merges, but the vocabulary has \"%s\"", path, show_str(t->tok[id]).s);
    return r;
}

int tokenizer_open_bpe(tokenizer **out, const char *vocab_json, const char *merges_txt, err *e)
{
    tokenizer *t = NULL;
    buf        vocab = { 0 }, merges = { 0 };
    *out  = NULL;
    int r = file_in(&vocab, vocab_json, "vocab.json", e);
    if (r == OK) r = merges_txt ? file_in(&merges, merges_txt, "merges.txt", e) : file_beside(&merges, vocab.s, "merges.txt", e);
    if (r == OK) r = read_json(&t, vocab.s, e);
    if (r == OK) r = read_merges_txt(t, merges.s, e);
    if (r == OK) r = tok_finish(t, merges.s, e);
    buf_free(&vocab);
    buf_free(&merges);
    if (r) tokenizer_close(t);
    else *out = t;
    return r;
}

/* ---- vocab.txt ------------------------------------------------------------------------------------------------- */

int tokenizer_open_wordpiece(tokenizer **out, const char *vocab_txt, int lower, err *e)
{
    tokenizer *t = NULL;
    buf        path = { 0 };
    filemap    m = { 0 };
    str        text = { 0 }, rest, line;
    size_t     n = 0;
    *out  = NULL;
    int r = file_in(&path, vocab_txt, "vocab.txt", e);
    if (r == OK) r = open_text(&m, &text, path.s, e);
    for (rest = text; r == OK && next_line(&rest, &line);) n++;
    if (r == OK) r = tok_new(&t, TOK_WORDPIECE, lower, n, path.s, e);
    rest = text;
    for (int id = 0; r == OK && next_line(&rest, &line); id++) r = tok_set(t, id, line, path.s, e);
    if (r == OK) r = tok_index(t, path.s, e);
    if (r == OK) r = tok_finish(t, path.s, e);
    map_close(&m);
    buf_free(&path);
    if (r) tokenizer_close(t);
    else *out = t;
    return r;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static int write_file(const char *dir, const char *name, const buf *b, err *e)
{
    outfile *o;
    buf      path = { 0 };
    buf_fmt(&path, "%s/%s", dir, name);
    if (path.oom || b->oom) {
        buf_free(&path);
        return err_set(e, E_NOMEM, "%s/%s: out of memory", dir, name);
    }
    int r = out_open(&o, path.s, e);
    buf_free(&path);
    if (r) return r;
    if ((r = out_write(o, b->s, b->n, e)) == OK && (r = out_commit(o, e)) == OK) return OK;
    out_abort(o);
    return r;
}

static int export_bpe(const tokenizer *t, const char *dir, err *e)
{
    buf b = { 0 };
    for (int id = 0; id < t->n; id++) {
        buf_add(&b, id ? ", \"" : "{\"", id ? 3 : 2);
        for (size_t i = 0; i < t->tok[id].n; i++) { /* no control characters: tok_set refuses them */
            char c = t->tok[id].s[i];
            if (c == '"' || c == '\\') buf_chr(&b, '\\');
            buf_chr(&b, c);
        }
        buf_fmt(&b, "\": %d", id);
    }
    buf_str(&b, STR("}\n"));
    int r = write_file(dir, "vocab.json", &b, e);
    buf_reset(&b);
    buf_str(&b, STR("#version: 0.2\n"));
    for (int i = 0; i < t->n_merges; i++) buf_str(&b, t->merge_text[i]), buf_chr(&b, '\n');
    if (r == OK) r = write_file(dir, "merges.txt", &b, e);
    buf_free(&b);
    return r;
}

int tokenizer_export(const tokenizer *t, const char *dir, err *e)
{
    buf b = { 0 };
    if (t->kind == TOK_BPE) return export_bpe(t, dir, e);
    for (int id = 0; id < t->n; id++) buf_str(&b, t->tok[id]), buf_chr(&b, '\n');
    int r = write_file(dir, "vocab.txt", &b, e);
    buf_reset(&b);
    buf_fmt(&b, "{\"do_lower_case\": %s, \"tokenizer_class\": \"BertTokenizer\"}\n", t->lower ? "true" : "false");
    if (r == OK) r = write_file(dir, "tokenizer_config.json", &b, e);
    buf_free(&b);
    return r;
}
