"""`python -m fastloss` is the command `fastloss`."""

import sys

from .cli import main

sys.exit(main())
