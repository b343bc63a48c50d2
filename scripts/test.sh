#!/usr/bin/env bash
# The tests: makes or reuses .venv with the extra `dev`, then runs pytest.
#   scripts/test.sh          the quick ones, under 15 minutes on 2 cores
#   scripts/test.sh --all    all of them, about an hour
# Further arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
select=(-m "not slow")
if [[ "${1:-}" == --all ]]; then
  select=()
  shift
fi
install_radcap dev
exec .venv/bin/python -m pytest "${select[@]}" "$@"
