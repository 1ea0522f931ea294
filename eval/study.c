/* study: see study.h. */
#include "eval/study.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dialog/json.h"

enum { KEY_MAX_BYTES = 1 << 28 };
static const char *const kinds[] = { "pair", "ssa" };

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for a study"); }

const study_question *study_questions(int kind, int *n)
{
    static const study_question pair[] = {
        { "relevance", { "Relevance", "切题" }, { "Which one answers better what was just said?", "哪一句更切合刚才的话？" } },
        { "informativeness", { "Informativeness", "有内容" }, { "Which one says more, is less of an empty phrase?", "哪一句更有内容，不是套话？" } },
        { "human_likeness", { "Human-likeness", "像真人" }, { "Which one sounds more as if a person had said it?", "哪一句更像真人说的？" } },
    };
    static const study_question ssa[] = {
        { "sensible", { "Sensible", "合理" }, { "Does it make sense here? Anything odd, wrong or out of place: no.", "放在这里说得通吗？有一点不对劲就算“否”。" } },
        { "specific", { "Specific", "具体" }, { "Is it about what was said, not a phrase for any occasion?", "是针对这句话说的，而不是放在哪里都行吗？" } },
    };
    *n = kind == STUDY_SSA ? 2 : 3;
    return kind == STUDY_SSA ? ssa : pair;
}

/* ---- the digest ------------------------------------------------------------------------------------------------ */

/* A text with its length, so that nothing can be read in two ways. */
static void hash_text(sha256 *h, str s)
{
    char n[32];
    sha256_add(h, n, (size_t)snprintf(n, sizeof n, "%zu:", s.n));
    sha256_add(h, s.n ? s.s : "", s.n);
}

static void hash_numbers(sha256 *h, int a, int b, unsigned c)
{
    char n[64];
    sha256_add(h, n, (size_t)snprintf(n, sizeof n, "%d %d %u;", a, b, c));
}

static void hash_units(sha256 *h, const study_unit *u, int n)
{
    hash_numbers(h, n, 0, 0);
    for (int i = 0; i < n; i++) {
        hash_numbers(h, u[i].item, u[i].a, u[i].systems);
        hash_numbers(h, u[i].b, 0, 0);
        hash_text(h, u[i].reply[0]);
        hash_text(h, u[i].reply[1]);
    }
}

static void digest_of(const study *s, char out[65])
{
    sha256        h;
    unsigned char d[32];
    char          seed[32];
    sha256_init(&h);
    hash_numbers(&h, s->kind, s->n_system, (unsigned)s->lang);
    sha256_add(&h, seed, (size_t)snprintf(seed, sizeof seed, "%llu;", (unsigned long long)s->seed));
    for (int i = 0; i < s->n_system; i++) hash_text(&h, s->system[i]);
    for (int i = 0; i < s->n_item; i++) {
        hash_numbers(&h, s->item[i].number, s->item[i].n_turn, 0);
        for (int k = 0; k < s->item[i].n_turn; k++) hash_text(&h, s->item[i].turn[k]);
    }
    hash_units(&h, s->unit, s->n);
    hash_units(&h, s->same, s->n_same);
    sha256_end(&h, d);
    sha256_hex(d, out);
}

void study_sheet(const study *s, str judge, char out[65])
{
    sha256        h;
    unsigned char d[32];
    sha256_init(&h);
    hash_text(&h, str_of(s->digest));
    hash_text(&h, judge);
    sha256_end(&h, d);
    sha256_hex(d, out);
}

