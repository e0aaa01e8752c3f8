#!/usr/bin/env bash
# Speed beside others on this machine: OpenBLAS as numpy uses it, the torch reference implementation, and
# quoin's own ceilings; with what is aimed for. Everything alternates, medians count.
#   tools/bench-peers.sh [ROUNDS [PART...]]      default 3 rounds of all parts
# Parts: ops (products, experts, attention, rows), steps (training against torch, one and two threads), first (first
# step, cold and warm), growth (longer windows, more experts). The peers need python3 with numpy and torch, and the
# reference implementation in ../shared/reference; what is missing is left out and said. QUOIN names the program.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
shift || true
parts=${*:-ops steps first growth}
quoin=${QUOIN:-}
for p in build/release/apps/quoin build/test/apps/quoin build/apps/quoin; do
  [ -n "$quoin" ] || { [ -x $p ] && quoin=$p; }
done
[ -n "$quoin" ] || { echo "build first: tools/demo.sh or tools/test.sh --quick" >&2; exit 1; }
python=/usr/bin/python3
reference=$PWD/../shared/reference
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$work/cache}
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

# A bench of quoin; what failed is among its records.
bench() { $quoin -q bench "$@" --json || echo "quoin bench $*: status $?" >&2; }
has() { case " $parts " in *" $1 "*) ;; *) return 1 ;; esac }
peer() {
  $python -c "import $1" 2>/dev/null || { echo "without $1 there is nothing to compare with" >&2; return 1; }
  $python -c "import $1; maps = open('/proc/self/maps').read()
raise SystemExit(not any(x in maps for x in ('openblas', 'mkl', 'blis')))" ||
    { echo "$1 multiplies without an optimised BLAS (Debian: libopenblas0-pthread): no comparison" >&2; return 1; }
}

# Prints JSON lines {"peer": ..., "seconds": ...}: medians of a few runs.
cat >"$work/peers.py" <<'PY'
import json, statistics, sys, time
def median(f, n=7):
    f()
    t = []
    for _ in range(n):
        s = time.perf_counter(); f(); t.append(time.perf_counter() - s)
    return statistics.median(t)
if sys.argv[1] == 'numpy':
    import numpy
    for n in (512, 1024):
        a, b = (numpy.random.rand(n, n).astype('f') for _ in range(2))
        print(json.dumps({'peer': f'matmul {n}', 'seconds': median(lambda: a @ b)}))
else:
    import torch
    sys.path.insert(0, sys.argv[2])
    import moduleformer_ref as m
    torch.set_num_threads(1)
    q = torch.randn(1, 1, 8, 1024, 64)
    k, v = torch.randn(1, 8, 1024, 64), torch.randn(1, 8, 1024, 64)
    def both():
        o, _, _ = m.sb_forward(q, k, v)
        m.sb_backward(q, k, v, o)
    print(json.dumps({'peer': 'attention', 'seconds': median(both, 3)}))
PY

# A round of records; names in the file are what the summary looks for.
for round in $(seq "$rounds"); do
  if has ops; then
    LP_NUM_THREADS=0 bench ops matmul expert_matmul stickbreaking --time 0.2 \
      --case nn_512,nn_1024,nn_2048x512,1x4096x1024,1024x2_e16_256x512,t1024_h8_d64 >>"$work/records"
    LP_NUM_THREADS=0 bench ops softmax log_softmax layer_norm rms_norm reduce scale add activate \
      --forward-only --time 0.2 >>"$work/records"
    LP_NUM_THREADS=0 bench ops adamw --forward-only --preset micro --time 1 >>"$work/records"
    peer numpy && $python "$work/peers.py" numpy >>"$work/peers"
    [ -f "$reference/moduleformer_ref.py" ] && peer torch && $python "$work/peers.py" torch "$reference" >>"$work/peers"
  fi
  if has steps; then
    for threads in 1 2; do
      for preset in micro small; do
        LP_NUM_THREADS=$((threads == 1 ? 0 : threads)) bench model --preset $preset --what training \
          --time 2 | sed "s/^{/{\"threads\":$threads,/" >>"$work/records"
        [ -f "$reference/text_trace.py" ] && peer torch &&
          OPENBLAS_NUM_THREADS=$threads OMP_NUM_THREADS=$threads $python "$reference/text_trace.py" speed --preset $preset \
            --batch 8 --seq 128 --threads $threads --steps 3 | sed "s/^{/{\"peer\":\"step\",/" >>"$work/peers"
      done
    done
  fi
  if has first; then
    [ -f "$work/text" ] || seq 1 20000 >"$work/text"
    for kind in cold warm; do
      [ $kind = cold ] && rm -rf "$work/shaders"
      mkdir -p "$work/shaders"
      start=$(date +%s.%N)
      MESA_SHADER_CACHE_DIR=$work/shaders XDG_CACHE_HOME=$work/shaders LP_NUM_THREADS=0 $quoin -q train --text "$work/text" \
        --out "$work/first" --fresh --preset micro --batch 8 --steps 1 --held-out 0 --eval-every 0 >/dev/null
      end=$(date +%s.%N)
      echo "{\"peer\":\"first $kind\",\"seconds\":$(awk "BEGIN{print $end - $start}")}" >>"$work/peers"
    done
  fi
  if has growth; then
    for length in 256 512 1024 2048; do
      LP_NUM_THREADS=0 bench model --preset micro --what training --batch $((2048 / length)) --length $length \
        --time 1 >>"$work/records"
    done
    if [ ! -f "$work/one/config.json" ]; then
      seq 1 5000 >"$work/few"
      LP_NUM_THREADS=0 $quoin -q train --text "$work/few" --out "$work/one" --fresh --preset micro --steps 1 --held-out 0 \
        --batch 1 --length 8 --eval-every 0 >/dev/null
    fi
    for experts in 8 16 32 64; do
      sed -E "s/\"n_(att|mlp)_experts\": *[0-9]+/\"n_\1_experts\": $experts/" "$work/one/config.json" >"$work/e$experts.json"
      LP_NUM_THREADS=0 bench model --config "$work/e$experts.json" --what training --batch 8 --length 128 \
        --time 1 | sed "s/^{/{\"experts\":$experts,/" >>"$work/records"
    done
  fi
