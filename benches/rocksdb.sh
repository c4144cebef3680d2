#!/usr/bin/env bash
# Head to head with RocksDB's own db_bench, interleaved in one run: esker, RocksDB, esker, RocksDB, ...
#
#   benches/rocksdb.sh [ROUNDS]        default 3; the table of medians goes to standard output as Markdown
#
# Needs `db_bench` of RocksDB on the PATH (Debian package rocksdb-tools); installs nothing. Both get the same flags, the
# same durability (the log in the page cache, or synced for fillsync), the same cache and write buffer, LZ4 and 10 filter
# bits a key. Every step is a process of its own. NUM (2000000), READS (1000000), SYNCS (writes a thread in fillsync,
# 2000), DIR (a temporary directory) can be set in the environment. The machine should have nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-3}
num=${NUM:-2000000}
reads=${READS:-1000000}
syncs=${SYNCS:-2000}
dir=${DIR:-$(mktemp -d)}
trap 'rm -rf "$dir/esker" "$dir/rocksdb"' EXIT

theirs=${ROCKSDB_BENCH:-$(command -v db_bench || true)}
if [ -z "$theirs" ]; then
  echo "SKIPPED: no db_bench of RocksDB on the PATH (Debian: rocksdb-tools)" >&2
  exit 0
fi
cargo build --release --quiet -p db_bench
ours=${CARGO_TARGET_DIR:-target}/release/db_bench
results=$dir/results.txt
: >"$results"

common=(--key_size=16 --value_size=100 --compression_ratio=0.5 --bloom_bits=10 --compression_type=lz4
  --write_buffer_size=67108864 --cache_size=268435456 --seek_nexts=10)

# step NAME ENGINE FLAGS...: runs one step, notes operations a second and CPU microseconds an operation.
step() {
  local name=$1 engine=$2 binary=$ours
  shift 2
  if [ "$engine" = rocksdb ]; then
    binary=$theirs
  elif [[ " $* " != *" --use_existing_db=1 "* ]]; then
    # RocksDB's starts anew by itself.
    set -- "$@" --destroy_existing_db
  fi
  local out cpu line ops count
  TIMEFORMAT='%U %S'
  { time "$binary" "${common[@]}" --seed="$RANDOM" --db="$dir/$engine" "$@" >"$dir/out" 2>/dev/null; } 2>"$dir/cpu"
  line=$(grep -E '^(fill|over|read|seek)[a-z0-9]* +:' "$dir/out" | tail -1)
  ops=$(awk '{for (i = 2; i <= NF; i++) if ($i ~ /^ops\/sec/) print $(i - 1)}' <<<"$line")
  count=$(awk '{for (i = 2; i <= NF; i++) if ($i ~ /^operations/) print $(i - 1)}' <<<"$line")
  cpu=$(awk -v n="$count" '{printf "%.2f", ($1 + $2) * 1e6 / n}' "$dir/cpu")
  echo "$name $engine $ops $cpu" >>"$results"
  echo "$name $engine $ops ops/s, $cpu CPU us/op" >&2
}

# both NAME FLAGS...: the step with either engine, the order changing from round to round.
both() {
  local name=$1
  shift
  if [ $((round % 2)) = 1 ]; then
    step "$name" esker "$@"
    step "$name" rocksdb "$@"
  else
    step "$name" rocksdb "$@"
    step "$name" esker "$@"
  fi
}

for round in $(seq "$rounds"); do
  both fillsync-1 --benchmarks=fillsync --num="$num" --writes="$syncs" --threads=1 --sync=true
  both fillsync-16 --benchmarks=fillsync --num="$num" --writes="$syncs" --threads=16 --sync=true
  both fillseq --benchmarks=fillseq --num="$num"
  both fillrandom --benchmarks=fillrandom,waitforcompaction --num="$num"
  both readrandom --benchmarks=readrandom --num="$num" --reads="$reads" --use_existing_db=1
  both readmissing --benchmarks=readmissing --num="$num" --reads="$reads" --use_existing_db=1
  both readseq --benchmarks=readseq --num="$num" --reads="$reads" --use_existing_db=1
  both seekrandom --benchmarks=seekrandom --num="$num" --reads=$((reads / 4)) --use_existing_db=1
  both readwhilewriting --benchmarks=readwhilewriting --num="$num" --reads="$reads" --use_existing_db=1 \
    --benchmark_write_rate_limit=10485760
  both overwrite --benchmarks=overwrite --num="$num" --use_existing_db=1
done

awk '
  function median(list,    n, parts, i, j, t) {
    n = split(list, parts, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && parts[j] + 0 < parts[j - 1] + 0; j--) {
      t = parts[j]; parts[j] = parts[j - 1]; parts[j - 1] = t
    }
    low = parts[1]; high = parts[n]
    return n % 2 ? parts[(n + 1) / 2] : (parts[n / 2] + parts[n / 2 + 1]) / 2
  }
  { if (!($1 in seen)) { seen[$1] = 1; order[++names] = $1 } ops[$1, $2] = ops[$1, $2] " " $3; cpu[$1, $2] = cpu[$1, $2] " " $4 }
  END {
    print "| benchmark | esker ops/s (low to high) | RocksDB ops/s (low to high) | ratio | CPU us/op esker | RocksDB |"
    print "| --- | --- | --- | --- | --- | --- |"
    for (i = 1; i <= names; i++) {
      name = order[i]
      a = median(ops[name, "esker"]); al = low; ah = high
      b = median(ops[name, "rocksdb"]); bl = low; bh = high
      printf "| %s | %d (%d to %d) | %d (%d to %d) | %.2f | %.2f | %.2f |\n", name, a, al, ah, b, bl, bh, a / b, median(cpu[name, "esker"]), median(cpu[name, "rocksdb"])
    }
  }' "$results"