/* ---- making one ------------------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t key;
    int      item, a, b;
} ticket;

static int by_key(const void *x, const void *y)
{
    const ticket *p = x, *q = y;
    if (p->key != q->key) return p->key < q->key ? -1 : 1;
    return p->item != q->item ? p->item - q->item : p->a != q->a ? p->a - q->a : p->b - q->b;
}

/* Everything that could be asked, in the order of a hash; *n of it.  ssa: the replies of an item that differ. */
static ticket *tickets(const study_plan *p, int items, int *n, err *e)
{
    int     each = p->kind == STUDY_PAIR ? p->n * (p->n - 1) / 2 : p->n;
    ticket *t    = malloc(((size_t)items * (size_t)each + 1) * sizeof *t);
    *n           = 0;
    if (!t) return no_memory(e), NULL;
    for (int i = 0; i < items; i++)
        for (int a = 0; a < p->n; a++) {
            if (p->kind == STUDY_SSA) {
                int first = 0;
                while (!str_eq(p->reply[first][i], p->reply[a][i])) first++;
                if (first == a) t[(*n)++] = (ticket){ rng_u64(p->seed, (uint64_t)i, (uint64_t)a), i, a, -1 };
                continue;
            }
            for (int b = a + 1; b < p->n; b++) t[(*n)++] = (ticket){ rng_u64(p->seed, (uint64_t)i, (uint64_t)(a * STUDY_SYSTEMS + b)), i, a, b };
        }
    qsort(t, (size_t)*n, sizeof *t, by_key);
    return t;
}

/* Number of the item in s->item, made when it is not there; place (items,): 1 + number. */
static int item_of(study *s, const testset *t, int i, int *place)
{
    if (!place[i]) {
        s->item[s->n_item] = (study_item){ i, t->item[i].turn, t->item[i].n_turn };
        place[i]           = ++s->n_item;
    }
    return place[i] - 1;
}

static void take_ticket(study *s, const study_plan *p, const testset *t, const ticket *x, int *place)
{
    study_unit u = { .item = item_of(s, t, x->item, place), .a = x->a, .b = x->b, .reply = { p->reply[x->a][x->item] } };
    if (x->b < 0) {
        for (int k = 0; k < p->n; k++) u.systems |= str_eq(p->reply[k][x->item], u.reply[0]) ? 1u << k : 0;
    } else {
        u.reply[1] = p->reply[x->b][x->item];
        if (str_eq(u.reply[0], u.reply[1])) {
            s->same[s->n_same++] = u;
            return;
        }
    }
    s->unit[s->n++] = u;
}

/* The key file is JSON, which holds nothing but UTF-8. */
static int check_texts(const study *s, err *e)
{
    int bad = -1;
    for (int i = 0; i < s->n && bad < 0; i++)
        if (!utf8_valid(s->unit[i].reply[0]) || !utf8_valid(s->unit[i].reply[1])) bad = s->item[s->unit[i].item].number;
    for (int i = 0; i < s->n_item && bad < 0; i++)
        for (int k = 0; k < s->item[i].n_turn; k++)
            if (!utf8_valid(s->item[i].turn[k])) bad = s->item[i].number;
    return bad < 0 ? OK : err_set(e, E_FORMAT, "item %d: a text that is no UTF-8", bad + 1);
}

int study_make(study *s, const study_plan *p, const testset *t, arena *a, err *e)
{
    int n;
    *s = (study){ .kind = p->kind, .lang = p->lang, .seed = p->seed, .n_system = p->n };
    if (p->n > STUDY_SYSTEMS || p->n < (p->kind == STUDY_PAIR ? 2 : 1))
        return err_set(e, E_ARG, "%d systems: %d to %d wanted", p->n, p->kind == STUDY_PAIR ? 2 : 1, STUDY_SYSTEMS);
    for (int i = 0; i < p->n; i++) {
        s->system[i] = p->name[i];
        for (int k = 0; k < i; k++)
            if (str_eq(p->name[i], p->name[k])) return err_set(e, E_ARG, "two systems are named %.*s", (int)p->name[i].n, p->name[i].s);
    }
    ticket *x = tickets(p, t->n, &n, e);
    if (!x) return E_NOMEM;
    int *place = calloc((size_t)t->n + 1, sizeof *place);
    s->item    = arena_new(a, (size_t)t->n, sizeof *s->item);
    s->unit    = arena_new(a, (size_t)n, sizeof *s->unit);
    s->same    = arena_new(a, (size_t)n, sizeof *s->same);
    int r      = place && s->item && s->unit && s->same ? OK : no_memory(e);
    for (int i = 0; i < n && r == OK && (p->most == 0 || s->n < p->most); i++) take_ticket(s, p, t, &x[i], place);
    if (r == OK && s->n == 0) r = err_set(e, E_ARG, "the systems say the same to every line: there is nothing to judge");
    if (r == OK) r = check_texts(s, e);
    if (r == OK) digest_of(s, s->digest);
    free(place);
    free(x);
    return r;
}

