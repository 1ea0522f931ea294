/* scene: see scene.h. */
#include "corpus/scene.h"
#include "corpus/keyset.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LINES = 12, MAX_ALTS = 256, MAX_BOUND = 16, MAX_VALUES = 4096 };

/* ---- slots ----------------------------------------------------------------------------------------------------- */

typedef struct {
    str  name;
    str *value; /* (n,) in the arena */
    int  n;
} slot;
struct scene_slots {
    arena a;
    slot *v; /* (n,) */
    int   n, cap;
};

static const slot *slot_find(const scene_slots *s, str name)
{
    for (int i = 0; s && i < s->n; i++)
        if (str_eq(s->v[i].name, name)) return &s->v[i];
    return NULL;
}

static int slot_name_char(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }

/* "name: a | b | c" */
static int slots_line(scene_slots *s, str line, const char *path, long n, err *e)
{
    const char *colon = memchr(line.s, ':', line.n);
    if (!colon) return err_set(e, E_FORMAT, "%s:%ld: wanted 'name: value | value'", path, n);
    slot x = { .name = str_trim((str){ line.s, (size_t)(colon - line.s) }) };
    for (size_t i = 0; i < x.name.n; i++)
        if (!slot_name_char(x.name.s[i])) x.name.n = 0;
    if (!x.name.n) return err_set(e, E_FORMAT, "%s:%ld: a slot's name is made of a-z and _", path, n);
    if (slot_find(s, x.name)) return err_set(e, E_FORMAT, "%s:%ld: slot '%.*s' is there twice", path, n, (int)x.name.n, x.name.s);
    str rest = { colon + 1, line.n - (size_t)(colon + 1 - line.s) };
    size_t bars = 0;
    for (size_t i = 0; i < rest.n; i++) bars += rest.s[i] == '|';
    if (bars >= MAX_VALUES) return err_set(e, E_LIMIT, "%s:%ld: more than %d values", path, n, (int)MAX_VALUES);
    x.value = arena_new(&s->a, bars + 1, sizeof *x.value);
    x.name  = arena_str(&s->a, x.name, e);
    if (!x.value || !x.name.s) return err_set(e, E_NOMEM, "%s: out of memory", path);
    for (int more = 1; more;) {
        const char *bar = memchr(rest.s, '|', rest.n);
        size_t      k   = bar ? (size_t)(bar - rest.s) : rest.n;
        str         v   = str_trim((str){ rest.s, k });
        more            = bar != NULL;
        if (!v.n) return err_set(e, E_FORMAT, "%s:%ld: slot '%.*s' has an empty value", path, n, (int)x.name.n, x.name.s);
        for (int i = 0; i < x.n; i++)
            if (str_eq(x.value[i], v))
                return err_set(e, E_FORMAT, "%s:%ld: slot '%.*s' has the value '%.*s' twice", path, n, (int)x.name.n, x.name.s, (int)v.n, v.s);
        x.value[x.n] = arena_str(&s->a, v, e);
        if (!x.value[x.n++].s) return E_NOMEM;
        if (more) rest.s += k + 1, rest.n -= k + 1;
    }
    if (s->n == s->cap) {
        int   cap = s->cap ? s->cap * 2 : 32;
        slot *w   = realloc(s->v, (size_t)cap * sizeof *w);
        if (!w) return err_set(e, E_NOMEM, "%s: out of memory", path);
        s->v   = w;
        s->cap = cap;
    }
    s->v[s->n++] = x;
    return OK;
}

int scene_slots_read(scene_slots **out, const char *path, err *e)
{
    buf b  = { 0 };
    *out   = NULL;
    int rc = read_file(path, 1 << 24, &b, e);
    if (rc) return rc;
    scene_slots *s = calloc(1, sizeof *s);
    if (!s) rc = err_set(e, E_NOMEM, "%s: out of memory", path);
    str rest = buf_view(&b), line;
    if (str_starts(rest, STR("\xEF\xBB\xBF"))) rest.s += 3, rest.n -= 3;
    for (long n = 1; rc == OK && next_line(&rest, &line); n++) {
        line = str_trim(line);
        if (line.n && line.s[0] != '#') rc = slots_line(s, line, path, n, e);
    }
    buf_free(&b);
    if (rc) scene_slots_free(s);
    else *out = s;
    return rc;
}

