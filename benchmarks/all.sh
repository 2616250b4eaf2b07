#!/bin/sh
# all.sh: every benchmark of speed on the CPU, one after the other; each output with its command in benchmarks/raw/.
#
#     sh benchmarks/all.sh [NAME ...]      (all: about two hours on two cores; NAME: as the files are called)
#
# torchcodec needs FFmpeg's libraries, OpenCV is opencv-python-headless; without either its rows are left out.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
clips=${CLIPS:-$(mktemp -d)} # made on the fly; name a folder to keep them for the next time
export OMP_NUM_THREADS=1
mkdir -p benchmarks/raw

only="$*"
measure() { # name, script, its words
    name=$1
    shift
    case " ${only:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    echo "$name"
    { echo "$(date +%F) \$ python benchmarks/$*" | sed "s| --folder $clips||"; "$python" "benchmarks/$@"; } 2>&1 |
        sed 's/ *$//' >"benchmarks/raw/$name.txt"
}

measure decode-target decode.py --group target --rounds 9 --folder "$clips"
measure decode-plain decode.py --group plain --rounds 5 --folder "$clips"
measure decode-codecs decode.py --group codecs --rounds 9 --folder "$clips"
measure decode-length decode.py --group length --only "ours (PyAV)" --rounds 5 --folder "$clips"
measure faces faces.py
measure forward-tiny forward.py --preset tiny --rounds 15
measure forward-base forward.py --preset base --batches 1 --rounds 3
measure compile-tiny forward.py --preset tiny --compile --rounds 5
measure compile-base forward.py --preset base --compile --rounds 3
measure reuse-tiny reuse.py --preset tiny
measure reuse-base reuse.py --preset base --rounds 3
measure staged-tiny staged.py --preset tiny --num-clips 64 --epochs 5 --rounds 3
measure staged-base staged.py --preset base --num-clips 12 --epochs 3 --rounds 2
measure loader loader.py --part rates,memory
measure waiting-tiny loader.py --part waiting --preset tiny
measure waiting-base loader.py --part waiting --preset base
measure ranges ranges.py
measure scaling scaling.py
