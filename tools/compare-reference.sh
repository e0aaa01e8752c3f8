#!/usr/bin/env bash
# Training speed against the torch reference: same sizes, same cores, alternating, medians.
#   tools/compare-reference.sh [THREADS [ROUNDS]]      default 2 threads, 3 rounds
# Needs the reference implementation in ../shared/reference (Debian: python3-numpy, python3-torch)
# and a release build in build/release or build/test. Prints a line a preset.
set -euo pipefail
cd "$(dirname "$0")/.."
threads=${1:-2} rounds=${2:-3}
reference=../shared/reference/text_trace.py
[ -f $reference ] || { echo "$reference is missing" >&2; exit 1; }
quoin=build/release/apps/quoin
[ -x $quoin ] || quoin=build/test/apps/quoin
[ -x $quoin ] || { echo "build first: tools/demo.sh or tools/test.sh --quick" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seq 1 200000 >"$work/text"

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# tokens/s of quoin: the median step behind the first three, which compile.
ours() {
  LP_NUM_THREADS=$threads $quoin -q train --text "$work/text" --out "$work/out" --fresh --preset "$1" \
    --batch "$2" --length 128 --steps 9 --held-out 0 --eval-every 0 >/dev/null
  sed -nE 's/.*"step":([0-9]+).*"tokens_per_second":([0-9.e+]+).*/\1 \2/p' "$work/out/metrics.jsonl" |
    awk '$1 > 3 { print $2 }' | median
}

theirs() {
  OPENBLAS_NUM_THREADS=$threads /usr/bin/python3 $reference speed --preset "$1" --batch "$2" --seq 128 \
    --threads "$threads" --steps 4 | sed -E 's/.*"tokens_per_s": ([0-9.]+).*/\1/'
}

for row in "nano 16" "micro 8" "small 8"; do
  read -r preset batch <<<"$row"
  : >"$work/ours" && : >"$work/theirs"
  for _ in $(seq "$rounds"); do
    ours "$preset" "$batch" >>"$work/ours"
    theirs "$preset" "$batch" >>"$work/theirs"
  done
  a=$(median <"$work/ours") b=$(median <"$work/theirs")
  awk -v p="$preset" -v a="$a" -v b="$b" -v t="$threads" \
    'BEGIN { printf "%-6s %d threads: quoin %.0f tokens/s, torch %.0f tokens/s, ratio %.2f\n", p, t, a, b, a / b }'
done
