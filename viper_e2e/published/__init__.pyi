from .importing import Imported as Imported
from .importing import import_published as import_published
from .importing import is_published as is_published
from .importing import published_checkpoint as published_checkpoint
from .released import ReleasedHead as ReleasedHead
from .released import read_released as read_released
