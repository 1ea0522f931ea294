#!/usr/bin/env bash
# Us and llama.cpp in turn on one GGUF, and the ratios of the medians with both spreads.
# usage: tests/beside.sh MODEL.gguf ROUNDS DRIVER [ARGUMENT…]
#   DRIVER prints lines like "  prefill 512   1070.2 tok/s [...] …", "decode bs1 after 64 …", "decode 16 seqs x32 …" and
#   "TURN …: … total 2.95 s …", and gets MODEL.gguf as its first argument, then the ARGUMENTs.  The program is $DUET (build/duet).
# A round is one run of the driver and one of `duet bench`; each round's figures are themselves medians.  Five rounds or more make a result.
set -u
[ $# -ge 3 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
model=$1 rounds=$2 driver=$3
shift 3
DUET=${DUET:-build/duet}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/duet-beside-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

peer_figures() { # stdin: what the driver printed -> "name value"; rates in tokens/s, the turn in seconds
    sed -nE -e 's/^ *prefill ([0-9]+) +([0-9.]+) tok\/s.*/prefill-\1 \2/p' -e 's/^ *decode bs1 after 64 +([0-9.]+) tok\/s.*/decode-1 \1/p' \
        -e 's/^ *decode ([0-9]+) seqs[^0-9]*x32[^0-9]* +([0-9.]+) tok\/s.*/decode-\1 \2/p' -e 's/^ *TURN.* total ([0-9.]+) s.*/turn \1/p'
}
our_figures() { # stdin: duet bench --json
    tr '{' '\n' | sed -nE -e 's/.*"median_ms":([0-9.e+-]+).*"name":"turn [^"]*".*/turn \1e-3/p' \
        -e 's/.*"name":"(prefill|decode) ([0-9]+)".*"tokens_per_s":([0-9.e+-]+).*/\1-\2 \3/p'
}

for ((i = 1; i <= rounds; i++)); do
    "$driver" "$model" "$@" >"$scratch/peer.$i" 2>"$scratch/err" || { echo "beside: $driver failed: $(tail -1 "$scratch/err")" >&2; exit 1; }
    "$DUET" bench --model "$model" --json --only prefill --only decode --only turn >"$scratch/ours.$i" || exit 1
    peer_figures <"$scratch/peer.$i" | sed 's/^/peer /' >>"$scratch/all"
    our_figures <"$scratch/ours.$i" | sed 's/^/ours /' >>"$scratch/all"
    grep -oE '"disturbed":[1-9]' "$scratch/ours.$i" | wc -l >>"$scratch/disturbed"
    echo "round $i of $rounds" >&2
done

sort -k1,1 -k2,2 -k3,3g "$scratch/all" | awk -v rounds="$rounds" '
    function median(k,   n) { n = count[k]; return n % 2 ? v[k, (n + 1) / 2] : (v[k, n / 2] + v[k, n / 2 + 1]) / 2 }
    function cell(k) { return sprintf("%10.4g [%.4g .. %.4g]", median(k), v[k, 1], v[k, count[k]]) }
    { k = $1 " " $2; v[k, ++count[k]] = $3 + 0; names[$2] = 1 }
    END {
        n = split("prefill-64 prefill-128 prefill-512 decode-1 decode-16 decode-32 turn", order, " ")
        printf "%-12s %-34s %-34s %s\n", "", "ours, median [min .. max]", "peer, median [min .. max]", "faster"
        for (i = 1; i <= n; i++) {
            x = order[i]
            if (!count["ours " x] || !count["peer " x]) continue
            ratio = x == "turn" ? median("peer " x) / median("ours " x) : median("ours " x) / median("peer " x)
            printf "%-12s %-34s %-34s %.2f x\n", x, cell("ours " x), cell("peer " x), ratio
        }
    }'
echo "tokens/s; the turn in seconds; $rounds rounds; figures of ours that stayed disturbed: $(awk '{ n += $1 } END { print n }' "$scratch/disturbed")"
