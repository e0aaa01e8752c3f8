#!/usr/bin/env bash
# From a fresh clone to text that a model trained on this machine has written.
#   tools/demo.sh [FOLDER]         where the model goes; default run/demo
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
out=${1:-run/demo}

quoin_setup build
# A driver, and text to learn from; without either the program says what it takes instead.
extra=$(quoin_missing test demo |
  awk '$1 ~ /^(libvulkan1|mesa-vulkan-drivers|fortunes)$/ { print $1 }')
# shellcheck disable=SC2086
[ -z "$extra" ] || quoin_install $extra || echo "could not be installed:" $extra >&2

launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
mkdir -p build/release
cmake -G Ninja -S . -B build/release "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release -DQN_TESTS=OFF \
  >build/release/configure.log || { cat build/release/configure.log >&2; exit 1; }
cmake --build build/release >build/release/build.log || { tail -n 60 build/release/build.log >&2; exit 1; }

quoin=build/release/apps/quoin
$quoin info
$quoin train --demo --minutes 2.5 --out "$out"
$quoin generate "$out" --prompt "The " --seed 1
