#!/usr/bin/env bash
# Trains the pair duet-en again, from the scenes and the English text of corpus/SOURCES.md.  usage: models/weights/duet-en.sh DUET en_permissive_train.txt OUT
# Two trainings run at once, one thread each; with --threads 1 the bits do not depend on the machine's number of cores, but on its BLAS kernels.
set -eu
duet=$1 talk=$2 out=$3
scenes=corpus/scenes/en

export OMP_NUM_THREADS=1
cd "$(dirname "$0")/../.." # the arguments are seen from there
mkdir -p "$out"

# Stage A had the plain scenes p1 to p4, stage B has p5 too.
"$duet" vocab $(ls $scenes/*.scene | grep -v /p5_) "$talk" -o "$out/vocab" --type bpe --size 4096
"$duet" prep $scenes/p[124]_*.scene -o "$out/plain-a.shard" --tokenizer "$out/vocab" --readings 200
"$duet" prep $scenes/p[1245]_*.scene -o "$out/plain-b.shard" --tokenizer "$out/vocab" --readings 200
"$duet" prep $scenes/[!p]*.scene $scenes/pets_hobby.scene -o "$out/rich.shard" --tokenizer "$out/vocab" --readings 20
"$duet" prep "$talk" -o "$out/talk.shard" --tokenizer "$out/vocab"

common="--threads 1 --batch 2048 --eval-tokens 20000 --judge 1"
note="Trained by Duet from scratch on the Duet scenes (MIT) and en_permissive: Self-dialogue corpus (BSD-3-Clause); Topical-Chat (CDLA-Sharing-1.0); Synthetic-Persona-Chat (CC-BY-4.0); ConvAI2 by XPersona (CC-BY-4.0/MIT); Wizard of Wikipedia by ParlAI (CC-BY-4.0); botframework-cli small talk (MIT); chatterbot-corpus, Papaya scenarios (BSD-3-Clause/MIT). Weights: MIT."
one() { # forward|backward [--reverse]
    local way=$1 # A: half of it running talk, constant rate; B: mostly plain scenes, dropout, down to a low rate
    shift
    "$duet" train "$out"/{plain-a,rich,talk}.shard -o "$out/$way-a.gguf" "$@" $common --layers 6 --embd 192 --heads 6 --ctx 192 \
        --lr 0.0015 --schedule constant --warmup 100 --weight-decay 0.05 --dropout 0.05 --steps 1600 --mix 0.35,0.15,0.5 --join 0.2 --eval-every 400 --log "$out/$way-a.jsonl"
    "$duet" train "$out"/{plain-b,rich,talk}.shard -o "$out/$way-b.gguf" "$@" $common --init "$out/$way-a.gguf" --seed 2 \
        --lr 0.0012 --min-lr 0.00004 --warmup 50 --weight-decay 0.1 --dropout 0.1 --steps 2400 --mix 0.6,0.1,0.3 --mix-end 0.85,0.05,0.1 --join 0.15 \
        --eval-every 300 --name "Duet en $way" --note "$note" --log "$out/$way-b.jsonl"
    "$duet" quantize "$out/$way-b.gguf" -o "$out/duet-en-$way.gguf" --type q8_0
}
one forward &
one backward --reverse &
wait
