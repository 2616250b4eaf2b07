"""config: settings of models and runs, their bounds and presets."""

from viper_e2e.config.schema import *  # noqa: F403
