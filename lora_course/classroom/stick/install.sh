#!/bin/sh
# Install the lab from this folder, without a network: sh install.sh [--to FOLDER]
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
kind=linux
if [ "$(uname -s)" = Darwin ]; then kind=macos-arm64; fi
for lock in "$here/$kind"-3.*.txt; do
    version=${lock##*-}
    version=${version%.txt}
    if command -v "python$version" >/dev/null 2>&1; then
        exec "python$version" "$here/install.py" "$@"
    fi
done
exec python3 "$here/install.py" "$@"
