/* The command audit: its options, verify and replay; the other subcommands are in why_commands.c, recheck_commands.c,
 * report_commands.c and readers_commands.c.  Program code: parses options, opens models, rules and the store, prints.  Looks at
 * HOME and XDG_DATA_HOME; everything else is told by options. */
#include "eval/audit_commands.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/commands.h"

/* ---- opening --------------------------------------------------------------------------------------------------- */

int audit_open_rules(audit_job *j, err *e) { return open_rules(&j->names, &j->pack, e); }

int audit_open_models(audit_job *j, err *e)
{
    if (j->threads) omp_set_num_threads(j->threads);
    int r = audit_open_rules(j, e);
    if (r == OK) r = open_models(&j->names, &j->fwd, &j->bwd, e);
    return r == OK ? responder_new(&j->r, j->fwd, j->bwd, j->pack, e) : r;
}

static void job_close(audit_job *j)
{
    responder_free(j->r);
    safety_close(j->pack);
    gpt2_close(j->bwd);
    gpt2_close(j->fwd);
    hist_close(j->h);
}

int audit_chosen_turns(audit_job *j, arena *a, int64_t **id, int *n, err *e)
{
    int r = hist_turn_ids(j->h, j->conv ? 0 : j->last, a, id, n, e);
    if (r || !j->conv) return r;
    exchange *x;
    r = hist_exchanges(j->h, j->conv, a, &x, n, e);
    for (int i = 0; r == OK && i < *n; i++) (*id)[i] = x[i].id;
    if (r == OK && j->last > 0 && j->last < *n) *id += *n - j->last, *n = j->last;
    return r;
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

json_t *js_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

/* To a file that is there only when it is whole, or to stdout for "-". */
int audit_put_file(const char *path, str bytes, err *e)
{
    outfile *o;
    if (strcmp(path, "-") == 0)
        return fwrite(bytes.s, 1, bytes.n, stdout) == bytes.n && fflush(stdout) == 0 ? OK : err_set(e, E_IO, "cannot write to stdout");
    int r = out_open(&o, path, e);
    if (r) return r;
    r = out_write(o, bytes.s, bytes.n, e);
    if (r == OK) r = out_commit(o, e);
    if (r) out_abort(o);
    return r;
}

/* ---- verify ---------------------------------------------------------------------------------------------------- */

/* What the row says now, so that one sees what the fault is about. */
static void put_row(audit_job *j, int64_t id)
{
    arena    a = { 0 };
    exchange x;
    if (id > 0 && hist_exchange(j->h, id, &a, &x, NULL) == OK) {
        printf("    row %d, %.*s, now says: ", x.n, (int)x.created.n, x.created.s);
        put_visible(x.r.user_text);
        printf(" > ");
        put_visible(x.r.text);
        putchar('\n');
    }
    arena_free(&a);
}

static int verify_json(const audit_fault *f, int n, int64_t rows, err *e)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        buf b = { 0 };
        buf_visible(&b, f[i].what);
        json_array_append_new(list, json_pack("{s:I, s:I, s:s}", "conversation", (json_int_t)f[i].conv, "turn", (json_int_t)f[i].turn, "what",
                                              b.s ? b.s : ""));
        buf_free(&b);
    }
    return js_line(json_pack("{s:b, s:I, s:o}", "sound", n == 0, "rows", (json_int_t)rows, "faults", list), e);
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
    if (r == OK && j->json && (loud || *n_faults)) r = verify_json(f, *n_faults, rows, e);
    else if (r == OK) {
        for (int i = 0; i < *n_faults; i++) {
            if (f[i].conv) printf("conversation %lld: ", (long long)f[i].conv);
            put_visible(f[i].what);
            putchar('\n');
            put_row(j, f[i].turn);
        }
        if (*n_faults) printf("%lld rows are good, %d fault%s; what comes behind a fault in its conversation was not checked\n", (long long)rows, *n_faults,
                              *n_faults == 1 ? "" : "s");
        else if (loud) printf("%lld rows in %d conversation%s: every hash holds\n", (long long)rows, n_conv, n_conv == 1 ? "" : "s");
    }
    arena_free(&a);
    return r;
}

static int run_verify(audit_job *j, int *status, err *e)
{
    int faults, r = verify(j, 1, &faults, e);
    *status = faults ? EXIT_DIFFERS : EXIT_OK;
    return r;
}

/* ---- replay ---------------------------------------------------------------------------------------------------- */

