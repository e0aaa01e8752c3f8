#!/usr/bin/env bash
# Talks to `quoin serve` with the official Python client of the OpenAI API and with curl, as users
# would. The client is installed into a temporary environment, which is removed; needs python3 with
# venv, and a network or a local package index. Not part of the test suite.
#   tools/check-openai-client.sh [-b BUILD] FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
build=build
while getopts b:h option; do
  case $option in
  b) build=$OPTARG ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
scratch=$(mktemp -d)
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" -q install openai
QUOIN_API_KEY=sk-check "$build/apps/quoin" serve "$1" --port 0 --context 256 >"$scratch/out" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT
port=
while [ -z "$port" ]; do
  kill -0 "$server" 2>/dev/null || exit 1
  port=$(sed -n 's/^http:.*:\([0-9]*\)$/\1/p' "$scratch/out")
  sleep 0.1
done
base=http://127.0.0.1:$port
while ! curl -sf "$base/health" >/dev/null; do
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.1
done
cat >"$scratch/check.py" <<'PYTHON'
import sys
import openai

base = sys.argv[1]
client = openai.OpenAI(base_url=base + "/v1", api_key="sk-check", max_retries=0)
talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat"}]

model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

whole = client.chat.completions.create(model=model, messages=talk, max_tokens=8, seed=3, n=2,
                                       logprobs=True, top_logprobs=2)
assert len(whole.choices) == 2 and whole.usage.completion_tokens > 0
assert whole.choices[0].message.role == "assistant"
assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
one = client.chat.completions.create(model=model, messages=talk, max_tokens=8, seed=3)
text, reason, usage = "", None, None
for event in client.chat.completions.create(model=model, messages=talk, max_tokens=8, seed=3, stream=True,
                                            stream_options={"include_usage": True}):
    if event.choices:
        text += event.choices[0].delta.content or ""
        reason = event.choices[0].finish_reason or reason
    usage = event.usage or usage
assert text == one.choices[0].message.content, (text, one)
assert reason == one.choices[0].finish_reason and usage == one.usage, (usage, one.usage)

plain = client.completions.create(model=model, prompt=["the cat", "the dog"], max_tokens=6, temperature=0,
                                  logprobs=2, stop=["zzz"])
assert [c.index for c in plain.choices] == [0, 1]
assert len(plain.choices[0].logprobs.tokens) == len(plain.choices[0].logprobs.token_logprobs)
parts = client.completions.create(model=model, prompt="the cat", max_tokens=6, temperature=0, stream=True)
assert "".join(p.choices[0].text for p in parts) == plain.choices[0].text

stream = client.chat.completions.create(model=model, messages=talk, stream=True)
next(iter(stream))
stream.close()  # leaves early

for mistake, error in [
    (lambda: client.chat.completions.create(model=model, messages=[]), openai.BadRequestError),
    (lambda: client.completions.create(model=model, prompt="the cat " * 1000), openai.BadRequestError),
    (lambda: client.models.retrieve("nothing"), openai.NotFoundError),
    (lambda: openai.OpenAI(base_url=base + "/v1", api_key="no", max_retries=0).models.list(),
     openai.AuthenticationError),
]:
    try:
        mistake()
        raise SystemExit("a mistake was accepted")
    except error as e:
        assert e.body["message"], e
print("the Python client", openai.__version__, "works")
PYTHON
"$scratch/venv/bin/python" "$scratch/check.py" "$base"
curl -sf "$base/v1/chat/completions" -H 'Authorization: Bearer sk-check' -H 'Content-Type: application/json' \
  -d '{"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 4}' | grep -q '"finish_reason"'
curl -sfN "$base/v1/completions" -H 'Authorization: Bearer sk-check' -H 'Content-Type: application/json' \
  -d '{"prompt": "the cat", "max_tokens": 4, "stream": true}' | tail -n 2 | grep -q '^data: \[DONE\]'
echo "curl works"
