"""`python -m lablet_local.fuzz`, which is `make fuzz`."""

import sys

from lablet_local.fuzz.run import main

if __name__ == "__main__":
    sys.exit(main())
