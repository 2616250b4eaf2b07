from .cli import main as main
from .parsing import parse_train as parse_train
