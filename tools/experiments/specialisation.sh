#!/usr/bin/env bash
# (a) Specialisation: a model of two kinds of text is fine-tuned on one of them, with the load-
# concentration loss and with the usual mutual-information loss; then the MLP experts that this text
# uses least are removed. Loss on the text against the share of experts kept.
. "$(dirname "$0")/common.sh"
texts
tokenizer
config "$work/moe.json" 16 2 64 4 2
train "$work/base" 700 --config "$work/moe.json" --tokenizer "$work/tok" \
  --text "$work/verse.train.txt,$work/code.train.txt"
for loss in concentration mi; do
  train "$work/tuned-$loss" 300 --init "$work/base" --aux $loss --aux-weight 0.05 --lr 0.002 \
    --text "$work/code.train.txt"
done
echo "| experts kept | share | base | tuned, mi | tuned, concentration |"
echo "|---|---|---|---|---|"
for keep in 16 12 8 6 4 3 2; do
  row="| $keep of 16 | $((keep * 100 / 16))% |"
  for model in base tuned-mi tuned-concentration; do
    rm -rf "$work/pruned"
    "$quoin" bricks prune-experts "$work/$model" "$work/pruned" --where mlp --keep $keep \
      --data "$work/code.eval.txt" --tokens 8000 -q >/dev/null
    row="$row $(printf '%.3f' "$(nats "$work/pruned" "$work/code.eval.txt")") |"
  done
  echo "$row"
done
