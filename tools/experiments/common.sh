# What the experiments on bricks share: texts, a base model, reading reports. Sourced, not run.
#
#   quoin=PATH   the program (default: build/apps/quoin)
#   verse=FILE   a text of verse or prose (default: tinyshakespeare beside the project)
#   work=DIR     where everything goes (default: a folder in build/)
set -euo pipefail
cd "$(dirname "$0")/../.."
quoin=${quoin:-$PWD/build/apps/quoin}
verse=${verse:-$PWD/../shared/data/text/tinyshakespeare.txt}
work=${work:-$PWD/build/experiments}
[ -x "$quoin" ] || { echo "no program at $quoin: build it, or set quoin=PATH" >&2; exit 1; }
[ -f "$verse" ] || { echo "no text at $verse: set verse=FILE" >&2; exit 1; }
mkdir -p "$work"

split() { # NAME FILE: the first nine tenths to NAME.train.txt, the rest to NAME.held.txt
  local size
  size=$(wc -c <"$2")
  head -c $((size * 9 / 10)) "$2" >"$work/$1.train.txt"
  tail -c $((size / 10)) "$2" | tail -n +2 >"$work/$1.held.txt"
}

texts() { # verse: the given text; code: the project's own C sources, 600 kB of either
  head -c 600000 "$verse" >"$work/verse.txt"
  git ls-files 'engine/*.c' 'graph/*.c' 'apps/*.c' | LC_ALL=C sort | xargs cat >"$work/all.txt"
  head -c 600000 "$work/all.txt" >"$work/code.txt"
  split verse "$work/verse.txt"
  split code "$work/code.txt"
  head -c 20000 "$work/verse.held.txt" >"$work/verse.eval.txt"
  head -c 20000 "$work/code.held.txt" >"$work/code.eval.txt"
}

config() { # FILE MLP_EXPERTS K HIDDEN ATT_EXPERTS K_ATT
  cat >"$1" <<EOF
{"model_type": "moduleformer", "vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 2,
 "att_hidden": 64, "ffd_hidden": $4, "n_att_experts": $5, "k_att": $6, "n_mlp_experts": $2,
 "k_mlp": $3, "gating_size": 32, "aux_loss_weight": 0.01, "bos_token_id": 0, "eos_token_id": 0}
EOF
}

train() { # OUT STEPS OPTIONS...: silent, and once only: a finished folder is kept
  local out=$1 steps=$2
  shift 2
  [ -e "$out/done" ] && return
  "$quoin" train --out "$out" --steps "$steps" --batch 16 --length 64 --held-out 0.02 \
    --eval-every 0 --eval-tokens 4096 -q "$@" >/dev/null
  touch "$out/done"
}

tokenizer() { # one for all texts
  [ -e "$work/tok/tokenizer.json" ] || train "$work/tok" 1 --vocab 512 --preset nano \
    --text "$work/verse.train.txt,$work/code.train.txt"
}

nats() { # MODEL FILE: loss per token
  "$quoin" eval "$1" --text "$2" --length 128 --json -q | sed -n 's/.*"nats_per_token": *\([0-9.e+-]*\).*/\1/p'
}

after() { # the numbers "nats_after" of a report on standard input, in a line
  sed -n 's/.*"nats_after": *\([0-9.e+-]*\).*/\1/p' | xargs printf '%.3f '
}
