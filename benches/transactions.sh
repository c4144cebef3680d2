#!/usr/bin/env bash
# Transactions of esker beside plain writes, and beside RocksDB's, interleaved: `benches/transactions.sh [rounds] [threads]`.
#
# RocksDB's `db_bench` (Debian package rocksdb-tools) is called when it is there; nothing is installed. Its
# `randomtransaction` reads two keys for update and writes both, which is what `txn_transfer` does. Prints a line for
# every step: who, what, operations a second.
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
theirs=$(command -v db_bench || true)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# esker NAME LABEL FLAGS…: the rate of one benchmark after a fill.
esker() {
    local name=$1 label=$2
    shift 2
    "$ours" --num="$num" --reads=$((num / threads)) --writes=$((num / threads)) --threads="$threads" --progress=false \
        --benchmarks="filluniquerandom,$name" "$@" 2>/dev/null |
        awk -v name="$name" -v label="$label" '$1 == name && $2 == ":" { print label, name, $5 }'
}

# rocksdb LABEL FLAGS…: the rate of randomtransaction after a fill.
rocksdb() {
    local label=$1
    shift
    [[ -n $theirs ]] || return 0
    rm -rf "$scratch/rocksdb"
    "$theirs" --db="$scratch/rocksdb" --num="$num" --reads=$((num / threads)) --threads="$threads" \
        --transaction_sets=2 --benchmarks=fillrandom,randomtransaction "$@" 2>/dev/null |
        awk -v label="$label" '$1 == "randomtransaction" { print label, "randomtransaction", $5 }'
}

for ((round = 0; round < rounds; round++)); do
    esker overwrite plain
    for level in read-committed repeatable-read serializable; do
        esker txn_put "$level" --isolation="$level"
        esker txn_transfer "$level" --isolation="$level"
    done
    esker txn_transfer optimistic --isolation=repeatable-read --optimistic
    rocksdb TransactionDB --transaction_db=true
    rocksdb OptimisticTransactionDB --optimistic_transaction_db=true
done
