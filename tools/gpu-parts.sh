#!/usr/bin/env bash
# Splits a large folder into parts that fit into one transfer, and joins them on another machine: data for
# tools/gpu-train.sh, or the folder of a run to be resumed there.
#
#   gpu-parts.sh split FOLDER TO [MIB]     # TO/NAME.tar.xz.000, .001, … of at most MIB (default 30), and checksums
#   gpu-parts.sh join FROM INTO            # all parts in FROM, as INTO/NAME; a missing part is named in an error
set -euo pipefail
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
case ${1:-} in
split)
    [ $# -ge 3 ] || usage
    folder=$(cd "$2" && pwd) name=$(basename "$folder")
    mkdir -p "$3"
    rm -f "$3/$name".tar.xz.*
    # A higher compression level gains little: images and weights hardly compress.
    tar -C "$(dirname "$folder")" -c "$name" | xz -1 -T2 | split -b "${4:-30}M" -d -a 3 - "$3/$name.tar.xz."
    (cd "$3" && sha256sum "$name".tar.xz.[0-9]* >"$name.tar.xz.sums")
    ls -l "$3/$name".tar.xz.*
    ;;
join)
    [ $# -eq 3 ] || usage
    into=$(mkdir -p "$3" && cd "$3" && pwd)
    cd "$2"
    for sums in *.tar.xz.sums; do
        [ -f "$sums" ] || { echo "error: $2 contains no parts" >&2; exit 2; }
        sha256sum --quiet --check "$sums" >&2 || { echo "error: copy the missing or damaged parts again" >&2; exit 2; }
        cat "${sums%.sums}".[0-9]* | xz -dc | tar -C "$into" -x
        echo "$into/${sums%.tar.xz.sums}"
    done
    ;;
*) usage ;;
esac
