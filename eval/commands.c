/* The table of eval's commands. */
#include "eval/commands.h"

const command eval_commands[] = {
    { "audit", cmd_audit, "check the record: every hash, or every reply again" },
    { NULL, NULL, NULL },
};
