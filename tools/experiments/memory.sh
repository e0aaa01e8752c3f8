#!/bin/sh
# Experiments with memories (docs/experiments.md): tools/experiments/memory.sh BUILD TEXT OUT
# BUILD: build folder with the targets quoin and experiments; TEXT: a text of about a megabyte;
# OUT: a folder for models and results. STEPS and SEEDS may be set.
set -eu
build=$1 text=$2 out=$3
steps=${STEPS:-200}
mkdir -p "$out"

config() { # name, hidden units, memory kind or none
    memory=
    [ "$3" = none ] || memory=",\"memory_layers\":[\"$3\",\"$3\"],\"memory_heads\":2,\"memory_keys\":16,\"memory_values\":32"
    cat > "$out/$1.json" <<EOF
{"model_type":"moduleformer","vocab_size":257,"n_embd":64,"n_layer":2,"n_head":2,"att_hidden":64,
 "ffd_hidden":$2,"n_att_experts":4,"k_att":2,"n_mlp_experts":8,"k_mlp":2,"gating_size":32,
 "aux_loss_weight":0.01,"bos_token_id":0,"eos_token_id":0,"attention_window":32$memory}
EOF
}
config window 128 none
config matched 144 none
config delta 128 delta
config full 128 full

for seed in ${SEEDS:-1 2}; do
    for kind in window matched delta full; do
        "$build/apps/quoin" train --text "$text" --config "$out/$kind.json" --vocab 257 -b 8 -l 256 \
            -s "$steps" --seed "$seed" -o "$out/$kind-$seed" 2> "$out/$kind-$seed.log" |
            sed -n "s/^held out: /$kind seed $seed: /p" | tee -a "$out/language.txt"
    done
done
for kind in window delta full; do
    "$build/tests/experiment_positions" "$out/$kind-1" "$text" | sed "s/^/$kind /" |
        tee -a "$out/positions.txt"
done
