"""`python -m smalti`: the command `smalti`, where no script of that name is on the path."""

import sys

from smalti.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
