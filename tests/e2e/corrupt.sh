#!/usr/bin/env bash
# The program over the broken files of tests/vectors/corrupt, under 512 MB of address space and 10 seconds each: the right exit status, one line on
# stderr when it refuses, and no pickle obeyed.
. tests/lib.sh

unpacker=$(dirname "$DUET")/tests/models/test_corrupt
[ -x "$unpacker" ] || { echo "FAIL: $unpacker is not built"; exit 1; }
mkdir "$scratch/c"
"$unpacker" --unpack "$scratch/c" || fail "the files cannot be unpacked"
rm -f /tmp/oracle_pwned_marker
limit=524288 # KB
(ulimit -v $limit && "$DUET" --version) >/dev/null 2>&1 || limit=unlimited # a sanitizer's shadow needs more than that to begin with
n=0
while read -r file; do
    dir=${file%/expect}
    name=${dir#"$scratch/c/"}
    expect=$(cat "$file")
    if [ -e "$dir/model.gguf" ]; then set -- logprobs "$dir/model.gguf" --ids "1 2 3"
    else set -- import "$dir" -o "$scratch/out.gguf"; fi
    rm -f "$scratch/out.gguf"
    (ulimit -v $limit && exec timeout 10 "$DUET" "$@") >"$scratch/out" 2>"$scratch/err" </dev/null
    rc=$?
    n=$((n + 1))
    case $rc in
    0) [ "$expect" != reject ] || fail "$name: accepted" ;;
    1) [ "$expect" != accept ] || fail "$name: refused: $(cat "$scratch/err")"
        one_error_line "$name" "^duet $1: ."
        [ ! -e "$scratch/out.gguf" ] || fail "$name: refused, but something was written" ;;
    *) fail "$name: exit $rc: $(head -c 300 "$scratch/err")" ;;
    esac
done < <(find "$scratch/c" -name expect | sort)
[ $n = 302 ] || fail "$n cases, 302 wanted"
[ ! -e /tmp/oracle_pwned_marker ] || fail "a pickle was obeyed"
finish
