/* commands: the commands of eval/, each in the program file that its noun names.  Program code, in no library. */
#ifndef DUET_EVAL_COMMANDS_H
#define DUET_EVAL_COMMANDS_H

#include "models/options.h"

int cmd_eval(int argc, char **argv, err *e);  /* eval_commands.c */
int cmd_audit(int argc, char **argv, err *e); /* audit_commands.c */

#endif
