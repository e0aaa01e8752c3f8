#!/usr/bin/env bash
# Everything that a machine with a GPU can tell, in one command: devices, every operation proved, golden files, the suite,
# benches, a short training. Leaves a folder with the logs, records and a page, to be sent as it is.
#   tools/gpu-check.sh [FOLDER]        default gpu-check-<host>-<date>
# Needs no package: where nothing can be built, QUOIN names a program that was built elsewhere (put the libraries that it
# misses into lib/ beside it), and the suite is left out. Otherwise it builds into build/gpu.
#   QUOIN_DEVICE=NAME                  the device, as --device takes it; default: the best
#   QUOIN_CHECK_SECONDS=N              seconds per measurement of the benches; default 0.3
# Ends with status 1 when something was wrong; the last line says what. A step that cannot run is said, not passed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
out=${1:-gpu-check-$(hostname)-$(date +%Y%m%d-%H%M)}
mkdir -p "$out" || exit 1
device=()
[ -n "${QUOIN_DEVICE:-}" ] && device=(--device "$QUOIN_DEVICE")
seconds=${QUOIN_CHECK_SECONDS:-0.3}
good=() bad=() absent=()
tests=

# step NAME LIMIT COMMAND...: runs it with a time limit; output goes to NAME.log, results to NAME.out.
step() {
  local name=$1 limit=$2 status start=$SECONDS
  shift 2
  printf '%-12s ' "$name"
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.log" </dev/null
  status=$?
  case $status in
  0) good+=("$name"); printf 'ok' ;;
  124 | 137) bad+=("$name"); printf 'TOO LONG (limit %s s)' "$limit" ;;
  *) bad+=("$name"); printf 'FAILED (status %s): %s' "$status" "$(tail -n 1 "$out/$name.log")" ;;
  esac
  printf ', %d s\n' $((SECONDS - start))
  return $status
}
without() { # NAME WHY
  absent+=("$1")
  printf '%-12s left out: %s\n' "$1" "$2"
}

quoin=${QUOIN:-}
if [ -z "$quoin" ]; then
  if command -v cmake >/dev/null && command -v ninja >/dev/null && command -v glslc >/dev/null; then
    step configure 600 cmake -G Ninja -S . -B build/gpu -DCMAKE_BUILD_TYPE=Release &&
      step build 3600 cmake --build build/gpu && quoin=build/gpu/apps/quoin tests=build/gpu
  else
    without build "cmake, ninja or glslc is missing"
  fi
fi
if [ -z "$quoin" ]; then
  for q in bin/quoin ./quoin build/release/apps/quoin build/test/apps/quoin; do
    [ -z "$quoin" ] && [ -x "$q" ] && quoin=$q
  done
fi
if [ -z "$quoin" ]; then
  echo "no program: build one, or name one with QUOIN=..." >&2
  exit 1
fi
libraries=$(dirname "$quoin")/lib
[ -d "$libraries" ] && export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

{ uname -a; cat /etc/os-release; grep -m 1 'model name' /proc/cpuinfo; free -h; } >"$out/machine.txt" 2>/dev/null
command -v vulkaninfo >/dev/null && timeout 60 vulkaninfo >"$out/vulkaninfo.txt" 2>&1
command -v nvidia-smi >/dev/null && timeout 60 nvidia-smi -q >"$out/nvidia-smi.txt" 2>&1

if ! step info 60 "$quoin" info --json "${device[@]}"; then
  echo "no device to check"
  exit 1
fi
"$quoin" info --kernels "${device[@]}" >"$out/info.txt" 2>&1
step check 3600 "$quoin" check --json "${device[@]}"
golden=()
for d in tests/golden ../shared/golden/moduleformer; do [ -d "$d" ] && golden+=("$d"); done
if [ ${#golden[@]} -gt 0 ]; then
  step golden 1800 "$quoin" check golden "${golden[@]}" "${device[@]}"
else
  without golden "there are no golden files"
fi
if [ -n "$tests" ]; then
  step suite 7200 ctest --test-dir "$tests" --output-on-failure -j 4
else
  without suite "the tests were not built here"
fi
step peak 600 "$quoin" bench peak --json --save "$out/peak.jsonl" --time "$seconds" "${device[@]}"
step ops 3600 "$quoin" bench ops --json --save "$out/ops.jsonl" --time "$seconds" --preset small "${device[@]}"
step model 1800 "$quoin" bench model --preset small --json --save "$out/model.jsonl" --time 3 "${device[@]}"
records=()
for f in peak ops model; do [ -s "$out/$f.jsonl" ] && records+=("$out/$f.jsonl"); done
[ ${#records[@]} -gt 0 ] && step report 60 "$quoin" bench report "${records[@]}" --html "$out/report.html" --svg "$out/charts"
step train 900 "$quoin" train --demo --out "$out/model" --fresh --preset micro --minutes 1 --profile "${device[@]}"
step generate 120 "$quoin" generate "$out/model" --prompt "The " --seed 1 "${device[@]}"
rm -f "$out/model/training-state.safetensors" # large, and of no use elsewhere

{
  echo "good: ${good[*]:-none}"
  echo "left out: ${absent[*]:-none}"
  echo "wrong: ${bad[*]:-none}"
} | tee "$out/summary.txt"
echo "the report is in $out"
[ ${#bad[@]} -eq 0 ]
