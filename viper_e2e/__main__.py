"""__main__.py: `python -m viper_e2e` is the command `viper`."""

import sys

from viper_e2e.commands import main

if __name__ == "__main__":
    sys.exit(main())
