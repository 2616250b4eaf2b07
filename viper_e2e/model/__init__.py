"""model: ViPER, the one module, and its folder on disk."""