/* ---- the order of a judge -------------------------------------------------------------------------------------- */

int study_judge_ok(str judge)
{
    buf b  = { 0 };
    int ok = judge.n > 0 && judge.n <= 64 && utf8_valid(judge) && str_eq(str_trim(judge), judge);
    buf_visible(&b, judge);
    ok &= !b.oom && str_eq(buf_view(&b), judge);
    buf_free(&b);
    return ok;
}

int study_order(const study *s, str judge, int *unit, unsigned char *swapped, err *e)
{
    char     sheet[65], half[17];
    ticket  *t = malloc(((size_t)s->n + 1) * sizeof *t);
    uint64_t seed;
    if (!t) return no_memory(e);
    study_sheet(s, judge, sheet); /* holds the seed and the name */
    memcpy(half, sheet, 16);
    half[16] = 0;
    seed     = strtoull(half, NULL, 16);
    for (int i = 0; i < s->n; i++) t[i] = (ticket){ rng_u64(seed, (uint64_t)i, 0), i, 0, 0 };
    qsort(t, (size_t)s->n, sizeof *t, by_key);
    for (int i = 0; i < s->n; i++) {
        unit[i]    = t[i].item;
        swapped[i] = s->unit[t[i].item].b >= 0 && (rng_u64(seed, (uint64_t)t[i].item, 1) & 1);
    }
    free(t);
    return OK;
}

/* ---- the key file ---------------------------------------------------------------------------------------------- */

static json_t *units_json(const study_unit *u, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        json_t *o = json_pack("{s:i, s:i, s:o}", "item", u[i].item, "a", u[i].a, "reply_a", js_text(u[i].reply[0]));
        if (u[i].b >= 0) json_object_update_new(o, json_pack("{s:i, s:o}", "b", u[i].b, "reply_b", js_text(u[i].reply[1])));
        else json_object_set_new(o, "systems", json_integer(u[i].systems));
        json_array_append_new(list, o);
    }
    return list;
}

int study_write(const study *s, const char *path, err *e)
{
    json_t  *systems = json_array(), *items = json_array();
    outfile *f = NULL;
    for (int i = 0; i < s->n_system; i++) json_array_append_new(systems, js_text(s->system[i]));
    for (int i = 0; i < s->n_item; i++) {
        json_t *turns = json_array();
        for (int k = 0; k < s->item[i].n_turn; k++) json_array_append_new(turns, js_text(s->item[i].turn[k]));
        json_array_append_new(items, json_pack("{s:i, s:o}", "number", s->item[i].number, "turns", turns));
    }
    json_t *root = json_pack("{s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o}", "study", kinds[s->kind], "lang", s->lang ? "zh" : "en", "seed", js_u64(s->seed), "digest", s->digest,
                             "systems", systems, "items", items, "units", units_json(s->unit, s->n), "same", units_json(s->same, s->n_same));
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    int   r    = text ? out_open(&f, path, e) : no_memory(e);
    if (r == OK) r = out_write(f, text, strlen(text), e);
    if (r == OK) r = out_write(f, "\n", 1, e);
    if (r == OK) r = out_commit(f, e);
    else out_abort(f);
    free(text);
    json_decref(root);
    return r;
}

static int get_int(const json_t *o, const char *key, int lo, int hi, int *out, err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < lo || json_integer_value(v) > hi) return err_set(e, E_FORMAT, "\"%s\" is no number from %d to %d", key, lo, hi);
    *out = (int)json_integer_value(v);
    return OK;
}

static int get_text(const json_t *v, arena *a, str *out, err *e)
{
    if (!json_is_string(v)) return err_set(e, E_FORMAT, "a text is no string");
    *out = arena_str(a, (str){ json_string_value(v), json_string_length(v) }, e);
    return out->s ? OK : E_NOMEM;
}

