#!/bin/sh
# The set-up behind the Makefile's targets; each step says what it lacks and what to do about it.
#
#   setup.sh venv    DIR                      make the virtual environment DIR, after checking Python and compiler
#   setup.sh torch   DIR REQUIREMENT          install torch first, so that nothing else chooses its version
#   setup.sh depends DIR EXTRAS               build tools, then leanmatch with EXTRAS ("test,dev") and all they need
#   setup.sh package DIR                      build and install leanmatch alone, from the working tree
set -eu

fail() {
    printf 'set-up: %s\n' "$@" >&2
    exit 1
}

# The first of $PYTHON and the usual names that is 3.11 or newer.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer was not found (tried: ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python})." \
        "Remedy: install one, or name it: make PYTHON=/path/to/python3.12 ..."
}

check_compiler() {
    for candidate in ${CXX:-c++ g++ clang++}; do
        if command -v "$candidate" >/dev/null 2>&1; then return; fi
    done
    fail "no C++ compiler was found (tried: ${CXX:-c++ g++ clang++})." \
        "Remedy: install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)," \
        "or name it: make CXX=/path/to/g++ ..."
}

check_headers() {
    "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        fail "the headers of $1 (Python.h) were not found." \
            "Remedy: install them (Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel)."
}

pip_install() {
    python="$1/bin/python"
    shift
    "$python" -m pip --disable-pip-version-check install --quiet "$@"
}

step="${1:-}"
folder="${2:-}"
[ -n "$step" ] && [ -n "$folder" ] || fail "usage: setup.sh venv|torch|depends|package DIR ..."

case "$step" in
venv)
    python=$(find_python)
    check_compiler
    check_headers "$python"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: its modules venv and ensurepip are not installed." \
            "Remedy: install them (Debian, Ubuntu: apt install python3-venv)."
    if [ -d "$folder" ] && [ -n "$(ls -A "$folder")" ] && [ ! -f "$folder/pyvenv.cfg" ]; then
        fail "$folder is not a virtual environment and not empty." "Remedy: name another place: make VENV=..."
    fi
    echo "set-up: $("$python" --version) -> $folder"
    "$python" -m venv "$folder"
    ;;
torch)
    echo "set-up: installing $3 (large; minutes on a slow line)"
    pip_install "$folder" "$3"
    ;;
depends)
    echo "set-up: installing leanmatch[$3] and what it needs"
    # Build tools stay in the environment, so that later builds need no network and keep their objects.
    # shellcheck disable=SC2046
    pip_install "$folder" "cmake>=3.26" "ninja>=1.11" $("$folder/bin/python" -c \
        'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
    pip_install "$folder" --no-build-isolation --config-settings=build-dir=build/make ".[$3]"
    ;;
package)
    echo "set-up: building and installing leanmatch"
    pip_install "$folder" --no-build-isolation --no-deps --force-reinstall \
        --config-settings=build-dir=build/make .
    ;;
*)
    fail "unknown step '$step'"
    ;;
esac
