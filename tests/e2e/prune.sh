#!/usr/bin/env bash
# prune as one uses it: a trained model loses a share, columns, heads, layers and vocabulary; the result is trained on, judged, quantized and talks; what is refused.
. tests/lib.sh
export OMP_NUM_THREADS=1

scenes=$scratch/scenes m=$scratch/m.gguf
mkdir "$scenes"
cp corpus/scenes/en/slots.txt corpus/scenes/en/p1_feelings.scene "$scenes"
grown() { sed -n "s/^$1  *\([0-9]*\)  *\([0-9]*\).*/\1 \2/p" "$scratch/out"; } # "before after" of a row of the report
shown() { "$DUET" show "$2" | sed -n "s/^$1  *\([0-9]*\).*/\1/p"; }
ppl() { "$DUET" perplexity "$1" "$2" | sed -n 's/.*\tppl \([0-9.]*\)\t.*/\1/p'; }

run "vocab" 0 "$DUET" vocab "$scenes" -o "$scratch/bpe" --type bpe --size 500
run "vocab wordpiece" 0 "$DUET" vocab "$scenes" -o "$scratch/vocab.txt" --size 600
run "prep" 0 "$DUET" prep "$scenes" -o "$scratch/a.shard" --tokenizer "$scratch/bpe" --readings 30 --valid 0.1
run "prep wordpiece" 0 "$DUET" prep "$scenes" -o "$scratch/b.shard" --tokenizer "$scratch/vocab.txt" --readings 30 --valid 0.1
run "train" 0 "$DUET" train "$scratch/a.shard" -o "$m" --steps 60 --layers 3 --embd 32 --heads 4 --inner 128 --ctx 64 --batch 512 --lr 0.004 --warmup 5 \
    --eval-every 60 --eval-tokens 500 --threads 1
cut=$scratch/cut.gguf
measured="$scratch/a.shard --tokens 600 --threads 1"

run "share" 0 "$DUET" prune "$m" $measured -o "$cut" --share 0.25
read -r before after <<<"$(grown parameters)"
[ "$before" = "$(shown parameters "$m")" ] && [ "$after" = "$(shown parameters "$cut")" ] && [ $((after * 4)) -le $((before * 3)) ] || fail "share: $(cat "$scratch/out")"
grep -q "tried: layers 0 1 2, 4 heads of 8, inner 32" "$scratch/err" || fail "share: what was tried: $(cat "$scratch/err")"
run "share again" 0 "$DUET" prune "$m" $measured -o "$scratch/again.gguf" --share 0.25
cmp -s "$cut" "$scratch/again.gguf" || fail "the same command gives another model"
run "train on" 0 "$DUET" train "$scratch/a.shard" -o "$scratch/tuned.gguf" --init "$cut" --steps 30 --batch 512 --lr 0.002 --warmup 2 --eval-every 30 --threads 1
awk -v a="$(ppl "$scratch/tuned.gguf" "$scratch/a.shard")" -v b="$(ppl "$cut" "$scratch/a.shard")" 'BEGIN { exit !(a > 1 && a < b) }' || fail "the fine-tune does not help"
run "quantize" 0 "$DUET" quantize "$cut" -o "$scratch/q.gguf" --type q4_0

run "kinds" 0 "$DUET" prune "$m" $measured -o "$cut" --layers 1 --heads 0.25 --inner 0.5 --json
for key in n_layer=2 n_head=3 n_embd=24 n_inner=64; do [ "$(shown "${key%=*}" "$cut")" = "${key#*=}" ] || fail "kinds: $key wanted"; done
grep -q '"layers_kept": *\[' "$scratch/out" || fail "kinds: $(cat "$scratch/out")"

# Vocabulary: any text still goes in and comes out, and shards are made with the new one.
printf 'i am so happy today\nthat is good to hear\n' >"$scratch/words.txt"
run "vocabulary" 0 "$DUET" prune "$m" -o "$cut" --vocab-from "$scratch/words.txt"
read -r before after <<<"$(grown vocabulary)"
[ "$before" -gt "$after" ] && [ "$after" -gt 257 ] && [ "$after" = "$(shown n_vocab "$cut")" ] || fail "vocabulary: $(cat "$scratch/out")"
grep -q "duet prep .*--tokenizer $cut" "$scratch/out" || fail "vocabulary: what comes next is not said"
[ "$("$DUET" tokens "$m" <"$scratch/words.txt" | wc -w)" = "$("$DUET" tokens "$cut" <"$scratch/words.txt" | wc -w)" ] || fail "its own text has other tokens"
run "prep with it" 0 "$DUET" prep "$scenes" -o "$scratch/c.shard" --tokenizer "$cut" --readings 30 --valid 0.1
run "perplexity with it" 0 "$DUET" perplexity "$cut" "$scratch/c.shard"
printf 'Zürich 东京 \360\237\230\200 qqxzj\n' | "$DUET" tokens "$cut" >"$scratch/ids" && [ "$("$DUET" tokens "$cut" --decode <"$scratch/ids")" = "$(printf 'Zürich 东京 \360\237\230\200 qqxzj')" ] ||
    fail "a text outside the corpus is lost"
run "vocabulary and share" 0 "$DUET" prune "$m" $measured -o "$cut" --vocab-from "$scratch/a.shard" --vocab-from "$scenes" --min-count 900 --share 0.4
read -r before after <<<"$(grown parameters)"
[ $((after * 10)) -le $((before * 6)) ] || fail "vocabulary and share: $(cat "$scratch/out")"

rm -f "$cut"
run "nothing" 2 "$DUET" prune "$m" -o "$cut"
one_error_line "nothing" "nothing to take out"
run "no shard" 2 "$DUET" prune "$m" -o "$cut" --share 0.2
one_error_line "no shard" "a shard .* is wanted"
run "share 1" 2 "$DUET" prune "$m" $measured -o "$cut" --share 1
one_error_line "share 1" "--share 1: more than 0 and less than 1 wanted"
run "layers" 1 "$DUET" prune "$m" $measured -o "$cut" --layers 4
one_error_line "layers" "layers 4: there are 3"
run "another tokenizer" 1 "$DUET" prune "$m" "$scratch/b.shard" -o "$cut" --share 0.2
one_error_line "another tokenizer" "m.gguf has a vocabulary of .*b.shard was made with one of"
run "another tokenizer for the vocabulary" 1 "$DUET" prune "$m" -o "$cut" --vocab-from "$scratch/b.shard"
one_error_line "another tokenizer for the vocabulary" "b.shard"
[ ! -e "$cut" ] || fail "a refused prune wrote a file"
finish
