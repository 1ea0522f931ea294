#!/usr/bin/env bash
# The table of size, speed and held-out perplexity in duet-zh.md, from the shipped pair and the scenes of this repository alone: full, pruned by 25 and 50 % of the
# parameters with a short fine-tune (no longer than STEPS updates), each in f32, q8_0 and q4_0.  Prints Markdown.
# usage: models/weights/sizes.sh DUET OUT [forward|backward …]      (about 12 minutes of one core for each model)
# Speeds are tokens a second of processor time, one thread, by `duet bench`: what else the machine does hardly changes them.
set -eu
duet=$1 out=$2
shift 2
weights=$(dirname "$0")
scenes=$weights/../../corpus/scenes/zh
steps=240
export OMP_NUM_THREADS=1
mkdir -p "$out"
plain=$out/plain.shard rich=$out/rich.shard

say() { echo "sizes: $*" >&2; }
# The held-out scenes are those that the pair was never trained on: chosen by their words and prep's seed, as in duet-zh.sh.
shards() {
    "$duet" prep "$scenes"/p[1-9]_*.scene -o "$plain" --tokenizer "$weights/duet-zh-forward.gguf" --readings 60
    "$duet" prep "$scenes"/[!p]*.scene "$scenes/pets.scene" -o "$rich" --tokenizer "$weights/duet-zh-forward.gguf" --readings 20
}
tune() { # WAY FROM TO: short, at a falling rate, mostly plain scenes
    local reverse=
    [ "$1" = forward ] || reverse=--reverse
    "$duet" train "$plain" "$rich" --init "$2" -o "$3" $reverse --threads 1 --steps $steps --batch 2048 --lr 0.0008 --min-lr 0.00004 --warmup 20 \
        --weight-decay 0.1 --dropout 0 --mix 0.65,0.35 --judge 1 --eval-every $((steps / 4)) --eval-tokens 8000
}
make_all() { # WAY: all the models of one direction
    local m=$out/$1 share type
    "$duet" quantize "$weights/duet-zh-$1.gguf" -o "$m-full-f32.gguf" --type f32 >"$m-full.report"
    tune "$1" "$m-full-f32.gguf" "$m-tuned-f32.gguf"
    for share in 25 50; do # measured on the training part: the held-out scenes are for the table
        "$duet" prune "$m-full-f32.gguf" "$plain" -o "$m-cut$share-f32.gguf" --share 0.$share --part train >"$m-cut$share.report"
        tune "$1" "$m-cut$share-f32.gguf" "$m-pruned$share-f32.gguf"
    done
    for share in full tuned pruned25 pruned50; do
        for type in q8_0 q4_0; do "$duet" quantize "$m-$share-f32.gguf" -o "$m-$share-$type.gguf" --type $type >"$m-$share-$type.report"; done
    done
}
speed() { # BENCH.json WORKLOAD: tokens a second of processor time
    tr '{' '\n' <"$1" | awk -v name="\"$2\"" '
        function field(key) { return match($0, "\"" key "\":[^,}]*") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "" }
        field("name") == name { printf "%.0f", field("tokens_per_s") * field("median_ms") / field("cpu_ms") }'
}
ppl() { "$duet" perplexity "$1" "$2" --tokens 20000 | sed -n 's/.*\tppl \([0-9.]*\)\t.*/\1/p' | xargs printf '%.2f'; }
parameters() { "$duet" show "$1" | sed -n 's/^parameters *\([0-9]*\).*/\1/p'; }
millions() { awk -v n="$1" 'BEGIN { printf "%.2f", n / 1e6 }'; }
row() { # WAY NAME FILE
    "$duet" bench --model "$3" --threads 1 --only prefill --only 'decode 16' --json >"$out/bench.$1.json"
    printf '| %s, %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$2" "$(millions "$(parameters "$3")") M" "$(millions "$(wc -c <"$3")") MB" \
        "$(speed "$out/bench.$1.json" 'prefill 128')" "$(speed "$out/bench.$1.json" 'decode 16')" "$(ppl "$3" "$plain")" "$(ppl "$3" "$rich")"
}
table() { # WAY
    local m=$out/$1 share what type
    while read -r share what; do
        for type in f32 q8_0 q4_0; do row "$1" "$what, $type" "$m-$share-$type.gguf"; done
        case $share in
        pruned*)
            type=$m-cut${share#pruned}-f32.gguf
            printf '| %s, %s before it | | | | | %s | %s |\n' "$1" "$what" "$(ppl "$type" "$plain")" "$(ppl "$type" "$rich")"
            ;;
        esac
    done <<'END'
full full
tuned full, fine-tuned
pruned25 25 % pruned, fine-tuned
pruned50 50 % pruned, fine-tuned
END
}

[ $# -gt 0 ] || set -- forward backward
"$duet" bench --help >"$out/bench.help" || { say "$duet has no command bench"; exit 1; }
shards
jobs=
for way in "$@"; do
    make_all "$way" &
    jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done
echo "| model | parameters | file | prefill, tokens/s | 16 candidates, tokens/s | perplexity, plain scenes | rich scenes |"
echo "|---|---|---|---|---|---|---|"
for way in "$@"; do table "$way"; done
for way in "$@"; do
    for share in 25 50; do
        echo
        echo "$way, $share %:"
        sed 's/^/    /' "$out/$way-cut$share.report"
    done
done
