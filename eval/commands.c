/* The table of eval's commands. */
#include "eval/commands.h"

const command eval_commands[] = {
    { "eval", cmd_eval, "metrics of replies: BLEU, NIST, METEOR, Distinct, …, with doubt" },
    { "audit", cmd_audit, "check the record: every hash, or every reply again" },
    { NULL, NULL, NULL },
};
