#!/usr/bin/env bash
# (c) Functional neurons: a model of verse, code, arithmetic and technical prose; the neurons that tell
# a kind apart best are set to zero, and the perplexity of every kind is measured.
. "$(dirname "$0")/common.sh"
texts
git ls-files '*.md' | LC_ALL=C sort | xargs cat >"$work/prose.txt"
awk 'BEGIN { for (i = 0; i < 12000; i++) { a = (i * 7919) % 997; b = (i * 104729) % 983;
  printf "%d+%d=%d %d-%d=%d %d*3=%d\n", a, b, a + b, a, b, a - b, a, a * 3 } }' >"$work/digits.txt"
split prose "$work/prose.txt"
split digits "$work/digits.txt"
kinds=$work/kinds
rm -rf "$kinds"
mkdir -p "$kinds"
train_on=""
for kind in verse code prose digits; do
  grep -E '.{20,}' "$work/$kind.held.txt" >"$work/lines.txt" || true
  head -n 100 "$work/lines.txt" >"$kinds/$kind.txt"
  head -c 250000 "$work/$kind.train.txt" >"$work/$kind.part.txt"
  train_on="$train_on${train_on:+,}$work/$kind.part.txt"
done
tokenizer
config "$work/moe.json" 16 2 64 4 2
train "$work/four" 900 --config "$work/moe.json" --tokenizer "$work/tok" --text "$train_on"
"$quoin" bricks analyse "$work/four" --data "$kinds" --out "$work/neurons.json" --svg "$work/neurons" \
  --mask-step 30 --mask-of ran -q
echo
"$quoin" bricks analyse "$work/four" --data "$kinds" --mask-step 0 --scope model --skip-resident -q
