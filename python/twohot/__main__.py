"""`python -m twohot` is the `twohot` command."""

import sys

from twohot.cli import main

sys.exit(main())
