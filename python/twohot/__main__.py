"""`python -m twohot` is the `twohot` command."""

import sys

from twohot.cli.main import main

if __name__ == "__main__":  # worker processes import this file too
    sys.exit(main())