void scene_slots_free(scene_slots *s)
{
    if (!s) return;
    arena_free(&s->a);
    free(s->v);
    free(s);
}

/* ---- syntax ---------------------------------------------------------------------------------------------------- */

typedef struct {
    long line;
    int  n;
    str  alt[MAX_ALTS];
    int  deal[MAX_ALTS]; /* (n,) the present order of dealing */
} scene_line;
typedef struct {
    const char        *name;
    const scene_slots *slots;
    int                n;
    scene_line         line[MAX_LINES];
    str                used[MAX_BOUND]; /* slot names the scene uses, with their digits */
    int                n_used;
} scene;

static int bad(const scene *s, long line, err *e, const char *what, str near)
{
    size_t k = near.n < 40 ? near.n : 40; /* err_set mends a cut character */
    return err_set(e, E_FORMAT, "%s:%ld: %s: %.*s", s->name, line, what, (int)k, near.s);
}

/* Split "{name2}" at s (s.s[0] == '{') into its whole name and the name without the digit; length consumed or 0. */
static size_t slot_ref(str s, str *whole, str *base)
{
    size_t k = 1;
    while (k < s.n && slot_name_char(s.s[k])) k++;
    *base = (str){ s.s + 1, k - 1 };
    if (k < s.n && s.s[k] >= '0' && s.s[k] <= '9') k++;
    *whole = (str){ s.s + 1, k - 1 };
    return base->n && k < s.n && s.s[k] == '}' ? k + 1 : 0;
}

static int check_slot(scene *s, long line, str at, size_t *len, err *e)
{
    str whole, base;
    *len = slot_ref(at, &whole, &base);
    if (!*len) return bad(s, line, e, "stray brace", at);
    const slot *x = slot_find(s->slots, base);
    if (!x) return bad(s, line, e, "slots.txt has no such slot", (str){ at.s, *len });
    int same = 1;
    for (int i = 0; i < s->n_used; i++) {
        if (str_eq(s->used[i], whole)) return OK;
        str u = s->used[i];
        if (u.n && u.s[u.n - 1] >= '0' && u.s[u.n - 1] <= '9') u.n--;
        same += str_eq(u, base);
    }
    if (same > x->n) return bad(s, line, e, "the scene wants more different values than the slot has", (str){ at.s, *len });
    if (s->n_used == MAX_BOUND) return bad(s, line, e, "too many slots in one scene", (str){ at.s, *len });
    s->used[s->n_used++] = whole;
    return OK;
}

/* Walk an alternative: brackets, bars, slots; *ways is multiplied by its choices.  Refuses what could come out empty. */
static int check_alt(scene *s, long line, str a, double *ways, err *e)
{
    int open = 0, branches = 0, solid = 0, branch_solid = 0, all_solid = 1;
    for (size_t i = 0; i < a.n;) {
        str    at = { a.s + i, a.n - i };
        size_t k  = 1;
        switch (a.s[i]) {
        case '[':
            if (open) return bad(s, line, e, "choices cannot be nested", at);
            open = branches = all_solid = 1;
            branch_solid                = 0;
            break;
        case '|':
            if (!open) return bad(s, line, e, "stray bar (alternatives are parted by ' | ')", at);
            branches++;
            all_solid &= branch_solid;
            branch_solid = 0;
            break;
        case ']':
            if (!open) return bad(s, line, e, "stray bracket", at);
            solid |= all_solid & branch_solid;
            *ways *= branches;
            open = 0;
            break;
        case '}': return bad(s, line, e, "stray brace", at);
        case '{': {
            int rc = check_slot(s, line, at, &k, e);
            if (rc) return rc;
            if (open) branch_solid = 1;
            else solid = 1;
            break;
        }
        case ' ': break;
        default:
            if (open) branch_solid = 1;
            else solid = 1;
        }
        i += k;
    }
    if (open) return bad(s, line, e, "a choice without its closing bracket", a);
    if (!solid) return bad(s, line, e, "an alternative that can be empty", a);
    return OK;
}

