#!/usr/bin/env bash
# compare: judging on a pipe, stopped by kill -9 and gone on with, undone; forms there and back; the report; what is refused.  sweep: a small one with small models.
. tests/lib.sh
export OMP_WAIT_POLICY=passive
s=$scratch

for i in 1 2 3 4 5 6; do
    printf '{"history":["before"],"text":"line %d","reference":"yes"}\n' $i >>"$s/set.jsonl"
    echo "good $i" >>"$s/left.txt"
    [ $i = 6 ] && echo "good 6" >>"$s/right.txt" || printf 'bad \033[31m%d\n' $i >>"$s/right.txt"
done
cmp="$DUET compare"
run "new study" 0 $cmp "$s/left.txt" "$s/right.txt" --set "$s/set.jsonl" -o "$s/st"
grep -q '5 units of 2 systems, 1 more with equal replies' "$s/out" || fail "new study: $(cat "$s/out")"
run "the same again" 0 $cmp "$s/left.txt" "$s/right.txt" --set "$s/set.jsonl" -o "$s/st"
run "another in its place" 1 $cmp "$s/left.txt" "$s/right.txt" --set "$s/set.jsonl" -o "$s/st" --seed 2
one_error_line "another in its place" "another study is there already"

# Which side the good reply is on, for one judge and unit after the other, from what is shown.
prefer_good() { # LINES OF A SCREEN: an answer for the last unit on it
    awk '/^  1 /{one=$2} /^  2 /{two=$2} END{print (one=="good") ? "1=1" : "2=2"}' "$1"
}
answers=
for n in 1 2 3 4 5; do
    printf '%b' "$answers" | $cmp "$s/st" --judge probe >"$s/screen" 2>&1
    rm -f "$s/st/judgments.jsonl"
    answers="$answers$(prefer_good "$s/screen")\\n"
done
printf '%b' "$answers" | head -c 8 | $cmp "$s/st" --judge probe >"$s/out" 2>"$s/err" || fail "two of five: $(cat "$s/err")"
grep -q '2 judged now, 3 of 5 left' "$s/out" || fail "two of five: $(tail -1 "$s/out")"
grep -q $'\033' "$s/out" && fail "a control character of a reply reaches the terminal"
printf '{"unit":' >>"$s/st/judgments.jsonl" # the plug pulled
{ printf 'u\nx\n?\n'; printf '%b' "$answers" | tail -n +2 | head -1; printf 's\n'; printf '%b' "$answers" | sed -n '4,5p'; printf '%b' "$answers" | sed -n 3p; } | $cmp "$s/st" --judge probe >"$s/out" 2>"$s/err" || fail "go on: $(cat "$s/err")"
grep -q 'was not finished' "$s/err" || fail "the torn line is not told"
grep -q 'taken back' "$s/out" && grep -q '0 of 5 left' "$s/out" || fail "go on: $(tail -3 "$s/out")"
run "report" 0 $cmp report "$s/st" --json --html "$s/r.html"
grep -q '"relevance":{"units":5,"wins":5.0,"ties":0.0,"losses":0.0' "$s/out" || fail "report: $(head -c 600 "$s/out")"
grep -q '"informativeness":{"units":5,"wins":0.0,"ties":5.0' "$s/out" || fail "report, ties: $(head -c 600 "$s/out")"
grep -q 'left' "$s/r.html" || fail "no page"
grep -qE '<script|https?://' "$s/r.html" && fail "the page reaches out"

# kill -9 between two judgments: what was given is there.
mkfifo "$s/in"
$cmp "$s/st" --judge killed <"$s/in" >/dev/null 2>&1 &
p=$!
exec 7>"$s/in"
printf '111\n' >&7
for _ in $(seq 300); do grep -q killed "$s/st/judgments.jsonl" && break; sleep 0.02; done
kill -9 $p
wait $p 2>/dev/null
exec 7>&-
[ "$(grep -c '"judge":"killed","answers"' "$s/st/judgments.jsonl")" = 1 ] || fail "a judgment was lost with the program"

run "form" 0 $cmp form "$s/st" --judge away -o "$s/f.html"
sed 's/text-align:[a-z]*//; s/Arrow\(Left\|Right\)//g' "$s/f.html" | grep -qw 'left\|right' && fail "the form names the systems' files"
run "table" 0 $cmp form "$s/st" --judge away -o "$s/f.csv"
sed '1!s/,,,\r$/,1,2,tie\r/' "$s/f.csv" >"$s/filled.csv"
run "read" 0 $cmp read "$s/st" "$s/filled.csv"
grep -q '^5 judgments recorded' "$s/out" || fail "read: $(cat "$s/out")"
run "read again" 0 $cmp read "$s/st" "$s/filled.csv"
grep -q '^5 were there already' "$s/out" || fail "read again: $(cat "$s/out")"
cp "$s/st/judgments.jsonl" "$s/before"
for case in 's/1,2,tie/2,2,tie/|has judged one of these before' 's/,away,1,/,away,9,/|no item .9.: there are 1 to 5' 's/^\([0-9a-f]\)[0-9a-f]\{5\}/\1deadb/|another sheet' 's/,away,2,/,away,1,/|item 1 is there twice'; do
    sed "${case%%|*}" "$s/filled.csv" >"$s/bad.csv"
    run "read, ${case##*|}" 1 $cmp read "$s/st" "$s/bad.csv"
    one_error_line "read, ${case##*|}" "${case##*|}"
