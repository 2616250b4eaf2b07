#!/bin/sh
# gpu.sh: every benchmark that says something about a GPU, on a machine that has one; results on stdout.
#
#     sh benchmarks/gpu.sh [SHARDS] > benchmarks/gpu-$(date +%F).txt
#
# SHARDS: yours (path, glob or brace pattern); none: clips made on the fly. Not run yet: no machine with a
# GPU was at hand when it was written.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
shards=${1:-}
made=
if [ -z "$shards" ]; then
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    "$python" -c "
import sys; sys.path.insert(0, 'benchmarks')
from pathlib import Path; from staged import make_corpus
make_corpus(Path('$made/corpus'), 256, 720, 10)"
    shards="$made/corpus/shards/train-*.tar"
fi

nvidia-smi
"$python" -c "import torch; assert torch.cuda.is_available(), 'no GPU that torch can use'; print(torch.__version__)"

# Utilisation and memory, twice a second, while the runs below go on.
nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used --format=csv -lms 500 > "${made:-.}/gpu-use.csv" &
watcher=$!
cores=$(nproc)
for precision in no bf16; do
    for workers in 4 "$cores"; do
        echo "== viper bench, tiny, $precision, $workers workers"
        "${VIPER:-.venv/bin/viper}" bench --shards "$shards" --preset tiny --batch-size 32 \
            --mixed-precision "$precision" --num-workers "$workers" --seconds 60
    done
done
echo "== the loader alone"
"$python" benchmarks/loader.py --shards "$shards" --workers "4,$cores" --rounds 3
kill "$watcher"
echo "== utilisation (%) and memory (MiB): median, highest"
"$python" - "${made:-.}/gpu-use.csv" <<'PY'
import csv, statistics, sys
rows = list(csv.reader(open(sys.argv[1])))[1:]
for name, column in (("utilisation", 1), ("memory", 2)):
    values = [float(row[column].split()[0]) for row in rows if len(row) > column]
    print(name, statistics.median(values), max(values))
PY
