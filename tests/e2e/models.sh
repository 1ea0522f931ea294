#!/usr/bin/env bash
# import, export, show, diff, tokens, logprobs, generate as scripts use them: forms of output, exit statuses, limits.
. tests/lib.sh

vectors=tests/vectors/import
m=$scratch/m1.gguf
out() { cat "$scratch/out"; }
is() { [ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"; }

run "import" 0 "$DUET" import $vectors/m1/pt_zip_parameters -o "$m"
[ ! -s "$scratch/out" ] && [ ! -s "$scratch/err" ] || fail "import prints something"
run "import of the twin" 0 "$DUET" import $vectors/m1/st_f32_prefix -o "$scratch/twin.gguf" --name pt_zip_parameters
cmp -s "$m" "$scratch/twin.gguf" || fail "a zip pickle and safetensors with the same weights differ"
run "import without -o" 2 "$DUET" import $vectors/m1/st_f32_prefix
run "import, role" 2 "$DUET" import $vectors/m1/st_f32_prefix -o "$scratch/x" --role sideways
one_error_line "import, role" "sideways"
run "import, vocabulary" 1 "$DUET" import $vectors/m1/st_f32_prefix -o "$scratch/x" --vocab tests/vectors/tokenizer/chitchat_vocab.txt
one_error_line "import, vocabulary" "13317 tokens.* 97$"
run "export" 0 "$DUET" export "$m" -o "$scratch/hf"
run "import again" 0 "$DUET" import "$scratch/hf" -o "$scratch/again.gguf"
cmp -s "$m" "$scratch/again.gguf" || fail "export and import is not the identity"

run "show" 0 "$DUET" show "$m"
grep -qE '^n_embd +32$' "$scratch/out" && grep -qE '^  blk\.1\.ffn_down\.weight +f32 +\(32, 128\)$' "$scratch/out" || fail "show: $(head -c 600 "$scratch/out")"
grep -q "$(sha256sum <"$m" | cut -d' ' -f1)" "$scratch/out" || fail "show: the digest is not that of the file"
"$DUET" show --diffable "$m" >"$scratch/s1"
"$DUET" show --diffable "$scratch/twin.gguf" >"$scratch/s2"
cmp -s "$scratch/s1" "$scratch/s2" && ! grep -q "$scratch" "$scratch/s1" || fail "show --diffable depends on the place of the file"

run "diff of equals" 0 "$DUET" diff "$m" "$scratch/again.gguf"
[ ! -s "$scratch/out" ] || fail "diff of equals prints something"
run "import untied" 0 "$DUET" import $vectors/m5/pt_zip_untied_lm_head -o "$scratch/m5.gguf"
run "diff of others" 3 "$DUET" diff "$m" "$scratch/m5.gguf"
grep -qE '^n_layer +2 \| 4$' "$scratch/out" && grep -qE '^output.weight +absent \| there$' "$scratch/out" || fail "diff of others: $(out | head -5)"
[ ! -s "$scratch/err" ] || fail "diff of others: something on stderr"

# log P by the reference (m1, sequence 0): -5.5682919 -4.4050563 …
run "logprobs" 0 "$DUET" logprobs "$m" --ids "83 10 7 58 47 27 55 15 78"
is "logprobs, lines" "$(out | wc -l)" 8
out | awk '{ d = $3 - w[NR]; if (d < 0) d = -d; if (d > 1e-4 || $1 != NR) exit 1 } BEGIN { split("-5.5682919 -4.4050563 -7.5935266 -7.8943251 -5.2352213 -7.7324409 -8.3437658 -5.0232516", w, " ") }' ||
    fail "logprobs: $(out | head -3)"
is "logprobs, ids" "$(out | cut -d' ' -f2 | tr '\n' ' ')" "10 7 58 47 27 55 15 78 "
one=$(out)
printf '1 2\n83 10 7 58 47 27 55 15 78\n9\n' | "$DUET" logprobs "$m" >"$scratch/out" 2>"$scratch/err" || fail "logprobs from stdin"
is "logprobs, from stdin" "$(sed -n '3,10p' "$scratch/out")" "$one"
is "logprobs, blank lines between results" "$(grep -n '^$' "$scratch/out" | tr '\n' ' ')" "2: 11: "
run "logprobs --top" 0 "$DUET" logprobs "$m" --ids "83 10" --top 3
out | grep -qE '^1 10 -[0-9.]+ 87:-[0-9.]+ [0-9]+:-[0-9.]+ [0-9]+:-[0-9.]+$' || fail "logprobs --top: $(out)"
run "logprobs --json" 0 "$DUET" logprobs "$m" --ids "83 10" --json
out | grep -qE '^\{"ids":\[83,10\],"logprobs":\[-5\.568[0-9]+\],"sum":-5\.568[0-9]+\}$' || fail "logprobs --json: $(out)"
long=$(seq -s ' ' 0 64)
run "logprobs, full context" 0 "$DUET" logprobs "$m" --ids "${long% *}"
run "logprobs, one more" 1 "$DUET" logprobs "$m" --ids "$long"
one_error_line "logprobs, one more" "65 .*64"
run "logprobs, no such id" 1 "$DUET" logprobs "$m" --ids "3 97"
one_error_line "logprobs, no such id" "97"
run "logprobs, no number" 1 "$DUET" logprobs "$m" --ids "3 x"
head -c 1100000 /dev/zero | tr '\0' '1' >"$scratch/line"
"$DUET" logprobs "$m" <"$scratch/line" >"$scratch/out" 2>"$scratch/err" && fail "a line of 1.1 MB was read"
one_error_line "a line of 1.1 MB" "line 1: more than 1048576 bytes"

# the reference's greedy continuation
run "generate" 0 "$DUET" generate "$m" --ids "46 22 10 71 92 57 10 47" -n 20 --temperature 0 --no-stop
is "generate, greedy" "$(out)" "66 39 66 88 79 87 27 18 48 81 8 8 8 63 92 66 48 48 48 92"
run "generate, seed" 0 "$DUET" generate "$m" --ids "5 6" -n 30 --seed 11
a=$(out)
run "generate, seed again" 0 "$DUET" generate "$m" --ids "5 6" -n 30 --seed 11 --threads 1
is "generate, same seed" "$(out)" "$a"
run "generate, other seed" 0 "$DUET" generate "$m" --ids "5 6" -n 30 --seed 12
[ "$(out)" != "$a" ] || fail "generate: another seed draws the same 30 ids"
run "generate, top-k 1" 0 "$DUET" generate "$m" --ids "46 22 10 71 92 57 10 47" -n 5 --top-k 1
is "generate, top-k 1" "$(out)" "66 39 66 88 79"
run "generate, context" 0 "$DUET" generate "$m" --ids "5 6" -n 100 --no-stop
is "generate, context" "$(out | wc -w)" 63
run "generate, -n 0" 2 "$DUET" generate "$m" --ids "5 6" -n 0

run "tokens without a vocabulary" 1 "$DUET" tokens "$m"
one_error_line "tokens without a vocabulary" "no vocabulary"
t=tests/vectors/models/tiny_f32.gguf
printf 'hello you\n\nwhat?' | "$DUET" tokens $t >"$scratch/ids" || fail "tokens"
is "tokens, a line for a line" "$(wc -l <"$scratch/ids")" 3
is "tokens, and back" "$("$DUET" tokens $t --decode <"$scratch/ids")" "$(printf 'hello you\n\nwhat?')"
printf '0aff00e4b8\n' | "$DUET" tokens $t --hex >"$scratch/ids" || fail "tokens --hex"
is "tokens --hex, and back" "$("$DUET" tokens $t --decode --hex <"$scratch/ids")" 0aff00e4b8
printf '0a\n0g\n' | "$DUET" tokens $t --hex >/dev/null 2>"$scratch/err" && fail "tokens: bad hex was read"
one_error_line "tokens, bad hex" "line 2"
printf '5\n300\n' | "$DUET" tokens $t --decode >/dev/null 2>"$scratch/err" && fail "tokens: an id out of range was decoded"
one_error_line "tokens, id out of range" "line 2.*300"
finish
