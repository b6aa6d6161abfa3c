"""Install the lab from this folder, without network: `python install.py`. Any Python 3 reads this file."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # written so that Python 3.5 can still read it
    sys.exit(
        "This is Python %d.%d, and the lab needs 3.11 or newer. HOWTO.txt says which this folder is for: install that "
        "one (for yourself alone, no admin rights are needed) and run this again with it." % sys.version_info[:2]
    )

here = Path(__file__).resolve().parent
sys.path.insert(0, str(next((here / "wheels").glob("lora_lab-*.whl"))))  # a wheel is a zip file that Python can read

from lora_course.classroom.wheelhouse import main  # noqa: E402

main(here)
