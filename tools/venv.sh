#!/bin/sh
# Make a virtual environment with a pinned uv in it: sh tools/venv.sh <folder> <uv version>
# Asks for Python 3.11 to 3.13; works around a Debian Python without ensurepip.
set -eu
venv=$1 version=$2

fail() { printf 'make install: %s\n' "$*" >&2; exit 1; }
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
find_python() {
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if fits "$candidate"; then printf '%s' "$candidate"; return; fi
  done
}

if ! { [ -x "$venv/bin/python" ] && fits "$venv/bin/python"; }; then
  python=$(find_python)
  if [ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$venv"
  elif command -v uv >/dev/null; then
    uv venv --quiet --seed --python "${python:->=3.11,<3.14}" "$venv"
  elif [ -n "$python" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "make install: installing python3-venv, which this Python lacks"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    "$python" -m venv "$venv"
  elif [ -n "$python" ]; then
    fail "$python has no venv module: run 'sudo apt-get install python3-venv', or put uv on the PATH"
  else
    fail "needs Python 3.11, 3.12 or 3.13 (PYTHON=/path/to/python names one)"
  fi
fi

if ! "$venv/bin/uv" --version 2>/dev/null | grep -qF "uv $version"; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$version" ||
    fail "could not install uv $version into $venv: is the package index reachable?"
fi