done
touch "$work/records" "$work/peers"

$python - "$work/records" "$work/peers" <<'PY'
import json, statistics, sys
records = [json.loads(l) for l in open(sys.argv[1]) if l.strip()]
peers = [json.loads(l) for l in open(sys.argv[2]) if l.strip()]
def fits(key, found, wanted):  # a shape is not a part of another shape
    return not wanted or (found == wanted if key == 'shape' else found.startswith(wanted))
def some(member, **want):
    v = [r[member] for r in records if r.get(member) is not None and all(fits(k, str(r.get(k, '')), str(x)) for k, x in want.items())]
    return statistics.median(v) if v else None
def other(name, member='seconds', **want):
    v = [p[member] for p in peers if p['peer'] == name and all(p.get(k) == x for k, x in want.items())]
    return statistics.median(v) if v else None
def show(what, value, must, aim, form='{:.2f}', less=False):
    if value is None:
        print(f'{what:62s} not measured')
        return
    met = lambda bar: value <= bar if less else value >= bar
    word = 'aim' if aim is not None and met(aim) else 'must' if met(must) else 'SHORT'
    bars = f'must {must}' + (f', aim {aim}' if aim is not None else '')
    print(f'{what:62s} {form.format(value):>9s}  {bars:22s} {word}')
def ratio(a, b):
    return a / b if a and b else None
device = next((r['device'] + ', ' + r['driver'] for r in records), 'nothing measured')
print(device)
ops = any(r['bench'] == 'ops' for r in records)
if ops:
    for n in (512, 1024):
        mine = some('seconds_median', name='matmul', variant='forward', shape=f'nn_{n}')
        show(f'f32 product {n}^3 / OpenBLAS, one thread', ratio(other(f'matmul {n}'), mine), 0.30, 0.50)
    for shape in ('nn_512', 'nn_1024', 'nn_1024x512x256'):
        f = some('seconds_median', name='matmul', variant='forward', shape=shape)
        for g, name in ((1, 'dX'), (2, 'dW')):
            b = some('seconds_median', name='matmul', variant=f'gradient {g}', shape=shape)
            show(f'{name} of {shape} / own forward', ratio(f, b), 0.8, 1.0)
    e = some('gflops', name='expert_matmul', variant='forward', shape='1024x2_e16_256x512')
    show('16 experts, 1,024 tokens, k = 2, 256 to 512 / own dense', ratio(e, some('gflops', name='matmul', variant='forward', shape='nn_2048x512x256')), 0.75, 0.9)
    for shape in ('nn_1x4096x1024', 'nt_1x4096x1024'):
        show(f'matrix-vector {shape} / copy bandwidth', some('fraction_of_peak', name='matmul', variant='forward', shape=shape), 0.5, 0.65)
    f, b = (some('seconds_median', name='stickbreaking', variant=v, shape='t1024_h8_d64') for v in ('forward', 'backward'))
    show('attention forward and backward, T = 1,024 / torch, one thread', ratio(other('attention'), f + b if f and b else None), 2.0, 4.0)
    for name in ('softmax', 'log_softmax', 'layer_norm', 'rms_norm', 'reduce', 'scale', 'add', 'activate'):
        show(f'{name} / copy bandwidth', some('fraction_of_peak', name=name, variant='forward', shape=''), 0.25, 0.4)
    step, kernels = some('seconds_median', name='step'), some('seconds_median', name='kernels')
    show('step of micro beyond its kernels, %', 100 * (step - kernels) / step if step else None, 5, 2, '{:.1f}', True)
for threads in (1, 2):
    for preset in ('micro', 'small'):
        a = some('tokens_per_s', bench='model', name=preset, threads=threads)
        b = other('step', 'tokens_per_s', preset=preset, threads=threads)
        if a:
            show(f'training step, {preset}, {threads} thread(s) / torch', ratio(a, b), 1.0, 1.5)
            print(f'    {a:.0f} tokens/s' + (f', torch {b:.0f}' if b else ''))
for kind, must, aim in (('cold', 5, 3), ('warm', 0.7, 0.3)):
    if other(f'first {kind}'):
        show(f'first step of micro, {kind} shader cache, whole program, s', other(f'first {kind}'), must, aim, less=True)
base = some('gflops', bench='model', name='micro', shape='8x256')
if base:
    for t in (512, 1024, 2048):
        r = ratio(some('gflops', bench='model', name='micro', shape=f'{2048 // t}x{t}'), base)
        show(f'operations per second at T = {t} / at 256', r, 0.8, None)
base = some('tokens_per_s', experts=8)
if base:
    for e in (16, 32, 64):
        show(f'tokens/s with {e} experts / with 8', ratio(some('tokens_per_s', experts=e), base), 0.85, None)
PY
