/* hfconfig: see hfconfig.h. */
#include "models/hfconfig.h"

#include "models/ops.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CONFIG = 1 << 20, MAX_INDEX = 8 << 20 };

/* A file that holds one JSON object. */
static int load_object(const char *path, size_t limit, json_t **root, err *e)
{
    buf b = { 0 };
    *root = NULL;
    int r = read_file(path, limit, &b, e);
    if (!r) {
        json_error_t je;
        *root = json_loadb(b.s ? b.s : "", b.n, JSON_REJECT_DUPLICATES, &je);
        if (!*root) r = err_set(e, E_FORMAT, "%s: line %d: %s", path, je.line, je.text);
        else if (!json_is_object(*root)) r = err_set(e, E_FORMAT, "%s: no JSON object", path);
        if (r) {
            json_decref(*root);
            *root = NULL;
        }
    }
    buf_free(&b);
    return r;
}

/* ---- config.json ---- */

/* A whole number: 1 found, 0 absent or null, < 0. */
static int get_int(const char *path, json_t *o, const char *key, int *v, err *e)
{
    json_t *j = json_object_get(o, key);
    if (!j || json_is_null(j)) return 0;
    if (!json_is_integer(j)) return err_set(e, E_FORMAT, "%s: %s is no whole number", path, key);
    json_int_t i = json_integer_value(j);
    if (i < INT_MIN || i > INT_MAX) return err_set(e, E_FORMAT, "%s: %s is %lld, out of range", path, key, (long long)i);
    *v = (int)i;
    return 1;
}

static int need_int(const char *path, json_t *o, const char *key, int *v, err *e)
{
    int r = get_int(path, o, key, v, e);
    return r == 0 ? err_set(e, E_FORMAT, "%s: %s is missing", path, key) : r < 0 ? r : OK;
}

static int get_bool(const char *path, json_t *o, const char *key, int *v, err *e)
{
    json_t *j = json_object_get(o, key);
    if (!j || json_is_null(j)) return OK;
    if (!json_is_boolean(j)) return err_set(e, E_FORMAT, "%s: %s is neither true nor false", path, key);
    *v = json_is_true(j);
    return OK;
}

/* Text up to size - 1 bytes; absent or null leaves `out`. */
static int get_text(const char *path, json_t *o, const char *key, char *out, size_t size, err *e)
{
    json_t *j = json_object_get(o, key);
    if (!j || json_is_null(j)) return OK;
    const char *s = json_string_value(j);
    if (!s) return err_set(e, E_FORMAT, "%s: %s is no text", path, key);
    if (strlen(s) >= size) return err_set(e, E_FORMAT, "%s: %s has %zu bytes, %zu are the most", path, key, strlen(s), size - 1);
    strcpy(out, s);
    return OK;
}

/* What export_model adds for its own return; other programs pass over it. */
static int read_about(const char *path, json_t *root, gpt2_meta *m, err *e)
{
    json_t *o = json_object_get(root, "duet");
    char    format_word[32] = "", role[32] = "";
    int     r;
    if (!o) return OK;
    if (!json_is_object(o)) return err_set(e, E_FORMAT, "%s: duet is no object", path);
    if ((r = get_text(path, o, "format", format_word, sizeof format_word, e)) || (r = get_text(path, o, "role", role, sizeof role, e)) ||
        (r = get_text(path, o, "name", m->name, sizeof m->name, e)) || (r = get_text(path, o, "note", m->note, sizeof m->note, e)) ||
        (r = get_text(path, o, "data_sha256", m->data_sha256, sizeof m->data_sha256, e)))
        return r;
    m->fmt.kind = format_word[0] ? format_of_name(format_word) : 0;
    if (format_word[0] && !m->fmt.kind) return err_set(e, E_FORMAT, "%s: duet.format '%s' is unknown", path, format_word);
    m->role = strcmp(role, "forward") == 0 ? ROLE_FORWARD : strcmp(role, "backward") == 0 ? ROLE_BACKWARD : 0;
    if (role[0] && !m->role) return err_set(e, E_FORMAT, "%s: duet.role '%s' is neither forward nor backward", path, role);
    if (m->data_sha256[0] && (strlen(m->data_sha256) != 64 || strspn(m->data_sha256, "0123456789abcdef") != 64))
        return err_set(e, E_FORMAT, "%s: duet.data_sha256 is not 64 hex digits", path);
    return OK;
}

