/* corpus/commands: prep, vocab, train, perplexity.  Program code: parses options, wires readers, cleaner, tokenizer, shard, loader and run together,
 * prints.  Results go to stdout, reports and progress to stderr. */
#include "corpus/clean.h"
#include "corpus/commands.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_IN = 4096 };

int parsed(int rc, const char *usage, const char *about, const option *o)
{
    if (rc == OK) return -1;
    if (rc != OPTIONS_HELP) return EXIT_USAGE;
    buf b = { 0 };
    options_help(&b, usage, about, o);
    if (b.n) fwrite(b.s, 1, b.n, stdout);
    buf_free(&b);
    return EXIT_OK;
}

int usage_error(err *e, const char *fmt, const char *arg)
{
    err_set(e, E_ARG, fmt, arg);
    return EXIT_USAGE;
}

/* ---- tokenizers ------------------------------------------------------------------------------------------------ */

static int ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* do_lower_case of a tokenizer_config.json in `dir` (ends in '/' or is empty); 1 when nothing says otherwise, as BERT's tokenizer. */
static int lower_of(str dir)
{
    buf b = { 0 };
    buf_str(&b, dir);
    buf_str(&b, STR("tokenizer_config.json"));
    json_t *v     = b.oom ? NULL : json_load_file(b.s, 0, NULL);
    json_t *lower = v ? json_object_get(v, "do_lower_case") : NULL;
    int     r     = !json_is_false(lower);
    json_decref(v);
    buf_free(&b);
    return r;
}

/* A vocab.txt, a vocab.json with its merges.txt, a folder with either, or a model. */
static int open_tokenizer(tokenizer **t, const char *path, err *e)
{
    struct stat st;
    int         rc;
    *t = NULL;
    if (stat(path, &st) != 0) return err_set(e, E_IO, "%s: cannot open: %s", path, strerror(errno));
    if (ends_with(path, ".gguf")) {
        gguf *g = NULL;
        rc      = gguf_open(&g, path, e);
        if (rc == OK) rc = tokenizer_from_gguf(t, g, e);
        if (rc == OK && !*t) rc = err_set(e, E_FORMAT, "%s: the model has no vocabulary", path);
        gguf_close(g);
        return rc;
    }
    buf b = { 0 };
    buf_str(&b, str_of(path));
    if (S_ISDIR(st.st_mode)) {
        buf_chr(&b, '/');
        size_t dir = b.n;
        buf_str(&b, STR("vocab.txt"));
        if (b.oom) rc = err_set(e, E_NOMEM, "out of memory");
        else if (stat(b.s, &st) == 0) rc = tokenizer_open_wordpiece(t, b.s, lower_of((str){ b.s, dir }), e);
        else rc = tokenizer_open_bpe(t, path, NULL, e);
    } else if (ends_with(path, ".json")) {
        rc = tokenizer_open_bpe(t, path, NULL, e);
    } else {
        const char *slash = strrchr(path, '/');
        rc                = tokenizer_open_wordpiece(t, path, lower_of((str){ path, slash ? (size_t)(slash - path) + 1 : 0 }), e);
    }
    buf_free(&b);
    return rc;
}

int format_for(const tokenizer *t, const char *name, format *f, err *e)
{
    special_ids sp   = tokenizer_specials(t);
    int         kind = name ? format_of_name(name) : sp.bos >= 0 && sp.bos != sp.eos && tokenizer_kind(t) == TOK_WORDPIECE ? FORMAT_CLS_SEP : FORMAT_DIALOGPT;
    if (!kind) return err_set(e, E_ARG, "--format '%s': dialogpt or cls_sep wanted", name);
    *f = (format){ kind, kind == FORMAT_CLS_SEP ? sp.bos : -1, sp.eos };
    if (f->sep < 0 || (kind == FORMAT_CLS_SEP && f->bos < 0))
        return err_set(e, E_ARG, "the vocabulary has no %s, which the layout %s needs", f->sep < 0 ? "separator" : "[CLS]", format_name(kind));
    return OK;
}

/* ---- reading what prep and vocab share ------------------------------------------------------------------------- */

typedef struct {
    const char *type, *keep;
    read_opts   r;
    clean_opts  c;
} input_opts;

#define INPUT_OPTIONS(in)                                                                                                                         \
    { "reading", OPT_GROUP, NULL, NULL, NULL },                                                                                                    \
    { "--input-type", OPT_STR, &(in).type, "T", "text, scene, tsv, json or jsonl for every input (by file name)" },                               \
    { "--readings", OPT_INT, &(in).r.readings, "N", "most readings of one scene (40)" },                                                         \
    { "--seed", OPT_U64, &(in).r.seed, "S", "of the readings and of the choice of held-out dialogues (1)" },                                       \
    { "--skip-bad", OPT_FLAG, &(in).r.skip_bad, NULL, "count malformed lines of tsv and jsonl and go on" },                                      \
    { "cleaning", OPT_GROUP, NULL, NULL, NULL },                                                                                                   \
    { "--keep", OPT_STR, &(in).keep, "RULES", "switch rules off: control,long,repeat,address,number,markup,few,many,duplicate, or all" },         \
    { "--whole", OPT_FLAG, &(in).c.whole, NULL, "a bad turn drops its dialogue (it is cut out, the parts stay)" },                               \
    { "--min-turns", OPT_INT, &(in).c.min_turns, "N", "shortest dialogue (2)" },                                                                   \
    { "--max-turns", OPT_INT, &(in).c.max_turns, "N", "longest, the rest is left out (0: any)" },                                                  \
    { "--max-chars", OPT_INT, &(in).c.max_chars, "N", "longest turn in characters (400)" },                                                      \
    { "--word-run", OPT_INT, &(in).c.word_run, "N", "a word so many times in a row is too often (3)" },                                           \
    { "--char-run", OPT_INT, &(in).c.char_run, "N", "a character so many times in a row is too often (6)" }

static input_opts input_defaults(void)
{
    return (input_opts){ .r = { .readings = 40, .seed = 1 }, .c = clean_defaults() };
}

/* "few,long" -> bits of rules; "all" -> all that may be off. */
static int rules_off(const char *list, unsigned *off, err *e)
{
    for (str rest = str_of(list); rest.n;) {
        const char *comma = memchr(rest.s, ',', rest.n);
        str         name  = { rest.s, comma ? (size_t)(comma - rest.s) : rest.n };
        int         r     = clean_of_name(name);
        if (str_eq(name, STR("all"))) *off |= (1u << CLEAN_N) - 1 - (1u << CLEAN_EMPTY | 1u << CLEAN_UTF8);
        else if (r < 0) return err_set(e, E_ARG, "--keep: there is no rule '%.*s'", (int)name.n, name.s);
        else *off |= 1u << r;
        rest.s += name.n + (comma != NULL);
        rest.n -= name.n + (comma != NULL);
    }
    return OK;
}

