# Sourced by the other scripts: makes .venv beside pyproject.toml, or reuses it, and installs
# radcap with the extras given. Needs Python 3.11 or newer and a package index, nothing else.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The first Python on the path that is new enough.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if [[ -n "$candidate" ]] && "$candidate" -c \
      'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "radcap needs Python 3.11, 3.12 or 3.13; set PYTHON to one" >&2
  return 2
}

# install_radcap [EXTRA]: install this checkout, editable, so that configs/ is read where it stands.
install_radcap() {
  local target=".${1:+[$1]}"
  if [[ ! -x .venv/bin/python ]]; then
    local python
    python="$(find_python)"
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  # The stamp says what was installed, so that a second call costs nothing.
  local stamp
  stamp="$target $(cksum pyproject.toml | cut -d' ' -f1)"
  if [[ "$(cat .venv/radcap-installed 2>/dev/null)" == *"$stamp"* ]]; then
    return
  fi
  echo "installing radcap${1:+ with extra $1} into .venv (8 GB, a few minutes)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
  VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip install --quiet --editable "$target"
  echo "$stamp" >> .venv/radcap-installed
}
