"""train.py: train from raw video shards; the same as `viper train`."""

import sys

from viper_e2e.commands import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
