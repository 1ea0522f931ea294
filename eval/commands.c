/* The table of eval's commands. */
#include "eval/commands.h"

const command eval_commands[] = {
    { "audit", cmd_audit, "check, explain, judge again and report what is stored" },
    { NULL, NULL, NULL },
};
