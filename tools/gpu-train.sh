#!/usr/bin/env bash
# Trains matrices/cifar10-resnet18.yaml on a GPU in pieces: MART first, then standard adversarial training and TRADES,
# each evaluated before the next. Ends after the given minutes and saves its state; the same command resumes from there,
# also on another machine if you copy the folder of --out (gpu-parts.sh).
#
#   gpu-train.sh --data DIR [--minutes 8] [--out runs] [--device cuda:0] [-- MORE FOR rampart run]
#
# Everything after -- goes to `rampart run`, such as `--precision bf16` or `--set recipe.epochs=30`: pass the same every
# time. Ends with 0 when everything is done, 130 when there is more to do, else with the harness's status.
set -uo pipefail
data=${RAMPART_DATA_DIR:-} minutes=8 out=runs device=cuda:0
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --data | --minutes | --out | --device) [ $# -gt 1 ] || usage ;;&
    --data) data=$2; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --) shift; break ;;
    *) usage ;;
    esac
done
[ -n "$data" ] || usage
case $minutes in '' | *[!0-9]*) usage ;; esac
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
harness=
for place in "$here" "${BUILT:-}" "$here/../target/debug"; do
    [ -n "$place" ] || continue
    if [ -z "$harness" ] && [ -x "$place/rampart" ]; then harness=$place/rampart; fi
    if [ -z "$harness" ] && [ -f "$place/rampart.xz" ]; then
        xz -dkc "$place/rampart.xz" >"$out/harness" && chmod +x "$out/harness" && harness=$out/harness
    fi
done
[ -n "$harness" ] || { echo "error: rampart not found; docs/cuda.md says how to build it" >&2; exit 2; }
matrix=$here/cifar10-resnet18.yaml
[ -f "$matrix" ] || matrix=$here/../matrices/cifar10-resnet18.yaml

end=$((SECONDS + 60 * minutes))
for defense in mart standard trades; do
    rest=$((end - SECONDS))
    [ "$rest" -gt 0 ] || exit 130
    # An interrupt lets the harness save its state; a minute is enough for that.
    timeout --signal INT --kill-after 60 "$rest" "$harness" run "$matrix" --device "$device" --data-dir "$data" \
        --out "$out" --filter "defense=$defense" "$@"
    status=$?
    case $status in
    0) ;;
    124 | 130 | 137) echo "time is up during $defense; run the same command again to resume" >&2; exit 130 ;;
    *) exit "$status" ;;
    esac
done
