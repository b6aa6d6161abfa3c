"""Progress on stderr, the summary as JSON on stdout."""

import sys

from tests.fuzz.run import main

sys.exit(main())
