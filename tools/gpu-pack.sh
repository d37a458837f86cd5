#!/usr/bin/env bash
# Packs into a folder what a machine with a GPU needs for tools/gpu-check.sh and tools/gpu-train.sh: programs built with
# the feature `cuda`, stripped and compressed; the reference vectors; PyTorch's side of the comparison; the matrix to
# train. That machine needs neither Rust nor a network connection.
#
#   tools/gpu-pack.sh FOLDER        # programs from target/debug, which is optimised, or from $BUILT
set -euo pipefail
folder=${1:?usage: tools/gpu-pack.sh FOLDER}
cd "$(dirname "$0")/.."
built=${BUILT:-${CARGO_TARGET_DIR:-target}/debug}
mkdir -p "$folder"
for program in rampart gpu-check rampart-worker; do
    if [ ! -x "$built/$program" ]; then
        echo "error: $built/$program is not built; docs/cuda.md has the command" >&2
        exit 2
    fi
done
# Find a program built without the feature here, not on the machine with the GPU, where time is limited.
output=$("$built/gpu-check" --device cuda:0 --only nothing 2>&1) || true
if [[ $output == *"built without CUDA"* ]]; then
    echo "error: $built/gpu-check was built without the feature cuda; docs/cuda.md has the command" >&2
    exit 2
fi
for program in rampart gpu-check rampart-worker; do
    strip -o "$folder/$program" "$built/$program"
    xz --force -6 -T2 "$folder/$program"
done
cp tools/gpu-check.sh tools/gpu-train.sh tools/gpu-parts.sh matrices/cifar10-resnet18.yaml "$folder/"
rm -rf "$folder/vectors" "$folder/peers"
cp -r reference/vectors "$folder/vectors"
mkdir "$folder/peers"
cp benches/peers/*.py benches/peers/*.sh "$folder/peers/"
du -sh "$folder"
