#!/usr/bin/env bash
# Shows that the tests of random histories find faults: builds the library with each planted fault, one at a time, and
# expects the tests to fail with an anomaly.
#
#   tests/plants.sh [PLANT...]
#
# ESKER_SEED, ESKER_TXN_HISTORIES   as for the tests        (1, 400000)
set -euo pipefail
cd "$(dirname "$0")/.."

# The name of the fault and what it breaks.
faults() {
    cat <<'TABLE'
plant_skip_ssi_edge a conflict between two SERIALIZABLE transactions is forgotten
plant_miss_gap reads of ranges are remembered without their gaps
plant_publish_early a commit becomes visible before it is in the memtables
plant_drop_needed_version a compaction drops what the oldest reader needs
TABLE
}

wanted=("$@")
[ $# -gt 0 ] || mapfile -t wanted < <(faults | cut -d' ' -f1)
export ESKER_SEED=${ESKER_SEED:-1} ESKER_TXN_HISTORIES=${ESKER_TXN_HISTORIES:-400000} RUST_BACKTRACE=0
missed=()
for plant in "${wanted[@]}"; do
    printf '=== %s: %s\n' "$plant" "$(faults | sed -n "s/^$plant //p")"
    # Whatever the build prints is no proof: it must be there first.
    export RUSTFLAGS="--cfg $plant"
    cargo test --quiet --profile campaign --test it --no-run
    if output=$(cargo test --quiet --profile campaign --test it history:: -- --skip known 2>&1) ||
        ! grep -m 3 -E '^[A-Z][A-Za-z0-9]+: |in the bank|attempts in account' <<<"$output" | cut -c1-160; then
        # Why: the tests passed, or failed of something else.
        tail -n 40 <<<"$output"
        missed+=("$plant")
    fi
done
[ ${#missed[@]} -eq 0 ] || { echo "NOT FOUND: ${missed[*]}" >&2; exit 1; }
echo "All found: ${wanted[*]}"