static int input_check(input_opts *in, err *e)
{
    if (in->type) {
        in->r.type = input_of_name(in->type);
        if (in->r.type < 0) return err_set(e, E_ARG, "--input-type '%s': text, scene, tsv, json or jsonl wanted", in->type);
    }
    if (in->r.readings < 1) return err_set(e, E_ARG, "--readings %d: at least 1 wanted", in->r.readings);
    return in->keep ? rules_off(in->keep, &in->c.off, e) : OK;
}

/* All of stdin. */
static int read_stdin(buf *b, err *e)
{
    char   block[1 << 16];
    size_t n;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0) buf_add(b, block, n);
    if (ferror(stdin)) return err_set(e, E_IO, "stdin: %s", strerror(errno));
    return b->oom ? err_set(e, E_NOMEM, "stdin: out of memory") : OK;
}

typedef struct {
    cleaner       *c;
    dialogue_sink *next;
    void          *ctx;
} pipe_in;
static int to_cleaner(void *ctx, const dialogue *d, err *e)
{
    pipe_in *p = ctx;
    return cleaner_push(p->c, d, p->next, p->ctx, e);
}

static int read_inputs(const char *const *in, int n, const input_opts *o, read_counts *c, pipe_in *p, err *e)
{
    int rc = OK;
    for (int i = 0; rc == OK && i < n; i++) {
        if (strcmp(in[i], "-") != 0) {
            rc = dialogue_read(in[i], &o->r, c, to_cleaner, p, e);
            continue;
        }
        buf       b = { 0 };
        read_opts r = o->r;
        if (!r.type) r.type = INPUT_TEXT;
        rc = read_stdin(&b, e);
        if (rc == OK) rc = dialogue_read_bytes(buf_view(&b), "stdin", &r, c, to_cleaner, p, e);
        buf_free(&b);
    }
    return rc;
}

static void report_reading(const read_counts *r, const clean_counts *c, const char *name)
{
    fprintf(stderr, "duet %s: %llu file%s, %llu dialogues read", name, (unsigned long long)r->files, r->files == 1 ? "" : "s", (unsigned long long)r->dialogues);
    if (r->scenes) fprintf(stderr, " (%llu scenes, %.3g ways through them)", (unsigned long long)r->scenes, r->combinations);
    if (r->bad_lines) fprintf(stderr, ", %llu malformed lines left out", (unsigned long long)r->bad_lines);
    fputc('\n', stderr);
    for (int i = 0; i < CLEAN_N; i++)
        if (c->hit[i]) fprintf(stderr, "  %9llu  %s\n", (unsigned long long)c->hit[i], clean_about(i));
    fprintf(stderr, "  %9llu  dialogues of %llu turns kept\n", (unsigned long long)c->out, (unsigned long long)c->turns_out);
}

/* ---- prep ------------------------------------------------------------------------------------------------------ */

typedef struct {
    tokenizer    *t;
    shard_writer *w;
    int           dump, unk;
    double        weight;
    ivec          ids;
    turn         *turn; /* (cap,) */
    int           cap;
    buf           source; /* name of the file the last dialogue came from */
    uint64_t      tokens, unknown, empty;
} prep;

static void prep_dump(const dialogue *d)
{
    for (int i = 0; i < d->n; i++) {
        fwrite(d->turn[i].text.s, 1, d->turn[i].text.n, stdout);
        putchar('\n');
    }
    putchar('\n');
}

static int prep_dialogue(void *ctx, const dialogue *d, err *e)
{
    prep *p = ctx;
    if (p->dump) prep_dump(d);
    if (p->dump && ferror(stdout)) return err_set(e, E_IO, "cannot write to stdout");
    if (!p->t) return OK;
    if (d->n > p->cap) {
        turn *v = realloc(p->turn, (size_t)d->n * sizeof *v);
        if (!v) return err_set(e, E_NOMEM, "%s:%ld: out of memory", d->file, d->line);
        p->turn = v;
        p->cap  = d->n;
    }
    p->ids.n = 0;
    for (int i = 0; i < d->n; i++) {
        size_t from = p->ids.n;
        int    rc   = tokenizer_encode(p->t, d->turn[i].text, &p->ids, e);
        if (rc) return rc;
        p->turn[i]        = d->turn[i];
        p->turn[i].weight = (float)((double)d->turn[i].weight * p->weight);
        p->turn[i].n      = (int)(p->ids.n - from);
        if (!p->turn[i].n) { /* nothing of the turn is in the vocabulary's alphabet */
            p->empty++;
            return OK;
        }
    }
    for (size_t i = 0, at = 0; i < (size_t)d->n; at += (size_t)p->turn[i++].n) p->turn[i].id = p->ids.v + at;
    for (size_t i = 0; i < p->ids.n; i++) p->unknown += p->ids.v[i] == p->unk;
    p->tokens += p->ids.n;
    if (!p->w) return OK;
    if (!str_eq(buf_view(&p->source), str_of(d->file))) {
        buf_reset(&p->source);
        buf_str(&p->source, str_of(d->file));
        int rc = p->source.oom ? err_set(e, E_NOMEM, "out of memory") : shard_source(p->w, buf_view(&p->source), e);
        if (rc) return rc;
    }
    int rc = shard_add(p->w, p->turn, d->n, d->group, e);
    if (rc) err_prefix(e, "%s:%ld", d->file, d->line);
    return rc;
}

