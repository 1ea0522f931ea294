#!/usr/bin/env bash
# Planted faults: each is one of the silent mistakes of this field, put into a copy of the sources; the test named with it must turn red.
# usage: tests/faults.sh BUILD        (the copy and its build go to BUILD/faults)
set -u
copy=$1/faults
mkdir -p "$copy"
for d in dialog models corpus eval tests; do rm -rf "${copy:?}/$d"; mkdir -p "$copy/$d"; done
tar -cf - --exclude=models/weights --exclude=corpus/scenes Makefile dialog models corpus eval tests | tar -xf - -C "$copy"
passed=0 failed=0

make_test() { make -C "$copy" --no-print-directory -s BUILD=build CFLAGS=-O1 "build/tests/$1" >"$copy/make.log" 2>&1; }
verdict() { # NAME COUNT-OF-PASSED WHY
    if [ "$2" = 1 ]; then passed=$((passed + 1)); printf 'ok    %s\n' "$1"
    else failed=$((failed + 1)); printf 'FAIL  %s: %s\n' "$1" "$3"; fi
}
# fault NAME FILE TEST SED-EXPRESSION
fault() {
    local name=$1 file=$copy/$2 test=$3 how=$4
    cp "$file" "$copy/whole"
    sed -i "$how" "$file"
    if cmp -s "$file" "$copy/whole"; then verdict "$name" 0 "the line it is planted in has gone from $2"
    elif ! make_test "$test"; then verdict "$name" 0 "does not compile: $(tail -n 2 "$copy/make.log")"
    elif (cd "$copy" && timeout 120 "build/tests/$test") >"$copy/test.log" 2>&1; then verdict "$name" 0 "$test stayed green"
    else verdict "$name" 1; fi
    cp "$copy/whole" "$file"
}

fault "GELU: erf's cubic term left out" models/ops.c models/test_gpt2 's/0\.044715f \* (x \* x \* x)/0.044f * (x * x * x)/'
fault "attention: sees one position too few" models/cache.c models/test_gpt2 's/S, c->pos\[r0 + r\] + 1);/S, c->pos[r0 + r] + (c->pos[r0 + r] == 0));/'
fault "attention: a tail without its own token" models/cache.c models/test_gpt2 's/own\[r\]    = c->pos\[r0 + r\] + 1 - shared\[r\];/own[r]    = tails \&\& c->pos[r0 + r] > shared[r] ? c->pos[r0 + r] - shared[r] : 0;/'
fault "MMI: the hypothesis is not masked" dialog/respond.c dialog/test_respond 's/if (joint) j.from\[i\] = 1;/j.from[i] = 1;/'
fault "MMI: the source in the forward order" models/format.c models/test_format 's/for (int i = n - 1; i >= 0; i--) {/for (int i = 0; i < n; i++) {/'
fault "training: the reversed rows are not" models/format.c models/test_format 's/turns\[reversed ? n - 1 - k : k\]/turns[k]/'
fault "training: the first turn is a target too" models/format.c models/test_format 's/if (shown++ == 0 \&\& !loss_all) w = 0;/shown++;/'
fault "training: decay of biases and norms" models/train.c models/test_train 's/o->decay_all || (q->flags \& T_DECAY) ? o->weight_decay/1 ? o->weight_decay/'
fault "training: no bias correction" models/train.c models/test_train 's/\.c2 = 1\.0 - pow(o->beta2, n)/.c2 = 1.0/'
fault "sampling: the penalty rewards repeats" models/sample.c models/test_sample 's/s->z\[id\] < 0 \&\& o->rep_rule == PENALTY_SIGNED ? s->z\[id\] \* p/0 ? s->z[id] * p/'
fault "sampling: ids that tie with the k-th are lost" models/sample.c models/test_sample 's/if (x >= least \&\& !is_touched(s, i))/if (x > least \&\& !is_touched(s, i))/'
fault "scoring: an older sum is not brought to the new maximum" models/ops.c models/test_ops 's/s->sum \* (double)ops_exp(s->max - m) + (double)sum/s->sum + (double)sum/'
fault "sampling: candidates draw alike" dialog/respond.c dialog/test_respond 's/rng_unit(o->seed, (uint64_t)(o->first_cand + k), /rng_unit(o->seed, (uint64_t)o->first_cand, /'
fault "safety: replies are not judged" dialog/respond.c dialog/test_respond 's/got = judge(r, c->text, WHERE_REPLY, a, \&c->v, e);/got = judge(NULL, c->text, WHERE_REPLY, a, \&c->v, e);/; s/return r->rules ? safety_check/return r \&\& r->rules ? safety_check/'
fault "history: a commit that is not read back" dialog/record.c dialog/test_chain '/^    if (r == OK) {$/{N;s/if (r == OK) {\n        r = record_load/if (0) {\n        r = record_load/}'
fault "import: Conv1D is not transposed" models/import.c models/test_import 's/(t->flags \& T_HF_TRANSPOSED) != 0, i, n, cols/0, i, n, cols/'
fault "pickle: any global is known" models/unpickle.c models/test_corrupt 's/if (str_eq(module, str_of(globals\[i\].module)) \&\& str_eq(name, str_of(globals\[i\].name)))$/if (module.n + name.n)/'
fault "prune: the best go first" models/prune.c models/test_prune 's/return x->score > y->score ? -1 : x->score < y->score ? 1/return x->score > y->score ? 1 : x->score < y->score ? -1/'
fault "prune: keys of another head" models/prune.c models/test_prune 's/third \* C + head\[i\] \* D + d/third * C + (third == 1 ? i : head[i]) * D + d/'
fault "prune: a layer that moves keeps its place's scale" models/prune.c models/test_prune 's/if (from->scale_attn_by_layer \&\& k->layer\[i\] != i)/if (0)/'
fault "vocabulary: a kept token loses its parts" models/vocab_cut.c models/test_prune 's/if (r == OK \&\& t->kind == TOK_BPE) add_parts/if (0) add_parts/'

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
