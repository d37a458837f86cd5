#!/usr/bin/env bash
# Times our workloads against PyTorch's, interleaved on this machine: see --help.
# The Python is $PYTHON, by default python3; it needs PyTorch, except for --scaling.
set -euo pipefail
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    echo "error: $python not found; set PYTHON to a Python 3 with PyTorch" >&2
    exit 2
fi
# exec: a signal sent to this script then reaches the program that must end the workers.
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/compare.py" "$@"
