#!/usr/bin/env bash
# Packs what a machine with a GPU needs for tools/gpu-check.sh into a folder: programs built with the feature
# `cuda`, stripped and compressed; the reference vectors; PyTorch's side of the comparison. No Rust, no network there.
#
#   tools/gpu-pack.sh FOLDER        # programs from target/debug, which is optimised, or from $BUILT
set -euo pipefail
folder=${1:?usage: tools/gpu-pack.sh FOLDER}
cd "$(dirname "$0")/.."
built=${BUILT:-${CARGO_TARGET_DIR:-target}/debug}
mkdir -p "$folder"
for program in harness gpu-check rampart-worker; do
    if [ ! -x "$built/$program" ]; then
        echo "left out: $built/$program is not built" >&2
        continue
    fi
    strip -o "$folder/$program" "$built/$program"
    xz --force -6 -T2 "$folder/$program"
done
cp tools/gpu-check.sh "$folder/"
rm -rf "$folder/vectors" && cp -r reference/vectors "$folder/vectors"
[ ! -d benches/peers ] || { rm -rf "$folder/peers"; cp -r benches/peers "$folder/peers"; }
du -sh "$folder"
