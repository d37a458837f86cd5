#!/usr/bin/env bash
# Brings a large folder to another machine, and back, in parts of a size that one transfer takes: data for
# tools/gpu-train.sh, or the folder of a run that is to go on there.
#
#   gpu-parts.sh split FOLDER TO [MIB]     # TO/NAME.tar.xz.000, .001, … of at most MIB (default 30), and their sums
#   gpu-parts.sh join FROM INTO            # all parts in FROM, as INTO/NAME; fails, naming it, where a part is missing
set -euo pipefail
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
case ${1:-} in
split)
    [ $# -ge 3 ] || usage
    folder=$(cd "$2" && pwd) name=$(basename "$folder")
    mkdir -p "$3"
    rm -f "$3/$name".tar.xz.*
    # Little is gained by trying harder: images and weights hardly shrink.
    tar -C "$(dirname "$folder")" -c "$name" | xz -1 -T2 | split -b "${4:-30}M" -d -a 3 - "$3/$name.tar.xz."
    (cd "$3" && sha256sum "$name".tar.xz.[0-9]* >"$name.tar.xz.sums")
    ls -l "$3/$name".tar.xz.*
    ;;
join)
    [ $# -eq 3 ] || usage
    into=$(mkdir -p "$3" && cd "$3" && pwd)
    cd "$2"
    for sums in *.tar.xz.sums; do
        [ -f "$sums" ] || { echo "error: there are no parts in $2" >&2; exit 2; }
        sha256sum --quiet --check "$sums" >&2 || { echo "error: bring what is missing or damaged again" >&2; exit 2; }
        cat "${sums%.sums}".[0-9]* | xz -dc | tar -C "$into" -x
        echo "$into/${sums%.tar.xz.sums}"
    done
    ;;
*) usage ;;
esac
