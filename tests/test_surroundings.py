"""Awkward surroundings: a command works, or says in one line what stands in its way; never a traceback."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from support.training_runs import make_corpus, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place():
    """A folder that everybody may enter, with shards, a trained model and clips in it."""
    folder = Path(tempfile.mkdtemp(prefix="viper-surroundings-"))
    folder.chmod(0o755)
    corpus = make_corpus(folder / "corpus")
    run(corpus, folder / "run", f"--val-shards={corpus}/shards/val-*.tar", "--max-steps=1")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def words(place):
    """Command lines with the names of this test's files in them."""
    # Open to everybody: what another user may write to.
    work = Path(tempfile.mkdtemp(prefix="viper-work-"))
    work.chmod(0o777)
    clip = place / "corpus/videos/0.mp4"
    names = {
        "work": work,
        "clip": clip,
        "shards": f"{place}/corpus/shards/val-*.tar",
        "model": place / "run/checkpoints/last",
        "videos": place / "corpus/videos",
        "labels": place / "corpus/labels.csv",
    }
    yield lambda text: text.format(**names).split()
    shutil.rmtree(work)


COMMANDS = {
    "infer": "infer {clip} --checkpoint {model} --num-workers 0 --output {work}/o.json",
    "eval": "eval --shards {shards} --checkpoint {model} --num-workers 0 --out {work}/eval",
    "pack": "pack --videos {videos} --labels {labels} --out {work}/shards",
    "export": "export --checkpoint {model} --out {work}/model",
    "hub": "infer {clip} --checkpoint some/one",
    "released": "infer {clip} --checkpoint VaianiLorenzo/ViPER-V",
    "into theirs: infer": "infer {clip} --checkpoint {model} --num-workers 0 --output {videos}/o.json",
    "into theirs: eval": "eval --shards {shards} --checkpoint {model} --num-workers 0 --out {videos}/eval",
    "into theirs: pack": "pack --videos {videos} --labels {labels} --out {videos}/shards",
    "into theirs: export": "export --checkpoint {model} --out {videos}/model",
}

WORKS = """
a batch system's size         | infer  | variable OMPI_COMM_WORLD_SIZE=4 | works alone
an interactive Slurm shell    | infer  | variable WORLD_SIZE=2 | works alone
PMI without a meeting point   | eval   | variable PMI_SIZE=8, variable PMI_RANK=0 | works alone
a local rank left over        | infer  | variable LOCAL_RANK=0 |
no home folder                | infer  | variable HOME |
a home nobody can write to    | infer  | variable HOME=/proc |
no folder for temporary files | infer  | variable TMPDIR=/nowhere |
no locale                     | infer  | variable LANG, variable LC_ALL=C |
a dumb terminal               | infer  | variable TERM=dumb |
a narrow terminal             | eval   | variable COLUMNS=20 |
standard input closed         | infer  | closed 0 |
few open files                | eval   | open_files_at_most 64 |
the hub offline, not needed   | infer  | variable HF_HUB_OFFLINE=1 |
a notebook's plots            | eval   | variable MPLBACKEND=module://matplotlib_inline.backend_inline |
a desktop's plots             | eval   | variable MPLBACKEND=TkAgg |
plots nobody knows            | eval   | variable MPLBACKEND=nonsense |
threads that are no number    | infer  | variable OMP_NUM_THREADS=many |
no graphics card visible      | infer  | variable CUDA_VISIBLE_DEVICES= |
another user's model          | infer  | other_user |
another user's shards         | eval   | other_user |
another user's clips          | pack   | other_user |
"""
"""What, command, situations, a part of what is said."""

REFUSED = """
a GPU that is not there       | infer --device cuda   | | --device cuda: .*leave it out for cpu
a second GPU, not there       | infer --device cuda:1 | | --device cuda:1
an Apple GPU elsewhere        | infer --device mps    | | finds no Apple GPU
a device nobody knows         | infer --device gpu    | | no such kind of device
a device not supported        | eval --device meta    | | not supported
a further process of mpirun   | infer | variable PMI_SIZE=4, variable OMPI_COMM_WORLD_RANK=3 | torchrun
a further process of Slurm    | eval  | variable WORLD_SIZE=4, variable RANK=1 | torchrun
a working folder deleted      | infer | folder_gone {work}/gone | was deleted; change to another
a full disk under infer       | infer | files_of_at_most 300 | ulimit -f
a full disk under eval        | eval  | files_of_at_most 300 | ulimit -f
a full disk under pack        | pack  | files_of_at_most 2000 | ulimit -f
a full disk under export      | export | files_of_at_most 20000 | (?i)too large.*make room
output in another's folder    | into theirs: infer  | other_user | (?i)permission
evaluating in another's folder | into theirs: eval  | other_user | (?i)permission
packing into another's folder | into theirs: pack   | other_user | (?i)permission
exporting to another's folder | into theirs: export | other_user | (?i)permission
a gated model                 | hub | hub_answers gated | gated: accept its terms.*HF_TOKEN
a model not on the hub        | hub | hub_answers missing | no such repository.*HF_TOKEN
a hub that fails              | hub | hub_answers broken | answers 503
no network                    | hub | hub_answers unreachable | cannot be reached
a hub that takes too long     | hub | hub_answers slow | cannot be reached
offline and not in the cache  | hub | hub_answers offline | HF_HUB_OFFLINE
a full disk of the hub's cache | hub | hub_answers full | HF_HOME
a released model, failing hub | released | hub_answers broken | import-published
"""


def rows(table: str) -> list:
    """Lines of a table as parameters: command line, situations, what is said."""
    found = []
    for line in table.strip().splitlines():
        what, command, situations, said = (cell.strip() for cell in line.split("|"))
        name, dash, options = command.partition(" --")
        changes = [text.strip() for text in situations.split(",") if text.strip()]
        found.append(pytest.param(COMMANDS[name] + dash + options, changes, said, id=what))
    return found


def forked(fork_server, words, line, situations):
    child = fork_server.fork("viper_among", words(line), [words(text) for text in situations])
    return child.wait(), child.said


def some(rows, each):
    """Each n-th; the campaign runs all of them."""
    return [
        row if index % each == 0 else pytest.param(*row.values, id=row.id, marks=pytest.mark.campaign)
        for index, row in enumerate(rows)
    ]


@pytest.mark.parametrize(("line", "situations", "said"), some(rows(WORKS), 4))
def test_a_command_works_among(fork_server, words, line, situations, said):
    code, text = forked(fork_server, words, line, situations)
    assert code == 0, text
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize(("line", "situations", "said"), some(rows(REFUSED), 2))
def test_a_command_says_in_one_line_that_it_cannot_because_of(fork_server, words, line, situations, said):
    code, text = forked(fork_server, words, line, situations)
    assert code == 1, text
    assert "Traceback" not in text
    (complaint,) = [row for row in text.splitlines() if row.startswith("viper ")]
    assert re.search(said, complaint), text
