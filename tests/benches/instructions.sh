#!/usr/bin/env bash
# Counts the instructions of the hot paths, and compares them with instructions.txt. With
# --save, writes that file.
#
# Needs valgrind, and gungraun-runner in the version of the crate: cargo install gungraun-runner@0.20.0
set -euo pipefail
cd "$(dirname "$0")"

for tool in valgrind gungraun-runner; do
    command -v "$tool" >/dev/null || { echo "NOT RUN: $tool is not installed"; exit 1; }
done

counts=instructions.txt
now=$(
    printf '# instructions for a hundred; %s\n' "$(rustc --version)"
    cargo bench -q --bench instructions --features instructions -- \
        --callgrind-metrics=ir --color=never |
        awk '/^instructions::/ { name = $1 "/" $2; sub(/.*::/, "", name); sub(/:.*/, "", name) }
             /Instructions:/ { split($2, count, "|"); print name, count[1] }'
)
if [ "${1-}" = --save ]; then
    printf '%s\n' "$now" >"$counts"
    exit
fi
printf '%-28s %7s %7s  %s\n' '' saved now change
awk 'FNR == 1 { print (NR == 1 ? "saved: " : "now:   ") $0; next }
     NR == FNR { saved[$1] = $2; next }
     $1 in saved {
         printf "%-28s %7d %7d  %+.1f %%\n", $1, saved[$1], $2, 100 * ($2 / saved[$1] - 1)
         next
     }
     { printf "%-28s %7s %7d\n", $1, "new", $2 }' "$counts" <(printf '%s\n' "$now")
