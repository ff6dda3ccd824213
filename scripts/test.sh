#!/usr/bin/env bash
# Fresh machine: make .venv, install the test extra, check style and layers, run the tests.
#
#   bash scripts/test.sh               everything
#   bash scripts/test.sh quick         without the tests marked slow (or QUICK=1)
#   bash scripts/test.sh [quick] ...   further arguments go to pytest
#
# Tests against reference data look for it in $MLIP_DATA and are skipped where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment "[test]"

selection=()
if [ "${1:-}" = quick ]; then
    shift
    QUICK=1
fi
if [ "${QUICK:-0}" = 1 ]; then
    selection=(-m "not slow")
fi

# Each of the two test processes has one thread: more only get into each other's way.
export OMP_NUM_THREADS=1
ruff check .
ruff format --check .
lint-imports
exec python -m pytest -n 2 "${selection[@]}" "$@"
