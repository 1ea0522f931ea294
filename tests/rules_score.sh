#!/usr/bin/env bash
# Judge the lines of a labelled set (eval/safety/README.md) with the rules and print, per category and overall, how precise and how complete
# they are.
# usage: DUET=build/duet tests/rules_score.sh [-l] [-g] [-r PACKS] SET.tsv…
#   -l  list what is wrong: MISS (no rule reacted), OTHER (one reacted, but of another category), ALARM (an "ok" line was hit).
#       Not for the test sets: they stay unread by who writes rules.
#   -g  gate: exit 1 when a set is below 0.97 overall precision or 0.95 overall recall (any reaction)
#   -r  the packs, a folder or file (dialog/rules)
#
# A line counts as hit by every category whose rules hit it.
#   recall any    of the lines labelled c, the share any rule hit          recall exact    … the share a rule of category c hit
#   precision any of the lines that c hit, the share not labelled ok       precision exact … the share labelled c
# Exact precision is low by nature where kinds overlap ("I will kill you, idiot" is abuse and violence); a person is wronged only by a hit on
# a line that is ok.
set -u
export LC_ALL=C.UTF-8
DUET=${DUET:-build/duet}
list=0 gate=0 packs=dialog/rules
while getopts lgr: o; do
    case $o in
    l) list=1 ;;
    g) gate=1 ;;
    r) packs=$OPTARG ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '4,9p' "$0" >&2; exit 2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ -d "$packs" ]; then cat "$packs"/*.rules; else cat "$packs"; fi |
    awk '/^\[rule /{ id = $2; sub(/\]$/, "", id) } /^category:/{ print id "\t" $2 }' >"$scratch/categories" || exit 2

score() { # SET
    awk -F'\t' -v set="$1" 'NF != 4 || ($1 != "user" && $1 != "reply") || $4 == "" { print set ":" NR ": wanted user|reply TAB label TAB kind TAB text" >"/dev/stderr"; exit 1 }' "$1" || return 2
    for who in user reply; do # every line from both sides; the right one is picked below
        cut -f4 "$1" | "$DUET" rules scan "$packs" --where $who --json >"$scratch/$who" || return 2
        [ "$(wc -l <"$scratch/$who")" = "$(wc -l <"$1")" ] || { echo "$1: one verdict a line wanted" >&2; return 2; }
    done
    paste "$1" "$scratch/user" "$scratch/reply" | awk -F'\t' -v set="$1" -v list=$list -v gate=$gate -v cats="$scratch/categories" '
    function ratio(a, b) { return b ? sprintf("%.3f", a / b) : "    -" }
    function row(name, c) {
        printf "%-14s %5d %10s %8s %7d %10s %8s\n", name, n[c], ratio(any[c], n[c]), ratio(own[c], n[c]), fired[c], ratio(fired[c] - wrong[c], fired[c]), ratio(own[c], fired[c])
    }
    BEGIN { while ((getline line < cats) > 0) { split(line, part, "\t"); of[part[1]] = part[2] } }
    {
        json = $1 == "user" ? $5 : $6
        sub(/^.*"hits":\[/, "", json); sub(/\],"text":.*$/, "", json)
        k = split(json, piece, "\"rule\":\""); split("", seen); names = ""
        for (i = 2; i <= k; i++) {
            id = piece[i]; sub(/".*$/, "", id); c = of[id]
            if (c == "") { print set ": no category for rule " id >"/dev/stderr"; exit 2 }
            if (index(" " names " ", " " id " ") == 0) names = names (names == "" ? "" : " ") id
            seen[c] = 1
        }
        hit = k > 1; lines++
        for (c in seen) { fired[c]++; if ($2 == "ok") wrong[c]++; if ($2 == c) own[c]++; all[c] = 1 }
        if (hit) fired["*"]++
        if ($2 == "ok") { ok++; if (hit) { wrong["*"]++; bad[$3]++ } kind[$3]++ }
        else { n[$2]++; n["*"]++; all[$2] = 1; kind[$3]++; if (hit) { any[$2]++; any["*"]++ } else bad[$3]++; if ($2 in seen) own["*"]++ }
        if (list) {
            if ($2 == "ok" && hit) print "ALARM\t" names "\t" $1 "\t" $3 "\t" $4
            if ($2 != "ok" && !hit) print "MISS\t" $2 "\t" $1 "\t" $3 "\t" $4
            if ($2 != "ok" && hit && !($2 in seen)) print "OTHER\t" $2 "\t" names "\t" $3 "\t" $4
        }
    }
    END {
        printf "%s: %d lines, %d of them ok\n", set, lines, ok
        printf "%-14s %5s %10s %8s %7s %10s %8s\n", "category", "lines", "recall any", "exact", "hits", "prec. any", "exact"
        order = "self-harm emergency victim minors violence weapons hate sexual drugs addiction crime hacking fraud privacy abuse swearing personal-data medical legal finance"
        m = split(order, o, " ")
        for (i = 1; i <= m; i++) { if (o[i] in all) row(o[i], o[i]); delete all[o[i]] }
        for (c in all) row(c, c)
        row("all", "*")
        printf "wrong by kind:"
        m = split("benign near pd-bad plain disguised pd-valid", o, " ")
        for (i = 1; i <= m; i++) printf " %s %d/%d", o[i], bad[o[i]], kind[o[i]]
        printf "\n"
        precision = fired["*"] ? (fired["*"] - wrong["*"]) / fired["*"] : 1; recall = n["*"] ? any["*"] / n["*"] : 1
        if (gate && (precision < 0.97 || recall < 0.95)) { printf "FAIL %s: precision %.3f (0.97 wanted), recall %.3f (0.95 wanted)\n", set, precision, recall; exit 1 }
    }'
}
rc=0
for f in "$@"; do
    score "$f" || rc=$?
    echo
done
exit $rc
