from .folds import Folds as Folds
from .folds import folds_from as folds_from
from .folds import inner_split as inner_split
from .folds import is_file_of_folds as is_file_of_folds
from .folds import make_folds as make_folds
from .folds import notes_on as notes_on
from .folds import read_folds as read_folds
from .train_val_overlap import notes_on_overlap as notes_on_overlap
