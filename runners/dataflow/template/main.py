"""What the launcher of a flex template starts; it gives the template's parameters, and where the job is to be written."""

import sys

from pipelines.predict import main

if __name__ == "__main__":
    sys.exit(main())
