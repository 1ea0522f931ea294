#!/usr/bin/env bash
# Run test programs and scripts one after the other and say which failed.  usage: tests/run.sh BUILD TEST…
# DUET_TEST_WRAP is put before each compiled program (valgrind).  The last line is "N passed, N failed".
set -u
build=$1
shift
export DUET=$build/duet
passed=0 failed=0 names=
logs=$build/logs
mkdir -p "$logs"
for t in "$@"; do
    name=${t#"$build"/tests/}
    name=${name#tests/}
    log=$logs/${name//\//-}.log
    start=$SECONDS
    case $t in
    *.sh) bash "$t" >"$log" 2>&1 </dev/null ;;
    *) ${DUET_TEST_WRAP:-} "$t" >"$log" 2>&1 </dev/null ;;
    esac
    rc=$?
    if [ $rc = 0 ]; then
        passed=$((passed + 1))
        printf 'ok    %-32s %4d s\n' "$name" $((SECONDS - start))
    else
        failed=$((failed + 1))
        names="$names $name"
        printf 'FAIL  %-32s %4d s  exit %d; the end of %s:\n' "$name" $((SECONDS - start)) $rc "$log"
        tail -n 25 "$log" | sed 's/^/      | /'
    fi
done
[ -z "$names" ] || echo "failed:$names"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
