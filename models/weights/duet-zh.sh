#!/usr/bin/env bash
# Trains the pair duet-zh again, from the scenes and the Chinese text of corpus/SOURCES.md.  usage: models/weights/duet-zh.sh DUET zh_strict_train.txt OUT
# Two trainings run at once, one thread each; with --threads 1 the bits do not depend on the machine's number of cores, but on its BLAS kernels.
set -eu
duet=$1 talk=$2 out=$3
scenes=corpus/scenes/zh

export OMP_NUM_THREADS=1
cd "$(dirname "$0")/../.." # the arguments are seen from there
mkdir -p "$out"

# Stage A had only the first scenes (p1 to p3 and the rich ones), stage B has all.
"$duet" vocab $scenes/[!p]*.scene $scenes/pets.scene $scenes/p[123]_*.scene "$talk" -o "$out/vocab.txt" --size 3600 --min-count 8
"$duet" prep $scenes/p[123]_*.scene $scenes/pets.scene -o "$out/plain-a.shard" --tokenizer "$out/vocab.txt" --readings 150
"$duet" prep $scenes/p[1-9]_*.scene -o "$out/plain-b.shard" --tokenizer "$out/vocab.txt" --readings 200
"$duet" prep $scenes/[!p]*.scene $scenes/pets.scene -o "$out/rich.shard" --tokenizer "$out/vocab.txt" --readings 20
"$duet" prep "$talk" -o "$out/talk.shard" --tokenizer "$out/vocab.txt"

common="--threads 1 --batch 2048 --eval-tokens 20000 --judge 1"
note="Trained by Duet from scratch on the Duet scenes (MIT) and zh_strict: SMILE (CC0); CPsyCoun, NLPCC-2019 query-reply pairs (CC-BY-4.0); KdConv, CrossWOZ (Apache-2.0); botframework-cli small talk, XPersona (MIT); chatterbot-corpus (BSD-3-Clause). Weights: MIT."
one() { # forward|backward [--reverse]
    local way=$1 # A: running talk; B: scenes, until learned by heart (patience); C: B's best with dropout to a low rate
    shift
    "$duet" train "$out"/{plain-a,rich,talk}.shard -o "$out/$way-a.gguf" "$@" $common --layers 6 --embd 192 --heads 6 --ctx 192 \
        --lr 0.0015 --schedule constant --warmup 100 --weight-decay 0.05 --dropout 0 --steps 1500 --mix 0.25,0.15,0.6 --eval-every 500 --log "$out/$way-a.jsonl"
    "$duet" train "$out"/{plain-b,rich,talk}.shard -o "$out/$way-b.gguf" "$@" $common --init "$out/$way-a.gguf" --seed 2 --patience 2 \
        --lr 0.0015 --min-lr 0.00005 --warmup 50 --weight-decay 0.05 --dropout 0 --steps 5000 --mix 0.55,0.1,0.35 --mix-end 0.85,0.05,0.1 \
        --eval-every 500 --log "$out/$way-b.jsonl"
    "$duet" train "$out"/{plain-b,rich,talk}.shard -o "$out/$way-c.gguf" "$@" $common --init "$out/$way-b.gguf" --seed 3 \
        --lr 0.0008 --min-lr 0.00004 --warmup 30 --weight-decay 0.1 --dropout 0.1 --steps 1300 --mix 0.65,0.1,0.25 --eval-every 260 \
        --name "Duet zh $way" --note "$note" --log "$out/$way-c.jsonl"
    "$duet" quantize "$out/$way-c.gguf" -o "$out/duet-zh-$way.gguf" --type q8_0
}
one forward &
one backward --reverse &
wait