/* The options of GPT2Config that change the arithmetic. */
static int read_variants(const char *path, json_t *root, hf_config *h, err *e)
{
    char   act[64] = "gelu_new", type[64] = "gpt2";
    int    cross = 0, r;
    double eps = 1e-5;
    if ((r = get_text(path, root, "model_type", type, sizeof type, e)) || (r = get_text(path, root, "activation_function", act, sizeof act, e)) ||
        (r = get_bool(path, root, "scale_attn_weights", &h->c.scale_attn, e)) ||
        (r = get_bool(path, root, "scale_attn_by_inverse_layer_idx", &h->c.scale_attn_by_layer, e)) ||
        (r = get_bool(path, root, "tie_word_embeddings", &h->tied, e)) || (r = get_bool(path, root, "add_cross_attention", &cross, e)))
        return r;
    if (strcmp(type, "gpt2")) return err_set(e, E_FORMAT, "%s: model_type is '%s', gpt2 wanted", path, type);
    if (cross) return err_set(e, E_FORMAT, "%s: add_cross_attention: this program has no encoder to attend to", path);
    if ((h->c.act = ops_act_of_name(act)) < 0) return err_set(e, E_FORMAT, "%s: activation_function '%s' is unknown", path, act);
    json_t *j = json_object_get(root, "layer_norm_epsilon");
    if (j && !json_is_null(j)) {
        if (!json_is_number(j)) return err_set(e, E_FORMAT, "%s: layer_norm_epsilon is no number", path);
        eps = json_number_value(j);
    }
    h->c.eps = (float)eps;
    return OK;
}

int hfconfig_read(const char *path, hf_config *h, err *e)
{
    json_t *root;
    int     r = load_object(path, MAX_CONFIG, &root, e);
    if (r) return r;
    *h = (hf_config){ .c = { .scale_attn = 1 }, .tied = -1, .bos = -1, .eos = -1 };
    gpt2_config *c = &h->c;
    if ((r = read_variants(path, root, h, e)) == OK && (r = need_int(path, root, "vocab_size", &c->n_vocab, e)) == OK &&
        (r = need_int(path, root, "n_embd", &c->n_embd, e)) == OK && (r = need_int(path, root, "n_head", &c->n_head, e)) == OK &&
        (r = need_int(path, root, "n_layer", &c->n_layer, e)) == OK && (r = get_int(path, root, "n_positions", &c->n_ctx, e)) == 0)
        r = need_int(path, root, "n_ctx", &c->n_ctx, e); /* n_positions is what wpe has; old configs have only n_ctx */
    if (r >= 0 && (r = get_int(path, root, "n_inner", &c->n_inner, e)) == 0)
        c->n_inner = c->n_embd > 0 && c->n_embd <= INT_MAX / 4 ? 4 * c->n_embd : c->n_embd;
    if (r >= 0) r = get_int(path, root, "bos_token_id", &h->bos, e);
    if (r >= 0) r = get_int(path, root, "eos_token_id", &h->eos, e);
    if (r >= 0) r = read_about(path, root, &h->about, e);
    json_decref(root);
    if (r < 0) return r;
    c->tied = h->tied != 0;
    if ((r = gpt2_config_check(c, e))) return err_prefix(e, "%s", path);
    if (h->bos < 0 || h->bos >= c->n_vocab) h->bos = -1;
    if (h->eos < 0 || h->eos >= c->n_vocab) h->eos = -1;
    return OK;
}

static json_t *id_or_null(int id) { return id >= 0 ? json_integer(id) : json_null(); }

