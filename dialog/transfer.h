/* transfer: the record as text, a conversation a line of JSON, and back: to look at with other tools, to carry to another machine, to put two
 * stores together.  What is carried is the whole record with its salts and hashes; it is believed only as far as its chain holds.
 *
 * A conversation is {"conversation":its number in the file it came from,"created","title","tags","turns","key","rows"}.  "turns" is for
 * other readers (duet prep is one): {"speaker":"user"|"bot","text"} of the exchanges that the models answered and nobody took back; it is
 * ignored on the way in.  "rows" is its chain, in order:
 *   every row    {"n","what":"model"|"refused"|"stock"|"undo"|"forget","target","stale","opts","seed" (text),"forward_model",
 *                "backward_model","rules","numerics","chosen","created","seconds","prev","hash"}
 *   an exchange  and {"said","forgotten","undone","candidates":[{"fate","drawn"}…],"judgments":[{"reader","label","note","created"}…]}
 *   not forgotten  and {"user","user_ids","user_verdict","cut","evaluated","prompt","reply","reply_ids","salt"}, and in each candidate
 *                {"text","ids","ended","dup_of","fwd","bwd","n_source","score","verdict","salt"}
 * A verdict is {"action","rule","hits":[[rule,limit,from,to]…]}.  Bytes are in hex.  A text that is not UTF-8 is {"hex":…}.  A number
 * that is not finite is null (NaN), "inf" or "-inf".  "undone" too is ignored on the way in. */
#ifndef DUET_TRANSFER_H
#define DUET_TRANSFER_H

#include "dialog/history.h"

typedef int transfer_put(void *ctx, str line, err *e);   /* a line without its end; OK or an error that ends the work */
typedef int transfer_next(void *ctx, str *line, err *e); /* 1 a line, 0 no more, <0 an error */

/* One conversation as a line. */
int hist_dump(history *h, int64_t conv, transfer_put *put, void *ctx, err *e);

typedef struct {
    int64_t lines;         /* read */
    int64_t conversations; /* that were not there before */
    int64_t rows, known;   /* rows added, and rows that were there already */
    int64_t erased;        /* exchanges whose words went because a forget row came in */
} hist_loaded;
/* Take lines in, all or none of them.  A conversation is known by its key: when it is there, rows with the same hash are passed over and
 * what goes beyond them is added; rows that differ are an error.  A forget row that is added erases here too; words that were forgotten
 * here do not come back.  E_FORMAT names the line: no JSON, a field that is missing or wrong, a chain that does not hold. */
int hist_load(history *h, transfer_next *next, void *ctx, hist_loaded *out, err *e);

#endif
