/* commands: the commands of eval/, each in the program file that its noun names.  Program code, in no library. */
#ifndef DUET_EVAL_COMMANDS_H
#define DUET_EVAL_COMMANDS_H

#include "dialog/safety.h"
#include "eval/doubt.h"
#include "models/gpt2.h"
#include "models/options.h"

int cmd_eval(int argc, char **argv, err *e);  /* eval_commands.c */
int cmd_rank(int argc, char **argv, err *e);  /* rank_commands.c */
int cmd_audit(int argc, char **argv, err *e); /* audit_commands.c */

/* ---- set_commands.c ---- */

typedef struct {
    const char        *set, *out;
    const char *const *systems; /* (n,) settings files */
    int                n, limit, threads, listed, kind /* TOKENISE_… */, json, markdown;
    doubt_opts         doubt;
} set_options;
int eval_set(const set_options *o, err *e); /* prints the table (or JSON, Markdown), leaves everything in the folder `out` */

/* ---- open_commands.c ---- */

typedef struct {
    const char *models[2], *model, *name; /* --models FWD BWD, --model FWD, --name NAME; nothing: the pair duet-zh of the program */
} pair_options;
#define PAIR_OPTIONS(p)                                                                                                  \
    { "--models", OPT_STR2, (p).models, "FWD BWD", "the forward and the backward model; - = none" },                     \
    { "--model", OPT_STR, &(p).model, "FWD", "a forward model alone" },                                                  \
    { "--name", OPT_STR, &(p).name, "NAME", "the pair NAME-forward.gguf, NAME-backward.gguf that came with the program" }
int pair_options_check(const pair_options *o, err *e);
int open_pair(const pair_options *o, gpt2 **fwd, gpt2 **bwd, err *e); /* *bwd stays NULL when there is none */
int open_packs(const opt_list *packs, safety **out, err *e);          /* none given: those of the program */

#endif
