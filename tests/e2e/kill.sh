#!/usr/bin/env bash
# kill -9 at any moment: whatever was shown is in the store, the store opens, the chain verifies, and the talk can go on.
# KILLS=500 tests/e2e/kill.sh for a long run.
. tests/lib.sh
kills=${KILLS:-25}
db=$scratch/kill.db

for i in $(seq 1 "$kills"); do
    : >"$scratch/shown.$i"
    "$DUET" chat --db "$db" --seed "$i" -N 3 --max-new 8 --threads 1 >"$scratch/shown.$i" 2>"$scratch/err.$i" \
        < <(for k in $(seq 1 400); do echo "第${i}批第${k}句，你好"; done) &
    pid=$!
    # on a busy machine the first reply takes its time; then any moment will do
    for _ in $(seq 600); do [ -s "$scratch/shown.$i" ] || ! kill -0 $pid 2>/dev/null && break; sleep 0.1; done
    sleep "0.$((RANDOM % 80 + 10))"
    kill -9 $pid 2>/dev/null
    wait 2>/dev/null
done
total=$(cat "$scratch"/shown.* | wc -l)
[ "$total" -ge "$kills" ] || fail "only $total replies were shown in $kills runs: $(cat "$scratch"/err.* | head -3)"

run "verify" 0 "$DUET" audit verify --db "$db"
run "export" 0 "$DUET" history export --db "$db" --format text
cp "$scratch/out" "$scratch/stored.txt"
for i in $(seq 1 "$kills"); do
    # replies stored for run i, in order
    awk -v run="第${i}批第" 'index($0, run) == 1 { getline r; print r }' "$scratch/stored.txt" >"$scratch/stored.$i"
    n=$(wc -l <"$scratch/shown.$i")
    head -n "$n" "$scratch/stored.$i" | cmp -s - <(head -n "$n" "$scratch/shown.$i") || fail "run $i: a shown reply is not in the store"
done
"$DUET" chat --db "$db" --continue <<<"还在吗" >"$scratch/out" 2>"$scratch/err" || fail "the conversation did not go on: $(cat "$scratch/err")"
run "verify again" 0 "$DUET" audit verify --db "$db"
echo "$total replies shown in $kills killed chats"
finish
