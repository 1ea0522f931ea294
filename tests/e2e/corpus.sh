#!/usr/bin/env bash
# From dialogues to a model: vocab, prep, train (stopped by a signal and taken up again), perplexity; what each refuses.
. tests/lib.sh

scenes=$scratch/scenes
mkdir "$scenes"
cp corpus/scenes/en/slots.txt corpus/scenes/en/p1_feelings.scene "$scenes"
field() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$scratch/out" | head -1; }

run "check scenes" 0 "$DUET" prep corpus/scenes/zh corpus/scenes/en --readings 1
there=$(awk 'FNR == 1 { inside = 0 } /^[UB]:/ { n += !inside; inside = 1 } /^[[:space:]]*$/ { inside = 0 } END { print n }' corpus/scenes/*/*.scene)
grep -q "($there scenes" "$scratch/err" || fail "the scenes: $there counted, $(head -1 "$scratch/err")"
printf '# c\nU: a\nB: b[c\n' >"$scratch/bad.scene"
run "bad scene" 1 "$DUET" prep "$scratch/bad.scene"
one_error_line "bad scene" "bad.scene:3: a choice without its closing bracket"

# Text from a pipe, cleaned, as text again.
printf 'hi  there\r\nhello\n\n\n\nsee www.x.org\nno\n\nhi there\nhello\n' | "$DUET" prep - --dump >"$scratch/out" 2>"$scratch/err" || fail "prep of stdin"
[ "$(cat "$scratch/out")" = "$(printf 'hi there\nhello')" ] || fail "dump: $(cat "$scratch/out")"
for why in 'web or mail address' 'too few turns' 'duplicate dialogue'; do
    grep -q "1  .*$why" "$scratch/err" || fail "no count for '$why': $(cat "$scratch/err")"
done

run "vocab" 0 "$DUET" vocab "$scenes" -o "$scratch/vocab.txt" --size 600
run "vocab bpe" 0 "$DUET" vocab "$scenes" -o "$scratch/bpe" --type bpe --size 500
run "bpe into a file" 2 "$DUET" vocab "$scenes" -o "$scratch/bpe.txt" --type bpe
run "prep" 0 "$DUET" prep "$scenes" -o "$scratch/a.shard" --tokenizer "$scratch/vocab.txt" --readings 30 --valid 0.1 --json
[ "$(field unknown)" = 0 ] || fail "unknown tokens in the text the vocabulary was made of"
cp "$scratch/a.shard" "$scratch/twice.shard"
run "prep again" 0 "$DUET" prep "$scenes" -o "$scratch/a.shard" --tokenizer "$scratch/vocab.txt" --readings 30 --valid 0.1
cmp -s "$scratch/a.shard" "$scratch/twice.shard" || fail "prep twice gives two shards"
run "prep bpe" 0 "$DUET" prep "$scenes" -o "$scratch/b.shard" --tokenizer "$scratch/bpe" --readings 30 --valid 0.1
run "prep without a tokenizer" 2 "$DUET" prep "$scenes" -o "$scratch/c.shard"
run "nothing left" 1 "$DUET" prep "$scenes" --min-turns 40
one_error_line "nothing left" "no dialogue is left"

small="--layers 1 --embd 16 --heads 2 --ctx 64 --batch 256 --eval-every 10 --eval-tokens 500 --warmup 5 --threads 1"
run "dry run" 0 "$DUET" train "$scratch/a.shard" -o "$scratch/m.gguf" --steps 40 --dry-run $small
[ ! -e "$scratch/m.gguf" ] || fail "a dry run writes"
run "no length" 2 "$DUET" train "$scratch/a.shard" -o "$scratch/m.gguf" $small
one_error_line "no length" "one of --steps, --epochs and --minutes"
run "two tokenizers" 1 "$DUET" train "$scratch/a.shard" "$scratch/b.shard" -o "$scratch/m.gguf" --steps 40 $small
run "wrong tokenizer" 1 "$DUET" train "$scratch/a.shard" -o "$scratch/m.gguf" --steps 40 --tokenizer "$scratch/bpe" $small
run "train" 0 "$DUET" train "$scratch/a.shard" -o "$scratch/m.gguf" --steps 40 --log "$scratch/m.jsonl" --checkpoint "$scratch/m.ckpt" $small
[ "$(grep -c '"loss"' "$scratch/m.jsonl")" = 40 ] || fail "log: $(grep -c loss "$scratch/m.jsonl") updates, 40 wanted"
run "show" 0 "$DUET" show "$scratch/m.gguf"
grep -q cls_sep "$scratch/out" || fail "the layout is not in the model"
run "backward from bpe" 0 "$DUET" train "$scratch/b.shard" -o "$scratch/r.gguf" --steps 10 --reverse --type f16 $small
run "go on from a model" 0 "$DUET" train "$scratch/a.shard" -o "$scratch/n.gguf" --init "$scratch/m.gguf" --steps 10 --batch 256 --threads 1 --lr 0.0001
run "another vocabulary" 1 "$DUET" train "$scratch/b.shard" -o "$scratch/n.gguf" --init "$scratch/m.gguf" --steps 10 --batch 256
run "perplexity" 0 "$DUET" perplexity "$scratch/m.gguf" "$scratch/a.shard"
grep -qE 'ppl [0-9.]+.*ppl/char [0-9.]+' "$scratch/out" || fail "perplexity: $(cat "$scratch/out")"
run "perplexity of another vocabulary" 1 "$DUET" perplexity "$scratch/r.gguf" "$scratch/a.shard"

# A signal ends a run with a checkpoint; taken up again it gives the same model as one that was let alone.
"$DUET" train "$scratch/a.shard" -o "$scratch/s.gguf" --name m --steps 400 $small 2>"$scratch/err" &
pid=$!
for _ in $(seq 200); do
    grep -q '^step' "$scratch/err" && break
    sleep 0.05
done
kill -TERM $pid
wait $pid
rc=$?
if [ $rc = 1 ]; then # it may have been done already on a fast machine
    tail -1 "$scratch/err" | grep -q 'stopped at step [0-9]*; .*s.gguf.ckpt.*--resume' || fail "after SIGTERM: $(tail -1 "$scratch/err")"
    run "resume with other options" 1 "$DUET" train "$scratch/a.shard" -o "$scratch/s.gguf" --name m --steps 400 --resume $small --lr 0.5
    grep -q 'had lr=0.001' "$scratch/err" || fail "resume with other options: $(tail -1 "$scratch/err")"
    run "resume" 0 "$DUET" train "$scratch/a.shard" -o "$scratch/s.gguf" --name m --steps 400 --resume $small
else
    [ $rc = 0 ] || fail "after SIGTERM: exit $rc"
fi
[ ! -e "$scratch/s.gguf.ckpt" ] || fail "the checkpoint nobody asked for is still there"
run "undisturbed" 0 "$DUET" train "$scratch/a.shard" -o "$scratch/u.gguf" --name m --steps 400 $small
cmp -s "$scratch/s.gguf" "$scratch/u.gguf" || fail "a resumed run ends in other bytes"
finish
