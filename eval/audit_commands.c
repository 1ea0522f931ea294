/* The command audit: verify and replay.  Program code: parses options, opens models, rules and the store, prints.  Looks at
 * HOME and XDG_DATA_HOME; everything else is told by options. */
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dialog/paths.h"
#include "eval/audit.h"
#include "eval/commands.h"
#include "models/options.h"

typedef struct {
    const char *db, *models[2], *model, *name;
    opt_list    rules;
    int         no_rules, last, threads, json;
    long        conv;
    double      tolerance;
    const char *word[2];
    int         n_words;
    /* opened */
    history   *h;
    gpt2      *fwd, *bwd;
    safety    *pack;
    responder *r;
} audit_job;

static int open_db(audit_job *j, err *e)
{
    const char *db = j->n_words > 1 ? j->word[1] : j->db;
    buf         b  = { 0 };
    int         r  = db ? OK : path_database(getenv("HOME"), getenv("XDG_DATA_HOME"), 0, &b, e);
    if (r == OK) r = b.oom ? err_set(e, E_NOMEM, "out of memory") : hist_open(&j->h, db ? db : b.s, HIST_READ, e);
    buf_free(&b);
    return r;
}

static int open_models(audit_job *j, err *e)
{
    buf fwd = { 0 }, bwd = { 0 };
    int r = OK;
    if (j->models[0] || j->model) {
        buf_str(&fwd, str_of(j->model ? j->model : j->models[0]));
        if (j->models[0] && strcmp(j->models[1], "-") != 0) buf_str(&bwd, str_of(j->models[1]));
    } else {
        r = path_models(j->name ? j->name : "duet-zh", DUET_PREFIX, &fwd, &bwd, e);
        if (r && !j->name) {
            buf_reset(&fwd);
            buf_reset(&bwd);
            r = path_models(NULL, DUET_PREFIX, &fwd, &bwd, e);
        }
    }
    if (r == OK && (fwd.oom || bwd.oom)) r = err_set(e, E_NOMEM, "out of memory");
    if (r == OK) r = gpt2_open(&j->fwd, fwd.s, e);
    if (r == OK && bwd.n) r = gpt2_open(&j->bwd, bwd.s, e);
    buf_free(&fwd);
    buf_free(&bwd);
    return r;
}

static int open_rules(audit_job *j, err *e)
{
    if (j->no_rules) return OK;
    if (j->rules.n) return safety_open(&j->pack, j->rules.v, j->rules.n, e);
    buf         b = { 0 };
    int         r = path_shared("dialog/rules", DUET_PREFIX, &b, e);
    const char *p = b.s;
    if (r == OK) r = b.oom ? err_set(e, E_NOMEM, "out of memory") : safety_open(&j->pack, &p, 1, e);
    buf_free(&b);
    return r;
}

static void job_close(audit_job *j)
{
    responder_free(j->r);
    safety_close(j->pack);
    gpt2_close(j->bwd);
    gpt2_close(j->fwd);
    hist_close(j->h);
}

/* Print an object as a line of stdout and let it go. */
static int put_json(json_t *o, err *e)
{
    char *s = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(o);
    if (!s) return err_set(e, E_NOMEM, "out of memory for JSON");
    puts(s);
    free(s);
    return OK;
}
static void put_visible(str s)
{
    buf b = { 0 };
    buf_visible(&b, s);
    fwrite(b.s ? b.s : "", 1, b.n, stdout);
    buf_free(&b);
}

