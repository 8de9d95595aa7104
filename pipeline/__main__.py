"""``python -m distilrubert.pipeline``: the command line."""

import sys

from distilrubert.pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
