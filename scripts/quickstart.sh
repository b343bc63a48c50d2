#!/usr/bin/env bash
# From a fresh clone to a trained captioner: makes .venv, installs radcap, runs the embedded
# default (no network but the package index, no token). Further arguments go to radcap.train.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_radcap ""
exec .venv/bin/python -m radcap.train "$@"
