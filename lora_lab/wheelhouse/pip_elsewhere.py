"""pip, choosing for another machine: `python -m lora_lab.wheelhouse.pip_elsewhere '{"sys_platform": "win32"}' install`.

pip's own `--platform` chooses wheels by their tags, but conditions in requirements (`; sys_platform == "win32"`) it
reads for the machine that it runs on: a wheelhouse for Windows made on Linux would lack what only Windows needs, and
hold what only Linux needs. So its vendored `packaging` is told of the other machine first; nothing else is touched.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module


def main() -> None:
    """Run pip with the rest of the command line."""
    markers = import_module("pip._vendor.packaging.markers")
    elsewhere = {**markers.default_environment(), **json.loads(sys.argv.pop(1))}
    setattr(markers, "default_environment", lambda: dict(elsewhere))  # noqa: B010  the module has no types
    sys.exit(import_module("pip._internal.cli.main").main(sys.argv[1:]))


if __name__ == "__main__":
    main()
