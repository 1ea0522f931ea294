/* The commands import, export, show, diff, tokens, logprobs and generate: what can be done with one model file and no dialogue.  Program code:
 * results on stdout, reasons through `e`. */
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models/gpt2.h"
#include "models/compress.h"
#include "models/import.h"
#include "models/ops.h"
#include "models/options.h"
#include "models/sample.h"

enum { MAX_LINE = 1 << 20, GO_ON = -1 };

/* ---- what the commands share ----------------------------------------------------------------------------------- */

/* Parse the words; `names` are the positional ones, all needed.  GO_ON, or the exit status. */
static int parse(const option *list, const char *usage, const char *about, int argc, char **argv, const char **pos, const char *const *names,
                 int n_names, err *e)
{
    int n = 0, r = options_parse(list, argc, argv, pos, n_names, &n, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, usage, about, list);
        if (b.s) fwrite(b.s, 1, b.n, stdout);
        buf_free(&b);
        return EXIT_OK;
    }
    if (r == OK && n < n_names) r = err_set(e, E_ARG, "%s is missing", names[n]);
    return r == OK ? GO_ON : EXIT_USAGE;
}

static int status(int r) { return r == OK ? EXIT_OK : EXIT_FAILED; }

/* The next line of stdin without its newline: 1, 0 at the end, < 0. */
static int next_line(buf *line, long *number, err *e)
{
    int c = 0;
    buf_reset(line);
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
        if (line->n == MAX_LINE) return err_set(e, E_LIMIT, "stdin, line %ld: more than %d bytes", *number + 1, MAX_LINE);
        buf_chr(line, (char)c);
    }
    if (ferror(stdin)) return err_set(e, E_IO, "stdin, line %ld: cannot be read", *number + 1);
    if (line->oom) return err_set(e, E_NOMEM, "stdin, line %ld: out of memory", *number + 1);
    if (c == EOF && line->n == 0) return 0;
    ++*number;
    return 1;
}

/* "5 6 7" (spaces, tabs or commas between) -> ids; `where` for messages. */
static int parse_ids(str s, const char *where, ivec *ids, err *e)
{
    size_t i = 0;
    ids->n   = 0;
    for (;;) {
        while (i < s.n && (s.s[i] == ' ' || s.s[i] == '\t' || s.s[i] == ',' || s.s[i] == '\r')) i++;
        if (i == s.n) break;
        long v = 0, from = (long)i;
        for (; i < s.n && s.s[i] >= '0' && s.s[i] <= '9' && v < 1 << 28; i++) v = 10 * v + (s.s[i] - '0');
        if (i == (size_t)from || (i < s.n && !strchr(" \t,\r", s.s[i])) || v >= 1 << 28)
            return err_set(e, E_ARG, "%s: byte %zu is no part of a token id", where, i + 1);
        ivec_push(ids, (int)v);
    }
    return ids->oom ? err_set(e, E_NOMEM, "%s: out of memory", where) : OK;
}

static int parse_hex(str s, long line, buf *out, err *e)
{
    static const char digits[] = "0123456789abcdef";
    buf_reset(out);
    s = str_trim(s);
    for (size_t i = 0; i < s.n; i += 2) {
        const char *hi = s.s[i] ? strchr(digits, s.s[i] | 32) : NULL, *lo = i + 1 < s.n && s.s[i + 1] ? strchr(digits, s.s[i + 1] | 32) : NULL;
        if (!hi || !lo) return err_set(e, E_ARG, "stdin, line %ld: byte %zu is no pair of hex digits", line, i + 1);
        buf_chr(out, (char)((hi - digits) << 4 | (lo - digits)));
    }
    return out->oom ? err_set(e, E_NOMEM, "out of memory") : OK;
}

/* Text out of a file, safe to print. */
static void put_visible(str s)
{
    buf b = { 0 };
    buf_visible(&b, s);
    if (b.n) fwrite(b.s, 1, b.n, stdout);
    buf_free(&b);
}

static int print_json(json_t *j, size_t flags, err *e)
{
    int bad = !j || json_dumpf(j, stdout, flags | JSON_REAL_PRECISION(9));
    json_decref(j);
    if (!bad) putchar('\n');
    return bad ? err_set(e, E_IO, "cannot write JSON") : OK;
}

static json_t *json_number_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *json_ids(const int *ids, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(a, json_integer(ids[i]));
    return a;
}

static int set_threads(int n, err *e)
{
    if (n < 0 || n > 1024) return err_set(e, E_ARG, "--threads: %d is not 1 to 1024", n);
    if (n) omp_set_num_threads(n);
    return OK;
}

/* ---- import, export -------------------------------------------------------------------------------------------- */