int hfconfig_write(const char *path, const gpt2_config *c, const gpt2_meta *m, const tokenizer *t, const char *torch_dtype, err *e)
{
    int bos = -1, eos = -1;
    if (m->fmt.kind) {
        bos = m->fmt.bos;
        eos = m->fmt.sep;
    } else if (t) {
        bos = tokenizer_specials(t).bos;
        eos = tokenizer_specials(t).eos;
    }
    if (bos < 0) bos = eos; /* as GPT-2's own config does */
    /* an epsilon is a short decimal number that became f32: 7 digits give it back without the tail of its double */
    char eps[32];
    snprintf(eps, sizeof eps, "%.7g", (double)c->eps);
    double  shortest = strtof(eps, NULL) == c->eps ? strtod(eps, NULL) : (double)c->eps;
    json_t *about    = json_object();
    json_t *root = json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:s, s:b, s:b, s:b, s:s, s:o, s:o}", "architectures",
                             "GPT2LMHeadModel",
                             "model_type", "gpt2", "vocab_size", c->n_vocab, "n_positions", c->n_ctx, "n_ctx", c->n_ctx, "n_embd", c->n_embd,
                             "n_head", c->n_head, "n_layer", c->n_layer, "n_inner", c->n_inner, "layer_norm_epsilon", shortest,
                             "activation_function", ops_act_name(c->act), "scale_attn_weights", c->scale_attn, "scale_attn_by_inverse_layer_idx",
                             c->scale_attn_by_layer, "tie_word_embeddings", c->tied, "torch_dtype", torch_dtype, "bos_token_id", id_or_null(bos),
                             "eos_token_id", id_or_null(eos));
    int     bad   = !root || !about;
    if (m->fmt.kind) bad |= json_object_set_new(about, "format", json_string(format_name(m->fmt.kind)));
    if (m->role) bad |= json_object_set_new(about, "role", json_string(m->role == ROLE_FORWARD ? "forward" : "backward"));
    if (m->name[0]) bad |= json_object_set_new(about, "name", json_string(m->name));
    if (m->note[0]) bad |= json_object_set_new(about, "note", json_string(m->note));
    if (m->data_sha256[0]) bad |= json_object_set_new(about, "data_sha256", json_string(m->data_sha256));
    bad |= json_object_set_new(root, "duet", about);
    char    *text = bad ? NULL : json_dumps(root, JSON_INDENT(2));
    outfile *o    = NULL;
    int      r    = text ? out_open(&o, path, e) : err_set(e, E_NOMEM, "%s: out of memory, or a name or note that is not UTF-8", path);
    if (!r) r = out_write(o, text, strlen(text), e);
    if (!r) r = out_write(o, "\n", 1, e);
    if (!r) r = out_commit(o, e);
    if (r) out_abort(o);
    free(text);
    json_decref(root);
    return r;
}

/* ---- the others ---- */

int hfconfig_lower(const char *path, int *lower, err *e)
{
    json_t *root;
    *lower = -1;
    if (access(path, F_OK) && errno == ENOENT) return OK;
    int r = load_object(path, MAX_CONFIG, &root, e);
    if (r) return r;
    r = get_bool(path, root, "do_lower_case", lower, e);
    json_decref(root);
    return r;
}

int hfconfig_index(const char *path, arena *mem, hf_shard **v, size_t *n, err *e)
{
    json_t     *root, *j;
    const char *name;
    int         r = load_object(path, MAX_INDEX, &root, e);
    if (r) return r;
    json_t *map = json_object_get(root, "weight_map");
    *n          = 0;
    if (json_object_size(map) == 0) r = err_set(e, E_FORMAT, "%s: weight_map is missing or empty", path);
    else if (!(*v = arena_new(mem, json_object_size(map), sizeof **v))) r = err_set(e, E_NOMEM, "%s: out of memory", path);
    if (!r) {
        json_object_foreach (map, name, j) {
            const char *file = json_string_value(j);
            if (!file || !file[0] || file[0] == '.' || strchr(file, '/')) {
                r = err_set(e, E_FORMAT, "%s: weight_map '%.60s' does not name a file of this folder", path, name);
                break;
            }
            (*v)[*n] = (hf_shard){ arena_str(mem, str_of(name), e), arena_str(mem, str_of(file), e) };
            if (!(*v)[*n].name.s || !(*v)[*n].file.s) {
                r = E_NOMEM;
                break;
            }
            (*n)++;
        }
    }
    json_decref(root);
    return r;
}
