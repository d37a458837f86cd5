#!/usr/bin/env bash
# Checks a GPU with one command in at most eight minutes: parity of kernels, networks, attacks and training steps with
# the CPU and the authors' numbers; repeatability; memory; speed, compared with PyTorch if Python has it; a short
# training on CIFAR-10 if its data are there. Prints a table at the end and writes JSON files to the output folder, all
# of which are also in gpu-check.tar.gz there.
#
#   gpu-check.sh [--device cuda:0] [--data DIR] [--out DIR] [--part checks|pytorch|training] [--quick]
#
# --part runs one of the three alone, with all the time for it. `--device cpu --quick` tests this script and the
# checks without a GPU. Run it in a folder made by tools/gpu-pack.sh, or in a checkout with programs in target/debug or
# $BUILT. CUDA's libraries are taken from LD_LIBRARY_PATH, from the system, or from Python's packages.
set -uo pipefail

device=cuda:0 data=${RAMPART_DATA_DIR:-} out=gpu-check part= quick=
usage() { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --device | --data | --out | --part) [ $# -gt 1 ] || usage ;;&
    --device) device=$2; shift 2 ;;
    --data) data=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --part) part=$2; shift 2 ;;
    --quick) quick=--quick; shift ;;
    *) usage ;;
    esac
done
case $part in '' | checks | pytorch | training) ;; *) usage ;; esac
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2

# program NAME: prints its path, after unpacking it if it is compressed; fails if there is none.
program() {
    local name=$1 place
    for place in "$here" "${BUILT:-}" "$here/../target/debug"; do
        [ -n "$place" ] || continue
        if [ -x "$place/$name" ]; then echo "$place/$name"; return; fi
        if [ -f "$place/$name.xz" ]; then
            mkdir -p "$out/programs"
            xz -dc "$place/$name.xz" >"$out/programs/$name" && chmod +x "$out/programs/$name" && echo "$out/programs/$name"
            return
        fi
    done
    return 1
}
vectors=$here/vectors
[ -d "$vectors" ] || vectors=$here/../reference/vectors
peers=$here/peers
[ -d "$peers" ] || peers=$here/../benches/peers

# Python's packages include CUDA's libraries and cuDNN.
python=${PYTHON:-python3}
if command -v "$python" >/dev/null; then
    found=$("$python" - <<'PYTHON'
import glob, sysconfig
roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
print(":".join(sorted(path for root in roots for path in glob.glob(root + "/nvidia/*/lib"))))
PYTHON
    ) || found=
    if [ -n "$found" ]; then export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$found"; fi
fi

began=$SECONDS status=0
# left: seconds until the eight minutes are over, minus some to print and pack.
left() { local rest=$((465 - (SECONDS - began))); echo $((rest > 1 ? rest : 1)); }
# share N: N seconds, or all that is left if one part runs alone.
share() { if [ -n "$part" ] || [ "$1" -gt "$(left)" ]; then left; else echo "$1"; fi; }
wanted() { [ -z "$part" ] || [ "$part" = "$1" ]; }

# Keep compiled kernels with the results: the machine may have little room for caches.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$out/cache}
{
    date -u '+%Y-%m-%d %H:%M UTC'
    uname -srm
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null
} >"$out/machine.txt"

if wanted checks; then
    echo "== checks" >&2
    if checker=$(program gpu-check); then
        timeout "$(share 230)" "$checker" --device "$device" --reference "$vectors" --json "$out/checks.json" \
            --budget "$(($(share 230) - 25))" $quick >"$out/checks.txt" || status=$?
        [ "$status" -lt 124 ] || echo "ended with status $status before the table" >>"$out/checks.txt"
    else
        echo "gpu-check not found; build it: cargo build -p gpu-check --features cuda" | tee "$out/checks.txt" >&2
        status=2
    fi
fi

# beside SECONDS WHAT PRECISION: one row of the comparison, if there is enough time.
beside() {
    local arguments=(--device "$device" --only "$2" --rounds 3 --json "$out/pytorch-${2// /-}-$3.json")
    if [ "$device" = cpu ]; then arguments+=(--quick); else arguments+=(--precision "$3"); fi
    RAMPART_WORKER=$worker timeout "$1" "$python" "$peers/compare.py" "${arguments[@]}" >>"$out/pytorch.txt" 2>&1 ||
        echo "$2 $3: ended with status $? after at most $1 s" >>"$out/pytorch.txt"
}
if wanted pytorch; then
    echo "== compared with PyTorch" >&2
    : >"$out/pytorch.txt"
    if ! worker=$(program rampart-worker) || [ ! -f "$peers/compare.py" ]; then
        echo "skipped: rampart-worker or compare.py not found" >"$out/pytorch.txt"
    elif ! "$python" -c 'import torch' 2>/dev/null; then
        echo "skipped: $python has no PyTorch" >"$out/pytorch.txt"
    elif [ "$device" = cpu ]; then
        beside "$(share 140)" "train-step small-cnn" fp32
    else
        # The workloads with performance goals come first. torch.compile is slow, so bf16 comes after all of TF32.
        end=$((SECONDS + $(share 140)))
        for precision in tf32 bf16; do
            for workload in mart-step attack-step train-step; do
                rest=$((end - SECONDS))
                [ "$rest" -gt 5 ] || { echo "$workload resnet18 $precision: no time left" >>"$out/pytorch.txt"; continue; }
                beside "$rest" "$workload resnet18" "$precision"
            done
        done
    fi
fi

if wanted training; then
    echo "== a short training" >&2
    # Without a GPU, this only tests that it runs.
    if [ -n "$quick" ]; then limits="train: 192, test: 32" epochs=1; else limits="train: 20500, test: 1000" epochs=3; fi
    if ! harness=$(program rampart); then
        echo "skipped: rampart not found" >"$out/training.txt"
    elif [ -z "$data" ]; then
        echo "skipped: no folder with CIFAR-10; pass --data" >"$out/training.txt"
    else
        cat >"$out/short.yaml" <<YAML
# Not a result, only a test that training works on this card.
name: gpu-check
dataset: { name: cifar10, verify: false, validation: 64, limit: { $limits } }
threat: { norm: linf, epsilon: 8/255 }
networks: [resnet18]
seeds: [0]
recipe: { epochs: $epochs, batch: 64, optimizer: { name: sgd, rate: 0.05, momentum: 0.9, weight_decay: 5e-4 } }
defenses: [{ name: standard, attack: { steps: 3, step_size: 4/255 } }]
attacks: [{ name: pgd, steps: 20, step_size: 0.8/255, start: uniform }]
checkpoints: [last]
tables: [white-box]
YAML
        timeout --signal INT "$(left)" "$harness" run "$out/short.yaml" --device "$device" --data-dir "$data" \
            --out "$out/runs" >"$out/training.txt" 2>"$out/training.log" ||
            { echo "ended with status $?; run again to resume"; tail -n 3 "$out/training.log"; } >>"$out/training.txt"
    fi
fi

{
    cat "$out/machine.txt"
    for each in training pytorch checks; do
        [ -f "$out/$each.txt" ] && wanted "$each" && printf '\n== %s\n' "$each" && cat "$out/$each.txt"
    done
} | tee "$out/summary.txt"
(shopt -s nullglob && cd "$out" && tar -czf gpu-check.tar.gz -- *.txt *.json *.log)
printf '\n%s s in all; JSON in %s\n' $((SECONDS - began)) "$out"
exit "$status"
