#!/usr/bin/env bash
# Times our workloads beside PyTorch's, both at once on this machine: see --help.
# The Python is $PYTHON, by default python3; it needs PyTorch, except for --scaling.
set -euo pipefail
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    echo "error: there is no $python; set PYTHON to a Python 3 that has PyTorch" >&2
    exit 2
fi
# exec: a signal sent to this script reaches the program that has to end the workers.
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/compare.py" "$@"
