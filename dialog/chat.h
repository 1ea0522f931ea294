/* chat: the conversation at a terminal (readline) or over plain pipes.  Reads a line, calls respond(), stores the exchange, then shows it:
 * nothing is shown that is not committed.  Slash commands, Ctrl-C stops a reply, Ctrl-D leaves. */
#ifndef DUET_CHAT_H
#define DUET_CHAT_H

#include "dialog/history.h"

typedef struct {
    responder   *r;
    history     *h;          /* never NULL: a private chat uses HIST_MEMORY */
    int          is_private; /* say so, and that nothing is kept */
    int64_t      conv;       /* conversation to resume; 0 = a new one at the first line; -1 = the newest there is */
    respond_opts opts;       /* opts.seed is the seed of the session: exchange k draws with rng_u64(seed, k, conversation) */
    const char  *banner;     /* one line about the models; NULL */
    int          color;      /* 1 yes, 0 no, -1 when stdout is a terminal */
} chat_opts;

/* Runs until /quit, end of input or a failure that makes going on pointless (the store cannot be written). */
int chat_run(const chat_opts *o, err *e);

#endif
