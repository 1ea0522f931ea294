/* pack: see pack.h. */
#include "dialog/pack.h"

#include <string.h>

#include "dialog/identity.h"

typedef struct {
    str name, value;
} let;
typedef struct {
    const char *file;
    int         line;
    arena      *a;
    err        *e;
    int         n_let;
    let         lets[PACK_MAX_LETS];
    pack_rule  *rule; /* the one being read; NULL before the first */
    int         seen; /* bit k: KEYS[k] was given */
    str         pattern[PACK_MAX_PER_RULE];
    int         pattern_line[PACK_MAX_PER_RULE];
    str         test[PACK_MAX_TESTS];
    int         test_wanted[PACK_MAX_TESTS];
} reader;

enum { CATEGORY, WHERE, ACTION, VIEW, CHECK, LABEL_ZH, LABEL_EN, MESSAGE_ZH, MESSAGE_EN, PATTERN, MATCH, NOMATCH, N_KEYS };
static const char *const KEYS[N_KEYS] = { "category", "where",      "action",     "view",    "check", "label zh",
                                          "label en", "message zh", "message en", "pattern", "match", "nomatch" };

static int fail(reader *p, const char *what, str got)
{
    return err_set(p->e, E_FORMAT, "%s:%d: %s%s%.*s%s", p->file, p->line, what, got.n ? ": \"" : "", (int)(got.n < 80 ? got.n : 80),
                   got.n ? got.s : "", got.n ? "\"" : "");
}

static int is_name(str s, const char *extra, size_t max)
{
    if (s.n == 0 || s.n > max) return 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.s[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr(extra, c)))) return 0;
    }
    return 1;
}

static int keep(reader *p, str *to, str s)
{
    *to = arena_str(p->a, s, p->e);
    return to->s ? OK : E_NOMEM;
}

static const let *find_let(const reader *p, str name)
{
    for (int i = p->n_let - 1; i >= 0; i--)
        if (str_eq(p->lets[i].name, name)) return &p->lets[i];
    return NULL;
}

/* @{name} becomes (?:value). */
static int expand(reader *p, str s, str *out)
{
    buf b  = { 0 };
    int rc = OK;
    for (size_t i = 0; i < s.n && rc == OK;) {
        if (s.s[i] != '@' || i + 1 >= s.n || s.s[i + 1] != '{') {
            buf_chr(&b, s.s[i++]);
            continue;
        }
        const char *close = memchr(s.s + i, '}', s.n - i);
        str         name  = { s.s + i + 2, close ? (size_t)(close - s.s) - i - 2 : s.n - i - 2 };
        const let  *l     = close ? find_let(p, name) : NULL;
        if (!l) {
            rc = fail(p, close ? "no such let" : "@{ without }", name);
        } else {
            buf_str(&b, STR("(?:"));
            buf_str(&b, l->value);
            buf_chr(&b, ')');
            i += name.n + 3;
            if (b.n > PACK_MAX_PATTERN) break;
        }
    }
    if (rc == OK && b.n > PACK_MAX_PATTERN) rc = err_set(p->e, E_LIMIT, "%s:%d: pattern longer than %d bytes", p->file, p->line, PACK_MAX_PATTERN);
    if (rc == OK && b.oom) rc = err_set(p->e, E_NOMEM, "out of memory reading %s", p->file);
    if (rc == OK) rc = keep(p, out, buf_view(&b));
    buf_free(&b);
    return rc;
}

