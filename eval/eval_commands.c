/* The command eval: metrics of given replies.  Program code: parses options, reads files, prints. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "corpus/dialogue.h"
#include "eval/commands.h"
#include "eval/scorecard.h"
#include "eval/tokenise.h"

enum { FILE_MAX_BYTES = 1 << 30 };

typedef struct {
    opt_list   hyp, ref;
    const char *tokenise;
    int        json, markdown, quiet;
    doubt_opts doubt;
    const char *set, *out;
    opt_list   systems;
    int        limit, threads, together, listed;
    const char *word[64];
    int        n_words;
    /* derived */
    int        kind;
} eval_job;

/* ---- files of lines -------------------------------------------------------------------------------------------- */

typedef struct {
    buf  bytes;
    str *line; /* (n,) views of bytes */
    int  n;
} line_file;

static void lines_free(line_file *f)
{
    buf_free(&f->bytes);
    free(f->line);
    *f = (line_file){ 0 };
}

static int read_stdin(buf *b, err *e)
{
    char   chunk[65536];
    size_t k;
    while ((k = fread(chunk, 1, sizeof chunk, stdin)) > 0 && b->n < FILE_MAX_BYTES) buf_add(b, chunk, k);
    if (ferror(stdin)) return err_set(e, E_IO, "cannot read stdin");
    if (b->n >= FILE_MAX_BYTES) return err_set(e, E_LIMIT, "stdin: more than %d bytes", FILE_MAX_BYTES);
    return b->oom ? err_set(e, E_NOMEM, "stdin: out of memory") : OK;
}

/* The lines of a file, without their ends (LF or CRLF) and without a byte order mark; "-" is stdin. */
static int lines_read(line_file *f, const char *path, err *e)
{
    str rest, line;
    *f    = (line_file){ 0 };
    int r = strcmp(path, "-") == 0 ? read_stdin(&f->bytes, e) : read_file(path, FILE_MAX_BYTES, &f->bytes, e);
    if (r) return r;
    rest = buf_view(&f->bytes);
    if (str_starts(rest, STR("\xEF\xBB\xBF"))) rest.s += 3, rest.n -= 3;
    size_t n = 1;
    for (size_t i = 0; i < rest.n; i++) n += rest.s[i] == '\n';
    if (n > 100000000) return err_set(e, E_LIMIT, "%s: %zu lines", path, n);
    if (!(f->line = calloc(n, sizeof *f->line))) return err_set(e, E_NOMEM, "%s: out of memory for %zu lines", path, n);
    while (next_line(&rest, &line)) f->line[f->n++] = line;
    return OK;
}

/* ---- given replies --------------------------------------------------------------------------------------------- */

static void tell(void *ctx, const char *what, str name)
{
    const eval_job *j = ctx;
    if (!j->quiet) fprintf(stderr, "%s %.*s\n", what, (int)name.n, name.s);
}

static int put_card(const eval_job *j, const scorecard *c, err *e)
{
    buf b = { 0 };
    int r = OK;
    if (j->json) {
        json_t *o = scorecard_json(c, e);
        char   *s = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
        if (!s) r = err_set(e, E_NOMEM, "out of memory for JSON");
        else puts(s);
        free(s);
        json_decref(o);
    } else {
        r = j->markdown ? scorecard_markdown(c, &b, e) : scorecard_table(c, &b, e);
        if (r == OK) fwrite(b.s, 1, b.n, stdout);
    }
    buf_free(&b);
    return r;
}

/* All files have as many lines as the first. */
static int check_counts(const eval_job *j, const line_file *hyp, const line_file *ref, err *e)
{
    int n = hyp[0].n;
    if (n == 0) return err_set(e, E_FORMAT, "%s: no lines", j->hyp.v[0]);
    for (int i = 1; i < j->hyp.n; i++)
        if (hyp[i].n != n) return err_set(e, E_FORMAT, "%s has %d lines, %s has %d: line i of each must answer the same", j->hyp.v[i], hyp[i].n, j->hyp.v[0], n);
    for (int i = 0; i < j->ref.n; i++)
        if (ref[i].n != n) return err_set(e, E_FORMAT, "%s has %d lines, %s has %d: line i is the reference of line i", j->ref.v[i], ref[i].n, j->hyp.v[0], n);
    return OK;
}