/* Check all chains.  *n_faults; says so on stdout when there are faults or `loud`. */
static int verify(audit_job *j, int loud, int *n_faults, err *e)
{
    arena         a = { 0 };
    audit_fault  *f;
    conversation *c;
    int64_t       rows;
    int           n_conv = 0, r = audit_verify(j->h, &a, &f, n_faults, &rows, e);
    if (r == OK && *n_faults == 0) r = hist_list(j->h, 0, &a, &c, &n_conv, e);
    if (r == OK && j->json && (loud || *n_faults)) {
        json_t *list = json_array();
        for (int i = 0; i < *n_faults; i++) {
            buf b = { 0 };
            buf_visible(&b, f[i].what);
            json_array_append_new(list, json_pack("{s:I, s:I, s:s}", "conversation", (json_int_t)f[i].conv, "turn",
                                                  (json_int_t)f[i].turn, "what", b.s ? b.s : ""));
            buf_free(&b);
        }
        r = put_json(json_pack("{s:b, s:I, s:o}", "sound", *n_faults == 0, "rows", (json_int_t)rows, "faults", list), e);
    } else if (r == OK) {
        for (int i = 0; i < *n_faults; i++) {
            if (f[i].conv) printf("conversation %lld: ", (long long)f[i].conv);
            put_visible(f[i].what);
            putchar('\n');
        }
        if (*n_faults) printf("%lld rows are good; %d fault%s\n", (long long)rows, *n_faults, *n_faults == 1 ? "" : "s");
        else if (loud) printf("%lld rows in %d conversation%s: every hash holds\n", (long long)rows, n_conv, n_conv == 1 ? "" : "s");
    }
    arena_free(&a);
    return r;
}

static int run_verify(audit_job *j, err *e)
{
    int faults, r = open_db(j, e);
    if (r == OK) r = verify(j, 1, &faults, e);
    return r ? EXIT_FAILED : faults ? EXIT_DIFFERS : EXIT_OK;
}

/* "200 turns: 198 identical, 2 different"; as JSON, one object with the list. */
static int put_summary(const audit_job *j, int n, const int *count, double max_dlogp, json_t *list, err *e)
{
    if (j->json)
        return put_json(json_pack("{s:i, s:i, s:i, s:i, s:i, s:f, s:o}", "turns", n, "identical", count[AUDIT_IDENTICAL],
                                  "within_tolerance", count[AUDIT_WITHIN], "different", count[AUDIT_DIFFERENT], "not_comparable",
                                  count[AUDIT_NOT_COMPARABLE], "max_dlogp", max_dlogp, "exceptions", list), e);
    printf("%d turn%s: %d identical", n, n == 1 ? "" : "s", count[AUDIT_IDENTICAL]);
    for (int i = AUDIT_IDENTICAL + 1; i < AUDIT_RESULTS; i++)
        if (count[i]) printf(", %d %s", count[i], audit_result_name(i));
    putchar('\n');
    return OK;
}

static void put_exception(const audit_job *j, const audit_result *x, json_t *list)
{
    buf b = { 0 };
    buf_visible(&b, str_of(x->what));
    if (j->json)
        json_array_append_new(list, json_pack("{s:I, s:I, s:i, s:s, s:s}", "turn", (json_int_t)x->turn, "conversation",
                                              (json_int_t)x->conv, "n", x->n, "result", audit_result_name(x->result), "what",
                                              b.s ? b.s : ""));
    else printf("turn %lld (conversation %lld, %d): %s: %s\n", (long long)x->turn, (long long)x->conv, x->n, audit_result_name(x->result),
                b.s ? b.s : "");
    buf_free(&b);
}

static int replay_all(audit_job *j, int *status, err *e)
{
    audit_models  models = { j->r, j->pack };
    audit_machine m      = audit_machine_of(&models);
    arena         ids_mem = { 0 }, a = { 0 };
    int64_t      *id;
    int           n = 0, done = 0, count[AUDIT_RESULTS] = { 0 };
    double        max_dlogp = 0;
    json_t       *list      = j->json ? json_array() : NULL;
    m.tolerance             = j->tolerance;
    int r                   = hist_turn_ids(j->h, j->conv ? 0 : j->last, &ids_mem, &id, &n, e);
    if (r == OK && j->conv) { /* those of one conversation */
        exchange *x;
        r = hist_exchanges(j->h, j->conv, &ids_mem, &x, &n, e);
        for (int i = 0; r == OK && i < n; i++) id[i] = x[i].id;
        if (r == OK && j->last > 0 && j->last < n) id += n - j->last, n = j->last;
    }
    for (int i = 0; i < n && r == OK; i++) {
        audit_result x;
        arena_reset(&a);
        r = audit_replay(j->h, id[i], &m, &a, &x, e);
        if (r) break;
        done++;
        count[x.result]++;
        if (x.max_dlogp > max_dlogp) max_dlogp = x.max_dlogp;
        if (x.result != AUDIT_IDENTICAL) put_exception(j, &x, list);
    }
    if (r == OK) r = put_summary(j, done, count, max_dlogp, list, e);
    else json_decref(list);
    arena_free(&a);
    arena_free(&ids_mem);
    if (r == OK) *status = count[AUDIT_DIFFERENT] ? EXIT_DIFFERS : EXIT_OK;
    if (r == OK && done > 0 && count[AUDIT_NOT_COMPARABLE] == done)
        r = err_set(e, E_ARG, "none of the turns could be replayed with these models and rules");
    return r;
}

