"""config: settings of models and runs, their bounds and presets."""

from viper_e2e.config.modalities import MODALITIES, backbones_of  # noqa: F401
from viper_e2e.config.schema import *  # noqa: F403