done
cmp -s "$s/before" "$s/st/judgments.jsonl" || fail "a form that was refused left something in the log"
run "report of several" 0 $cmp report "$s/st"
grep -q "Krippendorff's alpha" "$s/out" && grep -q "Cohen's kappa" "$s/out" || fail "agreement: $(tail -5 "$s/out")"

run "ssa" 0 $cmp "$s/left.txt" "$s/right.txt" --set "$s/set.jsonl" -o "$s/ssa" --questions ssa --lang zh --units 4
printf 'yy\nn\ny\nn\nyn\n' | $cmp "$s/ssa" --judge a >"$s/out" 2>&1
grep -q '4 judged now, 0 of 4 left' "$s/out" || fail "ssa: $(tail -2 "$s/out")"
run "ssa report" 0 $cmp report "$s/ssa"
grep -q 'SSA' "$s/out" || fail "ssa report"

run "one system" 1 $cmp "$s/left.txt" --set "$s/set.jsonl" -o "$s/x"
one_error_line "one system" "1 systems: 2 to 16 wanted"
run "no judge" 2 $cmp "$s/st"
one_error_line "no judge" "who judges"
run "no study" 1 $cmp report "$s/nowhere"
run "fresh" 0 $cmp "$s/left.txt" "$s/right.txt" --set "$s/set.jsonl" -o "$s/x2"
run "nothing judged" 1 $cmp report "$s/x2"
one_error_line "nothing judged" "nobody has judged anything yet"
head -3 "$s/left.txt" >"$s/short.txt"
run "lengths differ" 1 $cmp "$s/left.txt" "$s/short.txt" --set "$s/set.jsonl" -o "$s/x"
one_error_line "lengths differ" "has 3 replies"

# ---- sweep
printf '你好\n你好呀\n\n你是谁\n我是小对\n\n今天天气好吗\n很好\n\n你吃饭了吗\n吃了\n' >"$s/talk.txt"
run "vocab" 0 "$DUET" vocab "$s/talk.txt" -o "$s/vocab.txt" --size 200 --min-count 1
run "prep" 0 "$DUET" prep "$s/talk.txt" -o "$s/a.shard" --tokenizer "$s/vocab.txt" --valid 0.25
for way in f b; do
    run "train" 0 "$DUET" train "$s/a.shard" -o "$s/$way.gguf" --layers 1 --embd 16 --heads 2 --ctx 64 --steps 2 --batch 64 --threads 1 $([ $way = b ] && echo --reverse)
done
sw="$DUET sweep --set $s/talk.txt -o $s/sw --models $s/f.gguf $s/b.gguf --tokenize zh --lambda 0,1 -N 1,2 --temperature 1 --mode forward,bidi --threads 1"
run "sweep" 0 $sw --resamples 20 --options "mode=bidi n=2 max_new=8"
grep -q '^bidi l=0.7 n=2 t=0.5' "$s/out" && grep -q '^forward n=1 t=0.5' "$s/out" || fail "sweep: $(head -5 "$s/out")"
for f in t0.5.jsonl t1.jsonl sweep.html sweep.md sweep.json; do [ -s "$s/sw/$f" ] || fail "no $f"; done
grep -qE '<script|https?://' "$s/sw/sweep.html" && fail "the page of a sweep reaches out"
for head in 'Metrics by lambda' 'Metrics by the number of candidates' 'Metrics by temperature' 'Forward against reverse score' 'Where they differ most'; do
    grep -q "$head" "$s/sw/sweep.html" || fail "the page of a sweep has no '$head'"
done
cp "$s/sw/sweep.json" "$s/first.json"
mv "$s/sw/t1.jsonl" "$s/sw/t1.jsonl.part" && truncate -s -20 "$s/sw/t1.jsonl.part"
run "sweep goes on" 0 $sw --resamples 20 --options "mode=bidi n=2 max_new=8"
cmp -s "$s/first.json" "$s/sw/sweep.json" || fail "a sweep that was stopped gives other numbers"
run "sweep, other options" 1 $sw --options "mode=bidi n=2 max_new=9"
one_error_line "sweep, other options" "made with another set, models, rules or options"
run "sweep, bad list" 2 $sw --lambda 0,,1
one_error_line "sweep, bad list" "^duet sweep: --lambda"
finish
