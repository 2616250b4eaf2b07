"""engine: the only loops: training, evaluation, prediction."""