/* The rule that was being read is complete: are its fields?  Its lists move to the arena. */
static int close_rule(reader *p)
{
    pack_rule *x = p->rule;
    if (!x) return OK;
    p->rule = NULL;
    const char *missing = NULL;
    static const int always[] = { CATEGORY, WHERE, ACTION, PATTERN };
    for (size_t i = 0; i < sizeof always / sizeof always[0] && !missing; i++)
        if (!(p->seen >> always[i] & 1)) missing = KEYS[always[i]];
    if (!missing && (x->r.action == RULE_BLOCK || x->r.action == RULE_WARN)) {
        if (!x->r.message_zh.n) missing = "message zh";
        else if (!x->r.message_en.n) missing = "message en";
    }
    if (!missing && x->r.action == RULE_REDACT && !x->r.label_zh.n && !x->r.label_en.n) missing = "label zh or label en";
    if (missing)
        return err_set(p->e, E_FORMAT, "%s:%d: rule %.*s lacks \"%s\"", p->file, x->r.line, (int)x->r.id.n, x->r.id.s, missing);
    x->pattern      = arena_new(p->a, (size_t)x->n_pattern, sizeof *x->pattern);
    x->pattern_line = arena_new(p->a, (size_t)x->n_pattern, sizeof *x->pattern_line);
    x->test         = arena_new(p->a, (size_t)x->n_test, sizeof *x->test);
    x->test_wanted  = arena_new(p->a, (size_t)x->n_test, sizeof *x->test_wanted);
    if (!x->pattern || !x->pattern_line || !x->test || !x->test_wanted) return err_set(p->e, E_NOMEM, "out of memory reading %s", p->file);
    memcpy(x->pattern, p->pattern, (size_t)x->n_pattern * sizeof *x->pattern);
    memcpy(x->pattern_line, p->pattern_line, (size_t)x->n_pattern * sizeof *x->pattern_line);
    memcpy(x->test, p->test, (size_t)x->n_test * sizeof *x->test);
    memcpy(x->test_wanted, p->test_wanted, (size_t)x->n_test * sizeof *x->test_wanted);
    return OK;
}

static int open_rule(reader *p, str line, pack_rule *list, int *n, int cap)
{
    str id = line;
    int rc = close_rule(p);
    if (rc != OK) return rc;
    if (!str_starts(line, STR("[rule ")) || line.s[line.n - 1] != ']') return fail(p, "want [rule ID], got", line);
    id = str_trim((str){ line.s + 6, line.n - 7 });
    if (!is_name(id, "._-", 64)) return fail(p, "a rule's id is up to 64 of a-z 0-9 . _ -, got", id.n ? id : line);
    for (int i = 0; i < *n; i++)
        if (str_eq(list[i].r.id, id))
            return err_set(p->e, E_FORMAT, "%s:%d: rule %.*s again; it is already at %s:%d", p->file, p->line, (int)id.n, id.s, list[i].r.file,
                           list[i].r.line);
    if (*n == cap) return err_set(p->e, E_LIMIT, "%s:%d: more than %d rules", p->file, p->line, cap);
    p->rule        = &list[(*n)++];
    *p->rule       = (pack_rule){ .check = IDENTITY_NONE };
    p->rule->r     = (safety_rule){ .file = p->file, .line = p->line, .message_zh = STR(""), .message_en = STR(""),
                                    .label_zh = STR(""), .label_en = STR("") };
    p->seen        = 0;
    return keep(p, &p->rule->r.id, id);
}

/* `value` as one of names[0..n), 1-based; 0 when it is none. */
static int choice(str value, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (str_eq(value, str_of(names[i]))) return i + 1;
    return 0;
}

static int set_field(reader *p, int key, str value)
{
    static const char *const wheres[] = { "user", "reply", "both" }; /* in the order of WHERE_… */
    static const char *const actions[] = { "flag", "warn", "redact", "block" }; /* in the order of RULE_… */
    static const char *const views[] = { "plain", "both" };
    pack_rule *x = p->rule;
    int        k;
    if (key < PATTERN && (p->seen >> key & 1)) return fail(p, "given twice in one rule", str_of(KEYS[key]));
    p->seen |= 1 << key;
    switch (key) {
    case CATEGORY: return is_name(value, "-", 32) ? keep(p, &x->r.category, value) : fail(p, "a category is up to 32 of a-z 0-9 -, got", value);
    case WHERE: return (x->r.where = choice(value, wheres, 3)) ? OK : fail(p, "where is user, reply or both, got", value);
    case ACTION: return (x->r.action = choice(value, actions, 4)) ? OK : fail(p, "action is block, redact, warn or flag, got", value);
    case VIEW:
        if (!(k = choice(value, views, 2))) return fail(p, "view is plain or both, got", value);
        x->view_plain = k == 1;
        return OK;
    case CHECK:
        if ((x->check = identity_of_name(value)) != IDENTITY_NONE) return OK;
        return err_set(p->e, E_FORMAT, "%s:%d: check is one of %s, got \"%.*s\"", p->file, p->line, identity_names(),
                       (int)(value.n < 40 ? value.n : 40), value.s);
    case LABEL_ZH: return keep(p, &x->r.label_zh, value);
    case LABEL_EN: return keep(p, &x->r.label_en, value);
    case MESSAGE_ZH: return keep(p, &x->r.message_zh, value);
    case MESSAGE_EN: return keep(p, &x->r.message_en, value);
    case PATTERN:
        if (x->n_pattern == PACK_MAX_PER_RULE)
            return err_set(p->e, E_LIMIT, "%s:%d: more than %d patterns in one rule", p->file, p->line, PACK_MAX_PER_RULE);
        p->pattern_line[x->n_pattern] = p->line;
        return expand(p, value, &p->pattern[x->n_pattern++]);
    default:
        if (x->n_test == PACK_MAX_TESTS) return err_set(p->e, E_LIMIT, "%s:%d: more than %d tests in one rule", p->file, p->line, PACK_MAX_TESTS);
        p->test_wanted[x->n_test] = key == MATCH;
        return keep(p, &p->test[x->n_test++], value);
    }
}

