/* json: see json.h. */
#include "dialog/json.h"

#include <math.h>
#include <stdio.h>

json_t *js_text(str s)
{
    buf b = { 0 };
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t   k = utf8_next(s.s + i, s.n - i, &cp);
        if (cp == UTF8_BAD) buf_str(&b, STR("\xEF\xBF\xBD"));
        else buf_add(&b, s.s + i, k);
        i += k;
    }
    json_t *j = b.oom ? NULL : json_stringn(b.s ? b.s : "", b.n);
    buf_free(&b);
    return j;
}

json_t *js_real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

json_t *js_u64(uint64_t x)
{
    char s[24];
    snprintf(s, sizeof s, "%llu", (unsigned long long)x);
    return json_string(s);
}

const char *reply_kind_name(int kind) { return kind == REPLY_MODEL ? "model" : kind == REPLY_REFUSED ? "refused" : "stock"; }

json_t *js_reply(const reply *r, uint64_t seed)
{
    json_t *cands = json_array();
    for (int k = 0; k < r->n; k++) {
        const candidate *c = &r->cand[k];
        json_array_append_new(cands, json_pack("{s:o, s:o, s:o, s:o, s:s, s:s, s:i, s:b}", "text", js_text(c->text),
                                               "fwd", js_real(c->fwd), "bwd", js_real(c->bwd), "score", js_real(c->score),
                                               "verdict", safety_action_name(c->v.action), "fate", respond_fate_name(c->fate),
                                               "tokens", c->n, "ended", c->ended));
    }
    return json_pack("{s:o, s:s, s:i, s:s, s:o, s:o}", "reply", js_text(r->text), "kind", reply_kind_name(r->kind), "chosen", r->chosen,
                     "user_verdict", safety_action_name(r->user_v.action), "seed", js_u64(seed), "candidates", cands);
}
