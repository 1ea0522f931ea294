/* open: what a command needs before it can work: models, rules and the store, by the names a person gave or else where the
 * program's own are (paths.h).  Never looks at the environment: HOME and XDG_DATA_HOME come as arguments. */
#ifndef DUET_OPEN_H
#define DUET_OPEN_H

#include "dialog/history.h"
#include "models/options.h"

typedef struct {            /* options as they were given; NULL: not given */
    const char *models[2];  /* --models FWD BWD; BWD "-" = none */
    const char *model;      /* --model FWD: a forward model alone */
    const char *name;       /* --name NAME: that pair of the program's own */
    const char *lang;       /* zh or en: whose pair it is when none is named; NULL and other words: zh */
    opt_list    rules;      /* --rules PACK …; none: the program's own */
    int         no_rules;
    const char *prefix;     /* as path_shared: DUET_PREFIX */
} open_names;
#define OPEN_MODEL_OPTIONS(names)                                                                                               \
    { "--models", OPT_STR2, (names).models, "FWD BWD", "the forward and the backward model; - = none" },                        \
    { "--model", OPT_STR, &(names).model, "FWD", "a forward model alone" },                                                     \
    { "--name", OPT_STR, &(names).name, "NAME", "the pair NAME-forward.gguf, NAME-backward.gguf that came with the program" }
#define OPEN_OPTIONS(names)                                                                                                     \
    OPEN_MODEL_OPTIONS(names),                                                                                                  \
    { "--rules", OPT_STRS, &(names).rules, "PACK", "a rule file or a folder of them, again and again; default: those of the program" }, \
    { "--no-rules", OPT_FLAG, &(names).no_rules, NULL, "without safety rules" }

/* E_ARG: options that exclude one another. */
int open_check(const open_names *o, err *e);
/* Without a name: duet-zh, or duet-en when that is the language, else the first pair there is.  *bwd NULL when there is no backward model.  On an error both are
 * NULL. */
int open_models(const open_names *o, gpt2 **fwd, gpt2 **bwd, err *e);
int open_rules(const open_names *o, safety **s, err *e); /* NULL for no_rules */
/* db NULL: the default database, see path_database; its folders are made when flags has HIST_WRITE. */
int open_store(const char *db, const char *home, const char *xdg_data_home, int flags, history **h, err *e);

#endif