static int read_units(const json_t *list, const study *s, arena *a, study_unit **out, int *n, err *e)
{
    int r = OK, bits = 0;
    *n   = (int)json_array_size(list);
    *out = arena_new(a, (size_t)*n, sizeof **out);
    if (!*out) return no_memory(e);
    for (int i = 0; i < *n && r == OK; i++) {
        const json_t *o = json_array_get(list, (size_t)i);
        study_unit   *u = &(*out)[i];
        u->b            = -1;
        r               = get_int(o, "item", 0, s->n_item - 1, &u->item, e);
        if (r == OK) r = get_int(o, "a", 0, s->n_system - 1, &u->a, e);
        if (r == OK) r = get_text(json_object_get(o, "reply_a"), a, &u->reply[0], e);
        if (r == OK && s->kind == STUDY_PAIR) r = get_int(o, "b", u->a + 1, s->n_system - 1, &u->b, e);
        if (r == OK && s->kind == STUDY_PAIR) r = get_text(json_object_get(o, "reply_b"), a, &u->reply[1], e);
        if (r == OK && s->kind == STUDY_SSA) r = get_int(o, "systems", 1, (1 << STUDY_SYSTEMS) - 1, &bits, e);
        u->systems = (unsigned)bits;
    }
    return r;
}

static int read_items(const json_t *list, arena *a, study *s, err *e)
{
    int r     = OK;
    s->n_item = (int)json_array_size(list);
    s->item   = arena_new(a, (size_t)s->n_item, sizeof *s->item);
    if (!s->item) return no_memory(e);
    for (int i = 0; i < s->n_item && r == OK; i++) {
        const json_t *o = json_array_get(list, (size_t)i), *turns = json_object_get(o, "turns");
        study_item   *x = &s->item[i];
        r               = get_int(o, "number", 0, 1 << 30, &x->number, e);
        x->n_turn       = (int)json_array_size(turns);
        str *said       = arena_new(a, (size_t)x->n_turn, sizeof *said);
        if (!said) return no_memory(e);
        for (int k = 0; k < x->n_turn && r == OK; k++) r = get_text(json_array_get(turns, (size_t)k), a, &said[k], e);
        x->turn = said;
    }
    return r;
}

static int read_key(study *s, const json_t *root, arena *a, err *e)
{
    const char   *kind = json_string_value(json_object_get(root, "study")), *lang = json_string_value(json_object_get(root, "lang"));
    const char   *seed = json_string_value(json_object_get(root, "seed")), *digest = json_string_value(json_object_get(root, "digest"));
    const json_t *systems = json_object_get(root, "systems");
    int           r = OK;
    if (!kind || !lang || !seed || !digest || (strcmp(kind, kinds[0]) && strcmp(kind, kinds[1]))) return err_set(e, E_FORMAT, "not the key of a study");
    *s = (study){ .kind = strcmp(kind, kinds[STUDY_SSA]) == 0, .lang = strcmp(lang, "zh") == 0, .seed = strtoull(seed, NULL, 10), .n_system = (int)json_array_size(systems) };
    if (s->n_system < 1 || s->n_system > STUDY_SYSTEMS) return err_set(e, E_FORMAT, "%d systems", s->n_system);
    for (int i = 0; i < s->n_system && r == OK; i++) r = get_text(json_array_get(systems, (size_t)i), a, &s->system[i], e);
    if (r == OK) r = read_items(json_object_get(root, "items"), a, s, e);
    if (r == OK) r = read_units(json_object_get(root, "units"), s, a, &s->unit, &s->n, e);
    if (r == OK) r = read_units(json_object_get(root, "same"), s, a, &s->same, &s->n_same, e);
    if (r) return r;
    digest_of(s, s->digest);
    return strcmp(s->digest, digest) == 0 ? OK : err_set(e, E_FORMAT, "its digest does not fit its content: it was changed");
}

int study_read(study *s, const char *path, arena *a, err *e)
{
    buf          b = { 0 };
    json_error_t je;
    int          r    = read_file(path, KEY_MAX_BYTES, &b, e);
    json_t      *root = r == OK ? json_loadb(b.s ? b.s : "", b.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je) : NULL;
    if (r == OK && !root) r = err_set(e, E_FORMAT, "%s:%d: not JSON: %s", path, je.line, je.text);
    if (root) {
        r = read_key(s, root, a, e);
        if (r) err_prefix(e, "%s", path);
    }
    json_decref(root);
    buf_free(&b);
    return r;
}
