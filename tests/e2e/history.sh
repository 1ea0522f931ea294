#!/usr/bin/env bash
# duet history as a person and a script use it: every verb, what it prints, what it refuses; text that would run in a shell, in SQL or on a
# terminal is shown, not run.
. tests/lib.sh
db=$scratch/h.db
H="$DUET history --db $db"
esc=$(printf '\033')
printf '%s\n' '今天天气不错' "'; DROP TABLE turn; --" "${esc}[2J${esc}]0;owned${esc}\\ red" '我的手机号是13812345678' >"$scratch/lines"
"$DUET" reply --db "$db" --dialogue --seed 1 -N 2 --max-new 6 <"$scratch/lines" >"$scratch/replies" 2>"$scratch/err" || fail "reply: $(cat "$scratch/err")"
"$DUET" reply --db "$db" --dialogue --seed 2 -N 2 --max-new 6 <<<'饕餮盛宴' >"$scratch/out" 2>&1 || fail "reply: $(cat "$scratch/out")"
[ "$(stat -c %a "$db")" = 600 ] || fail "the store's mode is $(stat -c %a "$db")"
grep -q 13812345678 "$db" && fail "a phone number is in the store"

calm() { # NAME: nothing on stdout that a terminal would act on
    grep -q "$esc" "$scratch/out" && fail "$1: an escape reaches the terminal"
}
want() { grep -qF -- "$2" "$scratch/out" || fail "$1: no '$2' in: $(head -c 400 "$scratch/out")"; }
json() { python3 -c 'import json,sys
for l in open(sys.argv[1], encoding="utf-8"): json.loads(l)' "$scratch/out" 2>/dev/null || ! command -v python3 >/dev/null || fail "$1: not JSON: $(head -c 300 "$scratch/out")"; }

run list 0 $H list; want list "今天天气不错"; calm list
run tag 0 $H tag 1 工作 a
run "list --tag" 0 $H list --tag 工作; want "list --tag" "[a 工作]"
[ "$(wc -l <"$scratch/out")" = 1 ] || fail "list --tag shows $(wc -l <"$scratch/out") lines"
run untag 0 $H untag 1 a
run title 0 $H title 1 "${esc}[31mred"
run "list" 0 $H list; want list "<U+001B>[31mred"; calm list
run show 0 $H show 1 --all; want show "DROP TABLE"; want show "<U+001B>[2J"; want show "[手机号]"; calm show
for verb in "list" "show 1" "search 天" "stats" "head"; do
    run "$verb --json" 0 $H $verb --json; json "$verb --json"; calm "$verb --json"
    [ -s "$scratch/out" ] || fail "$verb --json: nothing"
done
for q in 天 天气 天气不 天气不错 "DROP TABLE" "'" "[2J" 手机号; do
    run "search $q" 0 $H search "$q"; [ -s "$scratch/out" ] || fail "search $q: nothing"; calm "search $q"
done
run "search user" 0 $H search 天气 --speaker user --since 2020 --until 2099-12 --verdict none --conversation 1 --tag 工作; want search "今天[天气]不错"
run "search redacted" 0 $H search 手机 --verdict redact; want redact "[手机]号是[手机号]"
run "search nothing" 0 $H search 天气 --until 2020; [ ! -s "$scratch/out" ] || fail "search --until 2020 finds something"
run "search limit" 0 $H search 天 --limit 1; [ "$(wc -l <"$scratch/out")" = 1 ] || fail "--limit 1: $(wc -l <"$scratch/out") lines"
for words in "search 天 --since yesterday" "search 天 --speaker cat" "search 天 --verdict bad" "search" "show" "show x" "show 0" "tag 1" "title 1" "import" "backup" \
    "purge" "purge --older-than soon" "list extra" "export --format pdf" "forget" "forget 1 x" "nonsense"; do
    run "$words" 2 $H $words; one_error_line "$words" "^duet history: "
done
for words in "show 99" "tag 99 x" "tag 1 $esc" "title 99 x" "forget 99" "forget 1 99" "backup $db" "import $scratch/none" "import $scratch/lines"; do
    run "$words" 1 $H $words; one_error_line "$words" "^duet history: "
done
for c in "history list" "chat" "reply"; do
    run "$c with a key" 2 "$DUET" $c --db "$db" --key-file "$scratch/lines"; one_error_line "$c with a key" "without SQLCipher"
done
run "no store" 1 "$DUET" history --db "$scratch/absent.db" tag 1 x; one_error_line "no store" "No such file"
[ ! -e "$scratch/absent.db" ] || fail "a store was made by a verb that changes one"

# out and back
for f in text jsonl markdown; do run "export $f" 0 $H export --format $f; [ -s "$scratch/out" ] || fail "export $f: nothing"; calm "export $f"; done
run "export -o" 0 $H export -o "$scratch/x.jsonl"
run import 0 "$DUET" history --db "$scratch/copy.db" import "$scratch/x.jsonl"; want import "2 new conversations, 5 rows added"
run verify 0 "$DUET" audit verify --db "$scratch/copy.db"
run "export again" 0 "$DUET" history --db "$scratch/copy.db" export -o "$scratch/y.jsonl"
cmp -s "$scratch/x.jsonl" "$scratch/y.jsonl" || fail "what came back is not what went out"
sed "s/天气不错/天气很好/g" "$scratch/x.jsonl" >"$scratch/changed.jsonl"
run "import changed" 1 "$DUET" history --db "$scratch/other.db" import "$scratch/changed.jsonl"; one_error_line "import changed" "line 1: row 1: what was said"
run "prep" 0 "$DUET" history --db "$db" export -o "$scratch/train.txt"
[ "$(grep -c . "$scratch/train.txt")" -ge 8 ] || fail "train.txt has $(grep -c . "$scratch/train.txt") lines"

# kept heads, a cut tail
$H head >"$scratch/heads"
run "head --check" 0 $H head --check "$scratch/heads"
sed 's/ [0-9a-f]/ 0/2' "$scratch/heads" >"$scratch/wrong"
cmp -s "$scratch/heads" "$scratch/wrong" || { run "head --check" 3 $H head --check "$scratch/wrong"; want "head --check" "another hash"; }
echo nonsense >"$scratch/wrong"
run "head --check nonsense" 1 $H head --check "$scratch/wrong"; one_error_line "head nonsense" "wrong:1"

# forgetting, here and in the backup
run backup 0 $H backup "$scratch/bak.db"
[ "$(stat -c %a "$scratch/bak.db")" = 600 ] || fail "the backup's mode is $(stat -c %a "$scratch/bak.db")"
run forget 0 $H forget 2; want forget "1 exchange of 1 conversation forgotten"; want forget "bak.db: 1 exchange forgotten"
for f in "$db" "$db-wal" "$scratch/bak.db"; do [ ! -e "$f" ] || ! grep -q 饕餮 "$f" || fail "forgotten words are in $f"; done
run "search forgotten" 0 $H search 饕餮; [ ! -s "$scratch/out" ] || fail "forgotten words are found"
run "purge dry" 0 $H purge --older-than 0d --dry-run; want "purge dry" "would be forgotten"
run purge 0 $H purge --older-than 2999 --json; json purge; want purge '"forgotten":4'
run vacuum 0 $H vacuum
for f in "$db" "$scratch/bak.db"; do
    run "verify $f" 0 "$DUET" audit verify --db "$f"
    grep -q "天气" "$f" && fail "purged words are in $f"
done
finish
