"""The program that the launcher of a flex template runs, with the template's parameters as options."""

import sys

from pipelines.predict import main

if __name__ == "__main__":
    sys.exit(main())
