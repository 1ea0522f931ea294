/* json: texts, numbers and replies as JSON, for whoever prints or writes them.  NULL when out of memory. */
#ifndef DUET_JSON_H
#define DUET_JSON_H

#include <jansson.h>

#include "dialog/respond.h"

json_t     *js_text(str s);       /* ill-formed UTF-8 as U+FFFD */
json_t     *js_real(double x);    /* null when it is not finite */
json_t     *js_u64(uint64_t x);   /* as text: a double does not hold it */
const char *reply_kind_name(int kind); /* "model", "refused", "stock" */
/* {"reply","kind","chosen","user_verdict","seed","candidates":[{"text","fwd","bwd","score","verdict","fate","tokens","ended"}]} */
json_t     *js_reply(const reply *r, uint64_t seed);

#endif
