/* dialogue: see dialogue.h. */
#include "corpus/dialogue.h"
#include "corpus/scene.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MAX_TURNS = 1 << 16 /* of one dialogue */, MAX_JSON = 1 << 29 /* bytes of one JSON value */ };

static const struct {
    const char *name;
    int         type;
} types[] = { { "auto", INPUT_AUTO },   { "text", INPUT_TEXT },   { "txt", INPUT_TEXT },     { "scene", INPUT_SCENE },
              { "tsv", INPUT_TSV },     { "json", INPUT_JSON },   { "jsonl", INPUT_JSONL },  { "ndjson", INPUT_JSONL } };

int input_of_name(const char *s)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcasecmp(s, types[i].name) == 0) return types[i].type;
    return -1;
}

static int type_of_path(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    int         t     = dot ? input_of_name(dot + 1) : -1;
    return t > 0 ? t : -1;
}

int turn_list_add(turn_list *l, str text, int speaker, float weight, err *e)
{
    if (l->n == MAX_TURNS) return err_set(e, E_LIMIT, "more than %d turns in one dialogue", (int)MAX_TURNS);
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        turn  *v   = realloc(l->v, cap * sizeof *v);
        if (!v) return err_set(e, E_NOMEM, "out of memory for %zu turns", cap);
        l->v   = v;
        l->cap = cap;
    }
    l->v[l->n++] = (turn){ .text = text, .speaker = speaker, .weight = weight };
    return OK;
}

void turn_list_free(turn_list *l)
{
    free(l->v);
    *l = (turn_list){ 0 };
}

uint64_t dialogue_group(const turn *t, int n)
{
    sha256        h;
    unsigned char d[32];
    uint64_t      g;
    sha256_init(&h);
    for (int i = 0; i < n; i++) {
        uint64_t len = t[i].text.n;
        sha256_add(&h, &len, sizeof len);
        sha256_add(&h, t[i].text.s, t[i].text.n);
    }
    sha256_end(&h, d);
    memcpy(&g, d, sizeof g);
    return g;
}

int next_line(str *rest, str *line)
{
    if (!rest->n) return 0;
    const char *nl = memchr(rest->s, '\n', rest->n);
    size_t      k  = nl ? (size_t)(nl - rest->s) : rest->n, step = nl ? k + 1 : k;
    *line = (str){ rest->s, k };
    if (k && rest->s[k - 1] == '\r') line->n--;
    rest->s += step;
    rest->n -= step;
    return 1;
}

static str without_bom(str s)
{
    if (str_starts(s, STR("\xEF\xBB\xBF"))) s.s += 3, s.n -= 3;
    return s;
}

/* Everything a reader needs to hand a dialogue on. */
typedef struct {
    const char    *name;
    read_counts   *c;
    dialogue_sink *sink;
    void          *ctx;
    turn_list      t;
} reader;

static int emit(reader *r, long line, err *e)
{
    if (!r->t.n) return OK;
    dialogue d = { r->t.v, (int)r->t.n, dialogue_group(r->t.v, (int)r->t.n), r->name, line };
    r->c->dialogues++;
    int rc = r->sink(r->ctx, &d, e);
    r->t.n = 0;
    return rc;
}

/* ---- blank-line text ------------------------------------------------------------------------------------------- */

static int read_text(reader *r, str rest, err *e)
{
    str  line;
    int  rc = OK;
    long n = 0, start = 1;
    while (rc == OK && next_line(&rest, &line)) {
        n++;
        str s = str_trim(line);
        if (!s.n) {
            rc = emit(r, start, e);
            continue;
        }
        if (!r->t.n) start = n;
        rc = turn_list_add(&r->t, s, (int)(r->t.n & 1), 1, e);
        if (rc == E_LIMIT) err_prefix(e, "%s:%ld", r->name, n);
    }
    return rc == OK ? emit(r, start, e) : rc;
}

/* ---- DialoGPT tsv ---------------------------------------------------------------------------------------------- */

/* "0.5", "1.0", "0.25": digits, a point, digits; at most 1. */
static int is_weight(str w, float *value)
{
    if (w.n < 3 || w.n > 12 || (w.s[0] != '0' && w.s[0] != '1') || w.s[1] != '.') return 0;
    double v = w.s[0] - '0', unit = 0.1;
    for (size_t i = 2; i < w.n; i++, unit /= 10) {
        if (w.s[i] < '0' || w.s[i] > '9') return 0;
        v += unit * (w.s[i] - '0');
    }
    if (v > 1) return 0;
    *value = (float)v;
    return 1;
}

