/* csv: see csv.h. */
#include "eval/csv.h"

#include <string.h>

static int is_formula(str s) { return s.n && s.s[0] && strchr("=+-@\t\r", s.s[0]) != NULL; }

/* Texts that have a ' taken off must have got one. */
static int is_guarded(str s)
{
    while (s.n && s.s[0] == '\'') s.s++, s.n--;
    return is_formula(s);
}

void csv_cell(buf *b, str s, int first)
{
    int quote = 0, guard = is_guarded(s);
    for (size_t i = 0; i < s.n; i++) quote |= s.s[i] && strchr(",\"\r\n", s.s[i]) != NULL;
    if (!first) buf_chr(b, ',');
    if (quote) buf_chr(b, '"');
    if (guard) buf_chr(b, '\'');
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] == '"') buf_chr(b, '"');
        buf_chr(b, s.s[i]);
    }
    if (quote) buf_chr(b, '"');
}

void csv_end(buf *b) { buf_str(b, STR("\r\n")); }

str csv_plain(str s)
{
    if (s.n && s.s[0] == '\'' && is_guarded(s)) s.s++, s.n--;
    return s;
}

void csv_open(csv *c, str bytes)
{
    if (str_starts(bytes, STR("\xEF\xBB\xBF"))) bytes.s += 3, bytes.n -= 3;
    *c = (csv){ .rest = bytes, .next = 1 };
}

/* The cell in quotes that begins at rest: into *out, with rest behind its closing quote. */
static int quoted(csv *c, arena *a, str *out, err *e)
{
    size_t n = 0, i = 1;
    char  *p = arena_new(a, c->rest.n, 1);
    if (!p) return err_set(e, E_NOMEM, "out of memory for a table");
    for (;; i++) {
        if (i == c->rest.n) return err_set(e, E_FORMAT, "line %d: a quote that is never closed", c->line);
        if (c->rest.s[i] == '"') {
            if (i + 1 == c->rest.n || c->rest.s[i + 1] != '"') break;
            i++;
        }
        c->next += c->rest.s[i] == '\n';
        p[n++] = c->rest.s[i];
    }
    *out = (str){ p, n };
    c->rest.s += i + 1;
    c->rest.n -= i + 1;
    if (c->rest.n && !strchr(",\r\n", c->rest.s[0])) return err_set(e, E_FORMAT, "line %d: text behind a closing quote", c->line);
    return OK;
}

int csv_next(csv *c, arena *a, err *e)
{
    while (c->rest.n && (c->rest.s[0] == '\n' || c->rest.s[0] == '\r')) {
        c->next += c->rest.s[0] == '\n';
        c->rest.s++;
        c->rest.n--;
    }
    c->line = c->next;
    c->n    = 0;
    if (c->rest.n == 0) return 0;
    for (;;) {
        str cell = { c->rest.s, 0 };
        if (c->n == CSV_COLUMNS) return err_set(e, E_FORMAT, "line %d: more than %d columns", c->line, CSV_COLUMNS);
        if (c->rest.n && c->rest.s[0] == '"') {
            int r = quoted(c, a, &cell, e);
            if (r) return r;
        } else {
            while (cell.n < c->rest.n && cell.s[cell.n] != ',' && cell.s[cell.n] != '\n' && cell.s[cell.n] != '\r') cell.n++;
            c->rest.s += cell.n;
            c->rest.n -= cell.n;
        }
        c->cell[c->n++] = cell;
        if (c->rest.n == 0 || c->rest.s[0] != ',') return 1; /* the line's end is passed over next time */
        c->rest.s++;
        c->rest.n--;
    }
}

int csv_column(const csv *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (str_eq(str_trim(c->cell[i]), str_of(name))) return i;
    return -1;
}
