/* pace: what a person waits for: replies, the first prompt; and the memory it takes. */
#ifndef DUET_PACE_H
#define DUET_PACE_H

#include "dialog/respond.h"
#include "eval/stopwatch.h"

typedef struct {
    double p50, p95, max, mean;    /* seconds of a turn: respond() from the line to the reply */
    double first;                  /* of the very first turn, with all that happens only once (digests of the models) */
    int    turns, disturbed;       /* behind the first; quantiles are of the quiet ones, or of all when most were disturbed */
    double candidates, tokens;     /* in the mean turn: candidates that the reverse model scored; tokens drawn */
    char   hash[17];               /* start of the SHA-256 of all candidates' tokens and scores */
} pace;
/* `turns` turns: the lines (n,) over and over, six to a conversation, each answered with what was said in it as its history.  Same options, same
 * lines: same replies. */
int pace_talk(responder *r, const respond_opts *o, const str *line, int n, int turns, pace *p, err *e);
/* Lines that people write; *n of them, lang as in respond_opts. */
const str *pace_lines(int lang, int *n);

/* Seconds from starting the program `argv` (its own path first, NULL last; stdin empty, output thrown away) to its end; E_IO when it failed. */
int pace_program(char *const *argv, stopwatch *w, err *e);

/* Largest resident memory, in bytes, of a process that runs f(ctx) and nothing else.  f returns an error code.  Call it while this process has one
 * thread.  E_IO; what f returned. */
int pace_memory(int (*f)(void *ctx, err *e), void *ctx, double *bytes, err *e);

#endif