static int statement(reader *p, str line)
{
    const char *colon = memchr(line.s, ':', line.n);
    if (!colon) return fail(p, "want \"key: value\", got", line);
    str key = str_trim((str){ line.s, (size_t)(colon - line.s) }), value = str_trim((str){ colon + 1, line.n - (size_t)(colon - line.s) - 1 });
    if (value.n == 0) return fail(p, "nothing after the colon of", key);
    if (str_starts(key, STR("let "))) {
        str name = str_trim((str){ key.s + 4, key.n - 4 });
        if (!is_name(name, "_", 32)) return fail(p, "the name of a let is up to 32 of a-z 0-9 _, got", name);
        if (find_let(p, name)) return fail(p, "let given twice", name);
        if (p->n_let == PACK_MAX_LETS) return err_set(p->e, E_LIMIT, "%s:%d: more than %d lets", p->file, p->line, PACK_MAX_LETS);
        let l = { 0 };
        int rc = keep(p, &l.name, name);
        if (rc == OK) rc = expand(p, value, &l.value);
        if (rc == OK) p->lets[p->n_let++] = l;
        return rc;
    }
    if (!p->rule) return fail(p, "before the first [rule …]", key);
    int k = choice(key, KEYS, N_KEYS);
    return k ? set_field(p, k - 1, value) : fail(p, "unknown key", key);
}

static int check_line(reader *p, str line)
{
    if (line.n > PACK_MAX_LINE) return err_set(p->e, E_LIMIT, "%s:%d: line longer than %d bytes", p->file, p->line, PACK_MAX_LINE);
    if (!utf8_valid(line)) return fail(p, "not UTF-8", STR(""));
    for (size_t i = 0; i < line.n; i++)
        if (((unsigned char)line.s[i] < 32 && line.s[i] != '\t') || line.s[i] == 127) return fail(p, "control character in the line", STR(""));
    return OK;
}

int pack_read(const char *file, str bytes, pack_rule *list, int *n, int cap, arena *a, err *e)
{
    if (bytes.n > PACK_MAX_FILE) return err_set(e, E_LIMIT, "%s: %zu bytes; a pack has at most %d", file, bytes.n, PACK_MAX_FILE);
    reader *p    = arena_new(a, 1, sizeof *p);
    str     name = arena_str(a, str_of(file), e);
    if (!p || !name.s) return err_set(e, E_NOMEM, "out of memory reading %s", file);
    p->file = name.s;
    p->a    = a;
    p->e    = e;
    if (str_starts(bytes, STR("\xEF\xBB\xBF"))) bytes.s += 3, bytes.n -= 3;
    int rc = OK;
    while (bytes.n && rc == OK) {
        const char *nl   = memchr(bytes.s, '\n', bytes.n);
        size_t      len  = nl ? (size_t)(nl - bytes.s) : bytes.n;
        str         line = { bytes.s, len && bytes.s[len - 1] == '\r' ? len - 1 : len };
        bytes.s += nl ? len + 1 : len;
        bytes.n -= nl ? len + 1 : len;
        p->line++;
        rc   = check_line(p, line);
        line = str_trim(line);
        if (rc != OK || line.n == 0 || line.s[0] == '#') continue;
        rc = line.s[0] == '[' ? open_rule(p, line, list, n, cap) : statement(p, line);
    }
    return rc == OK ? close_rule(p) : rc;
}
