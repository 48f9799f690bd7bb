#!/bin/sh
# Install the rivals of bench/ in .venv-rivals, an environment of their own: sh bench/rivals/install.sh [<uv>]
set -eu
cd "$(dirname "$0")/../.."
uv=${1:-.venv/bin/uv}
[ -x .venv-rivals/bin/python ] || "$uv" venv --quiet --python .venv/bin/python .venv-rivals
"$uv" pip install --quiet --compile-bytecode --python .venv-rivals/bin/python --requirement bench/rivals/requirements.txt
