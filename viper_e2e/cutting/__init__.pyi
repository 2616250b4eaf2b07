from .long_file import LongFile as LongFile
from .pcm import sound_as_wav as sound_as_wav
from .remuxing import cut as cut
from .stretches import TAIL_SECONDS as TAIL_SECONDS
from .stretches import Stretch as Stretch
