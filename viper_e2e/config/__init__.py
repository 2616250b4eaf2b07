"""config: settings of models and runs, their bounds and presets."""
