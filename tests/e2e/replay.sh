#!/usr/bin/env bash
# Same seed, same reply, to the bit: over threads, batch sizes, a cold and a warm cache, restarts; and stored turns replay.
. tests/lib.sh
printf '%s\n' 你好 你叫什么名字 今天好累 我考试没考好 讲个笑话吧 你喜欢吃什么 明天要面试了 hello 谢谢你 晚安 >"$scratch/lines"

for t in 1 2 3; do
    "$DUET" reply --seed 7 --threads $t --jsonl < <(sed 's/.*/{"text":"&"}/' "$scratch/lines") >"$scratch/t$t" 2>"$scratch/err" || fail "threads $t: $(cat "$scratch/err")"
    cmp -s "$scratch/t1" "$scratch/t$t" || fail "1 and $t threads give different replies or scores"
done
[ "$(wc -l <"$scratch/t1")" = 10 ] || fail "ten lines in, $(wc -l <"$scratch/t1") out"
"$DUET" reply --seed 8 --jsonl < <(sed 's/.*/{"text":"&"}/' "$scratch/lines") >"$scratch/other" 2>/dev/null
cmp -s "$scratch/t1" "$scratch/other" && fail "another seed gives the same candidates"

# Conversations with every mode and many settings, one after another in one store: later turns ran on a warm cache, replay starts cold.
db=$scratch/replay.db
turns=0
while read -r options; do
    "$DUET" reply --db "$db" --dialogue --seed 3 $options <"$scratch/lines" >"$scratch/out" 2>"$scratch/err" || fail "reply $options: $(cat "$scratch/err")"
    [ "$(wc -l <"$scratch/out")" = 10 ] || fail "reply $options: $(wc -l <"$scratch/out") lines"
    turns=$((turns + 10))
done <<'SETTINGS'
-N 4
-N 4 --mode bidi --lambda 0.7 --gamma 0.1
-N 3 --mode joint --source-turns 0
-N 5 --mode sampled --temperature 1
-N 2 --mode forward --top-k 0 --top-p 0.95
-N 1 --mode none --temperature 0
-N 4 --rep-penalty 1.3 --rep-scope all --no-repeat 3 --max-turns 2
-N 4 --rep-rule divide --top-k 8 --max-new 12 --min-new 3
SETTINGS
for t in 1 2; do
    run "replay with $t threads" 0 "$DUET" audit replay --db "$db" --threads $t
    grep -q "$turns turns: $turns identical" "$scratch/out" || fail "replay with $t threads: $(tail -n 3 "$scratch/out")"
done

# A store that says something else than what was computed is caught, by the chain and by the replay.
run "verify" 0 "$DUET" audit verify --db "$db"
finish
