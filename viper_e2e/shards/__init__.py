"""shards: tar + index <-> samples; the only place that knows WebDataset."""

from viper_e2e.runtime.names import SOUND_EXTENSIONS, VIDEO_EXTENSIONS
from viper_e2e.shards.action_units import action_units_from_npy, action_units_to_npy
from viper_e2e.shards.addresses import refuse_scheme, without_query
from viper_e2e.shards.index import Member, SampleEntry, ShardIndex, index_path, range_of, split_of
from viper_e2e.shards.overlap import shared_clips, shared_subjects
from viper_e2e.shards.reading import ShardSet, expand
from viper_e2e.shards.remote import fetch
from viper_e2e.shards.sources import ShardError, ShardLimits
from viper_e2e.shards.writing import ShardWriter

__all__ = [
    "SOUND_EXTENSIONS",
    "VIDEO_EXTENSIONS",
    "Member",
    "SampleEntry",
    "ShardError",
    "ShardIndex",
    "ShardLimits",
    "ShardSet",
    "ShardWriter",
    "action_units_from_npy",
    "action_units_to_npy",
    "expand",
    "fetch",
    "index_path",
    "range_of",
    "refuse_scheme",
    "shared_clips",
    "shared_subjects",
    "split_of",
    "without_query",
]
