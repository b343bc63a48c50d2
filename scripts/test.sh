#!/usr/bin/env bash
# The tests: makes or reuses .venv with the extra `dev`, then runs pytest, a process for each core.
#   scripts/test.sh          the quick ones, under 8 minutes on 2 cores
#   scripts/test.sh --all    all of them, under 35 minutes
# Further arguments go to pytest; -n 0 runs the tests in one process, for a debugger.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
select=(-m "not slow")
if [[ "${1:-}" == --all ]]; then
  select=()
  shift
fi
install_radcap dev
# Hundreds of processes import torch: compiled once, each of them starts in a third of the time.
unset PYTHONDONTWRITEBYTECODE
exec .venv/bin/python -m pytest -n auto --dist worksteal "${select[@]}" "$@"
