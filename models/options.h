/* options: strict command-line options for the commands.c files.  Pure: parses, never prints or exits. */
#ifndef DUET_OPTIONS_H
#define DUET_OPTIONS_H

#include "models/base.h"

enum { OPT_FLAG /* int*: set to 1 */, OPT_INT /* int* */, OPT_LONG /* long* */, OPT_U64 /* uint64_t* */, OPT_FLOAT /* float* */,
       OPT_DOUBLE /* double* */, OPT_STR /* const char** */, OPT_STR2 /* const char*[2]: two arguments */,
       OPT_STRS /* opt_list*: may be given again and again */, OPT_GROUP /* heading in the help; `name` is its text */ };
typedef struct {
    const char *v[64];
    int         n;
} opt_list;
typedef struct {
    const char *name; /* "--seed"; a second spelling after a comma: "--candidates,-N" */
    int         kind;
    void       *to;
    const char *arg;  /* name of the argument in the help: "N" */
    const char *help; /* one line */
} option;             /* a list ends with name == NULL */

enum { OPTIONS_HELP = 1 };
/* argv[0..argc) are the words behind the command's name.  Options and positional words may be mixed; "--x=V" and "--x V"; "--" ends options; "-" is a word.
 * Positional words go to pos[0..*n_pos), at most max_pos.  Numbers must parse whole and fit; NaN and inf are refused.
 * OK; OPTIONS_HELP when --help or -h is there; E_ARG with a line that names the word. */
int options_parse(const option *o, int argc, char **argv, const char **pos, int max_pos, int *n_pos, err *e);
/* "usage: duet <usage>\n\n<about>\n\noptions:\n …" */
void options_help(buf *out, const char *usage, const char *about, const option *o);

/* A command: returns the exit status: 0 ok, 1 failed, 2 usage, 3 an audit found a difference.  On 1 and 2 `e` holds the one line that main prints. */
typedef struct {
    const char *name;
    int (*run)(int argc, char **argv, err *e);
    const char *line; /* what `duet help` says of it */
} command;            /* a list ends with name == NULL */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DIFFERS = 3 };

extern const command models_commands[], corpus_commands[], dialog_commands[], eval_commands[]; /* in the commands.c files */

#endif