static int score_files(eval_job *j, line_file *hyp, line_file *ref, err *e)
{
    int         n = hyp[0].n, n_ref = j->ref.n;
    str         name[64], *flat = calloc((size_t)n * (size_t)n_ref + 1, sizeof *flat);
    int        *at = calloc((size_t)n + 1, sizeof *at), r = flat && at ? OK : err_set(e, E_NOMEM, "out of memory for %d lines", n);
    const str  *lines[64];
    scorecard   c;
    for (int i = 0; i < n && r == OK; i++) {
        for (int k = 0; k < n_ref; k++) flat[i * n_ref + k] = ref[k].line[i];
        at[i + 1] = (i + 1) * n_ref;
    }
    for (int s = 0; s < j->hyp.n; s++) {
        name[s]  = str_of(j->hyp.v[s]);
        lines[s] = hyp[s].line;
    }
    if (r == OK) r = scorecard_new(&c, name, lines, j->hyp.n, n, flat, n_ref ? at : NULL, j->kind, &j->doubt, j->doubt.resamples ? tell : NULL, j, e);
    if (r == OK) {
        r = put_card(j, &c, e);
        scorecard_free(&c);
    }
    free(flat);
    free(at);
    return r;
}

static int run_files(eval_job *j, err *e)
{
    line_file hyp[64] = { 0 }, ref[64] = { 0 };
    int       r = OK;
    for (int i = 0; i < j->hyp.n && r == OK; i++) r = lines_read(&hyp[i], j->hyp.v[i], e);
    for (int i = 0; i < j->ref.n && r == OK; i++) r = lines_read(&ref[i], j->ref.v[i], e);
    if (r == OK) r = check_counts(j, hyp, ref, e);
    if (r == OK && (size_t)hyp[0].n * (size_t)(j->ref.n + 1) > 1u << 30) r = err_set(e, E_LIMIT, "%d lines with %d references are too many", hyp[0].n, j->ref.n);
    if (r == OK) r = score_files(j, hyp, ref, e);
    for (int i = 0; i < 64; i++) {
        lines_free(&hyp[i]);
        lines_free(&ref[i]);
    }
    return r == OK ? EXIT_OK : EXIT_FAILED;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int check_words(eval_job *j, err *e)
{
    int from_stdin = 0;
    if (j->set && (j->hyp.n || j->ref.n)) return err_set(e, E_ARG, "--set brings its own references and --systems the replies: no --hyp and --ref beside them");
    if (j->set && !j->systems.n) return err_set(e, E_ARG, "--set: whose replies? --systems FILE…");
    if (j->set && !j->out) return err_set(e, E_ARG, "--set: no folder for what comes out: -o DIR");
    if (!j->set && (j->systems.n || j->out || j->limit || j->threads || j->together)) return err_set(e, E_ARG, "--systems, -o, --limit, --threads and --together go with --set");
    if (j->n_words && !j->set) return err_set(e, E_ARG, "what is '%s' for?", j->word[0]);
    if (j->systems.n + j->n_words > 64) return err_set(e, E_ARG, "more than 64 systems");
    for (int i = 0; i < j->n_words; i++) j->systems.v[j->systems.n++] = j->word[i]; /* --systems A B C */
    if (j->limit < 0 || j->listed < 0) return err_set(e, E_ARG, "--limit and --listed are not negative");
    if (j->threads < 0 || j->threads > 1024) return err_set(e, E_ARG, "--threads: %d is not 1 to 1024", j->threads);
    if (j->together < 0 || j->together > 16) return err_set(e, E_ARG, "--together: %d is not 1 to 16", j->together);
    if (!j->set && !j->hyp.n) return err_set(e, E_ARG, "nothing to score: --hyp FILE, or --set FILE");
    for (int i = 0; i < j->hyp.n; i++) from_stdin += strcmp(j->hyp.v[i], "-") == 0;
    for (int i = 0; i < j->ref.n; i++) from_stdin += strcmp(j->ref.v[i], "-") == 0;
    if (from_stdin > 1) return err_set(e, E_ARG, "stdin can be read once");
    if ((j->kind = tokenise_of_name(j->tokenise)) < 0) return err_set(e, E_ARG, "--tokenize: no '%s'; there are %s", j->tokenise, tokenise_names());
    if (j->json && j->markdown) return err_set(e, E_ARG, "--json and --markdown exclude one another");
    if (j->doubt.resamples < 0) j->doubt.resamples = j->hyp.n > 1 || j->set ? 1000 : 0;
    if (j->doubt.resamples > 1000000 || (j->doubt.resamples > 0 && j->doubt.resamples < 20))
        return err_set(e, E_ARG, "--resamples: %d is not 0 or 20 to 1000000", j->doubt.resamples);
    if (!(j->doubt.level > 0.5 && j->doubt.level < 1)) return err_set(e, E_ARG, "--level: %g is not between 0.5 and 1", j->doubt.level);
    return OK;
}

int cmd_eval(int argc, char **argv, err *e)
{
    static const char usage[] = "eval --hyp FILE… [--ref FILE…] [options]\n       duet eval --set FILE --systems FILE… -o DIR [options]",
                      about[] = "Metrics of replies, one a line: BLEU, NIST, METEOR, ROUGE-L against references; Distinct, Entropy, length and\n"
                                "repetition without any. Line i of every file belongs together; an empty line is an empty reply and counts.\n"
                                "The signature line says what must be the same for a number to be the same.\n"
                                "With --set, every system of --systems answers the test set first. A system is a settings file of lines \"key: value\":\n"
                                "name, forward, backward (models), options (mode=bidi n=16 …), rules; or replies, a file with a reply a line.\n"
                                "DIR gets NAME.jsonl (all candidates; a run that was stopped goes on there), report.html, report.md, report.json.\n"
                                "A dialogue gives one item, its last turn. Every turn of dialogues with blank lines between them, as a .tsv:\n"
                                "  awk 'BEGIN { RS = \"\"; FS = \"\\n\" } { c = $1; for (i = 2; i <= NF; i++) { print c \"\\t\" $i; c = c \" EOS \" $i } }' talk.txt";
    eval_job     j    = { .tokenise = "none", .doubt = { .resamples = -1, .level = 0.95, .seed = 1 }, .listed = 300 };
    const option list[] = {
        { "--hyp", OPT_STRS, &j.hyp, "FILE", "the replies of a system; given again, systems are compared with the first" },
        { "--ref", OPT_STRS, &j.ref, "FILE", "references; given again, each line has several" },
        { "--tokenize", OPT_STR, &j.tokenise, "NAME", "none (split at blanks, the default), mteval, 13a, or zh (Chinese characters apart)" },
        { "--json", OPT_FLAG, &j.json, NULL, "one object; shares as fractions" },
        { "--markdown", OPT_FLAG, &j.markdown, NULL, "a table for a document" },
        { "a test set", OPT_GROUP, NULL, NULL, NULL },
        { "--set", OPT_STR, &j.set, "FILE", ".jsonl with references, DialoGPT .tsv, or dialogues, whose last turn is the reference" },
        { "--systems", OPT_STRS, &j.systems, "FILE", "settings files, one or several; the first system is what the others are compared with" },
        { "-o", OPT_STR, &j.out, "DIR", "folder for replies and reports" },
        { "--limit", OPT_INT, &j.limit, "N", "only the first N items" },
        { "--listed", OPT_INT, &j.listed, "N", "items shown with all candidates on the page (default 300)" },
        { "--threads", OPT_INT, &j.threads, "N", "workers, each on contexts of its own; never changes a reply" },
        { "--together", OPT_INT, &j.together, "N", "contexts a worker answers side by side, 1 to 16 (default 8, fewer when they need more than 256 MB); never changes a reply" },
        { "doubt", OPT_GROUP, NULL, NULL, NULL },
        { "--resamples", OPT_INT, &j.doubt.resamples, "N", "for intervals and p-values; 0 = none; default 1000 when systems are compared" },
        { "--level", OPT_DOUBLE, &j.doubt.level, "X", "of the intervals (default 0.95)" },
        { "--seed", OPT_U64, &j.doubt.seed, "S", "of the resampling (default 1)" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int r = options_parse(list, argc, argv, j.word, 64, &j.n_words, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, usage, about, list);
        fwrite(b.s ? b.s : "", 1, b.n, stdout);
        buf_free(&b);
        return EXIT_OK;
    }
    if (r == OK) r = check_words(&j, e);
    if (r) return EXIT_USAGE;
    if (j.set) {
        set_options o = { j.set, j.out, j.systems.v, j.systems.n, j.limit, j.threads, j.together, j.listed, j.kind, j.json, j.markdown, j.doubt };
        return eval_set(&o, e) == OK ? EXIT_OK : EXIT_FAILED;
    }
    j.quiet = !isatty(STDERR_FILENO);
    return run_files(&j, e);
}
