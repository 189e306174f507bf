"""``python -m saliency_checks`` is ``saliency-checks``."""

import sys

from saliency_checks.cli import main

if __name__ == "__main__":
    sys.exit(main())
