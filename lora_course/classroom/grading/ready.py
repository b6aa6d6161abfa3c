"""What every student's process needs, imported once: on Linux it is a copy of a process that has it all.

Importing torch, transformers and pandas takes seconds, copying a process that has them milliseconds; and no notebook
has ever run in the one that is copied. It also inherits what a student's process leaves behind, so that it is found.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from importlib import import_module

from lora_course import checks

_INHERIT_ORPHANS = 36

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
for _name in ("IPython.core.interactiveshell", "matplotlib.figure", "lora_course.classroom.grading.kernel"):
    import_module(_name)
for _name in checks.__all__:
    getattr(checks, _name)  # imports its file
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_INHERIT_ORPHANS, 1, 0, 0, 0)
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")  # such an orphan, ended