/* Split a line's text at " | " and check each part. */
static int parse_line(scene *s, str text, long n, double *ways, err *e)
{
    scene_line *l   = &s->line[s->n];
    const char *who = s->n % 2 ? "B: " : "U: ";
    if (!str_starts(text, str_of(who))) {
        char what[24];
        memcpy(what, "wanted 'U: '", 13);
        what[8] = who[0];
        return bad(s, n, e, what, text);
    }
    text.s += 3;
    text.n -= 3;
    l->line    = n;
    l->n       = 0;
    double sum = 0;
    for (int more = 1; more;) {
        size_t k = 0;
        while (k + 3 <= text.n && memcmp(text.s + k, " | ", 3) != 0) k++;
        more    = k + 3 <= text.n;
        str alt = str_trim((str){ text.s, more ? k : text.n });
        if (!alt.n) return bad(s, n, e, "empty alternative", text);
        if (!utf8_valid(alt)) return bad(s, n, e, "invalid UTF-8", alt);
        if (l->n == MAX_ALTS) return bad(s, n, e, "too many alternatives", alt);
        double one = 1;
        int    rc  = check_alt(s, n, alt, &one, e);
        if (rc) return rc;
        sum += one;
        l->alt[l->n++] = alt;
        if (more) text.s += k + 3, text.n -= k + 3;
    }
    *ways *= sum;
    s->n++;
    return OK;
}

/* ---- expansion ------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t seed, stream, step; /* the next number of the scene's own sequence */
} draws;
static uint64_t draw(draws *d, uint64_t n) { return rng_below(d->seed, d->stream, d->step++, n); }

typedef struct {
    str name, base;
    int value;
} binding;

static str bound_value(const scene *s, binding *b, int *n, str whole, str base, draws *d)
{
    const slot *x = slot_find(s->slots, base);
    int         free_n = x->n;
    for (int i = 0; i < *n; i++) {
        if (str_eq(b[i].name, whole)) return x->value[b[i].value];
        free_n -= str_eq(b[i].base, base);
    }
    int k = (int)draw(d, (uint64_t)free_n), v = 0;
    for (;; v++) { /* the k-th value that no other name of this slot has */
        int taken = 0;
        for (int i = 0; i < *n; i++) taken |= str_eq(b[i].base, base) && b[i].value == v;
        if (!taken && k-- == 0) break;
    }
    b[(*n)++] = (binding){ whole, base, v };
    return x->value[v];
}

/* One alternative, read: choices drawn, slots filled. */
static void fill(const scene *s, str a, binding *b, int *n_bound, draws *d, buf *out)
{
    for (size_t i = 0; i < a.n;) {
        if (a.s[i] == '[') { /* keep one branch, step into it; its end skips the others */
            size_t close = i, bars = 0;
            while (a.s[close] != ']') bars += a.s[close++] == '|';
            size_t skip = draw(d, bars + 1);
            for (i++; skip; i++) skip -= a.s[i] == '|';
        } else if (a.s[i] == '|') {
            while (a.s[i++] != ']') continue;
        } else if (a.s[i] == ']') {
            i++;
        } else if (a.s[i] == '{') {
            str    whole, base;
            size_t k = slot_ref((str){ a.s + i, a.n - i }, &whole, &base);
            buf_str(out, bound_value(s, b, n_bound, whole, base, d));
            i += k;
        } else {
            buf_chr(out, a.s[i++]);
        }
    }
}

/* Deal alternative number `k` of a line: a fresh order at the start of every round. */
static str deal(scene_line *l, uint64_t k, draws *d)
{
    if (k % (uint64_t)l->n == 0) {
        for (int i = 0; i < l->n; i++) l->deal[i] = i;
        for (int i = l->n - 1; i > 0; i--) {
            int j      = (int)draw(d, (uint64_t)i + 1), t = l->deal[i];
            l->deal[i] = l->deal[j];
            l->deal[j] = t;
        }
    }
    return l->alt[l->deal[k % (uint64_t)l->n]];
}

typedef struct {
    buf       text;
    turn_list turns;
    keyset    seen;
} scratch;

