/* commands: the commands of eval/, each in the program file that its noun names.  Program code, in no library. */
#ifndef DUET_EVAL_COMMANDS_H
#define DUET_EVAL_COMMANDS_H

#include "eval/batch.h"
#include "eval/doubt.h"
#include "models/options.h"

int cmd_eval(int argc, char **argv, err *e);  /* eval_commands.c */
int cmd_rank(int argc, char **argv, err *e);  /* rank_commands.c */
int cmd_audit(int argc, char **argv, err *e); /* audit_commands.c */
int cmd_bench(int argc, char **argv, err *e); /* bench.c */
int cmd_sweep(int argc, char **argv, err *e); /* sweep_commands.c */
int cmd_compare(int argc, char **argv, err *e); /* compare_commands.c */

/* ---- set_commands.c ---- */

typedef struct {
    const char        *set, *out;
    const char *const *systems; /* (n,) settings files */
    int                n, limit, threads, together, listed, kind /* TOKENISE_… */, json, markdown;
    doubt_opts         doubt;
} set_options;
int eval_set(const set_options *o, err *e); /* prints the table (or JSON, Markdown), leaves everything in the folder `out` */
/* batch_generate with as many responders as there are threads (0: all), and its progress on stderr under `name`. */
int set_generate(const char *name, gpt2 *fwd, gpt2 *bwd, const safety *rules, const testset *t, const respond_opts *o, int threads, int together, const char *path, err *e);

#endif
