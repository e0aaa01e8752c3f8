#!/usr/bin/env bash
# Puts `quoin serve` under load and says how it bore it: answers, streams, clients that leave early
# and garbage, 64 at once for 60 s; every answer is compared with what the idle server said.
# Bad: a wrong or lost answer, /health slower than 50 ms at the 99th percentile, or resident memory
# that grew by more than a twentieth between the first and the last third.
#   tools/load-serve.sh [-s SECONDS] [-c CLIENTS] [-b BUILD] FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=60 clients=64 build=build
while getopts s:c:b:h option; do
  case $option in
  s) seconds=$OPTARG ;;
  c) clients=$OPTARG ;;
  b) build=$OPTARG ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
cmake --build "$build" --target quoin load_serve >/dev/null
out=$(mktemp)
"$build/apps/quoin" serve "$1" --port 0 --context 512 --queue 256 >"$out" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$out"' EXIT
port=
while [ -z "$port" ]; do
  kill -0 "$server" 2>/dev/null || exit 1
  port=$(sed -n 's/^http:.*:\([0-9]*\)$/\1/p' "$out")
  sleep 0.1
done
while ! curl -sf "http://127.0.0.1:$port/health" >/dev/null; do
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.1
done
status=0
"$build/tests/load_serve" "$port" "$seconds" "$clients" "$server" || status=1
curl -s "http://127.0.0.1:$port/metrics" | grep -E '^quoin:(requests|tokens_predicted_total|slots|n_decode)' || status=1
kill -TERM "$server"
wait "$server" || { echo "the server ended with status $?"; status=1; }
exit $status
