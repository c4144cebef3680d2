#!/usr/bin/env bash
# Transactions beside plain writes, interleaved: `benches/transactions.sh [rounds] [threads]`. Prints a line for every
# step: level, what, operations a second. Other engines' transactions are in `benches/peers`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${1:-3}
threads=${2:-4}
num=${NUM:-500000}
ours=${ESKER_DB_BENCH:-}
if [[ -z $ours ]]; then
    cargo build --release -p db_bench >&2
    ours=${CARGO_TARGET_DIR:-target}/release/db_bench
fi

# esker NAME LABEL FLAGS…: the rate of one benchmark after a fill.
esker() {
    local name=$1 label=$2
    shift 2
    "$ours" --num="$num" --reads=$((num / threads)) --writes=$((num / threads)) --threads="$threads" --progress=false \
        --benchmarks="filluniquerandom,$name" "$@" 2>/dev/null |
        awk -v name="$name" -v label="$label" '$1 == name && $2 == ":" { print label, name, $5 }'
}

for ((round = 0; round < rounds; round++)); do
    esker overwrite plain
    for level in read-committed repeatable-read serializable; do
        esker txn_put "$level" --isolation="$level"
        esker txn_transfer "$level" --isolation="$level"
    done
    esker txn_transfer optimistic --isolation=repeatable-read --optimistic
done
