#!/usr/bin/env bash
# The audit's commands as a reviewer uses them, on a store made by duet reply: what they say, and their exit status.
. tests/lib.sh
db=$scratch/a.db
printf '%s\n' 你好 你叫什么名字 今天好累 怎么做炸弹 '我的手机号是13812345678' '<script>alert(1)</script>' >"$scratch/lines"
"$DUET" reply --db "$db" -N 4 --threads 1 --seed 5 "$scratch/lines" >/dev/null 2>"$scratch/err" || fail "reply: $(cat "$scratch/err")"
"$DUET" reply --db "$db" -N 4 --threads 1 --seed 6 --dialogue --mode forward <(head -n 3 "$scratch/lines") >/dev/null 2>"$scratch/err" || fail "reply: $(cat "$scratch/err")"
has() { grep -qF -- "$2" "$scratch/out" || fail "$1: '$2' is not in it: $(head -c 600 "$scratch/out")"; }
lacks() { grep -qF -- "$2" "$scratch/out" && fail "$1: '$2' is in it"; }

run "verify" 0 "$DUET" audit verify "$db"
has "verify" "9 rows in 7 conversations: every hash holds"

# why: recomputed and found the same; from the record alone; as JSON whose steps add up to the stored score
run "why" 0 "$DUET" audit why 1 "$db" --threads 1
for words in "answered again: everything is what was stored, to the bit" "candidates, best first" "other ways to choose" "> bidi" "what the sampler saw" "[SEP]" \
    "under the backward model"; do has "why" "$words"; done
run "why of a dialogue" 0 "$DUET" audit why 7:3 --db "$db" --no-replay --per-token
has "why of a dialogue" "before    < 你好"
has "why of a dialogue" "not recomputed: not asked for"
lacks "why of a dialogue" "what the sampler saw"
run "why of a refusal" 0 "$DUET" audit why 4 "$db" --no-replay
has "why of a refusal" "block by zh.violence.weapons"
run "why in JSON" 0 "$DUET" audit why 2 "$db" --json --candidate 1 --top 2 --threads 1
jq -e '.again == "identical" and .steps_agree and .steps_of == 1 and (.candidates | length) == 4 and (.steps[0].top | length) == 2
       and ([.steps[].logp] | add) - .candidates[1].fwd < 1e-9 and ([.steps[].logp] | add) - .candidates[1].fwd > -1e-9
       and ([.steps[] | select(.u < .from or .u >= .to)] | length) == 0
       and ([.source[].logp] | add) - .candidates[1].bwd < 1e-9' "$scratch/out" >/dev/null || fail "why in JSON: $(head -c 400 "$scratch/out")"
run "no such turn" 1 "$DUET" audit why 99 --no-replay "$db"
one_error_line "no such turn" "there is no turn 99"
run "no such row" 1 "$DUET" audit why 7:4 --no-replay "$db"
one_error_line "no such row" "conversation 7 has no exchange in row 4"
for word in x 7: :3 7:0 7:x 0 -1 1.5; do run "no number: $word" 2 "$DUET" audit why -- "$word" "$db"; done
run "no number" 2 "$DUET" audit why x "$db"
one_error_line "no number" "'x' is no number of a turn"

# rules: today's own change nothing; a stricter and shorter pack does
run "rules" 0 "$DUET" audit rules "$db"
has "rules" "0 newly blocked, 0 newly allowed, 0 other action, 1 not judged whole"
cat >"$scratch/strict.rules" <<'RULES'
[rule x.tired]
category: test
where: user
action: block
pattern: 好累
message zh: 休息一下
message en: have a rest
match: 今天好累
nomatch: 你好
RULES
run "rules with" 3 "$DUET" audit rules "$db" --with "$scratch/strict.rules"
has "rules with" "2 newly blocked, 1 newly allowed"
has "rules with" "none - -> block x.tired"
has "rules with" "block zh.violence.weapons -> none -"
run "rules in JSON" 3 "$DUET" audit rules "$db" --with "$scratch/strict.rules" --json --conversation 7
jq -e '.newly_blocked == 1 and .newly_allowed == 0 and .lines == 3 and (.changes | length) == 1 and .changes[0].is_rule == "x.tired"' "$scratch/out" >/dev/null ||
    fail "rules in JSON: $(head -c 400 "$scratch/out")"

# report: whole, well formed, nothing alive in it
run "report" 0 "$DUET" audit report "$db" -o "$scratch/page.html"
cp "$scratch/page.html" "$scratch/out"
for words in "every hash is what is stored" "zh.violence.weapons" "&lt;script&gt;alert(1)" "[手机号]" "</html>"; do has "report" "$words"; done
for words in "<script" "13812345678" "http://" "https://" "src="; do lacks "report" "$words"; done
run "report without a page" 2 "$DUET" audit report "$db"
one_error_line "report without a page" "-o PAGE"
run "report nowhere" 1 "$DUET" audit report "$db" -o "$scratch/none/page.html"
one_error_line "report nowhere" "none/page.html"

# sample: two readers, one at the terminal, one with a table; the record stays sound
printf 'o\nr zu oft\nwhat\nb\nu\nq\n' | "$DUET" audit sample "$db" --reader ann -n 4 >"$scratch/out" 2>&1 || fail "sample: $(tail -n 2 "$scratch/out")"
has "sample" "2 judged now, 2 of the sample of 4 are left"
has "sample" "none of the letters"
lacks "sample" "怎么做炸弹" # a refusal is no reply of a model
"$DUET" audit sample "$db" --reader ann -n 4 </dev/null >"$scratch/out" || fail "sample at the end of the input"
has "sample again" "2 of the 4 were judged by you before"
run "export" 0 "$DUET" audit sample "$db" -n 4 --export "$scratch/t.csv"
[ "$(head -n 1 "$scratch/t.csv" | tr -d '\r')" = "turn,hash,before,user,reply,label,note" ] || fail "export: $(head -n 1 "$scratch/t.csv")"
sed -i 's/,,\r$/,ok,\r/' "$scratch/t.csv"
run "import" 0 "$DUET" audit sample "$db" --import "$scratch/t.csv" --reader bob
has "import" "4 judgments of bob recorded"
sed 's/,ok,/,fine,/' "$scratch/t.csv" >"$scratch/bad.csv"
run "a bad label" 1 "$DUET" audit sample "$db" --import "$scratch/bad.csv" --reader carl
one_error_line "a bad label" "no label 'fine'"
sed -E '3s/^([0-9]+),..../\1,0000/' "$scratch/t.csv" >"$scratch/bad.csv"
run "another store's table" 1 "$DUET" audit sample "$db" --import "$scratch/bad.csv" --reader carl
one_error_line "another store's table" "is another one in this store"
run "agreement" 0 "$DUET" audit sample "$db" --agreement --json
jq -e '.turns == 4 and .shared == 2 and (.readers | map(.reader)) == ["ann","bob"] and .pairs[0].both == 2 and .pairs[0].alike == 0.5' "$scratch/out" >/dev/null ||
    fail "agreement: $(cat "$scratch/out")"
run "who reads" 2 "$DUET" audit sample "$db"
one_error_line "who reads" "--reader NAME"
run "verify after" 0 "$DUET" audit verify "$db"
finish
