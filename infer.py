"""infer.py: score clips with a trained model; the same as `viper infer`."""

import sys

from viper_e2e.commands import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
