#!/usr/bin/env bash
# eval --set and rank with a small model made here: what is written, kill -9 and going on, threads, what is refused.
. tests/lib.sh
export OMP_WAIT_POLICY=passive

s=$scratch
m=$s/m.gguf
printf '你好\n你好呀\n\n你是谁\n我是小对\n\n今天天气好吗\n很好\n\n你吃饭了吗\n吃了\n' >"$s/talk.txt"
run "vocab" 0 "$DUET" vocab "$s/talk.txt" -o "$s/vocab.txt" --size 200 --min-count 1
run "prep" 0 "$DUET" prep "$s/talk.txt" -o "$s/a.shard" --tokenizer "$s/vocab.txt" --valid 0.25
run "train" 0 "$DUET" train "$s/a.shard" -o "$m" --layers 1 --embd 16 --heads 2 --ctx 64 --steps 2 --batch 64 --threads 1
[ -s "$m" ] || { cat "$s/err"; finish; }
for i in 1 2 3 4 5 6 7 8 9 10; do printf '{"history":["你好"],"text":"今天 %d 好吗","references":["很好","我是 %d"]}\n' $i $i; done >"$s/set.jsonl"
printf '# one\nforward: m.gguf\noptions: mode=forward n=3 max_new=8\n' >"$s/one.txt"
printf 'name: people\nreplies: people.out\n' >"$s/two.txt"
for i in 1 2 3 4 5 6 7 8 9; do echo "很好 <b>&"; done >"$s/people.out"
echo >>"$s/people.out"

run "eval" 0 "$DUET" eval --set "$s/set.jsonl" --systems "$s/one.txt" "$s/two.txt" -o "$s/o" --tokenize zh --resamples 40 --threads 1
grep -q 'B - A' "$s/out" && grep -q '^METEOR' "$s/out" || fail "table: $(head -c 500 "$s/out")"
for f in one.jsonl one.jsonl.settings report.html report.json report.md; do [ -s "$s/o/$f" ] || fail "no $f"; done
[ ! -e "$s/o/one.jsonl.part" ] && [ "$(wc -l <"$s/o/one.jsonl")" = 10 ] || fail "not one line for each item"
[ "$(grep -c '"candidates":\[{' "$s/o/one.jsonl")" = 10 ] || fail "a line without candidates"
! grep -qiE '<script|https?://|<b>&<' "$s/o/report.html" && grep -q '很好 &lt;b&gt;&amp;' "$s/o/report.html" || fail "the page reaches out, or a reply is not escaped"
grep -q '"reference_perplexity"' "$s/o/report.json" || fail "no perplexity"

"$DUET" eval --set "$s/set.jsonl" --systems "$s/one.txt" -o "$s/k" --resamples 0 --threads 1 >/dev/null 2>&1 &
p=$!
for _ in $(seq 400); do [ -s "$s/k/one.jsonl.part" ] || [ -e "$s/k/one.jsonl" ] && break; sleep 0.01; done
kill -9 $p 2>/dev/null
wait $p 2>/dev/null
[ -e "$s/k/one.jsonl" ] && mv "$s/k/one.jsonl" "$s/k/one.jsonl.part" # it was quick: cut it by hand all the same
head -c $(($(wc -c <"$s/k/one.jsonl.part") - 5)) "$s/k/one.jsonl.part" >"$s/cut" && mv "$s/cut" "$s/k/one.jsonl.part"
run "go on" 0 "$DUET" eval --set "$s/set.jsonl" --systems "$s/one.txt" -o "$s/k" --resamples 0 --threads 3
cmp -s "$s/o/one.jsonl" "$s/k/one.jsonl" || fail "a killed run that goes on with three threads gives other bytes"
run "one at a time" 0 "$DUET" eval --set "$s/set.jsonl" --systems "$s/one.txt" -o "$s/single" --resamples 0 --threads 1 --together 1
cmp -s "$s/o/one.jsonl" "$s/single/one.jsonl" || fail "one context at a time gives other bytes than many"
run "together, range" 2 "$DUET" eval --set "$s/set.jsonl" --systems "$s/one.txt" -o "$s/k" --together 17
one_error_line "together, range" "17 is not 1 to 16"
sed -i 's/n=3/n=2/' "$s/one.txt"
run "other options" 1 "$DUET" eval --set "$s/set.jsonl" --systems "$s/one.txt" -o "$s/k"
one_error_line "other options" "made with another set, models, rules or options"
head -9 "$s/people.out" >"$s/p" && mv "$s/p" "$s/people.out"
run "too few replies" 1 "$DUET" eval --set "$s/set.jsonl" --systems "$s/two.txt" -o "$s/k"
one_error_line "too few replies" "people.out: 9 lines, the set has 10 items"
run "no folder" 2 "$DUET" eval --set "$s/set.jsonl" --systems "$s/two.txt"
run "set and hyp" 2 "$DUET" eval --set "$s/set.jsonl" --systems "$s/two.txt" -o "$s/k" --hyp "$s/people.out"

for i in 1 2 3 4 5 6; do printf '你好 %d\n我是 %d\n\n' $i $i; done >"$s/rank.txt"
run "rank" 0 "$DUET" rank --set "$s/rank.txt" -k 4 --model "$m" --json
grep -qE '^\{"items":6,"k":4,"seed":1,"modes":\{"forward":\{"hits@1":[0-9.e-]+,.*"mrr":0\.[0-9]+\}\}\}$' "$s/out" || fail "rank: $(cat "$s/out")"
cp "$s/out" "$s/first"
run "rank again" 0 "$DUET" rank --set "$s/rank.txt" -k 4 --model "$m" --json --threads 1
cmp -s "$s/out" "$s/first" || fail "rank with one thread gives other numbers"
run "rank, too few" 1 "$DUET" rank --set "$s/rank.txt" -k 10 --model "$m"
one_error_line "rank, too few" "fewer than 10 different replies"
run "rank, mmi alone" 1 "$DUET" rank --set "$s/rank.txt" -k 3 --model "$m" --mode mmi
one_error_line "rank, mmi alone" "there is none"
finish
