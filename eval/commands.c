/* The table of eval's commands. */
#include "eval/commands.h"

const command eval_commands[] = {
    { "eval", cmd_eval, "metrics of replies: BLEU, NIST, METEOR, Distinct, …, with doubt" },
    { "sweep", cmd_sweep, "what lambda, N, the score and the temperature do to the replies" },
    { "compare", cmd_compare, "people judge replies side by side, blind; what they found" },
    { "rank", cmd_rank, "can the models find the true reply among random ones? hits@k, MRR" },
    { "audit", cmd_audit, "check, explain, judge again and report what is stored" },
    { "bench", cmd_bench, "how fast the models run, beside the limits of the machine" },
    { NULL, NULL, NULL },
};
