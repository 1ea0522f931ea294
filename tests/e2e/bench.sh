#!/usr/bin/env bash
# duet bench: random models are made and measured, JSON holds what it should, mistakes are told in one line.
. tests/lib.sh
export OMP_NUM_THREADS=1
run make 0 "$DUET" bench --make "$scratch/m" --size tiny --type q8_0 --type f32
[ "$(cat "$scratch/out")" = "$scratch/m/gpt2-tiny-q8_0.gguf
$scratch/m/gpt2-tiny-f32.gguf" ] || fail "make: printed $(cat "$scratch/out")"
M=$scratch/m/gpt2-tiny-q8_0.gguf
run json 0 "$DUET" bench --model "$M" --repeats 1 --json
for key in '"f32_gflops":' '"int8_gops":' '"memory_gbs":' '"cache_gbs":' '"numerics":' '"load":{' '"peak_mb":' '"name":"prefill 64"' '"name":"decode 16"' \
    '"name":"score 16x32+64"' '"name":"turn 16x32+64"' '"drawing_ms":' '"tokens_per_s":' '"of_limit":' '"hash":"' '"disturbed":'; do
    grep -qF "$key" "$scratch/out" || fail "json: no $key"
done
grep -qF '"name":"prefill 512"' "$scratch/out" && fail "json: prefill 512 in a context of 128"
[ "$(wc -l <"$scratch/out")" = 1 ] || fail "json: not one line"
hashes() { grep -oE '"name":"(prefill|decode 16|turn)[^}]*"hash":"[0-9a-f]*"' "$scratch/out" | grep -oE '"hash.*'; }
first=$(hashes)
[ "$(wc -l <<<"$first")" = 4 ] || fail "json: hashes $first"
run again 0 "$DUET" bench --model "$M" --repeats 1 --json --threads 2 --only prefill --only "decode 16" --only turn
[ "$(hashes)" = "$first" ] || fail "two threads compute something else"
run pair 0 "$DUET" bench --repeats 1 --turns 3 --only talk --only chat --json
grep -q '"talk":{"p50_ms":' "$scratch/out" || fail "pair: no talk"
grep -q '"chat":{' "$scratch/out" || fail "pair: no chat"
run table 0 "$DUET" bench --model "$M" --table --repeats 1 --json
[ "$(grep -o '"sequences":' "$scratch/out" | wc -l)" = 14 ] || fail "table: not 7 rows with the one context that fits, twice"

run size 1 "$DUET" bench --make "$scratch/m" --size 125M
one_error_line size "no size '125M'"
run type 1 "$DUET" bench --make "$scratch/m" --size tiny --type q9
one_error_line type "no type 'q9'"
run repeats 2 "$DUET" bench --repeats 0
one_error_line repeats "repeats: 0 is not"
run model 1 "$DUET" bench --model "$scratch/none.gguf"
one_error_line model "none.gguf"
run word 2 "$DUET" bench quickly
one_error_line word "unexpected word 'quickly'"
finish
