"""__main__.py: `python -m viper_e2e` is the command `viper`."""

from viper_e2e.commands import run

if __name__ == "__main__":
    run()
