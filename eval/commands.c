/* The table of eval's commands. */
#include "eval/commands.h"

const command eval_commands[] = {
    { "eval", cmd_eval, "metrics of replies: BLEU, NIST, METEOR, Distinct, …, with doubt" },
    { "rank", cmd_rank, "can the models find the true reply among random ones? hits@k, MRR" },
    { "audit", cmd_audit, "check, explain, judge again and report what is stored" },
    { "bench", cmd_bench, "how fast the models run, beside the limits of the machine" },
    { NULL, NULL, NULL },
};
