"""The command line as a module: ``python -m fastloss``."""

import sys

from .cli import main

sys.exit(main())