/* One way through the scene into w->turns; its key. */
static int read_once(scene *s, uint64_t k, draws *d, scratch *w, key128 *key, err *e)
{
    binding bound[MAX_BOUND];
    int     n_bound = 0;
    size_t  end[MAX_LINES];
    sha256  h;
    buf_reset(&w->text);
    for (int i = 0; i < s->n; i++) {
        fill(s, deal(&s->line[i], k, d), bound, &n_bound, d, &w->text);
        end[i] = w->text.n;
    }
    if (w->text.oom) return err_set(e, E_NOMEM, "%s: out of memory", s->name);
    sha256_init(&h);
    w->turns.n = 0;
    for (int i = 0; i < s->n; i++) {
        size_t   from = i ? end[i - 1] : 0;
        str      text = str_trim((str){ w->text.s + from, end[i] - from });
        uint64_t len  = text.n;
        int      rc   = turn_list_add(&w->turns, text, i % 2, 1, e);
        if (rc) return rc;
        sha256_add(&h, &len, sizeof len);
        sha256_add(&h, text.s, text.n);
    }
    *key = key_of_hash(&h);
    return OK;
}

static uint64_t scene_group(const scene *s)
{
    sha256 h;
    sha256_init(&h);
    for (int i = 0; i < s->n; i++) {
        for (int k = 0; k < s->line[i].n; k++) {
            sha256_add(&h, s->line[i].alt[k].s, s->line[i].alt[k].n);
            sha256_add(&h, "|", 1);
        }
        sha256_add(&h, "\n", 1);
    }
    return key_of_hash(&h).hi;
}

static int expand(scene *s, const read_opts *o, read_counts *c, scratch *w, dialogue_sink *sink, void *ctx, err *e)
{
    dialogue d = { .n = s->n, .file = s->name, .line = s->line[0].line, .group = scene_group(s) };
    draws    r = { o->seed, d.group, 0 };
    int      found = 0, failed = 0;
    keyset_clear(&w->seen);
    /* A scene with few ways gives all of them well before 50 + 4 * found draws in a row bring nothing new. */
    for (uint64_t k = 0; found < o->readings && failed < 50 + 4 * found; k++) {
        key128 key;
        int    rc = read_once(s, k, &r, w, &key, e);
        if (rc == OK) rc = keyset_add(&w->seen, key, e);
        if (rc < 0) return rc;
        if (rc == 0) {
            failed++;
            continue;
        }
        failed = 0;
        found++;
        d.turn = w->turns.v;
        c->dialogues++;
        rc = sink(ctx, &d, e);
        if (rc) return rc;
    }
    return OK;
}

int scene_read(str bytes, const char *name, const scene_slots *slots, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e)
{
    scratch w    = { 0 };
    scene  *s    = malloc(sizeof *s); /* too large for the stack of a thread */
    str     rest = bytes, line;
    double  ways = 1;
    int     rc   = OK, more = 1;
    if (!s) return err_set(e, E_NOMEM, "%s: out of memory", name);
    if (o->readings < 1) rc = err_set(e, E_ARG, "readings: %d, at least 1 wanted", o->readings);
    s->name  = name;
    s->slots = slots;
    s->n = s->n_used = 0;
    for (long n = 1; rc == OK && more; n++) {
        more = next_line(&rest, &line);
        if (more && line.n && line.s[0] == '#') continue;
        if (more && str_trim(line).n) {
            if (s->n == MAX_LINES) rc = bad(s, n, e, "a scene of more than 12 lines", line);
            else rc = parse_line(s, line, n, &ways, e);
            continue;
        }
        if (!s->n) continue;
        if (s->n % 2) {
            rc = err_set(e, E_FORMAT, "%s:%ld: a scene of %d line%s: it starts with U and ends with B", name, s->line[0].line, s->n, s->n > 1 ? "s" : "");
            break;
        }
        c->scenes++;
        c->combinations += ways;
        rc   = expand(s, o, c, &w, sink, ctx, e);
        s->n = s->n_used = 0;
        ways             = 1;
    }
    buf_free(&w.text);
    turn_list_free(&w.turns);
    keyset_free(&w.seen);
    free(s);
    return rc;
}
