"""`python -m streamer` is the command `infinity-avatar`."""

import sys

from streamer.cli import main

if __name__ == "__main__":
    sys.exit(main())
