"""packing: a folder of videos and labels.csv -> shards, one set per split."""

from viper_e2e.loading.clip_cache import parse_size
from viper_e2e.packing.columns import ColumnChoices
from viper_e2e.packing.pack import pack
from viper_e2e.packing.recipe import pack_corpus, recipe_arguments, run
from viper_e2e.packing.report import PackReport, SplitReport
from viper_e2e.packing.table import LabelTable, Row, read_labels, write_labels
from viper_e2e.runtime.progress import counting as progress_bar

__all__ = [
    "ColumnChoices",
    "LabelTable",
    "PackReport",
    "Row",
    "SplitReport",
    "pack",
    "pack_corpus",
    "parse_size",
    "progress_bar",
    "read_labels",
    "recipe_arguments",
    "run",
    "write_labels",
]
