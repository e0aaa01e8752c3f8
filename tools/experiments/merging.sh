#!/usr/bin/env bash
# (d) Expert merging: loss against the number of MLP experts, for merging by use within clusters, for
# plain averaging (same clusters, no alignment, equal weights) and for pruning. No training after.
. "$(dirname "$0")/common.sh"
texts
tokenizer
config "$work/moe.json" 16 2 64 4 2
train "$work/base" 700 --config "$work/moe.json" --tokenizer "$work/tok" \
  --text "$work/verse.train.txt,$work/code.train.txt"
cat "$work/verse.held.txt" "$work/code.held.txt" >"$work/both.held.txt"
cat "$work/verse.eval.txt" "$work/code.eval.txt" >"$work/both.eval.txt"

loss() { # COMMAND OPTIONS...
  rm -rf "$work/fewer"
  local command=$1
  shift
  "$quoin" bricks "$command" "$work/base" "$work/fewer" --where mlp --data "$work/both.eval.txt" -q \
    "$@" >/dev/null
  printf '%.3f' "$(nats "$work/fewer" "$work/both.eval.txt")"
}

echo "| experts | merged by use, aligned | merged by use, led by the most used | plain average | pruned |"
echo "|---|---|---|---|---|"
for n in 16 14 12 10 8 6 4 3 2; do
  echo "| $n | $(loss merge-experts --experts $n) | $(loss merge-experts --experts $n --lead)" \
    "| $(loss merge-experts --experts $n --no-align --weights mean) | $(loss prune-experts --keep $n) |"
done
