"""train.py: train from raw video shards; the same as `viper train`."""

import sys

from viper_e2e.commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
