"""Import the scripts of notebooks/, which is not a package: `from tests.notebooks import build, memory`."""

import sys
from importlib import import_module

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))
build, measure, memory, still = map(import_module, ("build", "measure", "memory", "still"))