/* "200 turns: 198 identical, 2 different"; as JSON, one object with the list. */
static int put_summary(const audit_job *j, int n, const int *count, double max_dlogp, json_t *list, err *e)
{
    if (j->json)
        return js_line(json_pack("{s:i, s:i, s:i, s:i, s:i, s:f, s:o}", "turns", n, "identical", count[AUDIT_IDENTICAL],
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
    int r                   = audit_chosen_turns(j, &ids_mem, &id, &n, e);
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

static int run_replay(audit_job *j, int *status, err *e)
{
    int faults = 0, r = verify(j, 0, &faults, e);
    *status    = EXIT_DIFFERS;
    if (r || faults) return r; /* the replay of an altered record proves nothing */
    r = audit_open_models(j, e);
    return r == OK ? replay_all(j, status, e) : r;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(audit_job *j, int *status, err *e);
    int         words, flags; /* words before the database, the subcommand's own included */
    const char *missing;
} subs[] = { { "verify", run_verify, 1, HIST_READ, NULL },
             { "replay", run_replay, 1, HIST_READ, NULL },
             { "why", audit_run_why, 2, HIST_READ, "a turn: its number, or CONVERSATION:ROW" },
             { "rules", audit_run_rules, 1, HIST_READ, NULL },
             { "report", audit_run_report, 1, HIST_READ, NULL },
             { "sample", audit_run_sample, 1, HIST_READ, NULL } };
enum { N_SUBS = sizeof subs / sizeof subs[0] };

static int check_words(audit_job *j, int *sub, err *e)
{
    char known[120] = "";
    for (int i = 0; i < N_SUBS; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i == 0 ? "" : i == N_SUBS - 1 ? " or " : ", ", subs[i].name);
    if (j->n_words == 0) return err_set(e, E_ARG, "what of it? %s", known);
    for (*sub = 0; *sub < N_SUBS && strcmp(j->words[0], subs[*sub].name) != 0; ++*sub) {}
    if (*sub == N_SUBS) return err_set(e, E_ARG, "no '%s' here: %s", j->words[0], known);
    int words = subs[*sub].words;
    if (j->n_words < words) return err_set(e, E_ARG, "%s wants %s", j->words[0], subs[*sub].missing);
    if (j->n_words > words + 1) return err_set(e, E_ARG, "'%s': one word too many", j->words[words + 1]);
    if (words == 2) {
        int       end = 0, row = 0;
        long long id = 0;
        if (sscanf(j->words[1], "%lld%n:%d%n", &id, &end, &row, &end) < 1 || j->words[1][end] || id <= 0 || row < 0 || (strchr(j->words[1], ':') && !row))
            return err_set(e, E_ARG, "'%s' is no number of a turn, nor CONVERSATION:ROW", j->words[1]);
        j->turn = id;
        j->row  = row;
    }
    if (j->n_words > words && j->db) return err_set(e, E_ARG, "two databases: '%s' and '%s'", j->words[words], j->db);
    if (j->n_words > words) j->db = j->words[words];
    return OK;
}

static int check_numbers(const audit_job *j, err *e)
{
    if (j->last < 0 || j->conv < 0 || j->tolerance < 0) return err_set(e, E_ARG, "--last, --conversation and --tolerance are not negative");
    if (j->threads < 0 || j->threads > 1024) return err_set(e, E_ARG, "--threads: %d is not 1 to 1024", j->threads);
    if (j->candidate < -1) return err_set(e, E_ARG, "--candidate: they are numbered from 0");
    if (j->top < 1 || j->top > 1000) return err_set(e, E_ARG, "--top: %d is not 1 to 1000", j->top);
    if (j->n_sample < -1 || j->n_sample > 100000) return err_set(e, E_ARG, "-n: %d is not 0 to 100000", j->n_sample);
    return open_check(&j->names, e);
}

/* What a subcommand cannot do without, and what excludes what. */
static int check_needs(audit_job *j, err *e)
{
    int report = strcmp(j->words[0], "report") == 0, sample = strcmp(j->words[0], "sample") == 0;
    int ways   = (j->export != NULL) + (j->import != NULL) + j->agreement;
    if (j->n_sample < 0) j->n_sample = report ? 12 : 50;
    if (report && !j->out) return err_set(e, E_ARG, "report wants a page to write: -o PAGE.html, or -o - for stdout");
    if (ways > 1) return err_set(e, E_ARG, "--export, --import and --agreement exclude one another");
    if (sample && !j->export && !j->agreement && (!j->reader || !j->reader[0])) return err_set(e, E_ARG, "sample wants to know who reads: --reader NAME");
    return OK;
}

int cmd_audit(int argc, char **argv, err *e)
{
    static const char usage[] = "audit verify | replay | why TURN | rules | report -o PAGE | sample  [DB] [options]",
                      about[] =
                          "verify   recompute every hash of the record (a tail that was cut off shows in duet history head --check)\n"
                          "replay   answer the stored lines again, with their context, options and seed, and compare everything to the bit\n"
                          "why      one exchange (TURN, or CONVERSATION:ROW): candidates, scores, verdicts, other choices, what the sampler saw at each step\n"
                          "rules    judge the stored texts by other rules: what would be blocked now, what no longer\n"
                          "report   a page in HTML: the chain, volume, rules, faults, scores, times, the longest conversations, samples\n"
                          "sample   replies at random for a person to judge; judgments are kept in the store; how far readers agree\n"
                          "DB is the store (also --db FILE). Exit status 3: something differs.";
    audit_job    j            = { .tolerance = 0.01, .candidate = -1, .top = 5, .n_sample = -1, .seed = 1, .names.prefix = DUET_PREFIX };
    const option list[]       = {
        { "--db", OPT_STR, &j.db, "FILE", "the store; default: duet/history.db in the user's data folder" },
        { "--json", OPT_FLAG, &j.json, NULL, "for machines" },
        { "which exchanges", OPT_GROUP, NULL, NULL, NULL },
        { "--last", OPT_INT, &j.last, "N", "only the last N" },
        { "--conversation", OPT_LONG, &j.conv, "ID", "only those of one conversation" },
        { "models and rules", OPT_GROUP, NULL, NULL, NULL },
        OPEN_OPTIONS(j.names),
        { "--threads", OPT_INT, &j.threads, "N", "threads; never changes a result" },
        { "replay", OPT_GROUP, NULL, NULL, NULL },
        { "--tolerance", OPT_DOUBLE, &j.tolerance, "X", "of log-probs, where the arithmetic was another (default 0.01)" },
        { "why", OPT_GROUP, NULL, NULL, NULL },
        { "--candidate", OPT_INT, &j.candidate, "K", "the steps of candidate K; default: of the one that was chosen" },
        { "--top", OPT_INT, &j.top, "K", "the K likeliest tokens at each step (default 5)" },
        { "--per-token", OPT_FLAG, &j.per_token, NULL, "scores per token beside the sums" },
        { "--no-replay", OPT_FLAG, &j.no_replay, NULL, "from the record alone: no models are opened, no steps shown" },
        { "rules", OPT_GROUP, NULL, NULL, NULL },
        { "--with", OPT_STRS, &j.with, "PACK", "the other rules, a file or a folder, again and again; default: the program's own of today" },
        { "report and sample", OPT_GROUP, NULL, NULL, NULL },
        { "--out,-o", OPT_STR, &j.out, "PAGE", "report: where the page goes; - = stdout" },
        { "-n", OPT_INT, &j.n_sample, "N", "exchanges in the sample (default: report 12, sample 50)" },
        { "--seed", OPT_U64, &j.seed, "S", "of the sample (default 1); the same seed shows all readers the same" },
        { "--reader", OPT_STR, &j.reader, "NAME", "sample: who judges" },
        { "--export", OPT_STR, &j.export, "FILE", "sample: as a table (CSV) to be filled in; - = stdout" },
        { "--import", OPT_STR, &j.import, "FILE", "sample: the labels of such a table, as judgments of --reader" },
        { "--agreement", OPT_FLAG, &j.agreement, NULL, "sample: rates by label, Cohen's kappa, Krippendorff's alpha, where readers differ" },
        { NULL, 0, NULL, NULL, NULL },
    };
    int sub = 0, status = EXIT_OK, r = options_parse(list, argc, argv, j.words, 4, &j.n_words, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, usage, about, list);
        fwrite(b.s ? b.s : "", 1, b.n, stdout);
        buf_free(&b);
        return EXIT_OK;
    }
    if (r == OK) r = check_words(&j, &sub, e);
    if (r == OK) r = check_numbers(&j, e);
    if (r == OK) r = check_needs(&j, e);
    if (r) return EXIT_USAGE;
    r = cmd_open_db(j.db, subs[sub].flags, &j.h, e);
    if (r == OK) r = subs[sub].run(&j, &status, e);
    job_close(&j);
    return r ? EXIT_FAILED : status;
}
