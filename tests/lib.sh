# Shared by the scripts in tests/e2e: a scratch folder, and checks that count.  Needs $DUET (the program).
set -u
export LC_ALL=C.UTF-8
DUET=${DUET:-build/duet}
case $DUET in /*) ;; *) DUET=$PWD/$DUET ;; esac
scratch=$(mktemp -d "${TMPDIR:-/tmp}/duet-e2e-XXXXXX")
export XDG_DATA_HOME=$scratch/data HOME=$scratch
trap 'rm -rf "$scratch"' EXIT
bad=0
ok() { :; }
fail() { echo "FAIL: $*"; bad=$((bad + 1)); }
# run NAME WANTED_EXIT command…: stdout to $scratch/out, stderr to $scratch/err
run() {
    local name=$1 want=$2 rc
    shift 2
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    rc=$?
    [ $rc = "$want" ] || fail "$name: exit $rc, $want wanted: $(head -c 300 "$scratch/err")"
    [ $rc -lt 100 ] || fail "$name: died"
}
one_error_line() { # NAME PATTERN: stderr is one line and matches
    [ "$(wc -l <"$scratch/err")" = 1 ] || fail "$1: $(wc -l <"$scratch/err") lines on stderr, one wanted: $(head -c 400 "$scratch/err")"
    grep -qE -- "$2" "$scratch/err" || fail "$1: stderr does not match '$2': $(head -c 300 "$scratch/err")"
}
finish() {
    [ $bad = 0 ] && echo "$(basename "$0"): all passed" && exit 0
    echo "$(basename "$0"): $bad failed"
    exit 1
}
