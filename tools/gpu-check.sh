#!/usr/bin/env bash
# Everything to know of a GPU, in one command and within eight minutes: parity of kernels, networks, attacks and
# training steps with the CPU and the authors' numbers; repeatability; memory; speed, beside PyTorch where Python has
# it; a short training on CIFAR-10 where its data are. Prints a table last and leaves JSON in the output folder.
#
#   gpu-check.sh [--device cuda:0] [--data DIR] [--out DIR] [--quick]
#
# Runs in a folder made by tools/gpu-pack.sh, or in a checkout with programs in target/debug or $BUILT. CUDA's
# libraries are taken from LD_LIBRARY_PATH, from the system, or from Python's packages.
set -uo pipefail

device=cuda:0 data=${RAMPART_DATA_DIR:-} out=gpu-check quick=
while [ $# -gt 0 ]; do
    case $1 in
    --device) device=$2; shift 2 ;;
    --data) data=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --quick) quick=--quick; shift ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)

# program NAME: its path, unpacked if it came compressed; fails where there is none.
program() {
    local name=$1 place
    for place in "$here" "${BUILT:-}" "$here/../target/debug"; do
        [ -n "$place" ] || continue
        if [ -x "$place/$name" ]; then echo "$place/$name"; return; fi
        if [ -f "$place/$name.xz" ]; then
            xz -dc "$place/$name.xz" >"$out/$name" && chmod +x "$out/$name" && echo "$out/$name"
            return
        fi
    done
    return 1
}
checker=$(program gpu-check) || { echo "there is no gpu-check; build it: cargo build -p gpu-check --features cuda" >&2; exit 2; }
harness=$(program harness || true)
worker=$(program rampart-worker || true)
vectors=$here/vectors
[ -d "$vectors" ] || vectors=$here/../reference/vectors
peers=$here/peers
[ -d "$peers" ] || peers=$here/../benches/peers

# Python's packages carry CUDA's libraries and cuDNN.
python=${PYTHON:-python3}
if command -v "$python" >/dev/null; then
    found=$("$python" - <<'PYTHON'
import glob, sysconfig
roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
print(":".join(sorted(path for root in roots for path in glob.glob(root + "/nvidia/*/lib"))))
PYTHON
    ) || found=
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+${found:+:}}$found"
fi

began=$SECONDS
left() { echo $((470 - (SECONDS - began))); }
status=0

# A machine with little room for caches keeps compiled kernels with the results.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$out/cache}
echo "== checks" >&2
timeout $(($(left) - 10)) "$checker" --device "$device" --reference "$vectors" --json "$out/checks.json" --budget 260 $quick \
    >"$out/checks.txt" || status=$?

echo "== beside PyTorch" >&2
: >"$out/pytorch.txt"
if [ "$device" = cpu ]; then
    echo "skipped: on the CPU this is benches/peers/compare.sh" >"$out/pytorch.txt"
elif [ -z "$worker" ] || [ ! -f "$peers/compare.py" ]; then
    echo "skipped: rampart-worker or compare.py is not here" >"$out/pytorch.txt"
elif ! "$python" -c 'import torch' 2>/dev/null; then
    echo "skipped: $python has no PyTorch" >"$out/pytorch.txt"
else
    RAMPART_WORKER=$worker timeout $(($(left) / 2)) "$python" "$peers/compare.py" --device "$device" --rounds 3 \
        --only resnet18 --json "$out/pytorch.json" >"$out/pytorch.txt" 2>&1 || echo "ended with status $?" >>"$out/pytorch.txt"
fi

echo "== a short training" >&2
if [ -z "$harness" ]; then
    echo "skipped: harness is not here" >"$out/training.txt"
elif [ -z "$data" ]; then
    echo "skipped: --data names no folder with CIFAR-10" >"$out/training.txt"
else
    cat >"$out/short.yaml" <<'YAML'
# Not a result: does training on this card lead anywhere?
name: gpu-check
dataset: { name: cifar10, verify: false, validation: 500, limit: { train: 20500, test: 1000 } }
threat: { norm: linf, epsilon: 8/255 }
networks: [resnet18]
seeds: [0]
recipe: { epochs: 3, batch: 128, optimizer: { name: sgd, rate: 0.05, momentum: 0.9, weight_decay: 5e-4 } }
defenses: [{ name: standard, attack: { steps: 3, step_size: 4/255 } }]
attacks: [{ name: pgd, steps: 20, step_size: 0.8/255, start: uniform }]
checkpoints: [last]
tables: [white-box]
YAML
    timeout --signal INT $(($(left) - 5)) "$harness" run "$out/short.yaml" --device "$device" --data-dir "$data" --out "$out/runs" \
        >"$out/training.txt" 2>"$out/training.log" || echo "ended with status $?; run again to go on" >>"$out/training.txt"
fi

for part in training pytorch checks; do
    printf '\n== %s\n' "$part"
    cat "$out/$part.txt"
done
printf '\n%s s in all; JSON in %s\n' $((SECONDS - began)) "$out"
exit "$status"
