from .cli import main as main
from .parsing import parse_train as parse_train
from .recipe import pack_corpus as pack_corpus
from .recipe import pack_known as pack_known
from .recipe import recipe_options as recipe_options
from .recipe import run_chosen as run_chosen
from .recipe import run_recipe as run_recipe
