#!/usr/bin/env bash
# Loads real source into the code_index example, kills it with SIGKILL again and again on the way, and compares what
# comes out with an index that was built in one go.
#
#   benches/code_index_kill.sh SOURCE_DIR...
#
# KILLS     least number of kills on the way       (50)
# BYTES     least number of bytes that must be indexed (500000000)
# WORK      directory for the two databases        (a temporary one, removed at the end)
# SEED      seed of the moments of the kills       (random, printed)
set -euo pipefail

kills_wanted=${KILLS:-50}
bytes_wanted=${BYTES:-500000000}
seed=${SEED:-$RANDOM}
[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
sources=()
for source in "$@"; do sources+=("$(realpath "$source")"); done

cd "$(dirname "$0")/.."
cargo build --release --example code_index
code_index=${CARGO_TARGET_DIR:-target}/release/examples/code_index
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
echo "seed $seed, databases in $work"
RANDOM=$seed

milliseconds() { echo $(($(date +%s%N) / 1000000)); }
sleep_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

start=$(milliseconds)
whole=$("$code_index" "$work/whole" load "${sources[@]}")
took=$(($(milliseconds) - start))
echo "in one go: $whole in $took ms"
bytes=$(sed -E 's/.*\(([0-9]+) bytes\).*/\1/' <<<"$whole")
[ "$bytes" -ge "$bytes_wanted" ] || { echo "only $bytes bytes of text; $bytes_wanted wanted" >&2; exit 1; }

# Pauses that leave room for a quarter more kills than asked for; each start costs a recovery and a walk.
pause_max=$((took * 2 * 4 / 5 / kills_wanted + 1))
kills=0
start=$(milliseconds)
while :; do
    "$code_index" "$work/killed" load "${sources[@]}" >"$work/killed.out" 2>"$work/killed.err" &
    child=$!
    if [ "$kills" -ge "$((kills_wanted * 10))" ]; then
        wait "$child"
        break
    fi
    sleep_ms $((RANDOM * RANDOM % pause_max))
    if kill -9 "$child" 2>/dev/null; then :; fi
    status=0
    wait "$child" 2>/dev/null || status=$?
    if [ "$status" -eq 137 ]; then
        kills=$((kills + 1))
    elif [ "$status" -eq 0 ]; then
        break
    else
        echo "the load failed by itself after $kills kills: $(cat "$work/killed.err")" >&2
        exit 1
    fi
done
echo "with $kills kills: $(cat "$work/killed.out") in $(($(milliseconds) - start)) ms"
[ "$kills" -ge "$kills_wanted" ] || { echo "only $kills kills; $kills_wanted wanted" >&2; exit 1; }

"$code_index" "$work/killed" check
expected=$("$code_index" "$work/whole" digest)
found=$("$code_index" "$work/killed" digest)
echo "digest in one go  $expected"
echo "digest with kills $found"
[ "$expected" = "$found" ] || { echo "the digests differ" >&2; exit 1; }
du -sh "$work/whole" "$work/killed" | sed 's/^/on disk: /'
