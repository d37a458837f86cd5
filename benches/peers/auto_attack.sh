#!/usr/bin/env bash
# Compares our AutoAttack with its authors' on the same network and images: see --help.
# The Python is $PYTHON, by default python3; it needs PyTorch, safetensors and AutoAttack.
set -euo pipefail
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    echo "error: $python not found; set PYTHON to a Python 3 with PyTorch" >&2
    exit 2
fi
# exec: a signal sent to this script then reaches the program that must end the workers.
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/auto_attack.py" "$@"
