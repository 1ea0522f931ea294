/* commands: the commands of corpus/, each in the program file that its noun names, and the few things they share.  Program code, in no library. */
#ifndef DUET_CORPUS_COMMANDS_H
#define DUET_CORPUS_COMMANDS_H

#include "corpus/run.h"
#include "models/options.h"

int cmd_prune(int argc, char **argv, err *e); /* prune_commands.c */

/* ---- commands.c ---- */

/* After options_parse: what to return, or -1 to go on. */
int parsed(int rc, const char *usage, const char *about, const option *o);
int usage_error(err *e, const char *fmt, const char *arg); /* EXIT_USAGE */
static inline int status_of(int rc) { return rc == OK ? EXIT_OK : EXIT_FAILED; }
/* The dialogue layout that a vocabulary stands for; name: NULL, dialogpt or cls_sep. */
int format_for(const tokenizer *t, const char *name, format *f, err *e);
/* The shards (n,) were made with this tokenizer, which is that of `from`. */
int tokenizer_fits(const tokenizer *t, shard *const *s, int n, const char *from, err *e);

#endif
