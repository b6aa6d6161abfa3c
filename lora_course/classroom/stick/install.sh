#!/bin/sh
# Install the lab from this folder, without a network: sh install.sh [--to FOLDER]
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
kind=linux
if [ "$(uname -s)" = Darwin ]; then kind=macos-arm64; fi
for lock in "$here/$kind"-3.*.txt; do
    version=${lock##*-}
    version=${version%.txt}
    if "python$version" -c "" 2>/dev/null; then  # pyenv may offer a python that doesn't run
        exec "python$version" "$here/install.py" "$@"
    fi
done
exec python3 "$here/install.py" "$@"
