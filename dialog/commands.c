/* The commands reply, chat and rules, the table of dialog's commands, and what they share.  Program code: parses options, opens models,
 * rules and the store, prints.  Looks at HOME and XDG_DATA_HOME; everything else is told by options. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dialog/chat.h"
#include "dialog/commands.h"
#include "dialog/open.h"
#include "models/options.h"

/* ---- what reply and chat share --------------------------------------------------------------------------------- */

typedef struct {
    open_names   names;
    const char  *mode, *db, *key_file, *rep_scope, *rep_rule;
    int          is_private, threads;
    respond_opts o;
    /* opened */
    gpt2      *fwd, *bwd;
    safety    *pack;
    responder *r;
    history   *h;
} talk;

#define TALK_OPTIONS(t)                                                                                                         \
    { "models and rules", OPT_GROUP, NULL, NULL, NULL },                                                                        \
    OPEN_OPTIONS((t).names),                                                                                                    \
    { "--threads", OPT_INT, &(t).threads, "N", "threads; never changes a reply" },                                              \
    { "candidates", OPT_GROUP, NULL, NULL, NULL },                                                                              \
    { "--candidates,-N", OPT_INT, &(t).o.n_cand, "N", "candidates per reply" },                                                 \
    { "--temperature", OPT_FLOAT, &(t).o.temperature, "T", "0 takes the likeliest token" },                                     \
    { "--top-k", OPT_INT, &(t).o.top_k, "K", "draw among the K likeliest tokens; 0 = all" },                                    \
    { "--top-p", OPT_FLOAT, &(t).o.top_p, "P", "draw among the likeliest that make up P; 0 or 1 = all" },                       \
    { "--rep-penalty", OPT_FLOAT, &(t).o.rep_penalty, "X", "divide the logits of tokens already there; 1 = off" },              \
    { "--rep-scope", OPT_STR, &(t).rep_scope, "WHERE", "reply, or all: prompt and reply" },                                     \
    { "--rep-rule", OPT_STR, &(t).rep_rule, "RULE", "signed, or divide: GPT2-chitchat's penalty and top-p" },                   \
    { "--no-repeat", OPT_INT, &(t).o.no_repeat, "N", "no N tokens in a row twice; 0 = off" },                                   \
    { "--max-new", OPT_INT, &(t).o.max_new, "N", "tokens a reply may have" },                                                   \
    { "--min-new", OPT_INT, &(t).o.min_new, "N", "tokens a reply must have" },                                                  \
    { "--max-turns", OPT_INT, &(t).o.max_turns, "N", "turns of the conversation the models see; 0 = all that fit" },            \
    { "choice", OPT_GROUP, NULL, NULL, NULL },                                                                                  \
    { "--mode", OPT_STR, &(t).mode, "MODE", "mmi, bidi, joint, sampled, forward or none" },                                     \
    { "--lambda", OPT_FLOAT, &(t).o.lambda, "X", "bidi: X * backward + (1 - X) * forward" },                                    \
    { "--gamma", OPT_FLOAT, &(t).o.gamma, "X", "bidi: + X for each token of the reply" },                                       \
    { "--mmi-temperature", OPT_FLOAT, &(t).o.mmi_temperature, "T", "sampled: temperature of the draw among candidates" },       \
    { "--source-turns", OPT_INT, &(t).o.source_turns, "N", "turns the backward model must explain; 0 = all" },                  \
    { "--lang", OPT_STR, &(t).names.lang, "LANG", "zh or en: which of the shipped pairs, and the language of refusals; auto: by the model" }

int cmd_parse(const option *list, const char *usage, const char *about, int argc, char **argv, const char **pos,
              int max_pos, int *n_pos, int *status, err *e)
{
    int r = options_parse(list, argc, argv, pos, max_pos, n_pos, e);
    if (r == OPTIONS_HELP) {
        buf b = { 0 };
        options_help(&b, usage, about, list);
        if (b.s) fwrite(b.s, 1, b.n, stdout);
        buf_free(&b);
        *status = EXIT_OK;
        return 1;
    }
    *status = EXIT_USAGE;
    return r == OK ? OK : 1;
}

