#!/bin/sh
# Set the lab up in this folder and open it, without make and without admin rights:
#     sh start.sh [--dry-run] [arguments for lora-lab, such as: demo]
# If there is a folder `wheelhouse` here or next to this folder, or LORA_LAB_WHEELHOUSE names one, the script installs from
# there without a network (docs/install.md); otherwise, it installs from pip's index. To start over, delete .venv.
set -eu
case "${LORA_LAB_WHEELHOUSE:-}" in
    "" | /*) ;;
    *) LORA_LAB_WHEELHOUSE=$PWD/$LORA_LAB_WHEELHOUSE ;; # relative to the current folder
esac
CDPATH= cd -- "$(dirname -- "$0")"

dry=
if [ "${1:-}" = --dry-run ]; then
    dry=yes
    shift
fi

say() {
    [ -n "$dry" ] || echo "start: $1" >&2
}

run() {
    if [ -n "$dry" ]; then
        echo "would run: $*"
    else
        "$@"
    fi
}

has() {
    .venv/bin/python -c "import sys, $1; sys.exit(sys.version_info < (3, 11))" 2>/dev/null
}

# List the Python versions that the wheelhouse was made for; the installer accepts only these.
pythons_of_wheelhouse() {
    [ -n "$wheelhouse" ] || return 0
    case "$(uname -s)" in
        Darwin) kind=macos-arm64 ;;
        *) kind=linux ;;
    esac
    for lock in "$wheelhouse/$kind"-3.*.txt; do
        version=${lock##*-}
        [ ! -f "$lock" ] || echo "python${version%.txt}"
    done
}

find_python() {
    usual="python3.11 python3.12 python3.13 python3.14 python3 python"
    for candidate in ${PYTHON:+"$PYTHON"} $(pythons_of_wheelhouse) $usual; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "start: the lab needs Python 3.11 to 3.14: install it (an installation for your own account is enough), then run this script again" >&2
    exit 1
}

find_wheelhouse() {
    if [ -n "${LORA_LAB_WHEELHOUSE:-}" ] && [ ! -f "$LORA_LAB_WHEELHOUSE/install.py" ]; then
        echo "start: LORA_LAB_WHEELHOUSE is $LORA_LAB_WHEELHOUSE, which has no install.py: set it to a wheelhouse folder, or unset it" >&2
        exit 1
    fi
    for folder in ${LORA_LAB_WHEELHOUSE:+"$LORA_LAB_WHEELHOUSE"} wheelhouse ../wheelhouse; do
        if [ -f "$folder/install.py" ]; then
            echo "$folder"
            return
        fi
    done
}

wheelhouse=$(find_wheelhouse)
if [ ! -f .venv/.lab ] || ! has os; then # an update may have removed its Python
    python=$(find_python)
    say "installing Python packages into .venv (once): 3 to 10 minutes without output, 2 GB of disk (more with CUDA)"
    if [ -n "$wheelhouse" ]; then
        run "$python" "$wheelhouse/install.py" --to . --no-assets
    else
        # If .venv has no pip (uv adds none), add pip and keep the other packages. If pip can't be added, or if
        # the environment has an older Python, create the environment again.
        if ! has pip; then
            if has ensurepip; then run .venv/bin/python -m ensurepip; else run "$python" -m venv --clear .venv; fi
        fi
        run .venv/bin/python -m pip install --disable-pip-version-check -q -e .
        run touch .venv/.lab
    fi
fi
say "models and data: this downloads 200 MB the first time, and later only checks the files"
if [ -n "$wheelhouse" ]; then
    run .venv/bin/python -m lora_course fetch --from "$wheelhouse/assets"
else
    run .venv/bin/python -m lora_course fetch
fi
run .venv/bin/python -m lora_course "$@"