static void prep_json(const read_counts *r, const clean_counts *c, const prep *p, const shard_part part[2], const char *sha)
{
    json_t *v = json_object(), *removed = json_object();
    json_object_set_new(v, "files", json_integer((json_int_t)r->files));
    json_object_set_new(v, "scenes", json_integer((json_int_t)r->scenes));
    json_object_set_new(v, "combinations", json_real(r->combinations));
    json_object_set_new(v, "read", json_integer((json_int_t)r->dialogues));
    json_object_set_new(v, "bad_lines", json_integer((json_int_t)r->bad_lines));
    for (int i = 0; i < CLEAN_N; i++) json_object_set_new(removed, clean_name(i), json_integer((json_int_t)c->hit[i]));
    json_object_set_new(removed, "untokenized", json_integer((json_int_t)p->empty));
    json_object_set_new(v, "removed", removed);
    json_object_set_new(v, "dialogues", json_integer((json_int_t)c->out));
    json_object_set_new(v, "turns", json_integer((json_int_t)c->turns_out));
    json_object_set_new(v, "tokens", json_integer((json_int_t)p->tokens));
    json_object_set_new(v, "unknown", json_integer((json_int_t)p->unknown));
    for (int k = 0; part && k < 2; k++) {
        json_t *q = json_pack("{s:I,s:I,s:I,s:I}", "dialogues", (json_int_t)part[k].dialogues, "turns", (json_int_t)part[k].turns, "tokens",
                              (json_int_t)part[k].tokens, "chars", (json_int_t)part[k].chars);
        json_object_set_new(v, k ? "held_out" : "train", q);
    }
    if (sha) json_object_set_new(v, "sha256", json_string(sha));
    json_dumpf(v, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(v);
}

static void report_parts(const shard_part part[2], const char *out, const char *sha)
{
    for (int k = 0; k < 2; k++)
        fprintf(stderr, "  %-9s  %llu dialogues, %llu turns, %llu tokens, %llu characters\n", k ? "held out" : "train", (unsigned long long)part[k].dialogues,
                (unsigned long long)part[k].turns, (unsigned long long)part[k].tokens, (unsigned long long)part[k].chars);
    if (!part[PART_HELD].dialogues) fprintf(stderr, "  warning: nothing is held out, so `duet train` will refuse this shard\n");
    fprintf(stderr, "  %s  sha256 %s\n", out, sha);
}

static int prep_sha(const char *path, char hex[65], err *e)
{
    shard *s;
    int    rc = shard_open(&s, path, e); /* reads back what was written */
    if (rc) return rc;
    sha256_hex(shard_sha256(s), hex);
    shard_close(s);
    return OK;
}

static int cmd_prep(int argc, char **argv, err *e)
{
    input_opts  in  = input_defaults();
    const char *out = NULL, *tok = NULL, *pos[MAX_IN];
    double      valid = 0.02, weight = 1;
    int         dump = 0, json = 0, n = 0;
    const option o[] = {
        { "-o,--output", OPT_STR, &out, "SHARD", "the shard; without it and --dump the input is only checked" },
        { "--tokenizer", OPT_STR, &tok, "T", "vocab.txt, vocab.json, a folder with them, or a model.gguf" },
        { "--valid", OPT_DOUBLE, &valid, "SHARE", "held-out share of scenes and dialogues, chosen by content and seed (0.02)" },
        { "--weight", OPT_DOUBLE, &weight, "W", "multiplies the loss weight of every turn (1)" },
        { "--dump", OPT_FLAG, &dump, NULL, "print the dialogues as text, a blank line between them" },
        { "--json", OPT_FLAG, &json, NULL, "the report as JSON on stdout" },
        INPUT_OPTIONS(in),
        { NULL, 0, NULL, NULL, NULL },
    };
    int rc = parsed(options_parse(o, argc, argv, pos, MAX_IN, &n, e), "prep IN… -o SHARD --tokenizer T [options]",
                    "Read dialogues (.scene, blank-line text, DialoGPT .tsv, .json, .jsonl, folders of them, - for text on stdin), clean them, tokenise\n"
                    "them and write one shard with a training and a held-out part.", o);
    if (rc >= 0) return rc;
    if (!n) return usage_error(e, "no input%s", "");
    if (out && !tok) return usage_error(e, "-o %s wants --tokenizer", out);
    if (dump && json) return usage_error(e, "--dump and --json both want stdout%s", "");
    if (!(weight >= 0 && weight <= 1000)) return usage_error(e, "--weight: 0 to 1000 wanted%s", "");
    if (!(valid >= 0 && valid < 1)) return usage_error(e, "--valid: 0 to less than 1 wanted%s", "");
    if (input_check(&in, e)) return EXIT_USAGE;

    prep        p = { .dump = dump, .weight = weight, .unk = -1 };
    pipe_in     pipe = { .next = prep_dialogue, .ctx = &p };
    read_counts counts = { 0 };
    shard_part  part[2];
    char        sha[65] = "";
    rc = cleaner_new(&pipe.c, &in.c, e);
    if (rc == OK && tok) rc = open_tokenizer(&p.t, tok, e);
    if (rc == OK && p.t) p.unk = tokenizer_specials(p.t).unk;
    if (rc == OK && out) {
        unsigned char digest[32];
        tokenizer_digest(p.t, digest);
        rc = shard_create(&p.w, out, digest, tokenizer_size(p.t), str_of(tok), valid, in.r.seed, e);
    }
    if (rc == OK) rc = read_inputs(pos, n, &in, &counts, &pipe, e);
    if (rc == OK && !cleaner_counts(pipe.c)->out) rc = err_set(e, E_FORMAT, "no dialogue is left of %llu read", (unsigned long long)counts.dialogues);
    if (rc == OK && p.w) {
        rc = shard_finish(p.w, part, e);
        if (rc == OK) p.w = NULL, rc = prep_sha(out, sha, e);
    }
    if (rc == OK) {
        report_reading(&counts, cleaner_counts(pipe.c), "prep");
        if (p.empty) fprintf(stderr, "  %9llu  dialogues dropped: a turn without any token\n", (unsigned long long)p.empty);
        if (p.t) fprintf(stderr, "  %9llu  tokens, %.4f %% of them unknown\n", (unsigned long long)p.tokens, p.tokens ? 100.0 * (double)p.unknown / (double)p.tokens : 0);
        if (out) report_parts(part, out, sha);
        if (json) prep_json(&counts, cleaner_counts(pipe.c), &p, out ? part : NULL, out ? sha : NULL);
    }
    shard_discard(p.w);
    cleaner_free(pipe.c);
    tokenizer_close(p.t);
    ivec_free(&p.ids);
    buf_free(&p.source);
    free(p.turn);
    return status_of(rc);
}

/* ---- vocab ----------------------------------------------------------------------------------------------------- */

static int vocab_dialogue(void *ctx, const dialogue *d, err *e)
{
    int rc = OK;
    for (int i = 0; rc == OK && i < d->n; i++) rc = tokenizer_trainer_add(ctx, d->turn[i].text, 1, e);
    return rc;
}

/* vocab.txt alone, or a folder. */
static int vocab_write(const tokenizer *t, const char *out, err *e)
{
    if (!ends_with(out, ".txt")) {
        if (mkdir(out, 0777) != 0 && errno != EEXIST) return err_set(e, E_IO, "%s: cannot make the folder: %s", out, strerror(errno));
        return tokenizer_export(t, out, e);
    }
    outfile *f;
    int      rc = out_open(&f, out, e);
    for (int i = 0; rc == OK && i < tokenizer_size(t); i++) {
        str s = tokenizer_token(t, i);
        rc    = out_write(f, s.s, s.n, e);
        if (rc == OK) rc = out_write(f, "\n", 1, e);
    }
    if (rc == OK) rc = out_commit(f, e);
    if (rc) out_abort(f);
    return rc;
}

static int cmd_vocab(int argc, char **argv, err *e)
{
    input_opts  in  = input_defaults();
    const char *out = NULL, *type = "wordpiece", *pos[MAX_IN];
    int         size = 4000, cased = 0, n = 0;
    double      min_count = 2;
    const option o[] = {
        { "-o,--output", OPT_STR, &out, "OUT", "vocab.txt (wordpiece), or a folder" },
        { "--type", OPT_STR, &type, "KIND", "wordpiece ([CLS] … [SEP]) or bpe (<|endoftext|>)" },
        { "--size", OPT_INT, &size, "N", "most entries (4000)" },
        { "--min-count", OPT_DOUBLE, &min_count, "M", "characters seen less often are unknown (2)" },
        { "--cased", OPT_FLAG, &cased, NULL, "wordpiece: keep upper case and accents (wants a folder, which says so)" },
        INPUT_OPTIONS(in),
        { NULL, 0, NULL, NULL, NULL },
    };
    int rc = parsed(options_parse(o, argc, argv, pos, MAX_IN, &n, e), "vocab IN… -o vocab.txt|FOLDER [options]",
                    "Build a vocabulary from dialogues (the inputs and the cleaning of prep).", o);
    if (rc >= 0) return rc;
    int kind = strcmp(type, "wordpiece") == 0 ? TOK_WORDPIECE : strcmp(type, "bpe") == 0 ? TOK_BPE : 0;
    if (!n) return usage_error(e, "no input%s", "");
    if (!out) return usage_error(e, "-o is missing%s", "");
    if (!kind) return usage_error(e, "--type '%s': wordpiece or bpe wanted", type);
    if (ends_with(out, ".txt") && (kind == TOK_BPE || cased)) return usage_error(e, "-o %s: a bpe or cased vocabulary wants a folder", out);
    if (input_check(&in, e)) return EXIT_USAGE;

    tokenizer_trainer *tr   = NULL;
    tokenizer         *t    = NULL;
    pipe_in            pipe = { .next = vocab_dialogue };
    read_counts        counts = { 0 };
    rc = cleaner_new(&pipe.c, &in.c, e);
    if (rc == OK) rc = tokenizer_trainer_new(&tr, kind, !cased, e);
    pipe.ctx = tr;
    if (rc == OK) rc = read_inputs(pos, n, &in, &counts, &pipe, e);
    if (rc == OK) rc = tokenizer_trainer_build(tr, size, min_count, &t, e);
    if (rc == OK) rc = vocab_write(t, out, e);
    if (rc == OK) {
        report_reading(&counts, cleaner_counts(pipe.c), "vocab");
        fprintf(stderr, "  %9d  entries in %s\n", tokenizer_size(t), out);
    }
    tokenizer_close(t);
    tokenizer_trainer_free(tr);
    cleaner_free(pipe.c);
    return status_of(rc);
}

/* ---- train ----------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t stop_asked;
static void on_stop(int sig)
{
    stop_asked = sig;
}

typedef struct {
    const char *keep;
    const char *out, *tok, *init, *schedule, *mix, *mix_end, *loss, *checkpoint, *log, *name, *note, *format, *type;
    int         reverse, layers, embd, heads, ctx, inner, batch, resume, dry_run, threads;
    double      min_lr, epochs, join;
    uint64_t    seed;
    train_opts  t;
    run_opts    r;
    long        eval_tokens;
} train_args;

/* Everything a run stands on; closed by setup_close. */
typedef struct {
    shard      *s[RUN_MAX_SHARDS];
    int         n;
    tokenizer  *tok;
    gpt2_config config;
    gpt2_meta   meta;
    loader_opts data;
    loader     *l;
    trainer    *t;
    buf         checkpoint;
    uint64_t    train_tokens;
} setup;

static void setup_close(setup *u)
{
    trainer_free(u->t);
    loader_free(u->l);
    tokenizer_close(u->tok);
    for (int k = 0; k < u->n; k++) shard_close(u->s[k]);
    buf_free(&u->checkpoint);
}

static int open_shards(setup *u, const char *const *path, int n, err *e)
{
    for (int k = 0; k < n; k++) {
        int rc = shard_open(&u->s[k], path[k], e);
        if (rc) return rc;
        u->n = k + 1;
        u->train_tokens += shard_about(u->s[k], PART_TRAIN)->tokens;
    }
    return OK;
}

/* SHA-256 over the checksums of the shards, in order. */
static void data_digest(const setup *u, char hex[65])
{
    sha256        h;
    unsigned char d[32];
    sha256_init(&h);
    for (int k = 0; k < u->n; k++) sha256_add(&h, shard_sha256(u->s[k]), 32);
    sha256_end(&h, d);
    sha256_hex(d, hex);
}

int tokenizer_fits(const tokenizer *t, shard *const *s, int n, const char *from, err *e)
{
    unsigned char d[32];
    tokenizer_digest(t, d);
    for (int k = 0; k < n; k++) {
        if (shard_n_vocab(s[k]) != tokenizer_size(t))
            return err_set(e, E_ARG, "%s has a vocabulary of %d, %s was made with one of %d", from, tokenizer_size(t), shard_path(s[k]), shard_n_vocab(s[k]));
        if (memcmp(d, shard_tokenizer(s[k]), 32) != 0)
            return err_set(e, E_ARG, "%s was made with another tokenizer than that of %s (same size, other entries or rules)", shard_path(s[k]), from);
    }
    return OK;
}

/* The model to start from (a GGUF), its config and tokenizer. */
static int open_start(setup *u, const char *path, gguf **g, err *e)
{
    int rc = gguf_open(g, path, e);
    if (rc == OK) rc = gpt2_read_config(*g, &u->config, e);
    if (rc == OK) rc = tokenizer_from_gguf(&u->tok, *g, e);
    if (rc == OK && !u->tok) rc = err_set(e, E_FORMAT, "%s: the model has no vocabulary", path);
    if (rc == OK && tokenizer_size(u->tok) != u->config.n_vocab)
        rc = err_set(e, E_FORMAT, "%s: %d entries in the vocabulary, %d in the model", path, tokenizer_size(u->tok), u->config.n_vocab);
    return rc;
}

static void copy_text(char *to, size_t cap, const char *from)
{
    size_t n = strlen(from);
    if (n >= cap) n = cap - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

static int setup_meta(setup *u, const train_args *a, err *e)
{
    int rc = format_for(u->tok, a->format, &u->meta.fmt, e);
    if (rc) return rc;
    u->meta.role = a->reverse ? ROLE_BACKWARD : ROLE_FORWARD;
    data_digest(u, u->meta.data_sha256);
    if (a->note) copy_text(u->meta.note, sizeof u->meta.note, a->note);
    const char *slash = strrchr(a->out, '/'), *base = slash ? slash + 1 : a->out;
    copy_text(u->meta.name, sizeof u->meta.name, a->name ? a->name : base);
    char *dot = a->name ? NULL : strrchr(u->meta.name, '.');
    if (dot && strcmp(dot, ".gguf") == 0) *dot = 0;
    return OK;
}

/* Shards, start (checkpoint, --init or fresh weights), tokenizer, loader.  No trainer yet: --dry-run wants its size only. */
static int setup_open(setup *u, const train_args *a, const char *const *shards, int n, gguf **start, err *e)
{
    buf_str(&u->checkpoint, str_of(a->checkpoint ? a->checkpoint : a->out));
    if (!a->checkpoint) buf_str(&u->checkpoint, STR(".ckpt"));
    if (u->checkpoint.oom) return err_set(e, E_NOMEM, "out of memory");
    int         rc   = open_shards(u, shards, n, e);
    const char *from = a->resume ? u->checkpoint.s : a->init ? a->init : a->tok;
    buf         hint = { 0 };
    if (rc == OK && (a->resume || a->init)) {
        rc = open_start(u, from, start, e);
    } else if (rc == OK) {
        if (!from) { /* the shard remembers how its tokenizer was named; the digest decides */
            buf_str(&hint, shard_hint(u->s[0]));
            from = hint.s ? hint.s : "";
            rc   = hint.oom ? err_set(e, E_NOMEM, "out of memory") : OK;
        }
        if (rc == OK && (rc = open_tokenizer(&u->tok, from, e)) != OK && !a->tok) err_prefix(e, "give --tokenizer");
        u->config = (gpt2_config){ .n_ctx = a->ctx ? a->ctx : 192, .n_embd = a->embd, .n_head = a->heads, .n_layer = a->layers,
                                   .n_inner = a->inner ? a->inner : 4 * a->embd, .eps = 1e-5f, .scale_attn = 1, .tied = 1 };
        if (rc == OK) u->config.n_vocab = tokenizer_size(u->tok);
    }
    if (rc == OK) rc = gpt2_config_check(&u->config, e);
    if (rc == OK) rc = tokenizer_fits(u->tok, u->s, u->n, from, e);
    buf_free(&hint);
    if (rc == OK) rc = setup_meta(u, a, e);
    if (rc) return rc;
    int rows = a->ctx && a->ctx < u->config.n_ctx ? a->ctx : u->config.n_ctx;
    u->data  = (loader_opts){ .fmt = u->meta.fmt, .reversed = a->reverse, .loss_all = strcmp(a->loss, "all") == 0, .n_ctx = rows, .max_tok = a->batch,
                              .max_seq = a->batch / 8 + 1, .join = a->join, .seed = a->seed };
    return loader_new(&u->l, (const shard *const *)u->s, u->n, &u->data, e);
}

static int parse_shares(const char *text, const char *name, double *share, int *n, err *e)
{
    *n = 0;
    for (const char *p = text;; p++) {
        char *end;
        errno    = 0;
        double v = strtod(p, &end);
        if (end == p || errno || !(v >= 0) || !isfinite(v) || (*end && *end != ',') || *n == RUN_MAX_SHARDS)
            return err_set(e, E_ARG, "%s '%s': one share for each shard wanted, as 0.6,0.4", name, text);
        share[(*n)++] = v;
        if (!*end) return OK;
        p = end;
    }
}

static int train_check(train_args *a, int n_shards, err *e)
{
    a->r.sched = train_sched_of_name(a->schedule);
    if (a->r.sched < 0) return err_set(e, E_ARG, "--schedule '%s': constant, linear, cosine or noam wanted", a->schedule);
    if (strcmp(a->loss, "all") != 0 && strcmp(a->loss, "reply") != 0) return err_set(e, E_ARG, "--loss '%s': all or reply wanted", a->loss);
    if (strcmp(a->keep, "best") != 0 && strcmp(a->keep, "last") != 0) return err_set(e, E_ARG, "--keep '%s': best or last wanted", a->keep);
    a->r.keep_last = strcmp(a->keep, "last") == 0;
    if (strcmp(a->type, "f32") != 0 && strcmp(a->type, "f16") != 0) return err_set(e, E_ARG, "--type '%s': f32 or f16 wanted", a->type);
    if ((a->r.steps > 0) + (a->epochs > 0) + (a->r.minutes > 0) != 1 || a->r.steps < 0 || a->epochs < 0 || a->r.minutes < 0)
        return err_set(e, E_ARG, "one of --steps, --epochs and --minutes is wanted");
    if (!(a->r.lr > 0)) return err_set(e, E_ARG, "--lr %g: more than 0 wanted", a->r.lr);
    if (a->min_lr > a->r.lr) return err_set(e, E_ARG, "--min-lr %g is more than --lr %g", a->min_lr, a->r.lr);
    a->r.min_ratio = a->min_lr < 0 ? 0.1 : a->min_lr / a->r.lr;
    if (a->r.accum < 1 || a->r.accum > 4096) return err_set(e, E_ARG, "--accum %d: 1 to 4096 wanted", a->r.accum);
    if (a->batch < 16 || a->batch > 1 << 20) return err_set(e, E_ARG, "--batch %d: 16 to 1048576 tokens wanted", a->batch);
    if (a->embd < 1 || a->layers < 1 || a->heads < 1 || a->inner < 0 || a->ctx < 0) return err_set(e, E_ARG, "sizes of the model must be positive");
    if (!(a->t.dropout >= 0 && a->t.dropout < 1) || !(a->t.weight_decay >= 0) || !(a->t.clip >= 0))
        return err_set(e, E_ARG, "--dropout, --weight-decay or --clip out of range");
    if (a->eval_tokens < 0) return err_set(e, E_ARG, "--eval-tokens %ld: 0 or more wanted", a->eval_tokens);
    if (a->resume && a->init) return err_set(e, E_ARG, "--resume goes on with the checkpoint, --init starts from a model: not both");
    if (a->mix_end && !a->mix) return err_set(e, E_ARG, "--mix-end wants --mix");
    int n = 0, rc = OK;
    if (a->mix) rc = parse_shares(a->mix, "--mix", a->r.mix, &a->r.n_mix, e);
    if (rc == OK && a->mix) memcpy(a->r.mix_end, a->r.mix, sizeof a->r.mix);
    if (rc == OK && a->mix_end) rc = parse_shares(a->mix_end, "--mix-end", a->r.mix_end, &n, e);
    if (rc == OK && ((a->mix && a->r.n_mix != n_shards) || (a->mix_end && n != n_shards)))
        rc = err_set(e, E_ARG, "--mix and --mix-end: one share for each of the %d shards wanted", n_shards);
    a->r.eval_tokens = (uint64_t)a->eval_tokens;
    a->t.seed        = a->seed;
    return rc;
}

static void report_setup(const setup *u, const train_args *a)
{
    gpt2_tensor *list = NULL;
    size_t       params = 0;
    if (gpt2_tensors(&u->config, &list, &params, NULL) >= 0) free(list);
    const gpt2_config *c = &u->config;
    fprintf(stderr, "duet train: %s model, layout %s, vocabulary %d, %d layers of %d (%d heads, inner %d), %d positions: %zu parameters\n",
            a->reverse ? "backward" : "forward", format_name(u->meta.fmt.kind), c->n_vocab, c->n_layer, c->n_embd, c->n_head, c->n_inner, c->n_ctx, params);
    for (int k = 0; k < u->n; k++) {
        const shard_part *p = shard_about(u->s[k], PART_TRAIN), *h = shard_about(u->s[k], PART_HELD);
        fprintf(stderr, "  %s: %llu dialogues, %llu tokens; held out %llu, %llu\n", shard_path(u->s[k]), (unsigned long long)p->dialogues,
                (unsigned long long)p->tokens, (unsigned long long)h->dialogues, (unsigned long long)h->tokens);
    }
    if (a->r.steps) fprintf(stderr, "  %ld updates of %d tokens = %.3g tokens, %.2f times the training part\n", a->r.steps, a->batch * a->r.accum,
                            (double)a->r.steps * a->batch * a->r.accum, (double)a->r.steps * a->batch * a->r.accum / (double)u->train_tokens);
    else fprintf(stderr, "  %g minutes of updates of %d tokens; the training part has %llu\n", a->r.minutes, a->batch * a->r.accum, (unsigned long long)u->train_tokens);
    fprintf(stderr, "  memory for weights, gradient, moments and activations: %.0f MB\n", (double)trainer_bytes(c, a->batch, u->data.max_seq) / 1e6);
}

typedef struct {
    int    tty;
    double shown; /* seconds of the run at the last line */
} meter;

static int show_progress(void *ctx, const run_status *s)
{
    meter *m = ctx;
    if (s->looked || s->seconds - m->shown >= (m->tty ? 0.5 : 60)) {
        double left = s->fraction > 0 ? s->seconds / s->fraction * (1 - s->fraction) : 0;
        long   eta  = (long)left;
        fprintf(stderr, "%sstep %ld", m->tty ? "\r\033[K" : "", s->step);
        if (s->steps) fprintf(stderr, "/%ld", s->steps);
        fprintf(stderr, "  %.1f %%  %.0f tok/s  ETA %ld:%02ld:%02ld", 100 * s->fraction, s->tokens_s, eta / 3600, eta / 60 % 60, eta % 60);
        if (s->step) fprintf(stderr, "  loss %.4f  lr %.2e", s->loss, s->lr);
        if (isfinite(s->ppl)) fprintf(stderr, "  held-out ppl %.3f (best %.3f at %ld)", s->ppl, s->best, s->best_step);
        if (s->looked && s->n > 1) {
            for (int k = 0; k < s->n; k++) fprintf(stderr, "%s%.2f", k ? ", " : " = ", exp(s->held[k].nll / s->held[k].targets));
        }
        if (!m->tty || s->looked) fputc('\n', stderr);
        m->shown = s->seconds;
    }
    return stop_asked != 0;
}

/* OUT in half precision: matrices f16, vectors and positions f32. */
static int halve(const setup *u, const char *path, err *e)
{
    gguf        *g    = NULL;
    gpt2_tensor *list = NULL;
    size_t       n    = 0;
    int          n_t  = gpt2_tensors(&u->config, &list, &n, e), rc = n_t < 0 ? n_t : gguf_open(&g, path, e);
    float       *slab  = rc == OK ? malloc(n * sizeof *slab) : NULL;
    int         *types = rc == OK ? malloc((size_t)n_t * sizeof *types) : NULL;
    if (rc == OK && (!slab || !types)) rc = err_set(e, E_NOMEM, "%s: out of memory", path);
    if (rc == OK) rc = gpt2_read_slab(g, &u->config, slab, e);
    for (int i = 0; rc == OK && i < n_t; i++)
        types[i] = list[i].vector || strcmp(list[i].gguf, "position_embd.weight") == 0 ? GT_F32 : GT_F16;
    if (rc == OK) rc = gpt2_save(path, &u->config, slab, u->tok, &u->meta, types, e);
    gguf_close(g);
    free(list);
    free(slab);
    free(types);
    return rc;
}

static int train_run(setup *u, train_args *a, gguf *start, err *e)
{
    int rc = trainer_new(&u->t, &u->config, &a->t, a->batch, u->data.max_seq, e);
    if (rc) return rc;
    if (a->init) rc = gpt2_read_slab(start, &u->config, trainer_params(u->t), e);
    else if (!a->resume) trainer_init(u->t, a->seed);
    if (rc) return rc;
    run_parts  p    = { u->t, u->l, (const shard *const *)u->s, u->n, &u->config, &a->t, u->tok, &u->meta };
    run_status last = { 0 };
    meter      m    = { .tty = isatty(STDERR_FILENO) };
    struct sigaction on = { .sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND }, was_int, was_term; /* the second one ends it at once */
    sigemptyset(&on.sa_mask);
    sigaction(SIGINT, &on, &was_int);
    sigaction(SIGTERM, &on, &was_term);
    rc = run_train(&p, &a->r, a->resume, show_progress, &m, &last, e);
    sigaction(SIGINT, &was_int, NULL);
    sigaction(SIGTERM, &was_term, NULL);
    if (m.tty) fputc('\n', stderr);
    if (rc == E_CANCEL)
        return err_set(e, E_CANCEL, "stopped at step %ld; %s holds everything: the same command with --resume goes on", last.step, a->r.checkpoint);
    if (rc == OK && strcmp(a->type, "f16") == 0) rc = halve(u, a->out, e);
    if (rc) return rc;
    fprintf(stderr, "duet train: %s is the model of step %ld (held-out ppl %.4f) of %ld%s; %.0f s, %.2f epochs of %s", a->out, a->r.keep_last ? last.step : last.best_step, a->r.keep_last ? last.ppl : last.best, last.step,
            last.stopped_early ? ", stopped early" : "", last.seconds, loader_epochs(u->l, 0), shard_path(u->s[0]));
    for (int k = 1; k < u->n; k++) fprintf(stderr, ", %.2f of %s", loader_epochs(u->l, k), shard_path(u->s[k]));
    if (last.skipped) fprintf(stderr, "; %llu updates left out (gradient not finite)", (unsigned long long)last.skipped);
    if (loader_left_out(u->l)) fprintf(stderr, "; %llu times a turn was longer than a row", (unsigned long long)loader_left_out(u->l));
    fputc('\n', stderr);
    if (!a->checkpoint) remove(a->r.checkpoint); /* nobody asked to keep it */
    return OK;
}

static int cmd_train(int argc, char **argv, err *e)
{
    const char *pos[RUN_MAX_SHARDS];
    int         n = 0;
    train_args  a = { .schedule = "cosine", .loss = "reply", .keep = "best", .type = "f32", .layers = 4, .embd = 192, .heads = 6, .batch = 3072, .min_lr = -1, .seed = 1,
                      .eval_tokens = 60000, .t = train_defaults(), .r = { .accum = 1, .lr = 1e-3, .warmup = 200, .eval_every = 250 } };
    a.t.weight_decay = 0.1;
    a.t.dropout      = 0.1f;
    const option o[] = {
        { "-o,--output", OPT_STR, &a.out, "OUT.gguf", "the best model by held-out perplexity; complete after every look" },
        { "--tokenizer", OPT_STR, &a.tok, "T", "when the shard's own is not where prep found it" },
        { "--init", OPT_STR, &a.init, "M.gguf", "start from a model (sizes and vocabulary are its own)" },
        { "--reverse", OPT_FLAG, &a.reverse, NULL, "train the backward model: newest turn first" },
        { "--loss", OPT_STR, &a.loss, "all|reply", "all: every turn is a target; reply: every turn but the first of the row (reply)" },
        { "--format", OPT_STR, &a.format, "F", "dialogpt or cls_sep (from the vocabulary)" },
        { "--name", OPT_STR, &a.name, "TEXT", "general.name of the model" },
        { "--note", OPT_STR, &a.note, "TEXT", "licence and origin, kept in the model" },
        { "--type", OPT_STR, &a.type, "f32|f16", "matrices of OUT (f32)" },
        { "model", OPT_GROUP, NULL, NULL, NULL },
        { "--layers", OPT_INT, &a.layers, "N", "(4)" },
        { "--embd", OPT_INT, &a.embd, "N", "(192)" },
        { "--heads", OPT_INT, &a.heads, "N", "(6)" },
        { "--ctx", OPT_INT, &a.ctx, "N", "positions, and the longest row (192); with --init the longest row only" },
        { "--inner", OPT_INT, &a.inner, "N", "(4 x embd)" },
        { "length", OPT_GROUP, NULL, NULL, NULL },
        { "--steps", OPT_LONG, &a.r.steps, "N", "updates" },
        { "--epochs", OPT_DOUBLE, &a.epochs, "X", "so many times the tokens of all training parts" },
        { "--minutes", OPT_DOUBLE, &a.r.minutes, "X", "so long; the schedule follows the clock, so such a run cannot be repeated to the bit" },
        { "--patience", OPT_INT, &a.r.patience, "N", "stop after N looks without a better one (0: never)" },
        { "learning", OPT_GROUP, NULL, NULL, NULL },
        { "--batch", OPT_INT, &a.batch, "TOKENS", "tokens of a batch (3072)" },
        { "--accum", OPT_INT, &a.r.accum, "N", "batches to an update (1)" },
        { "--lr", OPT_DOUBLE, &a.r.lr, "X", "highest learning rate (0.001)" },
        { "--schedule", OPT_STR, &a.schedule, "S", "constant, linear, cosine or noam (cosine)" },
        { "--warmup", OPT_LONG, &a.r.warmup, "N", "updates (200)" },
        { "--min-lr", OPT_DOUBLE, &a.min_lr, "X", "where the schedule ends (a tenth of --lr)" },
        { "--weight-decay", OPT_DOUBLE, &a.t.weight_decay, "X", "(0.1)" },
        { "--clip", OPT_DOUBLE, &a.t.clip, "X", "greatest norm of the gradient (1; 0: off)" },
        { "--dropout", OPT_FLOAT, &a.t.dropout, "X", "(0.1)" },
        { "--mix", OPT_STR, &a.mix, "A,B…", "share of the tokens from each shard (by size)" },
        { "--mix-end", OPT_STR, &a.mix_end, "A,B…", "shares at the end of the run, linear between" },
        { "--join", OPT_DOUBLE, &a.join, "P", "share of dialogues that go on in the row of the one before: changes of topic (0)" },
        { "--seed", OPT_U64, &a.seed, "S", "of weights, order and dropout (1)" },
        { "record", OPT_GROUP, NULL, NULL, NULL },
        { "--eval-every", OPT_LONG, &a.r.eval_every, "N", "updates between looks at the held-out part (250)" },
        { "--eval-tokens", OPT_LONG, &a.eval_tokens, "N", "most held-out tokens of each shard at a look (60000; 0: all)" },
        { "--judge", OPT_INT, &a.r.judge, "K", "shard K alone chooses the best model (0: all, by their last shares)" },
        { "--keep", OPT_STR, &a.keep, "best|last", "OUT is the best model by the judge, or that of the last look (best)" },
        { "--checkpoint", OPT_STR, &a.checkpoint, "FILE", "kept after the run (OUT.gguf.ckpt, removed)" },
        { "--resume", OPT_FLAG, &a.resume, NULL, "go on from the checkpoint; the same options, the same bits" },
        { "--log", OPT_STR, &a.r.log, "FILE", ".jsonl or .csv" },
        { "--threads", OPT_INT, &a.threads, "N", "(all cores)" },
        { "--dry-run", OPT_FLAG, &a.dry_run, NULL, "say what would be done" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int rc = parsed(options_parse(o, argc, argv, pos, RUN_MAX_SHARDS, &n, e), "train SHARD… -o OUT.gguf [options]",
                    "Train a model on shards from `duet prep`.  SIGINT and SIGTERM end the run after the present update with a checkpoint.", o);
    if (rc >= 0) return rc;
    if (!n) return usage_error(e, "no shard%s", "");
    if (!a.out) return usage_error(e, "-o is missing%s", "");
    if (train_check(&a, n, e)) return EXIT_USAGE;
    if (a.threads > 0) omp_set_num_threads(a.threads);

    setup u     = { 0 };
    gguf *start = NULL;
    rc = setup_open(&u, &a, pos, n, &start, e);
    if (rc == OK) {
        if (a.epochs > 0) a.r.steps = (long)ceil(a.epochs * (double)u.train_tokens / ((double)a.batch * a.r.accum));
        a.r.out        = a.out;
        a.r.checkpoint = u.checkpoint.s;
        report_setup(&u, &a);
        if (!a.dry_run) rc = train_run(&u, &a, start, e);
    }
    gguf_close(start);
    setup_close(&u);
    return status_of(rc);
}

/* ---- perplexity ------------------------------------------------------------------------------------------------ */

static int cmd_perplexity(int argc, char **argv, err *e)
{
    const char *pos[1 + RUN_MAX_SHARDS], *loss = "reply", *format_text = NULL;
    int         n = 0, reverse = 0, forward = 0, json = 0, batch_tok = 4096;
    long        tokens = 0;
    const option o[] = {
        { "--reverse", OPT_FLAG, &reverse, NULL, "newest turn first (as the model's role says)" },
        { "--forward", OPT_FLAG, &forward, NULL, "oldest turn first" },
        { "--loss", OPT_STR, &loss, "all|reply", "what counts, as in train (reply)" },
        { "--format", OPT_STR, &format_text, "F", "dialogpt or cls_sep (as the model says)" },
        { "--tokens", OPT_LONG, &tokens, "N", "at most so many tokens of each shard (0: all)" },
        { "--batch", OPT_INT, &batch_tok, "N", "tokens at a time (4096)" },
        { "--json", OPT_FLAG, &json, NULL, "as JSON" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int rc = parsed(options_parse(o, argc, argv, pos, 1 + RUN_MAX_SHARDS, &n, e), "perplexity M.gguf SHARD… [options]",
                    "Perplexity of a model over the held-out part of shards, per token and per character (the end of a turn counts as one character).\n"
                    "Computed as in a talk: a q8_0 or q4_0 model with its integer arithmetic.", o);
    if (rc >= 0) return rc;
    if (n < 2) return usage_error(e, "a model and a shard are wanted%s", "");
    if (reverse && forward) return usage_error(e, "--reverse and --forward%s", "");
    if (strcmp(loss, "all") != 0 && strcmp(loss, "reply") != 0) return usage_error(e, "--loss '%s': all or reply wanted", loss);
    if (tokens < 0 || batch_tok < 16 || batch_tok > 1 << 20) return usage_error(e, "--tokens or --batch out of range%s", "");

    setup u = { 0 };
    gguf *g = NULL;
    gpt2 *m = NULL;
    rc = open_shards(&u, pos + 1, n - 1, e);
    if (rc == OK) rc = open_start(&u, pos[0], &g, e);
    if (rc == OK) rc = tokenizer_fits(u.tok, u.s, u.n, pos[0], e);
    if (rc == OK) rc = gpt2_read_meta(g, u.tok, &u.meta, e);
    if (rc == OK) rc = gpt2_open(&m, pos[0], e);
    if (rc == OK && (format_text || !u.meta.fmt.kind)) rc = format_for(u.tok, format_text, &u.meta.fmt, e);
    if (batch_tok < u.config.n_ctx) batch_tok = u.config.n_ctx;
    u.data = (loader_opts){ .fmt = u.meta.fmt, .reversed = reverse || (!forward && u.meta.role == ROLE_BACKWARD), .loss_all = strcmp(loss, "all") == 0,
                            .n_ctx = u.config.n_ctx, .max_tok = batch_tok, .max_seq = batch_tok / 8 + 1 };
    if (rc == OK) rc = loader_new(&u.l, (const shard *const *)u.s, u.n, &u.data, e);
    json_t *list = json ? json_array() : NULL;
    for (int k = 0; rc == OK && k < u.n; k++) {
        run_held h;
        rc = run_score(m, u.l, u.s[k], k, (uint64_t)tokens, &h, e);
        if (rc) break;
        double ppl = exp(h.nll / h.targets), per_char = exp(h.nll / h.chars);
        if (!json) printf("%s\tppl %.4f\tppl/char %.4f\tnll/token %.5f\ttokens %.0f\tcharacters %.0f\n", pos[k + 1], ppl, per_char, h.nll / h.targets, h.targets, h.chars);
        else
            json_array_append_new(list, json_pack("{s:s,s:f,s:f,s:f,s:f,s:f,s:b}", "shard", pos[k + 1], "ppl", ppl, "ppl_char", per_char, "nll", h.nll, "targets",
                                                  h.targets, "chars", h.chars, "reverse", u.data.reversed));
    }
    if (rc == OK && json) {
        json_dumpf(list, stdout, JSON_INDENT(1));
        putchar('\n');
    }
    json_decref(list);
    gpt2_close(m);
    gguf_close(g);
    setup_close(&u);
    return status_of(rc);
}

const command corpus_commands[] = {
    { "prep", cmd_prep, "read and clean dialogues, tokenise them into a shard" },
    { "vocab", cmd_vocab, "build a vocabulary from dialogues" },
    { "train", cmd_train, "train a model, forward or backward, on shards" },
    { "prune", cmd_prune, "a smaller model: layers, heads, columns and vocabulary that matter least" },
    { "perplexity", cmd_perplexity, "perplexity of a model over held-out dialogues" },
    { NULL, NULL, NULL },
};