str cmd_utc(char out[32])
{
    time_t    t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return str_of(out);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The words among the options; E_ARG is a usage error. */
static int read_words(talk *t, err *e)
{
    if (t->mode && (t->o.mode = respond_mode_of_name(t->mode)) < 0)
        return err_set(e, E_ARG, "--mode: no mode '%s'; there are mmi, bidi, joint, sampled, forward, none", t->mode);
    if (t->rep_scope && strcmp(t->rep_scope, "all") && strcmp(t->rep_scope, "reply"))
        return err_set(e, E_ARG, "--rep-scope: '%s' is neither reply nor all", t->rep_scope);
    if (t->rep_scope) t->o.rep_scope = strcmp(t->rep_scope, "all") == 0 ? PENALTY_SCOPE_ALL : PENALTY_SCOPE_REPLY;
    if (t->rep_rule && strcmp(t->rep_rule, "signed") && strcmp(t->rep_rule, "divide"))
        return err_set(e, E_ARG, "--rep-rule: '%s' is neither signed nor divide", t->rep_rule);
    if (t->rep_rule) t->o.rep_rule = t->o.top_p_rule = strcmp(t->rep_rule, "divide") == 0;
    if (t->names.lang && strcmp(t->names.lang, "zh") && strcmp(t->names.lang, "en") && strcmp(t->names.lang, "auto"))
        return err_set(e, E_ARG, "--lang: '%s' is none of zh, en, auto", t->names.lang);
    int r = open_check(&t->names, e);
    if (r == OK) r = cmd_refuse_key(t->key_file, e);
    if (r) return r;
    if (t->is_private && t->db) return err_set(e, E_ARG, "--db and --private exclude one another");
    if (t->threads < 0 || t->threads > 1024) return err_set(e, E_ARG, "--threads: %d is not 1 to 1024", t->threads);
    return respond_opts_check(&t->o, e);
}

/* 0 zh, 1 en: by the model's name, else by whether its vocabulary has a common Chinese character. */
static int language(const talk *t)
{
    if (t->names.lang && strcmp(t->names.lang, "auto")) return strcmp(t->names.lang, "en") == 0;
    const char *path    = strrchr(gpt2_path(t->fwd), '/');
    const char *names[] = { path ? path + 1 : gpt2_path(t->fwd), gpt2_about(t->fwd)->name };
    for (int i = 0; i < 2; i++) {
        if (strstr(names[i], "-zh") || strncmp(names[i], "zh-", 3) == 0) return 0;
        if (strstr(names[i], "-en") || strncmp(names[i], "en-", 3) == 0) return 1;
    }
    return tokenizer_find(gpt2_tokenizer(t->fwd), STR("的")) < 0;
}

int cmd_refuse_key(const char *key_file, err *e)
{
    if (!key_file) return OK;
    return err_set(e, E_ARG, "--key-file: this Duet is built without SQLCipher and cannot encrypt a store; an encrypted disk can, or --private");
}

int cmd_open_db(const char *db, int flags, history **h, err *e)
{
    return open_store(db, getenv("HOME"), getenv("XDG_DATA_HOME"), flags, h, e);
}

static int talk_open(talk *t, err *e)
{
    if (t->threads) omp_set_num_threads(t->threads);
    t->names.prefix = DUET_PREFIX;
    int r           = open_models(&t->names, &t->fwd, &t->bwd, e);
    if (r == OK && !t->bwd && !t->mode) {
        t->o.mode = MODE_FORWARD;
        fprintf(stderr, "duet: no backward model, so candidates are ranked by the forward model alone\n");
    }
    if (r == OK) r = open_rules(&t->names, &t->pack, e);
    if (r == OK) r = responder_new(&t->r, t->fwd, t->bwd, t->pack, e);
    if (r == OK) t->o.lang = language(t);
    return r;
}

static void talk_close(talk *t)
{
    responder_free(t->r);
    hist_close(t->h);
    safety_close(t->pack);
    gpt2_close(t->bwd);
    gpt2_close(t->fwd);
}

int cmd_next_line(FILE *f, char **stash, size_t *cap, str *line, err *e)
{
    ssize_t n = getline(stash, cap, f);
    if (n < 0) return ferror(f) ? err_set(e, E_IO, "cannot read the input") : 0;
    *line = (str){ *stash, (size_t)n };
    if (line->n && line->s[line->n - 1] == '\n') line->n--;
    if (line->n && line->s[line->n - 1] == '\r') line->n--;
    return 1;
}

int cmd_open_input(const char *path, FILE **f, err *e)
{
    *f = !path || strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    return *f ? OK : err_set(e, E_IO, "%s: cannot open it for reading", path);
}

void put_visible(str s)
{
    buf b = { 0 };
    buf_visible(&b, s);
    if (b.s) fwrite(b.s, 1, b.n, stdout);
    buf_free(&b);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

int js_line(json_t *j, err *e)
{
    char *s = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(j);
    if (!s) return err_set(e, E_NOMEM, "out of memory for a line of JSON");
    puts(s);
    free(s);
    return OK;
}

/* ---- reply ----------------------------------------------------------------------------------------------------- */

typedef struct {
    talk     t;
    int      dialogue, jsonl;
    uint64_t line_no; /* from 0 */
    int64_t  conv;
    arena    mem;
} reply_job;

/* The history and the line of a JSONL object; strings oldest first, the one before the line is the bot's. */
static int read_object(reply_job *j, str line, json_t **root, turn **hist, int *n, str *user, uint64_t *seed, err *e)
{
    json_error_t  je;
    unsigned long at = (unsigned long)j->line_no + 1;
    *root = json_loadb(line.s, line.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!*root) return err_set(e, E_FORMAT, "line %lu: not JSON: %s", at, je.text);
    const json_t *text = json_object_get(*root, "text"), *past = json_object_get(*root, "history"),
        *s = json_object_get(*root, "seed");
    if (!json_is_string(text)) return err_set(e, E_FORMAT, "line %lu: no string \"text\"", at);
    if (past && !json_is_array(past)) return err_set(e, E_FORMAT, "line %lu: \"history\" is no array", at);
    *user = (str){ json_string_value(text), json_string_length(text) };
    if (json_is_integer(s) && json_integer_value(s) >= 0) {
        *seed = (uint64_t)json_integer_value(s);
    } else if (json_is_string(s)) {
        char *end;
        *seed = strtoull(json_string_value(s), &end, 10);
        if (end == json_string_value(s) || *end) return err_set(e, E_FORMAT, "line %lu: \"seed\" is no number", at);
    } else if (s) {
        return err_set(e, E_FORMAT, "line %lu: \"seed\" is no number", at);
    }
    *n    = (int)json_array_size(past);
    *hist = arena_new(&j->mem, (size_t)*n, sizeof **hist);
    if (!*hist) return err_set(e, E_NOMEM, "out of memory");
    for (int i = 0; i < *n; i++) {
        const json_t *x = json_array_get(past, (size_t)i);
        if (!json_is_string(x)) return err_set(e, E_FORMAT, "line %lu: \"history\" holds something that is no string", at);
        int r = respond_turn(j->t.r, (str){ json_string_value(x), json_string_length(x) }, (*n - i) % 2, &j->mem, &(*hist)[i], e);
        if (r) return r;
    }
    if (*n && j->t.h)
        return err_set(e, E_ARG, "line %lu: a history that did not happen here cannot be stored (leave out --db)", at);
    return OK;
}

/* The answer to one line of input, stored when there is a store, then printed. */
static int reply_line(reply_job *j, str line, err *e)
{
    respond_opts o    = j->t.o;
    json_t      *root = NULL;
    turn        *hist = NULL;
    int          n = 0, r = OK;
    str          user = line;
    reply        rep;
    char         stamp[32];
    int64_t      id;
    double       start = seconds();
    o.seed             = rng_u64(j->t.o.seed, j->line_no, 0);
    if (j->jsonl) r = read_object(j, line, &root, &hist, &n, &user, &o.seed, e);
    if (r == OK && j->t.h && !j->dialogue) j->conv = 0;
    if (r == OK && j->conv) r = hist_turns(j->t.h, j->conv, 0, &j->mem, &hist, &n, e);
    if (r == OK) r = respond(j->t.r, hist, n, user, &o, &j->mem, &rep, e);
    if (r == OK && j->t.h && !j->conv) r = hist_new(j->t.h, STR(""), &j->conv, e);
    if (r == OK && j->t.h) r = hist_append(j->t.h, j->conv, &rep, &o, cmd_utc(stamp), seconds() - start, &id, e);
    if (r == OK && j->jsonl) r = js_line(js_reply(&rep, o.seed), e);
    if (r == OK && !j->jsonl) {
        buf b = { 0 };
        buf_visible(&b, rep.text); /* also what keeps a reply on one line */
        buf_chr(&b, '\n');
        if (b.s) fwrite(b.s, 1, b.n, stdout);
        buf_free(&b);
    }
    if (r == OK && fflush(stdout) != 0) r = err_set(e, E_IO, "cannot write to stdout");
    json_decref(root);
    return r;
}

static int cmd_reply(int argc, char **argv, err *e)
{
    reply_job    j = { .t.o = respond_defaults() };
    int          status, n_pos, flags = 0;
    const char  *pos[1] = { NULL };
    j.t.o.seed          = 1;
    const option list[] = {
        { "--seed", OPT_U64, &j.t.o.seed, "S", "line i (from 0) draws with the counter hash of (S, i); default 1" },
        { "--dialogue", OPT_FLAG, &j.dialogue, NULL, "the lines are the user's side of one conversation" },
        { "--jsonl", OPT_FLAG, &j.jsonl, NULL,
          "objects {\"history\":[...],\"text\":\"...\"} in, replies with all candidates out" },
        { "--db", OPT_STR, &j.t.db, "FILE", "store every exchange there" },
        KEY_OPTION(j.t.key_file),
        { "--private", OPT_FLAG, &j.t.is_private, NULL, "store nothing (what happens without --db)" },
        TALK_OPTIONS(j.t),
        { NULL, 0, NULL, NULL, NULL },
    };
    if (cmd_parse(list, "reply [options] [FILE]",
              "A reply line for each line of FILE or stdin, in order; each line is its own conversation.", argc,
              argv, pos, 1, &n_pos, &status, e))
        return status;
    if (read_words(&j.t, e)) return EXIT_USAGE;
    if (j.dialogue && j.jsonl) {
        err_set(e, E_ARG, "--dialogue and --jsonl exclude one another: objects bring their own history");
        return EXIT_USAGE;
    }
    FILE  *in    = NULL;
    char  *stash = NULL;
    size_t cap   = 0;
    int    r     = cmd_open_input(pos[0], &in, e);
    if (r == OK) r = talk_open(&j.t, e);
    if (j.t.db) flags = HIST_WRITE;
    else if (j.dialogue) flags = HIST_MEMORY; /* the store is what knows which turns the models see again */
    if (r == OK && flags) r = hist_open(&j.t.h, j.t.db ? j.t.db : ":memory:", flags, e);
    while (r == OK) {
        str line;
        r = cmd_next_line(in, &stash, &cap, &line, e);
        if (r <= 0) break;
        arena_reset(&j.mem);
        r = reply_line(&j, line, e);
        j.line_no++;
    }
    if (in && in != stdin) fclose(in);
    free(stash);
    arena_free(&j.mem);
    talk_close(&j.t);
    return r == OK ? EXIT_OK : EXIT_FAILED;
}

/* ---- chat ------------------------------------------------------------------------------------------------------ */

static int cmd_chat(int argc, char **argv, err *e)
{
    talk         t = { .o = respond_defaults() };
    const char  *resume = NULL, *seed = NULL;
    int          status, n_pos, go_on = 0, color = 0, no_color = 0;
    int64_t      conv = 0;
    random_bytes(&t.o.seed, sizeof t.o.seed);
    const option list[] = {
        { "--resume", OPT_STR, &resume, "ID", "go on with a stored conversation" },
        { "--continue", OPT_FLAG, &go_on, NULL, "go on with the newest one" },
        { "--seed", OPT_STR, &seed, "S", "seed of the session; default: from the operating system" },
        { "--db", OPT_STR, &t.db, "FILE", "the store; default: duet/history.db in the user's data folder" },
        KEY_OPTION(t.key_file),
        { "--private", OPT_FLAG, &t.is_private, NULL, "keep nothing" },
        { "--color", OPT_FLAG, &color, NULL, "colours even when stdout is no terminal" },
        { "--no-color", OPT_FLAG, &no_color, NULL, "no colours" },
        TALK_OPTIONS(t),
        { NULL, 0, NULL, NULL, NULL },
    };
    if (cmd_parse(list, "chat [options]", "Talk. /help inside lists what can be typed besides words.", argc, argv, NULL, 0, &n_pos,
              &status, e))
        return status;
    if (seed) {
        char *end;
        t.o.seed = strtoull(seed, &end, 10);
        if (end == seed || *end || seed[0] == '-') {
            err_set(e, E_ARG, "--seed: '%s' is not a whole number", seed);
            return EXIT_USAGE;
        }
    }
    if (resume) {
        char *end;
        conv = strtoll(resume, &end, 10);
        if (end == resume || *end || conv <= 0) {
            err_set(e, E_ARG, "--resume: '%s' is no number of a conversation", resume);
            return EXIT_USAGE;
        }
    }
    if (read_words(&t, e)) return EXIT_USAGE;
    if ((resume || go_on) && t.is_private) {
        err_set(e, E_ARG, "a private chat cannot go on with a stored conversation");
        return EXIT_USAGE;
    }
    int r = talk_open(&t, e);
    if (r == OK) r = t.is_private ? hist_open(&t.h, ":memory:", HIST_MEMORY, e) : cmd_open_db(t.db, HIST_WRITE, &t.h, e);
    if (r == OK) {
        char banner[400];
        snprintf(banner, sizeof banner, "%.120s%s%.120s", gpt2_about(t.fwd)->name, t.bwd ? " + " : "",
                 t.bwd ? gpt2_about(t.bwd)->name : "");
        chat_opts o = { .r = t.r, .h = t.h, .is_private = t.is_private, .conv = go_on ? -1 : conv, .opts = t.o, .banner = banner,
                        .color = no_color ? 0 : color ? 1 : -1 };
        r = chat_run(&o, e);
    }
    talk_close(&t);
    return r == OK ? EXIT_OK : EXIT_FAILED;
}

/* ---- rules ----------------------------------------------------------------------------------------------------- */

static void test_failed(void *ctx, const safety_rule *r, str test, int wanted)
{
    (void)ctx;
    printf("FAIL %.*s: %s ", (int)r->id.n, r->id.s, wanted ? "does not hit" : "hits");
    put_visible(test);
    putchar('\n');
}

static int rules_test(const safety *s, int *failures, err *e)
{
    int n = 0, bad = safety_selftest(s, test_failed, NULL, &n, e);
    if (bad < 0) return bad;
    printf("%d rules, %d tests, %d failed\n", safety_n_rules(s), n, bad);
    *failures = bad;
    return OK;
}

/* The more severe of what the two places say. */
static int check_where(const safety *s, str text, int where, arena *a, verdict *v, err *e)
{
    verdict other;
    int     r = safety_check(s, text, where & WHERE_REPLY ? WHERE_REPLY : WHERE_USER, a, v, e);
    if (r || where != WHERE_BOTH) return r;
    r = safety_check(s, text, WHERE_USER, a, &other, e);
    if (r == OK && other.action > v->action) *v = other;
    return r;
}

static int rules_scan(const safety *s, int where, int json, err *e)
{
    char  *stash = NULL;
    size_t cap   = 0;
    arena  mem   = { 0 };
    int    r, tty = isatty(STDOUT_FILENO);
    str    line;
    while ((r = cmd_next_line(stdin, &stash, &cap, &line, e)) == 1) {
        verdict v;
        arena_reset(&mem);
        r = check_where(s, line, where, &mem, &v, e);
        if (r) break;
        const safety_rule *rule = v.rule >= 0 ? safety_rule_at(s, v.rule) : NULL;
        str id = rule ? rule->id : STR("-"), cat = rule ? rule->category : STR("-");
        if (json) {
            json_t *hits = json_array();
            for (int i = 0; i < v.n_hit; i++)
                json_array_append_new(hits, json_pack("{s:o, s:I, s:I, s:b}",
                                                      "rule", js_text(safety_rule_at(s, v.hit[i].rule)->id),
                                                      "from", (json_int_t)v.hit[i].from, "to", (json_int_t)v.hit[i].to,
                                                      "limit", v.hit[i].limit));
            r = js_line(json_pack("{s:s, s:o, s:o, s:o, s:o}", "verdict", safety_action_name(v.action), "rule", js_text(id),
                                  "category", js_text(cat), "hits", hits, "text", js_text(line)), e);
            if (r) break;
            continue;
        }
        printf("%s\t%.*s\t%.*s\t", safety_action_name(v.action), (int)id.n, id.s, (int)cat.n, cat.s);
        if (tty) put_visible(line);
        else fwrite(line.s, 1, line.n, stdout); /* a filter hands on the very bytes */
        putchar('\n');
        if (ferror(stdout)) {
            r = err_set(e, E_IO, "cannot write to stdout");
            break;
        }
    }
    free(stash);
    arena_free(&mem);
    return r;
}

static int cmd_rules(int argc, char **argv, err *e)
{
    const char  *word[65], *where = "both";
    int          n, status, json = 0, failures = 0;
    const option list[] = {
        { "--where", OPT_STR, &where, "WHO", "scan: user, reply or both: whose lines they are" },
        { "--json", OPT_FLAG, &json, NULL, "scan: an object a line, with every hit" },
        { NULL, 0, NULL, NULL, NULL },
    };
    if (cmd_parse(list, "rules check | test | scan  [PACK...] [options]",
              "check loads the packs, test runs the tests they carry, scan judges the lines of stdin: verdict TAB rule TAB category TAB text.", argc,
              argv, word, 65, &n, &status, e))
        return status;
    int at = strcmp(where, "user") == 0 ? WHERE_USER : strcmp(where, "reply") == 0 ? WHERE_REPLY : WHERE_BOTH;
    if (at == WHERE_BOTH && strcmp(where, "both") != 0) at = 0;
    if (!at || n == 0 || (strcmp(word[0], "check") && strcmp(word[0], "test") && strcmp(word[0], "scan"))) {
        if (!at) err_set(e, E_ARG, "--where: '%s' is none of user, reply, both", where);
        else if (n == 0) err_set(e, E_ARG, "what of them? check, test or scan");
        else err_set(e, E_ARG, "no '%s' here: check, test or scan", word[0]);
        return EXIT_USAGE;
    }
    open_names names = { .rules.n = n - 1, .prefix = DUET_PREFIX };
    memcpy(names.rules.v, word + 1, (size_t)(n - 1) * sizeof *word);
    safety *s = NULL;
    int     r = open_rules(&names, &s, e);
    if (r == OK && word[0][0] == 'c') printf("%d rules, digest %s\n", safety_n_rules(s), safety_digest(s));
    else if (r == OK && word[0][0] == 't') r = rules_test(s, &failures, e);
    else if (r == OK) r = rules_scan(s, at, json, e);
    safety_close(s);
    if (r == OK && failures) err_set(e, E_FORMAT, "%d of the packs' own tests failed", failures);
    return r == OK && !failures ? EXIT_OK : EXIT_FAILED;
}

const command dialog_commands[] = {
    { "chat", cmd_chat, "talk with the models" },
    { "reply", cmd_reply, "a reply for each line of input" },
    { "history", cmd_history, "list, show, search and export stored conversations" },
    { "rules", cmd_rules, "check and try the safety rules" },
    { NULL, NULL, NULL },
};
