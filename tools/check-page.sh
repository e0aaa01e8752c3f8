#!/usr/bin/env bash
# Uses the built-in page in headless Chromium as a person would, by keyboard alone: asks, watches the
# answer come, stops one, begins anew; looks at what a screen reader is told, and that nothing but
# the server was asked for anything. Needs chromium, chromedriver and python3 (its standard library
# alone); says so and ends with status 77 where one is missing. Not part of the test suite.
#   tools/check-page.sh [-b BUILD] FOLDER
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
for program in chromedriver python3; do
  command -v $program >/dev/null || { echo "$program is missing: skipped"; exit 77; }
done
command -v chromium >/dev/null || command -v google-chrome >/dev/null || { echo "chromium is missing: skipped"; exit 77; }
scratch=$(mktemp -d)
"$build/apps/quoin" serve "$1" --port 0 --context 16384 >"$scratch/out" &
server=$!
chromedriver --port=0 >"$scratch/driver" 2>&1 &
driver=$!
trap 'kill "$server" "$driver" 2>/dev/null || true; wait "$server" "$driver" 2>/dev/null || true; rm -rf "$scratch"' EXIT
port= door=
while [ -z "$port" ] || [ -z "$door" ]; do
  kill -0 "$server" 2>/dev/null && kill -0 "$driver" 2>/dev/null || exit 1
  port=$(sed -n 's/^http:.*:\([0-9]*\)$/\1/p' "$scratch/out")
  door=$(sed -n 's/.*started successfully on port \([0-9]*\).*/\1/p' "$scratch/driver")
  sleep 0.1
done
cat >"$scratch/check.py" <<'PYTHON'
import json
import sys
import time
import urllib.request

door, page = sys.argv[1:]
ENTER, ESCAPE, TAB, SHIFT = "\ue007", "\ue00c", "\ue004", "\ue008"


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{door}{path}", data, {"Content-Type": "application/json"},
                                     method=method)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["value"]


arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
session = "/session/" + call("POST", "/session", {"capabilities": {"alwaysMatch": {
    "browserName": "chrome", "goog:chromeOptions": {"args": arguments},
    "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}})["sessionId"]


def run(script):
    return call("POST", session + "/execute/sync", {"script": "return " + script, "args": []})


def press(keys):
    """Types into whatever has the focus."""
    actions = []
    for key in keys:
        actions += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
    call("POST", session + "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})


def wait(script, what, seconds=120):
    end = time.time() + seconds
    while not run(script):
        if time.time() > end:
            raise SystemExit(f"not seen: {what}\n" + run("document.body.innerText"))
        time.sleep(0.05)


def check(good, what):
    if not good:
        raise SystemExit(f"wrong: {what}\n" + run("document.body.innerText"))
    print("ok:", what)


status = "document.getElementById('status').textContent"
answers = "document.querySelectorAll('article.assistant')"
try:
    call("POST", session + "/url", {"url": page})
    wait("document.getElementById('model').textContent !== ''", "the model's name")
    check(run("document.activeElement.id") == "prompt", "the message box has the focus at once")
    check(run("[...document.querySelectorAll('input, textarea')].every(e => e.labels.length === 1)"),
          "every field has a label")
    check(run("[...document.querySelectorAll('button')].every(e => e.textContent.trim())"), "every button has a name")
    check(run("document.getElementById('log').getAttribute('role')") == "log"
          and run("document.getElementById('log').getAttribute('aria-live')") == "polite"
          and run("document.getElementById('status').getAttribute('role')") == "status",
          "the conversation and the status are announced")
    check(run("document.documentElement.lang") == "en" and run("document.title") != "", "language and title")

    # A short answer. Settings are reached by keyboard; the browser's own way opens them.
    run("(document.querySelector('details').open = true, document.getElementById('max').value = '12')")
    press("the cat" + ENTER)
    wait(f"{answers}.length === 1", "an answer's place")
    wait(f"{status} === 'The answer was cut at its longest length.' || {status} === 'The answer is complete.'",
         "the end of the answer")
    check(run(f"{answers}[0].querySelector('p').textContent.length") > 0, "an answer came")
    check(run(f"{answers}[0].hasAttribute('aria-busy')") is False, "it is not busy any more")
    check(run("document.querySelector('article.user p').textContent") == "the cat", "the question stands above it")

    # A long one, which streams and is stopped with Escape; Shift+Enter is a line.
    run("(document.getElementById('max').value = '')")
    press("once" + SHIFT)
    call("POST", session + "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
        {"type": "keyDown", "value": SHIFT}, {"type": "keyDown", "value": ENTER}, {"type": "keyUp", "value": ENTER},
        {"type": "keyUp", "value": SHIFT}]}]})
    press("upon" + ENTER)
    wait(f"{answers}.length === 2 && {answers}[1].querySelector('p').textContent.length > 20", "text that streams")
    first = run(f"{answers}[1].querySelector('p').textContent.length")
    wait(f"{answers}[1].querySelector('p').textContent.length > {first}", "more of it")
    check(run("document.querySelectorAll('article.user p')[1].textContent") == "once\nupon", "Shift+Enter begins a line")
    check(run("document.getElementById('log').getAttribute('aria-busy')") == "true", "it is busy while it writes")
    press(ESCAPE)
    wait(f"{status} === 'Stopped.'", "the stop", 10)
    length = run(f"{answers}[1].querySelector('p').textContent.length")
    time.sleep(0.5)
    check(run(f"{answers}[1].querySelector('p').textContent.length") == length, "Escape stops the answer, its text stays")

    # The Stop button, by Tab and Enter.
    press("again" + ENTER)
    wait(f"{answers}.length === 3 && {answers}[2].querySelector('p').textContent.length > 5", "text again")
    press(TAB)
    check(run("document.activeElement.id") == "stop", "Tab goes from the message to Stop")
    press(ENTER)
    wait(f"{status} === 'Stopped.'", "the stop", 10)
    check(run("document.activeElement.id") == "prompt", "the focus goes back to the message")

    call("POST", session + "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
        {"type": "keyDown", "value": SHIFT}, {"type": "keyDown", "value": TAB}, {"type": "keyUp", "value": TAB},
        {"type": "keyDown", "value": TAB}, {"type": "keyUp", "value": TAB}, {"type": "keyUp", "value": SHIFT}]}]})
    check(run("document.activeElement.id") == "fresh", "Shift+Tab goes to New chat, past the conversation")
    press(ENTER)
    check(run("document.querySelectorAll('article').length") == 0, "New chat begins anew")

    # An error is shown and the conversation goes on.
    run("(document.getElementById('prompt').value = 'x '.repeat(40000), document.getElementById('form').requestSubmit())")
    wait("document.querySelectorAll('article.error').length === 1", "the error")
    check("context" in run("document.querySelector('article.error p').textContent"), "an error is said in words")

    entries = [json.loads(e["message"])["message"] for e in call("POST", session + "/se/log", {"type": "performance"})]
    urls = {e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"}
    check(all(u.startswith((page, "data:")) for u in urls), "nothing but the server was asked")
    worst = [e for e in call("POST", session + "/se/log", {"type": "browser"})
             if e["level"] == "SEVERE" and "400" not in e["message"]]
    check(not worst, f"no errors in the console {worst}")
finally:
    call("DELETE", session)
PYTHON
python3 "$scratch/check.py" "$door" "http://127.0.0.1:$port/"
