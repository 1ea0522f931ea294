/* audit_commands: what the program files of the command audit share: its options, what is open, how it prints. */
#ifndef DUET_EVAL_AUDIT_COMMANDS_H
#define DUET_EVAL_AUDIT_COMMANDS_H

#include "dialog/commands.h"
#include "dialog/open.h"
#include "eval/audit.h"

typedef struct {
    const char *db, *words[4]; /* db: also the word at the end */
    open_names  names;
    int         n_words, last, threads, json;
    long        conv;
    double      tolerance;
    /* why    */ int64_t turn; /* or, with row > 0, the conversation */
    int row, candidate, top, no_replay, per_token;
    /* rules  */ opt_list with;
    /* report, sample */ const char *out;
    int      n_sample;
    uint64_t seed;
    const char *reader, *export, *import;
    int         agreement;
    /* opened */
    history   *h;
    gpt2      *fwd, *bwd;
    safety    *pack;
    responder *r;
} audit_job;

/* The subcommands.  The store is open for reading; *status = EXIT_OK or EXIT_DIFFERS when they return OK. */
int audit_run_why(audit_job *j, int *status, err *e);
int audit_run_rules(audit_job *j, int *status, err *e);
int audit_run_report(audit_job *j, int *status, err *e);
int audit_run_sample(audit_job *j, int *status, err *e);

int  audit_open_models(audit_job *j, err *e); /* rules, models, and the responder over them */
int  audit_open_rules(audit_job *j, err *e);
/* The exchanges that --last and --conversation leave, oldest first. */
int  audit_chosen_turns(audit_job *j, arena *a, int64_t **id, int *n, err *e);

int     audit_put_file(const char *path, str bytes, err *e); /* whole or not at all; "-" = stdout */
json_t *js_number(double x); /* null when it is not finite */

#endif
