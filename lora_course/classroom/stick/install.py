"""Install the lab from this folder, without a network: `python install.py`. Any Python 3 can read this file."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # written so that Python 3.5 can still read it
    sys.exit(
        "This is Python %d.%d, but the lab needs 3.11 or newer. HOWTO.txt lists the versions this folder supports: "
        "install one (for yourself only, without admin rights) and run install.py with it." % sys.version_info[:2]
    )

here = Path(__file__).resolve().parent
try:
    sys.path.insert(0, str(next((here / "wheels").glob("lora_lab-*.whl"))))  # a wheel is a zip file
    from lora_course.classroom.wheelhouse import main
except Exception:  # if the wheel is missing or unreadable, Python may raise almost anything
    sys.exit("install: wheels/lora_lab-*.whl is missing or damaged: copy the whole folder again")

main(here)
