#!/usr/bin/env bash
# Speed and memory of `quoin merge run`, side by side with a plain copy of the same files.
#
#   tools/bench-merge.sh [-p PROGRAM] [-d DIR] [-m MEGABYTES] [-t float32|bfloat16] [METHOD...]
#
# Makes random Llama-like models of that size in DIR (kept for the next run), copies them with dd
# (onto the disk, as merges end there too),
# merges them by each method, and prints seconds, the share of the copy's speed, and the peak of
# memory beside its bound: 3 times the largest tensor times the inputs, and an output.
set -euo pipefail
program=build/apps/quoin dir=${TMPDIR:-/tmp}/quoin-bench-merge size=400 type=float32
while getopts p:d:m:t: flag; do
  case $flag in
  p) program=$OPTARG ;; d) dir=$OPTARG ;; m) size=$OPTARG ;; t) type=$OPTARG ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- linear slerp task_arithmetic ties dare_ties breadcrumbs della
models=$dir/$type-$size
mkdir -p "$models"

python3 - "$models" "$size" "$type" <<'PY'
import json, os, struct, sys
root, size, kind = sys.argv[1], int(sys.argv[2]) * 10**6, sys.argv[3]
width, hidden, vocab = 2048, 5632, 16000
bytes_, name = (4, "F32") if kind == "float32" else (2, "BF16")
layer = {"self_attn.q_proj": [width, width], "self_attn.k_proj": [256, width],
         "self_attn.v_proj": [256, width], "self_attn.o_proj": [width, width],
         "mlp.gate_proj": [hidden, width], "mlp.up_proj": [hidden, width],
         "mlp.down_proj": [width, hidden], "input_layernorm": [width],
         "post_attention_layernorm": [width]}
def count(shape):
    n = 1
    for d in shape: n *= d
    return n
outside = {"model.embed_tokens.weight": [vocab, width], "lm_head.weight": [vocab, width],
           "model.norm.weight": [width]}
layers = max(1, round((size / bytes_ - sum(map(count, outside.values()))) /
                      sum(map(count, layer.values()))))
shapes = dict(outside)
for i in range(layers):
    for k, v in layer.items(): shapes[f"model.layers.{i}.{k}.weight"] = v
def masks(n, keep, put): # of n bytes, as integers
    word = 4 if bytes_ == 4 else 2
    return [int.from_bytes(x.to_bytes(word, "little") * (n // word), "little") for x in (keep, put)]
# Values between 2^-7 and 2^-5; models differ from the base in low bits of the mantissa.
keep, put, low = ((0x80FFFFFF, 0x3C000000, 0x0007FFFF) if bytes_ == 4 else (0x80FF, 0x3C00, 0x0007))
for model in ("base", "a", "b"):
    path = os.path.join(root, model)
    if os.path.exists(os.path.join(path, "done")): continue
    os.makedirs(path, exist_ok=True)
    head, at = {}, 0
    for k in sorted(shapes):
        n = count(shapes[k]) * bytes_
        head[k] = {"dtype": name, "shape": shapes[k], "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    block = 1 << 20
    k, p = masks(block, keep, put)
    l, _ = masks(block, low, 0)
    base = open(os.path.join(root, "base", "model.safetensors"), "rb") if model != "base" else None
    with open(os.path.join(path, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        if base: base.seek(8 + len(text))
        left = at
        while left:
            n = min(block, left)
            r = int.from_bytes(os.urandom(block), "little")
            x = (int.from_bytes(base.read(n).ljust(block, b"\0"), "little") ^ (r & l)) if base else r & k | p
            f.write(x.to_bytes(block, "little")[:n])
            left -= n
    json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
               "intermediate_size": hidden, "num_hidden_layers": layers, "vocab_size": vocab,
               "num_attention_heads": 16, "num_key_value_heads": 2, "torch_dtype": kind},
              open(os.path.join(path, "config.json"), "w"))
    open(os.path.join(path, "done"), "w").close()
PY

recipe() { # METHOD
  local params="weight: 0.5, density: 0.5, epsilon: 0.1, gamma: 0.01"
  echo "merge_method: $1"
  case $1 in
  linear) printf 'models:\n- {model: a, parameters: {weight: 0.6}}\n- {model: b, parameters: {weight: 0.4}}\n' ;;
  slerp) printf 'base_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.4}\n' ;;
  *) printf 'base_model: base\nmodels:\n- {model: a, parameters: {%s}}\n- {model: b, parameters: {%s}}\n' "$params" "$params" ;;
  esac
}

seconds() { # COMMAND...: its wall time; its output goes to the log
  local start end
  sync # what others have written is not ours to wait for
  start=$(date +%s.%N)
  "$@" >>"$models/log" 2>&1 || { tail -5 "$models/log" >&2; exit 1; }
  end=$(date +%s.%N)
  awk "BEGIN { print $end - $start }"
}

copy() { # MODEL...
  rm -rf "$models/copy"
  mkdir "$models/copy"
  for m in "$@"; do
    dd if="$models/$m/model.safetensors" of="$models/copy/$m" bs=16M conv=fsync status=none
  done
}

: >"$models/log"
cat "$models"/*/model.safetensors >/dev/null # the page cache as warm for the first as for the last
two=$(seconds copy a b) three=$(seconds copy base a b)
rm -rf "$models/copy"
printf '%-16s %8s %8s %8s %12s %12s\n' method seconds copy share peak bound
for method; do
  recipe "$method" >"$models/$method.yml"
  rm -rf "$models/out"
  case $method in linear | slerp) copied=$two ;; *) copied=$three ;; esac
  start=$(wc -c <"$models/log")
  t=$(seconds "$program" --json merge run "$models/$method.yml" "$models/out" --models "$models")
  line=$(tail -c +$((start + 1)) "$models/log" | grep '^{')
  awk -v m="$method" -v t="$t" -v c="$copied" -v line="$line" 'BEGIN {
    match(line, /"memory_peak": [0-9]+/); p = substr(line, RSTART + 15, RLENGTH - 15)
    match(line, /"bound": [0-9]+/); b = substr(line, RSTART + 9, RLENGTH - 9)
    printf "%-16s %8.2f %8.2f %8.2f %9.0f MB %9.0f MB\n", m, t, c, c / t, p / 1e6, b / 1e6 }'
done
rm -rf "$models/out"
