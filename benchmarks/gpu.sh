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
viper=${VIPER:-.venv/bin/viper}
shards=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$shards" ]; then
    "$python" -c "
import sys; sys.path.insert(0, 'benchmarks')
from pathlib import Path; from staged import make_corpus
make_corpus(Path('$work/corpus'), 256, 720, 10)"
    shards="$work/corpus/shards/train-*.tar"
fi

nvidia-smi
"$python" -c "import torch; assert torch.cuda.is_available(), 'no GPU that torch can use'; print(torch.__version__)"
cores=$(nproc)

# One run, with utilisation and memory of the GPU twice a second while it goes on.
bench() { # heading, settings
    echo "== viper bench, $1"
    shift
    nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -lms 500 >"$work/use.csv" &
    watcher=$!
    "$viper" bench --shards "$shards" --batch-size 32 --seconds 60 "$@"
    kill "$watcher"
    "$python" - "$work/use.csv" <<'PY'
import csv, statistics, sys
columns = zip(*(map(float, row) for row in csv.reader(open(sys.argv[1])) if len(row) == 2))
for name, values in zip(("utilisation, %", "memory, MiB"), columns):
    print(f"GPU {name}: median {statistics.median(values):.0f}, highest {max(values):.0f}")
PY
}

for precision in no bf16; do
    for workers in 4 "$cores"; do
        bench "tiny, $precision, $workers workers" --preset tiny --mixed-precision "$precision" --num-workers "$workers"
    done
done
bench "tiny, bf16, $cores workers, compiled" --preset tiny --mixed-precision bf16 --num-workers "$cores" --compile true
# NVDEC decodes in this process: its frames stay on the GPU, and nothing runs ahead.
if "$python" -c "import torchcodec; assert torchcodec.ffmpeg_major_version"; then
    bench "tiny, bf16, NVDEC" --preset tiny --mixed-precision bf16 --num-workers 0 --model.decoding.backend nvdec
fi
echo "== the loader alone"
"$python" benchmarks/loader.py --shards "$shards" --workers "4,$cores" --rounds 3