static int run_import(int argc, char **argv, err *e)
{
    const char  *pos[1], *out = NULL, *fmt = NULL, *role = NULL, *const names[] = { "SRC" };
    int          cased = 0, lower = 0;
    import_opts  o     = { .lower = -1 };
    const option list[] = {
        { "-o,--output", OPT_STR, &out, "OUT.gguf", "the model file to write (needed)" },
        { "--vocab", OPT_STR, &o.vocab, "FILE", "vocabulary (vocab.json, vocab.txt) or folder of one, when SRC has none" },
        { "--format", OPT_STR, &fmt, "NAME", "dialogue layout: dialogpt or cls_sep; default: what the vocabulary speaks for" },
        { "--role", OPT_STR, &role, "ROLE", "forward (proposes replies) or backward (judges them); default forward" },
        { "--name", OPT_STR, &o.name, "NAME", "general.name of the file; default: the folder's name" },
        { "--cased", OPT_FLAG, &cased, NULL, "WordPiece: keep case and accents, whatever tokenizer_config.json says" },
        { "--lower", OPT_FLAG, &lower, NULL, "WordPiece: lower-case and strip accents" },
        { 0 },
    };
    int r = parse(list, "import SRC -o OUT.gguf [options]",
                  "Makes one GGUF of a Hugging Face folder (config.json with model.safetensors or pytorch_model.bin, sharded or not), a\n"
                  "GPT2-chitchat folder, or a DialoGPT *.pkl with config.json beside it.  Pickles are read by a machine that cannot run\n"
                  "anything.  A folder without a vocabulary gives a model that speaks ids only.\n\n"
                  "example: duet import DialoGPT-small -o dialogpt.gguf --role forward",
                  argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    if (!out) return err_set(e, E_ARG, "-o OUT.gguf is missing"), EXIT_USAGE;
    if (cased && lower) return err_set(e, E_ARG, "--cased and --lower exclude one another"), EXIT_USAGE;
    if (fmt && !(o.format = format_of_name(fmt)))
        return err_set(e, E_ARG, "--format: '%s' is neither dialogpt nor cls_sep", fmt), EXIT_USAGE;
    if (role) o.role = strcmp(role, "forward") == 0 ? ROLE_FORWARD : strcmp(role, "backward") == 0 ? ROLE_BACKWARD : 0;
    if (role && !o.role) return err_set(e, E_ARG, "--role: '%s' is neither forward nor backward", role), EXIT_USAGE;
    if (cased || lower) o.lower = lower;
    return status(import_model(pos[0], out, &o, e));
}

static int run_export(int argc, char **argv, err *e)
{
    const char  *pos[1], *out = NULL, *const names[] = { "IN.gguf" };
    const option list[] = { { "-o,--output", OPT_STR, &out, "DIR", "the folder to write, made if need be (needed)" }, { 0 } };
    int          r      = parse(list, "export IN.gguf -o DIR",
                                "Writes a Hugging Face folder: config.json, model.safetensors, and the vocabulary if the model has one.\n"
                                "Matrices keep their type; quantised ones become f32.\n\nexample: duet export duet.gguf -o duet-hf",
                                argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    if (!out) return err_set(e, E_ARG, "-o DIR is missing"), EXIT_USAGE;
    return status(export_model(pos[0], out, e));
}

/* ---- show ------------------------------------------------------------------------------------------------------ */

typedef struct { /* a model file read as keys and tensors, its weights left alone */
    gguf        *g;
    tokenizer   *tok;
    gpt2_config  c;
    gpt2_meta    m;
    gpt2_tensor *list;
    int          n;
    size_t       n_params;
    char         digest[65], tok_digest[65];
} sheet;

static void sheet_close(sheet *s)
{
    free(s->list);
    tokenizer_close(s->tok);
    gguf_close(s->g);
    memset(s, 0, sizeof *s);
}

static int sheet_open(sheet *s, const char *path, err *e)
{
    int           r;
    unsigned char sum[32];
    sha256        h;
    memset(s, 0, sizeof *s);
    if ((r = gguf_open(&s->g, path, e)) == OK && (r = gpt2_read_config(s->g, &s->c, e)) == OK && (r = tokenizer_from_gguf(&s->tok, s->g, e)) == OK &&
        (r = gpt2_read_meta(s->g, s->tok, &s->m, e)) == OK && (r = gpt2_check_tensors(s->g, &s->c, e)) == OK &&
        (s->n = gpt2_tensors(&s->c, &s->list, &s->n_params, e)) < 0)
        r = s->n;
    if (r) {
        sheet_close(s);
        return r;
    }
    str all = gguf_bytes(s->g);
    sha256_init(&h);
    sha256_add(&h, all.s, all.n);
    sha256_end(&h, sum);
    sha256_hex(sum, s->digest);
    if (s->tok) {
        tokenizer_digest(s->tok, sum);
        sha256_hex(sum, s->tok_digest);
    }
    return OK;
}

static const char *kind_name(const tokenizer *t)
{
    return !t ? "none" : tokenizer_kind(t) == TOK_BPE ? "bpe" : tokenizer_lower(t) ? "wordpiece, lower-cased" : "wordpiece";
}
static const char *role_name(int role) { return role == ROLE_FORWARD ? "forward" : role == ROLE_BACKWARD ? "backward" : "unknown"; }

/* "(96, 32)": rows first, as the rest of this program counts. */
static void shape_text(const gguf_tensor *t, char out[96])
{
    size_t at = (size_t)snprintf(out, 96, "(");
    for (int d = t->n_dims - 1; d >= 0 && at < 90; d--)
        at += (size_t)snprintf(out + at, 96 - at, "%llu%s", (unsigned long long)t->ne[d], d ? ", " : "");
    snprintf(out + at, 96 - at, ")");
}

static const char *type_name(int type)
{
    const char *s = gguf_type_name(type);
    return s ? s : "unknown";
}

static void show_text(const sheet *s, const char *path, int diffable)
{
    const gpt2_config *c = &s->c;
    if (!diffable) {
        printf("file            ");
        put_visible(str_of(path));
        printf("\nsha256          %s\n", s->digest);
    }
    printf("name            ");
    put_visible(str_of(s->m.name));
    printf("\nn_vocab         %d\nn_ctx           %d\nn_embd          %d\nn_head          %d\nn_layer         %d\nn_inner         %d\n", c->n_vocab, c->n_ctx,
           c->n_embd, c->n_head, c->n_layer, c->n_inner);
    printf("layer_norm_eps  %.7g\nactivation      %s\nscale_attn      %s%s\nlm_head         %s\n", (double)c->eps, ops_act_name(c->act),
           c->scale_attn ? "yes" : "no", c->scale_attn_by_layer ? ", by layer" : "", c->tied ? "tied to the embedding" : "its own");
    printf("parameters      %zu\ntokenizer       %s\n", s->n_params, kind_name(s->tok));
    if (s->tok) printf("tokenizer id    %.16s\n", s->tok_digest);
    if (s->m.fmt.kind) printf("format          %s, bos %d, separator %d\n", format_name(s->m.fmt.kind), s->m.fmt.bos, s->m.fmt.sep);
    else printf("format          none\n");
    printf("role            %s\n", role_name(s->m.role));
    if (s->m.data_sha256[0]) printf("data sha256     %s\n", s->m.data_sha256);
    if (s->m.note[0]) {
        printf("note            ");
        put_visible(str_of(s->m.note));
        putchar('\n');
    }
    printf("tensors         %d\n", gguf_n_tensors(s->g));
    for (int i = 0; i < gguf_n_tensors(s->g); i++) {
        const gguf_tensor *t = gguf_tensor_at(s->g, i);
        char               shape[96];
        shape_text(t, shape);
        printf("  ");
        put_visible(t->name);
        printf("%*s %-5s %s\n", t->name.n < 30 ? (int)(30 - t->name.n) : 0, "", type_name(t->type), shape);
    }
}

static json_t *visible_json(str s)
{
    buf b = { 0 };
    buf_visible(&b, s);
    json_t *j = json_stringn(b.s ? b.s : "", b.n);
    buf_free(&b);
    return j;
}

static json_t *show_json(const sheet *s, const char *path, int diffable)
{
    const gpt2_config *c = &s->c;
    json_t *j = json_pack("{s:o, s:{s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:s, s:b, s:b, s:b}, s:I, s:s, s:s}", "name", visible_json(str_of(s->m.name)),
                          "config", "n_vocab", c->n_vocab, "n_ctx", c->n_ctx, "n_embd", c->n_embd, "n_head", c->n_head, "n_layer", c->n_layer,
                          "n_inner", c->n_inner, "layer_norm_epsilon", (double)c->eps, "activation_function", ops_act_name(c->act),
                          "scale_attn_weights", c->scale_attn, "scale_attn_by_inverse_layer_idx", c->scale_attn_by_layer, "tied", c->tied, "parameters",
                          (json_int_t)s->n_params, "tokenizer", s->tok ? tokenizer_kind(s->tok) == TOK_BPE ? "bpe" : "wordpiece" : "none", "role",
                          role_name(s->m.role));
    if (!j) return NULL;
    if (!diffable) {
        json_object_set_new(j, "file", visible_json(str_of(path)));
        json_object_set_new(j, "sha256", json_string(s->digest));
    }
    if (s->tok) {
        json_object_set_new(j, "tokenizer_sha256", json_string(s->tok_digest));
        if (tokenizer_kind(s->tok) == TOK_WORDPIECE) json_object_set_new(j, "lower", json_boolean(tokenizer_lower(s->tok)));
    }
    if (s->m.fmt.kind)
        json_object_set_new(j, "format",
                            json_pack("{s:s, s:i, s:i}", "name", format_name(s->m.fmt.kind), "bos", s->m.fmt.bos, "separator", s->m.fmt.sep));
    if (s->m.data_sha256[0]) json_object_set_new(j, "data_sha256", json_string(s->m.data_sha256));
    if (s->m.note[0]) json_object_set_new(j, "note", visible_json(str_of(s->m.note)));
    json_t *tensors = json_array();
    for (int i = 0; i < gguf_n_tensors(s->g); i++) {
        const gguf_tensor *t     = gguf_tensor_at(s->g, i);
        json_t            *shape = json_array();
        for (int d = t->n_dims - 1; d >= 0; d--) json_array_append_new(shape, json_integer((json_int_t)t->ne[d]));
        json_array_append_new(tensors, json_pack("{s:o, s:s, s:o}", "name", visible_json(t->name), "type", type_name(t->type), "shape", shape));
    }
    json_object_set_new(j, "tensors", tensors);
    return j;
}

static int run_show(int argc, char **argv, err *e)
{
    const char  *pos[1], *const names[] = { "M.gguf" };
    int          diffable = 0, json = 0;
    const option list[] = {
        { "--diffable", OPT_FLAG, &diffable, NULL, "without path and file digest: equal for equal models wherever they lie" },
        { "--json", OPT_FLAG, &json, NULL, "one JSON object" },
        { 0 },
    };
    int r = parse(list, "show M.gguf [--diffable] [--json]",
                  "Prints what a model file holds: config, vocabulary, dialogue layout, role, note, tensors (name, type, rows and columns), SHA-256.\n\n"
                  "example: diff <(duet show --diffable a.gguf) <(duet show --diffable b.gguf)",
                  argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    sheet s;
    if ((r = sheet_open(&s, pos[0], e))) return EXIT_FAILED;
    if (json) r = print_json(show_json(&s, pos[0], diffable), JSON_INDENT(2), e);
    else show_text(&s, pos[0], diffable);
    sheet_close(&s);
    return status(r);
}

/* ---- diff ------------------------------------------------------------------------------------------------------ */

static int diff_line(const char *what, const char *a, const char *b)
{
    if (strcmp(a, b) == 0) return 0;
    printf("%-30s ", what);
    put_visible(str_of(a));
    printf(" | ");
    put_visible(str_of(b));
    putchar('\n');
    return 1;
}

static int diff_number(const char *what, double a, double b)
{
    char x[32], y[32];
    snprintf(x, sizeof x, "%.9g", a);
    snprintf(y, sizeof y, "%.9g", b);
    return diff_line(what, x, y);
}

static int diff_heads(const sheet *a, const sheet *b)
{
    const gpt2_config *c = &a->c, *d = &b->c;
    int n = diff_number("n_vocab", c->n_vocab, d->n_vocab) + diff_number("n_ctx", c->n_ctx, d->n_ctx) + diff_number("n_embd", c->n_embd, d->n_embd) +
            diff_number("n_head", c->n_head, d->n_head) + diff_number("n_layer", c->n_layer, d->n_layer) +
            diff_number("n_inner", c->n_inner, d->n_inner) + diff_number("layer_norm_epsilon", (double)c->eps, (double)d->eps);
    n += diff_line("activation_function", ops_act_name(c->act), ops_act_name(d->act)) + diff_number("scale_attn_weights", c->scale_attn, d->scale_attn) +
         diff_number("scale_attn_by_inverse_layer_idx", c->scale_attn_by_layer, d->scale_attn_by_layer) + diff_number("tied", c->tied, d->tied);
    n += diff_line("tokenizer", a->tok_digest, b->tok_digest) + diff_line("role", role_name(a->m.role), role_name(b->m.role)) +
         diff_line("name", a->m.name, b->m.name) + diff_line("note", a->m.note, b->m.note) + diff_line("data_sha256", a->m.data_sha256, b->m.data_sha256);
    const char *f = format_name(a->m.fmt.kind), *g = format_name(b->m.fmt.kind);
    n += diff_line("format", f ? f : "none", g ? g : "none") + diff_number("separator", a->m.fmt.sep, b->m.fmt.sep);
    return n;
}

/* Largest |x - y| over one tensor of both files. */
static int diff_values(const gguf_tensor *x, const gguf_tensor *y, double *most, err *e)
{
    size_t   cols = (size_t)x->ne[0], rows = 1, bx = gguf_row_bytes(x->type, cols), by = gguf_row_bytes(y->type, cols);
    float   *u = malloc(cols * sizeof *u), *v = malloc(cols * sizeof *v);
    int      r = u && v ? OK : err_set(e, E_NOMEM, "out of memory");
    for (int d = 1; d < x->n_dims; d++) rows *= (size_t)x->ne[d];
    *most = 0;
    for (size_t i = 0; i < rows && !r; i++) {
        gpt2_row_decode(x->type, x->data + i * bx, u, cols);
        gpt2_row_decode(y->type, y->data + i * by, v, cols);
        for (size_t k = 0; k < cols; k++) {
            double d = fabs((double)u[k] - (double)v[k]);
            if (d > *most || isnan(d)) *most = d;
        }
    }
    free(u);
    free(v);
    return r;
}

static int diff_tensors(const sheet *a, const sheet *b, int *n, double *worst, err *e)
{
    for (int i = 0; i < gguf_n_tensors(a->g); i++) {
        const gguf_tensor *x = gguf_tensor_at(a->g, i);
        char               name[128], sx[96], sy[96];
        snprintf(name, sizeof name, "%.*s", (int)(x->name.n < 120 ? x->name.n : 120), x->name.s);
        const gguf_tensor *y = gguf_find(b->g, name);
        double             most;
        if (!y) {
            *n += diff_line(name, "there", "absent");
            continue;
        }
        shape_text(x, sx);
        shape_text(y, sy);
        if (strcmp(sx, sy)) {
            *n += diff_line(name, sx, sy);
            continue;
        }
        int r = diff_values(x, y, &most, e);
        if (r) return r;
        if (!(most <= *worst)) *worst = most;
        if (most == 0 && x->type == y->type) continue;
        printf("%-30s %s | %s  max |d| %.6g\n", name, type_name(x->type), type_name(y->type), most);
        ++*n;
    }
    for (int i = 0; i < gguf_n_tensors(b->g); i++) {
        char               name[128];
        const gguf_tensor *y = gguf_tensor_at(b->g, i);
        snprintf(name, sizeof name, "%.*s", (int)(y->name.n < 120 ? y->name.n : 120), y->name.s);
        if (!gguf_find(a->g, name)) *n += diff_line(name, "absent", "there");
    }
    return OK;
}

static int run_diff(int argc, char **argv, err *e)
{
    const char  *pos[2], *const names[] = { "A.gguf", "B.gguf" };
    const option list[] = { { 0 } };
    int          r      = parse(list, "diff A.gguf B.gguf",
                                "Compares two models: every field of the config that differs (A | B), and for every tensor that differs its types and the\n"
                                "largest difference of two numbers.  Prints nothing and exits 0 when they are equal, exits 3 when not.\n\n"
                                "example: duet diff duet.gguf duet-q8_0.gguf",
                                argc, argv, pos, names, 2, e);
    if (r != GO_ON) return r;
    sheet  a, b;
    int    n = 0;
    double worst = 0;
    if (sheet_open(&a, pos[0], e)) return EXIT_FAILED;
    if (sheet_open(&b, pos[1], e)) {
        sheet_close(&a);
        return EXIT_FAILED;
    }
    n = diff_heads(&a, &b);
    r = diff_tensors(&a, &b, &n, &worst, e);
    if (!r && n) printf("%d differences, largest of the weights %.6g\n", n, worst);
    sheet_close(&a);
    sheet_close(&b);
    return r ? EXIT_FAILED : n ? EXIT_DIFFERS : EXIT_OK;
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

static int encode_line(const tokenizer *t, str line, long number, int hex, buf *bytes, ivec *ids, err *e)
{
    int r;
    if (hex) {
        if ((r = parse_hex(line, number, bytes, e))) return r;
        line = buf_view(bytes);
    }
    ids->n = 0;
    if ((r = tokenizer_encode(t, line, ids, e))) return err_prefix(e, "stdin, line %ld", number);
    for (size_t i = 0; i < ids->n; i++) printf(i ? " %d" : "%d", ids->v[i]);
    putchar('\n');
    return OK;
}

static int decode_line(const tokenizer *t, str line, long number, int hex, buf *bytes, ivec *ids, err *e)
{
    char where[48];
    int  r;
    snprintf(where, sizeof where, "stdin, line %ld", number);
    if ((r = parse_ids(line, where, ids, e))) return r;
    buf_reset(bytes);
    if ((r = tokenizer_decode(t, ids->v, ids->n, bytes, e))) return err_prefix(e, "%s", where);
    if (hex)
        for (size_t i = 0; i < bytes->n; i++) printf("%02x", (unsigned char)bytes->s[i]);
    else if (isatty(STDOUT_FILENO)) put_visible(buf_view(bytes));
    else if (bytes->n) fwrite(bytes->s, 1, bytes->n, stdout);
    putchar('\n');
    return OK;
}

static int run_tokens(int argc, char **argv, err *e)
{
    const char  *pos[1], *const names[] = { "M.gguf" };
    int          hex = 0, decode = 0;
    const option list[] = {
        { "--decode", OPT_FLAG, &decode, NULL, "lines of ids in, lines of text out" },
        { "--hex", OPT_FLAG, &hex, NULL, "text as hex digits: any bytes, line breaks too" },
        { 0 },
    };
    int r = parse(list, "tokens M.gguf [--decode] [--hex]",
                  "Prints the ids of every line of stdin, as the model's vocabulary cuts it; nothing in a line is special, not even [SEP].\n\n"
                  "example: echo hello | duet tokens duet.gguf | duet tokens duet.gguf --decode",
                  argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    gguf      *g = NULL;
    tokenizer *t = NULL;
    buf        line = { 0 }, bytes = { 0 };
    ivec       ids    = { 0 };
    long       number = 0;
    if ((r = gguf_open(&g, pos[0], e)) == OK) r = tokenizer_from_gguf(&t, g, e);
    if (!r && !t) r = err_set(e, E_ARG, "%s: the model has no vocabulary: it knows ids only", pos[0]);
    while (!r && (r = next_line(&line, &number, e)) == 1)
        r = (decode ? decode_line : encode_line)(t, buf_view(&line), number, hex, &bytes, &ids, e);
    ivec_free(&ids);
    buf_free(&bytes);
    buf_free(&line);
    tokenizer_close(t);
    gguf_close(g);
    return status(r);
}

/* ---- lines of ids through a model: logprobs and generate ------------------------------------------------------- */

typedef struct {
    gpt2        *m;
    gpt2_cache  *c;
    float       *logits; /* (rows, V) */
    int          rows;
    int          json;
    /* logprobs */
    int          top;
    /* generate */
    int          n_new, no_stop;
    uint64_t     seed;
    sample_opts  o;
    sample_space *space;
} job;

static int job_open(job *j, const char *path, int rows, err *e)
{
    int    r = gpt2_open(&j->m, path, e);
    size_t n;
    if (r) return r;
    const gpt2_config *c = gpt2_cfg(j->m);
    j->rows              = rows;
    if (mul_size((size_t)rows * sizeof *j->logits, (size_t)c->n_vocab, &n) || !(j->logits = malloc(n)))
        return err_set(e, E_NOMEM, "%s: no memory for %d rows of %d logits", path, rows, c->n_vocab);
    j->c = gpt2_cache_new(j->m, c->n_ctx, 0, 0, rows, e);
    return j->c ? OK : e->code;
}

static void job_close(job *j)
{
    sample_space_free(j->space);
    free(j->logits);
    gpt2_cache_free(j->c);
    gpt2_close(j->m);
}

/* Ids of --ids, or of every line of stdin, to `one`; a blank line between results that are not JSON when `blank`. */
static int each_line(job *j, const char *given, int blank, int (*one)(job *, const ivec *, err *), err *e)
{
    ivec ids    = { 0 };
    buf  line   = { 0 };
    long number = 0;
    int  r      = OK;
    if (given) {
        r = parse_ids(str_of(given), "--ids", &ids, e);
        if (!r && ids.n == 0) r = err_set(e, E_ARG, "--ids: no ids");
        if (!r) r = one(j, &ids, e);
    } else {
        while (!r && (r = next_line(&line, &number, e)) == 1) {
            char where[48];
            snprintf(where, sizeof where, "stdin, line %ld", number);
            if ((r = parse_ids(buf_view(&line), where, &ids, e))) break;
            if (number > 1 && blank && !j->json) putchar('\n');
            if ((r = one(j, &ids, e))) err_prefix(e, "%s", where);
            else fflush(stdout);
        }
    }
    ivec_free(&ids);
    buf_free(&line);
    return r;
}

/* The K largest logits of a row as ids, largest first, ties to the lower id. */
static void best_ids(const float *logits, int V, int K, int *out)
{
    int n = 0;
    for (int i = 0; i < V; i++) {
        if (n == K && !(logits[i] > logits[out[K - 1]])) continue;
        int at = n < K ? n++ : K - 1;
        for (; at > 0 && logits[i] > logits[out[at - 1]]; at--) out[at] = out[at - 1];
        out[at] = i;
    }
}

static void print_row(const job *j, int t, int id, double lp, const float *logits, const int *best, int K)
{
    printf("%d %d %.9g", t, id, lp);
    for (int k = 0; k < K; k++) printf(" %d:%.9g", best[k], sample_logprob(logits, gpt2_cfg(j->m)->n_vocab, best[k]));
    putchar('\n');
}

static json_t *json_best(const job *j, const float *logits, const int *best, int K)
{
    json_t *a = json_array();
    for (int k = 0; k < K; k++)
        json_array_append_new(a, json_pack("[i, o]", best[k], json_number_or_null(sample_logprob(logits, gpt2_cfg(j->m)->n_vocab, best[k]))));
    return a;
}

/* One sequence, `rows` positions at a time. */
static int logprobs_one(job *j, const ivec *ids, err *e)
{
    int     V = gpt2_cfg(j->m)->n_vocab, n = (int)ids->n, K = j->top < V ? j->top : V, r = OK;
    double  sum = 0;
    int    *row = calloc(3 * (size_t)j->rows + (size_t)K, sizeof *row), *best = row + 3 * j->rows;
    unsigned char *want = malloc((size_t)j->rows);
    json_t *lps = j->json ? json_array() : NULL, *tops = j->json ? json_array() : NULL;
    if (ids->n > (size_t)gpt2_cfg(j->m)->n_ctx)
        r = err_set(e, E_LIMIT, "%zu ids are more than the model's context of %d", ids->n, gpt2_cfg(j->m)->n_ctx);
    else if (!row || !want) r = err_set(e, E_NOMEM, "out of memory");
    else if (n) r = gpt2_sync(j->m, j->c, ids->v, 1, j->logits, NULL, e); /* the first id is what the cache keeps of what was before */
    for (int t = 0; t + 1 < n && !r;) {
        int        k = n - 1 - t < j->rows ? n - 1 - t : j->rows;
        gpt2_batch b = { k, row, row + j->rows, row + 2 * j->rows, want };
        if (t == 0) k = 1; /* done by gpt2_sync */
        for (int i = 0; i < k; i++) {
            b.id[i]  = ids->v[t + i];
            b.seq[i] = -1;
            b.pos[i] = t + i;
            want[i]  = 1;
        }
        if (t && (r = gpt2_forward(j->m, j->c, &b, j->logits, e))) break;
        for (int i = 0; i < k && !r; i++) {
            const float *logits = j->logits + (size_t)i * (size_t)V;
            int          next   = ids->v[t + i + 1];
            if (next >= V) {
                r = err_set(e, E_ARG, "token %d is not in 0..%d", next, V - 1);
                break;
            }
            double lp = sample_logprob(logits, V, next);
            sum += lp;
            best_ids(logits, V, K, best);
            if (!j->json) print_row(j, t + i + 1, next, lp, logits, best, K);
            else {
                json_array_append_new(lps, json_number_or_null(lp));
                if (K) json_array_append_new(tops, json_best(j, logits, best, K));
            }
        }
        t += k;
    }
    free(row);
    free(want);
    if (r || !j->json) {
        json_decref(lps);
        json_decref(tops);
        return r;
    }
    json_t *o = json_pack("{s:o, s:o, s:o}", "ids", json_ids(ids->v, ids->n), "logprobs", lps, "sum", json_number_or_null(sum));
    if (K) json_object_set_new(o, "top", tops);
    else json_decref(tops);
    return print_json(o, JSON_COMPACT, e);
}

static int run_logprobs(int argc, char **argv, err *e)
{
    const char  *pos[1], *ids = NULL, *const names[] = { "M.gguf" };
    int          threads = 0;
    job          j       = { 0 };
    const option list[]  = {
        { "--ids", OPT_STR, &ids, "\"5 6 7\"", "one sequence; without it, every line of stdin is one" },
        { "--top", OPT_INT, &j.top, "K", "also the K likeliest ids, as id:logprob" },
        { "--threads", OPT_INT, &threads, "N", "threads; never changes a number" },
        { "--json", OPT_FLAG, &j.json, NULL, "an object for each sequence: ids, logprobs, sum, top" },
        { 0 },
    };
    int r = parse(list, "logprobs M.gguf [--ids \"5 6 7\"] [--top K]",
                  "Prints `t id logprob` for t = 1, 2, …: the natural logarithm of P(ids[t] given ids[0] … ids[t-1]).  A blank line stands between\n"
                  "the results of two lines.\n\nexample: duet logprobs duet.gguf --ids \"5 6 7\" --top 3",
                  argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    if (j.top < 0 || j.top > 1000) return err_set(e, E_ARG, "--top: %d is not 0 to 1000", j.top), EXIT_USAGE;
    if (set_threads(threads, e)) return EXIT_USAGE;
    if ((r = job_open(&j, pos[0], 32, e)) == OK) r = each_line(&j, ids, 1, logprobs_one, e);
    job_close(&j);
    return status(r);
}

static int generate_one(job *j, const ivec *prompt, err *e)
{
    const gpt2_config *c   = gpt2_cfg(j->m);
    ivec               ids = { 0 };
    int                start = (int)prompt->n, n = 0, ended = 0, r = OK;
    if (prompt->n == 0) return err_set(e, E_ARG, "no ids to go on from");
    if (prompt->n > (size_t)c->n_ctx) return err_set(e, E_LIMIT, "%zu ids are more than the model's context of %d", prompt->n, c->n_ctx);
    ivec_add(&ids, prompt->v, prompt->n);
    for (; n < j->n_new && start + n <= c->n_ctx && !ended; n++) { /* the last token drawn need not fit: nothing is computed from it */
        if ((r = ids.oom ? err_set(e, E_NOMEM, "out of memory") : gpt2_sync(j->m, j->c, ids.v, start + n, j->logits, NULL, e))) break;
        int id = sample_draw(j->logits, c->n_vocab, &j->o, NULL, 0, ids.v + start, n, rng_unit(j->seed, 0, (uint64_t)n), j->space);
        ivec_push(&ids, id);
        ended = !j->no_stop && id == j->o.sep;
    }
    if (!r && ids.oom) r = err_set(e, E_NOMEM, "out of memory");
    if (!r && j->json)
        r = print_json(json_pack("{s:o, s:b}", "ids", json_ids(ids.v + start, (size_t)n), "ended", ended), JSON_COMPACT, e);
    else if (!r) {
        for (int i = 0; i < n; i++) printf(i ? " %d" : "%d", ids.v[start + i]);
        putchar('\n');
    }
    if (!r && !ended && n < j->n_new) fprintf(stderr, "duet generate: the context of %d tokens is full after %d new ones\n", c->n_ctx, n);
    ivec_free(&ids);
    return r;
}

static int run_generate(int argc, char **argv, err *e)
{
    const char  *pos[1], *ids = NULL, *const names[] = { "M.gguf" };
    int          threads = 0;
    job          j = { .n_new = 20, .seed = 1, .o = { .temperature = 1, .top_p = 1, .rep_penalty = 1, .sep = -1 } };
    const option list[] = {
        { "--ids", OPT_STR, &ids, "\"5 6\"", "what to go on from; without it, every line of stdin is one prompt" },
        { "-n,--new", OPT_INT, &j.n_new, "N", "ids to draw at most; default 20" },
        { "--temperature", OPT_FLOAT, &j.o.temperature, "T", "0 takes the likeliest id; default 1" },
        { "--top-k", OPT_INT, &j.o.top_k, "K", "draw among the K likeliest; 0 = all" },
        { "--top-p", OPT_FLOAT, &j.o.top_p, "P", "draw among the likeliest that make up P; 0 or 1 = all" },
        { "--seed", OPT_U64, &j.seed, "S", "equal seeds draw equal ids; default 1" },
        { "--no-stop", OPT_FLAG, &j.no_stop, NULL, "go on behind the separator" },
        { "--threads", OPT_INT, &threads, "N", "threads; never changes an id" },
        { "--json", OPT_FLAG, &j.json, NULL, "an object for each prompt: ids, ended" },
        { 0 },
    };
    int r = parse(list, "generate M.gguf [--ids \"5 6\"] [-n 20] [options]",
                  "Prints a line of new ids for each prompt.  Stops behind the separator of the model's dialogue layout, which is printed too, or\n"
                  "where the context is full.\n\nexample: duet generate duet.gguf --ids \"5 6\" -n 20 --temperature 0",
                  argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    if (j.n_new < 1) return err_set(e, E_ARG, "-n: %d is not 1 or more", j.n_new), EXIT_USAGE;
    if (j.o.temperature < 0) return err_set(e, E_ARG, "--temperature: %g is negative", (double)j.o.temperature), EXIT_USAGE;
    if (j.o.top_k < 0) return err_set(e, E_ARG, "--top-k: %d is negative", j.o.top_k), EXIT_USAGE;
    if (set_threads(threads, e)) return EXIT_USAGE;
    if ((r = job_open(&j, pos[0], 32, e)) == OK) {
        const tokenizer *t = gpt2_tokenizer(j.m);
        j.o.sep            = gpt2_about(j.m)->fmt.kind ? gpt2_about(j.m)->fmt.sep : t ? tokenizer_specials(t).eos : -1;
        j.space            = sample_space_new(gpt2_cfg(j.m)->n_vocab);
        r                  = j.space ? each_line(&j, ids, 0, generate_one, e) : err_set(e, E_NOMEM, "out of memory");
    }
    job_close(&j);
    return status(r);
}

/* ---- quantize -------------------------------------------------------------------------------------------------- */

/* "ffn_up=q4_0" -> part and type. */
static int parse_choice(const char *word, compress_choice *c, char part[64], err *e)
{
    const char *eq = strrchr(word, '=');
    if (!eq || eq == word || eq - word > 63) return err_set(e, E_ARG, "--tensor: '%s' is not NAME=TYPE", word);
    memcpy(part, word, (size_t)(eq - word));
    part[eq - word] = 0;
    *c              = (compress_choice){ part, gguf_type_of_name(eq + 1) };
    return c->type < 0 ? err_set(e, E_ARG, "--tensor: '%s' is no type; there are f32, f16, bf16, q8_0, q4_0", eq + 1) : OK;
}

static void print_report(const compress_line *l, int n)
{
    size_t before = 0, after = 0;
    printf("%-32s %5s %5s %12s %12s %9s\n", "tensor", "from", "to", "bytes", "becomes", "error");
    for (int i = 0; i < n; i++) {
        printf("%-32s %5s %5s %12zu %12zu %9.6f\n", l[i].name, gguf_type_name(l[i].from), gguf_type_name(l[i].to), l[i].bytes_from, l[i].bytes_to,
               l[i].error);
        before += l[i].bytes_from;
        after += l[i].bytes_to;
    }
    printf("%-32s %5s %5s %12zu %12zu\n", "all matrices", "", "", before, after);
}

static int run_quantize(int argc, char **argv, err *e)
{
    const char     *pos[1], *out = NULL, *type = NULL, *name = NULL, *note = NULL, *const names[] = { "IN.gguf" };
    opt_list        tensors = { 0 };
    compress_choice choice[64];
    char            part[64][64];
    compress_line  *report;
    int             n;
    const option    list[] = { { "-o,--output", OPT_STR, &out, "OUT.gguf", "the file to write (needed)" },
                               { "--type", OPT_STR, &type, "TYPE", "f32, f16, bf16, q8_0 or q4_0 for every matrix (needed)" },
                               { "--tensor", OPT_STRS, &tensors, "NAME=TYPE", "another type where a tensor's name holds NAME; again and again" },
                               { "--name", OPT_STR, &name, "TEXT", "another general.name" },
                               { "--note", OPT_STR, &note, "TEXT", "another text of licence and origin" },
                               { 0 } };
    int r = parse(list, "quantize IN.gguf -o OUT.gguf --type TYPE [--tensor NAME=TYPE…]",
                  "Rounds the matrices of a model to a smaller type and tells, tensor by tensor, the size and the relative error.  `duet perplexity`\n"
                  "tells what the rounding costs in words.\n\nexample: duet quantize big.gguf -o small.gguf --type q8_0 --tensor ffn_up=q4_0",
                  argc, argv, pos, names, 1, e);
    if (r != GO_ON) return r;
    if (!out) return err_set(e, E_ARG, "-o OUT.gguf is missing"), EXIT_USAGE;
    if (!type) return err_set(e, E_ARG, "--type is missing"), EXIT_USAGE;
    int t = gguf_type_of_name(type);
    if (t < 0) return err_set(e, E_ARG, "--type: '%s' is no type; there are f32, f16, bf16, q8_0, q4_0", type), EXIT_USAGE;
    for (int i = 0; i < tensors.n; i++)
        if (parse_choice(tensors.v[i], &choice[i], part[i], e)) return EXIT_USAGE;
    r = compress_quantize(pos[0], out, t, choice, tensors.n, name, note, &report, &n, e);
    if (r == OK) print_report(report, n);
    free(report);
    return status(r);
}

const command models_commands[] = {
    { "import", run_import, "a Hugging Face, DialoGPT or GPT2-chitchat model -> one GGUF" },
    { "export", run_export, "a GGUF -> a Hugging Face folder" },
    { "quantize", run_quantize, "the matrices of a model in a smaller type" },
    { "show", run_show, "what a model file holds" },
    { "diff", run_diff, "what two model files hold differently" },
    { "tokens", run_tokens, "lines of text -> lines of token ids, and back" },
    { "logprobs", run_logprobs, "log-probability of every token of a sequence" },
    { "generate", run_generate, "go on from token ids" },
    { 0 },
};
