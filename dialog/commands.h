/* commands: the commands of dialog/, each in the program file that its noun names, and the few things they share.  Program code, in no
 * library. */
#ifndef DUET_DIALOG_COMMANDS_H
#define DUET_DIALOG_COMMANDS_H

#include <stdio.h>

#include "dialog/history.h"
#include "dialog/json.h"
#include "models/options.h"

int cmd_history(int argc, char **argv, err *e); /* history_commands.c */

/* ---- commands.c ---- */

/* Runs the parser; OK, or the exit status in *status (help printed, or a usage error). */
int cmd_parse(const option *list, const char *usage, const char *about, int argc, char **argv, const char **pos, int max_pos, int *n_pos,
              int *status, err *e);
/* --key-file: OK when it was not given, else E_ARG: nothing is stored in the clear behind the back of someone who asked for a key. */
#define KEY_OPTION(to) { "--key-file", OPT_STR, &(to), "FILE", "an encrypted store: needs SQLCipher, and this Duet is built without it" }
int cmd_refuse_key(const char *key_file, err *e);
/* The store named by --db, or the default one. */
int cmd_open_db(const char *db, int flags, history **h, err *e);
/* A file for reading; NULL and "-" are stdin. */
int cmd_open_input(const char *path, FILE **f, err *e);
/* A line of input without its end; 1 a line, 0 the end, <0 error. */
int  cmd_next_line(FILE *f, char **stash, size_t *cap, str *line, err *e);
str  cmd_utc(char out[32]);
void put_visible(str s); /* to stdout, safe for a terminal */

int  js_line(json_t *j, err *e); /* one object, one line of stdout; takes j */

#endif
