#!/bin/sh
# Builds everything with the address and undefined-behaviour sanitizers and runs the tests, once
# with each compiler; leaks count as errors.
#   tools/sanitize.sh [-c COMPILER] [ctest arguments, for example -R ops_]
# Build folders: build/sanitize-<compiler>.
set -eu
cd "$(dirname "$0")/.."

compilers="gcc clang"
if [ "${1-}" = "-c" ]; then
    compilers=$2
    shift 2
fi
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
export UBSAN_OPTIONS="print_stacktrace=1"
# What a driver holds at exit is reachable as long as the driver is loaded, and then no leak.
export VK_LOADER_DISABLE_DYNAMIC_LIBRARY_UNLOADING=1
jobs=$(getconf _NPROCESSORS_ONLN)

for cc in $compilers; do
    if ! command -v "$cc" >/dev/null; then
        echo "$0: $cc is not installed" >&2
        exit 1
    fi
    build="build/sanitize-$cc"
    cmake --preset dev -B "$build" -DCMAKE_C_COMPILER="$cc" >/dev/null
    cmake --build "$build" -j "$jobs"
    ctest --test-dir "$build" -j "$jobs" --output-on-failure --no-tests=error "$@"
done