/* One turn of a tsv field: weight off, white space squeezed into `text`. */
static void tsv_turn(str s, buf *text, float *weight)
{
    int first = 1;
    *weight   = 1;
    buf_reset(text);
    for (;;) {
        s = str_trim(s);
        if (!s.n) return;
        size_t k = 0;
        while (k < s.n && s.s[k] != ' ' && !(s.s[k] >= '\t' && s.s[k] <= '\r')) k++;
        str word = { s.s, k };
        if (!first || !is_weight(word, weight)) {
            if (text->n) buf_chr(text, ' ');
            buf_str(text, word);
        }
        first = 0;
        s.s += k;
        s.n -= k;
    }
}

/* The turns of a line into r->t, texts in `a`.  0, or 1 with *why for a malformed line, or <0. */
static int tsv_line(reader *r, str line, buf *text, arena *a, const char **why, err *e)
{
    const char *tab = memchr(line.s, '\t', line.n);
    if (!tab || memchr(tab + 1, '\t', line.n - (size_t)(tab + 1 - line.s))) {
        *why = "wanted two fields with one tab between them";
        return 1;
    }
    str field[2] = { { line.s, (size_t)(tab - line.s) }, { tab + 1, line.n - (size_t)(tab + 1 - line.s) } };
    for (int f = 0; f < 2; f++) {
        str s = field[f];
        for (int more = 1; more;) {
            size_t k = 0;
            while (k + 5 <= s.n && memcmp(s.s + k, " EOS ", 5) != 0) k++;
            more = k + 5 <= s.n;
            str   part = { s.s, more ? k : s.n };
            float w;
            tsv_turn(part, text, &w);
            if (!text->n && !text->oom) {
                *why = "an empty turn";
                return 1;
            }
            str copy = text->oom ? (str){ NULL, 0 } : arena_str(a, buf_view(text), e);
            if (!copy.s) return text->oom ? err_set(e, E_NOMEM, "%s: out of memory", r->name) : E_NOMEM;
            int rc = turn_list_add(&r->t, copy, 0, w, e);
            if (rc) return rc;
            if (more) s.s += k + 4, s.n -= k + 4; /* keeps the blank: "a EOS EOS b" has an empty turn */
        }
    }
    for (size_t i = 0; i < r->t.n; i++) r->t.v[i].speaker = (int)((r->t.n - 1 - i) & 1) ^ 1; /* the target is the bot's */
    return 0;
}

