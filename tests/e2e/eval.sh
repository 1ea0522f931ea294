#!/usr/bin/env bash
# eval: forms of output, several systems, errors.  The numbers themselves are tested in tests/eval.
. tests/lib.sh

s=$scratch
printf 'i love you too\nno way\n\nhe did\n' >"$s/a"
printf 'i love you\nno way , really\nwhat ?\nhe did it\n' >"$s/b"
printf 'i love you too\nno way !\nfine\nhe did it\n' >"$s/r0"
printf '\xef\xbb\xbfi love you as well\r\nthat is impossible\r\nok\r\ndid he\r\n' >"$s/r1"
has() { grep -qE -- "$2" "$s/out" || fail "$1: no '$2' in $(cut -c1-400 "$s/out")"; }

run "one system" 0 "$DUET" eval --hyp "$s/a" --ref "$s/r0" --ref "$s/r1" --json
[ ! -s "$s/err" ] || fail "one system: stderr: $(cat "$s/err")"
[ "$(wc -l <"$s/out")" = 1 ] || fail "JSON is not one line"
for k in bleu1 bleu2 bleu3 bleu4 nist1 nist2 nist3 nist4 nist5 mteval_bleu1 mteval_bleu2 mteval_bleu3 mteval_bleu4 meteor rouge_l distinct1 distinct2 distinct3 \
    entropy1 entropy2 entropy3 entropy4 avg_len signature; do
    grep -q "\"$k\":" "$s/out" || fail "JSON: no $k"
done
has "JSON" '"avg_len":2\.0,'
has "JSON" '"empty":0\.25,'
has "JSON" '"bleu1":0\.77880078307140'
! grep -q intervals "$s/out" || fail "intervals that nobody asked for"
grep -q 'lines:4|refs:2|tok:none' "$s/out" || fail "signature: $(cat "$s/out")"
cp "$s/out" "$s/first"
run "stdin" 0 bash -c "cat '$s/a' | '$DUET' eval --hyp - --ref '$s/r0' --ref '$s/r1' --json"
cmp -s "$s/out" "$s/first" || fail "stdin gives other numbers than the file"
run "no references" 0 "$DUET" eval --hyp "$s/a"
grep -q '^Distinct-1' "$s/out" && ! grep -q BLEU-1 "$s/out" || fail "no references: $(cat "$s/out")"
run "tokenize" 0 "$DUET" eval --hyp "$s/a" --ref "$s/r0" --tokenize zh --json
grep -q 'tok:zh' "$s/out" || fail "tokenize: $(cat "$s/out")"

run "two systems" 0 "$DUET" eval --hyp "$s/a" --hyp "$s/b" --ref "$s/r0" --resamples 100 --json
has "two systems" '^\{"systems":\[\{"name":"[^"]*/a",.*\{"name":"[^"]*/b",'
has "two systems" '"comparisons":\[\{"a":"[^"]*/a","b":"[^"]*/b","metrics":\{"bleu1":\{"diff":-?[0-9.e-]+,"lo":[^,]+,"hi":[^,]+,"p":[01]\.[0-9]+,"length_explains":(true|false)\}'
cp "$s/out" "$s/first"
OMP_NUM_THREADS=1 run "one thread" 0 "$DUET" eval --hyp "$s/a" --hyp "$s/b" --ref "$s/r0" --resamples 100 --json
cmp -s "$s/out" "$s/first" || fail "the number of threads changes the intervals"
run "a table" 0 "$DUET" eval --hyp "$s/a" --hyp "$s/b" --hyp "$s/r1" --ref "$s/r0" --resamples 50
grep -q 'C - A' "$s/out" && grep -q 'Distinct-2, equal size' "$s/out" || fail "table of three: $(cat "$s/out")"
run "markdown" 0 "$DUET" eval --hyp "$s/a" --hyp "$s/b" --ref "$s/r0" --resamples 50 --markdown
[ "$(grep '^|' "$s/out" | awk -F'|' '{print NF}' | sort -u | wc -l)" = 1 ] || fail "markdown: rows of unequal length"

head -3 "$s/r0" >"$s/short"
run "line counts" 1 "$DUET" eval --hyp "$s/a" --ref "$s/short"
one_error_line "line counts" "short has 3 lines, .*/a has 4"
run "no file" 1 "$DUET" eval --hyp "$s/none"
one_error_line "no file" "none"
: >"$s/empty"
run "empty file" 1 "$DUET" eval --hyp "$s/empty"
one_error_line "empty file" "empty: no lines"
run "no hyp" 2 "$DUET" eval --ref "$s/r0"
run "tokenize, name" 2 "$DUET" eval --hyp "$s/a" --tokenize 14
one_error_line "tokenize, name" "no '14'; there are none, mteval, 13a, zh"
run "stdin twice" 2 "$DUET" eval --hyp - --ref -
head -c 3000 /dev/urandom >"$s/noise"
n=$(tr -cd '\n' <"$s/noise" | wc -c)
[ "$(tail -c1 "$s/noise" | od -An -tu1)" -eq 10 ] || n=$((n + 1))
run "bytes" 0 "$DUET" eval --hyp "$s/noise" --ref "$s/noise" --tokenize mteval --json
grep -q "lines:$n|" "$s/out" || fail "bytes: $(cut -c1-200 "$s/out")"
# The human row of DialoGPT's 6K test set, as its README has it: Entropy-4 11, Distinct-1 14.5 %, Distinct-2 63.0 %, length 13.1.
run "human row" 0 "$DUET" eval --hyp tests/vectors/metrics/human.ref.6k.txt
for row in 'Distinct-1 +14\.55' 'Distinct-2 +62\.96' 'Entropy-4 +10\.9951' 'length +13\.10'; do
    grep -qE "^$row\$" "$s/out" || fail "human row: $row; $(grep -E "^${row%% *}" "$s/out")"
done
finish