static int run_replay(audit_job *j, err *e)
{
    int faults = 0, status = EXIT_OK, r = open_db(j, e);
    if (r == OK) r = verify(j, 0, &faults, e);
    if (r == OK && faults) return EXIT_DIFFERS; /* the replay of an altered record proves nothing */
    if (r == OK && j->threads) omp_set_num_threads(j->threads);
    if (r == OK) r = open_rules(j, e);
    if (r == OK) r = open_models(j, e);
    if (r == OK) r = responder_new(&j->r, j->fwd, j->bwd, j->pack, e);
    if (r == OK) r = replay_all(j, &status, e);
    return r ? EXIT_FAILED : status;
}

int cmd_audit(int argc, char **argv, err *e)
{
    static const char usage[] = "audit verify [DB] | audit replay [DB]  [options]",
                      about[] = "verify recomputes every hash of the record. replay answers the stored lines again, with their stored\n"
                                "context, options and seed, and compares everything to the bit. Exit status 3: something differs.";
    audit_job    j            = { .tolerance = 0.01 };
    const option list[]       = {
        { "--db", OPT_STR, &j.db, "FILE", "the store; default: duet/history.db in the user's data folder" },
        { "--json", OPT_FLAG, &j.json, NULL, "one object" },
        { "replay", OPT_GROUP, NULL, NULL, NULL },
        { "--last", OPT_INT, &j.last, "N", "only the last N exchanges" },
        { "--conversation", OPT_LONG, &j.conv, "ID", "only those of one conversation" },
        { "--models", OPT_STR2, j.models, "FWD BWD", "the forward and the backward model; - = none" },
        { "--model", OPT_STR, &j.model, "FWD", "a forward model alone" },
        { "--name", OPT_STR, &j.name, "NAME", "the pair NAME-forward.gguf, NAME-backward.gguf that came with the program" },
        { "--rules", OPT_STRS, &j.rules, "PACK", "a rule file or a folder of them, again and again; default: those of the program" },
        { "--no-rules", OPT_FLAG, &j.no_rules, NULL, "for a record that was made without rules" },
        { "--tolerance", OPT_DOUBLE, &j.tolerance, "X", "of log-probs, where the arithmetic was another (default 0.01)" },
        { "--threads", OPT_INT, &j.threads, "N", "threads; never changes a result" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int r = options_parse(list, argc, argv, j.word, 2, &j.n_words, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, usage, about, list);
        fwrite(b.s ? b.s : "", 1, b.n, stdout);
        buf_free(&b);
        return EXIT_OK;
    }
    if (r == OK && j.n_words == 0) r = err_set(e, E_ARG, "what of it? verify or replay");
    int is_replay = r == OK && strcmp(j.word[0], "replay") == 0;
    if (r == OK && !is_replay && strcmp(j.word[0], "verify") != 0) r = err_set(e, E_ARG, "no '%s' here: verify or replay", j.word[0]);
    if (r == OK && j.n_words > 1 && j.db) r = err_set(e, E_ARG, "two databases: '%s' and '%s'", j.word[1], j.db);
    if (r == OK && (j.models[0] != NULL) + (j.model != NULL) + (j.name != NULL) > 1)
        r = err_set(e, E_ARG, "--models, --model and --name exclude one another");
    if (r == OK && j.no_rules && j.rules.n) r = err_set(e, E_ARG, "--rules and --no-rules exclude one another");
    if (r == OK && (j.last < 0 || j.conv < 0 || j.tolerance < 0))
        r = err_set(e, E_ARG, "--last, --conversation and --tolerance are not negative");
    if (r == OK && (j.threads < 0 || j.threads > 1024)) r = err_set(e, E_ARG, "--threads: %d is not 1 to 1024", j.threads);
    if (r) return EXIT_USAGE;
    int status = is_replay ? run_replay(&j, e) : run_verify(&j, e);
    job_close(&j);
    return status;
}
