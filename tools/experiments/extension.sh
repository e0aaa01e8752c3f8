#!/usr/bin/env bash
# (b) Extension without forgetting: a model of verse learns code. Three ways: four new experts of each
# kind and their router rows are trained, everything else is frozen; everything is trained; a dense
# model of the same active size is trained. Loss on both texts.
. "$(dirname "$0")/common.sh"
texts
tokenizer
config "$work/moe8.json" 8 2 64 4 2
config "$work/dense.json" 1 1 128 2 2
for kind in moe8 dense; do
  train "$work/verse-$kind" 700 --config "$work/$kind.json" --tokenizer "$work/tok" \
    --text "$work/verse.train.txt"
done
rm -rf "$work/grown"
"$quoin" bricks grow-experts "$work/verse-moe8" "$work/grown" --add 4 -q
rows='*.mlpf.*experts.weight#8-11,*.mlpf.gate.w_gate.3.weight#8-11'
rows="$rows,*.q_proj.*experts.weight#4-7,*.q_proj.gate.w_gate.3.weight#4-7"
train "$work/code-grown" 400 --init "$work/grown" --train-only "$rows" --lr 0.003 \
  --text "$work/code.train.txt"
for kind in moe8 dense; do
  train "$work/code-$kind" 400 --init "$work/verse-$kind" --lr 0.003 --text "$work/code.train.txt"
done

row() { # TITLE MODEL
  printf '| %s | %.3f | %.3f |\n' "$1" "$(nats "$2" "$work/verse.eval.txt")" \
    "$(nats "$2" "$work/code.eval.txt")"
}
echo "| model | loss on verse | loss on code |"
echo "|---|---|---|"
row "experts, trained on verse" "$work/verse-moe8"
row "with eight new experts, untrained" "$work/grown"
row "new experts trained on code, rest frozen" "$work/code-grown"
row "everything trained on code" "$work/code-moe8"
row "dense, trained on verse" "$work/verse-dense"
row "dense, everything trained on code" "$work/code-dense"