static int read_tsv(reader *r, str rest, int skip_bad, err *e)
{
    str   line;
    buf   text = { 0 };
    arena a    = { 0 };
    int   rc   = OK;
    for (long n = 1; rc == OK && next_line(&rest, &line); n++) {
        const char *why;
        if (!str_trim(line).n) continue;
        arena_reset(&a);
        rc = tsv_line(r, line, &text, &a, &why, e);
        if (rc == 1) {
            r->t.n = 0;
            r->c->bad_lines++;
            rc = skip_bad ? OK : err_set(e, E_FORMAT, "%s:%ld: %s", r->name, n, why);
        } else if (rc == OK) {
            rc = emit(r, n, e);
        } else if (rc == E_LIMIT) {
            err_prefix(e, "%s:%ld", r->name, n);
        }
    }
    buf_free(&text);
    arena_free(&a);
    return rc;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static const json_t *first_of(const json_t *o, const char *const *keys)
{
    for (; *keys; keys++) {
        const json_t *v = json_object_get(o, *keys);
        if (v) return v;
    }
    return NULL;
}

/* Add one turn; 0, 1 with *why, <0. */
static int json_turn(reader *r, const json_t *v, const char **why, err *e)
{
    static const char *const texts[] = { "text", "value", "content", NULL }, *const names[] = { "from", "role", "speaker", NULL };
    int   speaker = (int)(r->t.n & 1);
    float weight  = 1;
    if (json_is_object(v)) {
        const json_t *name = first_of(v, names), *w = json_object_get(v, "weight");
        if (json_is_string(name)) {
            const char *s = json_string_value(name);
            if (strcmp(s, "system") == 0) return 0;
            speaker = strcmp(s, "user") != 0 && strcmp(s, "human") != 0 && strcmp(s, "0") != 0;
        } else if (json_is_integer(name)) {
            speaker = json_integer_value(name) != 0;
        } else if (name && !json_is_null(name)) {
            *why = "the speaker of a turn is no name";
            return 1;
        }
        if (w) {
            double d = json_number_value(w);
            if (!json_is_number(w) || !(d >= 0 && d <= 1000)) {
                *why = "the weight of a turn is no number from 0 to 1000";
                return 1;
            }
            weight = (float)d;
        }
        v = first_of(v, texts);
    }
    if (!json_is_string(v)) {
        *why = "a turn is neither a string nor an object with text, value or content";
        return 1;
    }
    return turn_list_add(&r->t, (str){ json_string_value(v), json_string_length(v) }, speaker, weight, e);
}

/* One dialogue value into r->t; 0, 1 with *why, <0. */
static int json_dialogue(reader *r, const json_t *v, const char **why, err *e)
{
    static const char *const lists[] = { "turns", "dialogue", "conversations", "messages", NULL };
    if (json_is_object(v)) v = first_of(v, lists);
    if (!json_is_array(v)) {
        *why = "wanted a dialogue: an array of turns, or an object with turns, dialogue, conversations or messages";
        return 1;
    }
    size_t  i;
    json_t *t;
    json_array_foreach((json_t *)v, i, t)
    {
        int rc = json_turn(r, t, why, e);
        if (rc) return rc;
    }
    return 0;
}

/* Is this array one dialogue (its first element is a turn) and not an array of dialogues? */
static int array_is_dialogue(const json_t *v)
{
    static const char *const texts[] = { "text", "value", "content", NULL };
    const json_t            *first   = json_array_get(v, 0);
    return json_is_string(first) || (json_is_object(first) && first_of(first, texts));
}

static int json_emit(reader *r, const json_t *v, long line, size_t item, int skip_bad, err *e)
{
    const char *why = "";
    r->t.n          = 0;
    int rc          = json_dialogue(r, v, &why, e);
    if (rc == 1) {
        r->t.n = 0;
        r->c->bad_lines++;
        if (skip_bad) return OK;
        return item ? err_set(e, E_FORMAT, "%s: dialogue %zu: %s", r->name, item, why) : err_set(e, E_FORMAT, "%s:%ld: %s", r->name, line, why);
    }
    return rc ? rc : emit(r, line, e);
}

static json_t *json_parse(const reader *r, str s, long line, err *e)
{
    json_error_t je;
    if (s.n > MAX_JSON) {
        err_set(e, E_LIMIT, "%s:%ld: a JSON value of %zu bytes, at most %d wanted; use .jsonl", r->name, line, s.n, (int)MAX_JSON);
        return NULL;
    }
    json_t *v = json_loadb(s.s, s.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!v) err_set(e, E_FORMAT, "%s:%ld: %s", r->name, line + (je.line > 0 ? je.line - 1 : 0), je.text);
    return v;
}

static int read_json(reader *r, str s, int skip_bad, err *e)
{
    if (!str_trim(s).n) return OK;
    json_t *v = json_parse(r, s, 1, e);
    if (!v) return e->code;
    int rc = OK;
    if (json_is_array(v) && !array_is_dialogue(v)) {
        size_t  i;
        json_t *d;
        json_array_foreach(v, i, d)
        {
            rc = json_emit(r, d, 1, i + 1, skip_bad, e);
            if (rc) break;
        }
    } else {
        rc = json_emit(r, v, 1, 0, 0, e);
    }
    json_decref(v);
    return rc;
}

static int read_jsonl(reader *r, str rest, int skip_bad, err *e)
{
    str line;
    int rc = OK;
    for (long n = 1; rc == OK && next_line(&rest, &line); n++) {
        if (!str_trim(line).n) continue;
        json_t *v = json_parse(r, line, n, e);
        if (v) {
            rc = json_emit(r, v, n, 0, skip_bad, e);
        } else if (skip_bad && e->code == E_FORMAT) {
            r->c->bad_lines++;
        } else {
            rc = e->code;
        }
        json_decref(v);
    }
    return rc;
}

/* ---- files and folders ----------------------------------------------------------------------------------------- */

static int read_typed(str bytes, const char *name, int type, const scene_slots *slots, const read_opts *o, read_counts *c, dialogue_sink *sink,
                      void *ctx, err *e)
{
    err    mine = { 0 };
    reader r    = { .name = name, .c = c, .sink = sink, .ctx = ctx };
    int    rc;
    if (!e) e = &mine; /* json_parse tells its code through it */
    bytes = without_bom(bytes);
    c->files++;
    switch (type) {
    case INPUT_SCENE: rc = scene_read(bytes, name, slots, o, c, sink, ctx, e); break;
    case INPUT_TSV: rc = read_tsv(&r, bytes, o->skip_bad, e); break;
    case INPUT_JSON: rc = read_json(&r, bytes, o->skip_bad, e); break;
    case INPUT_JSONL: rc = read_jsonl(&r, bytes, o->skip_bad, e); break;
    default: rc = read_text(&r, bytes, e);
    }
    turn_list_free(&r.t);
    return rc;
}

int dialogue_read_bytes(str bytes, const char *name, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e)
{
    if (o->type == INPUT_AUTO) return err_set(e, E_ARG, "%s: the type of the input must be given", name);
    return read_typed(bytes, name, o->type, NULL, o, c, sink, ctx, e);
}

/* dir "/" name in `out`; dir "" gives the name alone. */
static int join_path(buf *out, str dir, const char *name, err *e)
{
    buf_reset(out);
    buf_str(out, dir);
    if (dir.n && dir.s[dir.n - 1] != '/') buf_chr(out, '/');
    buf_str(out, str_of(name));
    return out->oom ? err_set(e, E_NOMEM, "%s: out of memory", name) : OK;
}

/* The slots.txt beside a scene file; OK with NULL when there is none. */
static int slots_beside(const char *path, scene_slots **slots, err *e)
{
    const char *slash = strrchr(path, '/');
    buf         b     = { 0 };
    struct stat st;
    *slots = NULL;
    int rc = join_path(&b, (str){ path, slash ? (size_t)(slash - path) + 1 : 0 }, "slots.txt", e);
    if (rc == OK && stat(b.s, &st) == 0) rc = scene_slots_read(slots, b.s, e);
    buf_free(&b);
    return rc;
}

static int read_one(const char *path, int type, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e)
{
    filemap      m;
    scene_slots *slots = NULL;
    int          rc    = map_open(&m, path, e);
    if (rc) return rc;
    if (type == INPUT_SCENE) rc = slots_beside(path, &slots, e);
    if (rc == OK) rc = read_typed((str){ m.p ? (const char *)m.p : "", m.n }, path, type, slots, o, c, sink, ctx, e);
    scene_slots_free(slots);
    map_close(&m);
    return rc;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names_free(char **v, size_t n)
{
    for (size_t i = 0; i < n; i++) free(v[i]);
    free(v);
}

/* Names in a folder that a reader knows, sorted; only scenes when there are any. */
static int list_folder(const char *path, char ***names, size_t *n_names, err *e)
{
    DIR *d = opendir(path);
    if (!d) return err_set(e, E_IO, "%s: cannot open the folder: %s", path, strerror(errno));
    char  **v = NULL;
    size_t  n = 0, cap = 0, n_scene = 0;
    int     rc = OK;
    for (struct dirent *de; rc == OK && (de = readdir(d));) {
        int t = type_of_path(de->d_name);
        if (de->d_name[0] == '.' || t < 0 || strcmp(de->d_name, "slots.txt") == 0) continue;
        if (n == cap) {
            char **w = realloc(v, (cap = cap ? cap * 2 : 32) * sizeof *w);
            if (w) v = w;
            else rc = err_set(e, E_NOMEM, "%s: out of memory", path);
        }
        if (rc == OK && !(v[n] = strdup(de->d_name))) rc = err_set(e, E_NOMEM, "%s: out of memory", path);
        if (rc == OK) n++, n_scene += t == INPUT_SCENE;
    }
    closedir(d);
    size_t keep = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_scene && type_of_path(v[i]) != INPUT_SCENE) free(v[i]);
        else v[keep++] = v[i];
    }
    if (rc == OK && !keep) rc = err_set(e, E_ARG, "%s: the folder holds no .scene, .txt, .tsv, .json or .jsonl file", path);
    if (rc) {
        names_free(v, keep);
        return rc;
    }
    qsort(v, keep, sizeof *v, by_name);
    *names   = v;
    *n_names = keep;
    return OK;
}

int dialogue_read(const char *path, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e)
{
    struct stat st;
    if (stat(path, &st) != 0) return err_set(e, E_IO, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) {
        int t = o->type ? o->type : type_of_path(path);
        return read_one(path, t < 0 ? INPUT_TEXT : t, o, c, sink, ctx, e);
    }
    char **name = NULL;
    size_t n    = 0;
    buf    b    = { 0 };
    int    rc   = list_folder(path, &name, &n, e);
    if (rc) return rc;
    for (size_t i = 0; rc == OK && i < n; i++) {
        rc = join_path(&b, str_of(path), name[i], e);
        if (rc == OK) rc = read_one(b.s, o->type ? o->type : type_of_path(name[i]), o, c, sink, ctx, e);
    }
    names_free(name, n);
    buf_free(&b);
    return rc;
}
