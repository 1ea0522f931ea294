#!/usr/bin/env bash
# The front door: help, exit statuses, and one clear line for every mistake.
. tests/lib.sh

run "no command" 2 "$DUET"
run "help" 0 "$DUET" help
commands=$(sed -n 's/^  \([a-z]\+\) \+.*/\1/p' "$scratch/out")
[ "$(echo "$commands" | wc -w)" -ge 16 ] || fail "help lists only: $commands"
for c in $commands; do
    run "help $c" 0 "$DUET" help "$c"
    grep -q "^usage: duet $c" "$scratch/out" || fail "help $c: no usage line"
    [ ! -s "$scratch/err" ] || fail "help $c: something on stderr"
    run "$c --nonsense" 2 "$DUET" "$c" --nonsense
    one_error_line "$c --nonsense" "^duet $c: .*nonsense"
done
run "version" 0 "$DUET" --version
run "unknown command" 2 "$DUET" chatt
one_error_line "unknown command" "no command 'chatt'.*did you mean 'chat'"
run "unknown help" 2 "$DUET" help nothing
one_error_line "unknown help" "no command 'nothing'"

# Files that are not there, not models, not readable as what they should be.
printf 'not a model' >"$scratch/junk.gguf"
head -c 100000 /dev/urandom >"$scratch/noise.gguf"
: >"$scratch/empty.gguf"
for f in absent junk noise empty; do
    for c in show tokens "logprobs --ids 1" "generate --ids 1 -n 2" "export -o $scratch/x"; do
        set -- $c
        cmd=$1
        shift
        run "$cmd $f" 1 "$DUET" "$cmd" "$scratch/$f.gguf" "$@"
        one_error_line "$cmd $f" "$f.gguf"
    done
    run "reply $f" 1 "$DUET" reply --private --models "$scratch/$f.gguf" "$scratch/$f.gguf"
    one_error_line "reply $f" "$f.gguf"
done
run "show a folder" 1 "$DUET" show "$scratch"
one_error_line "show a folder" "directory"
# A reader that has seen enough is no fault worth a message.
"$DUET" prep corpus/scenes/zh/p1_feelings.scene --dump 2>"$scratch/err" | head -n 1 >"$scratch/out"
[ -s "$scratch/out" ] || fail "prep --dump into head: nothing came"
grep -q 'cannot write' "$scratch/err" && fail "prep --dump into head: $(cat "$scratch/err")"
if [ -e /dev/full ]; then
    "$DUET" help >/dev/full 2>"$scratch/err"
    [ $? = 0 ] && fail "help into a full disk: exit 0"
fi
finish
