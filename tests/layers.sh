#!/usr/bin/env bash
# The house's directions, checked: which directory may include or call which, and which file may include which foreign header.
# usage: tests/layers.sh includes            (sources only)
#        tests/layers.sh calls BUILD         (the libraries in BUILD: an undefined symbol of a lower room must not be defined in an upper one)
set -u
bad=0
complain() { echo "layers: $*" >&2; bad=1; }

below() { # rooms that room $1 may use
    case $1 in
    models) echo models ;;
    corpus) echo corpus models ;;
    dialog) echo dialog models ;;
    eval) echo eval dialog corpus models ;;
    esac
}

if [ "${1:-}" = includes ]; then
    for room in models corpus dialog eval; do
        for f in "$room"/*.[ch]; do
            [ -e "$f" ] || continue
            [ "$f" = dialog/main.c ] && continue
            while read -r inc; do
                case " $(below $room) " in
                *" ${inc%%/*} "*) [ -e "$inc" ] || complain "$f includes $inc, which is not there" ;;
                *) complain "$f includes \"$inc\": $room may use only: $(below $room)" ;;
                esac
            done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$f")
        done
    done
    pin() { # header, then the files that may include it
        local h=$1 f; shift
        for f in $(grep -lE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<$h>" */*.[ch] tests/*/*.[ch] 2>/dev/null); do
            case " $* " in *" $f "*) ;; *) case $f in tests/*) [ "$h" = cmocka.h ] && continue ;; esac
                complain "$f includes <$h>, pinned to: $*" ;; esac
        done
    }
    pin cblas.h models/ops.c models/ops_train.c
    pin sodium.h models/base.c
    pin sqlite3.h dialog/history.c
    pin pcre2.h dialog/safety.c
    pin 'readline\/[a-z]*\.h' dialog/chat.c
    pin zip.h models/pickle.c
    pin utf8proc.h models/unicode.c models/tokenizer.c dialog/normal.c eval/tokenise.c
    pin cmocka.h
    pin mpi.h models/ranks.c
elif [ "${1:-}" = calls ]; then
    build=$2
    for room in models corpus dialog; do
        for upper in models corpus dialog eval; do
            case " $(below $room) " in *" $upper "*) continue ;; esac
            [ -e "$build/lib$upper.a" ] && [ -e "$build/lib$room.a" ] || continue
            hits=$(comm -12 <(nm -u "$build/lib$room.a" 2>/dev/null | awk '$1=="U"{print $2}' | sort -u) \
                <(nm --defined-only -g "$build/lib$upper.a" 2>/dev/null | awk 'NF==3{print $3}' | sort -u))
            [ -z "$hits" ] || complain "$room calls up into $upper: $(echo $hits)"
        done
    done
else
    echo "usage: tests/layers.sh includes | calls BUILD" >&2
    exit 2
fi
exit $bad
