"""devices.py: the device to compute on, whether it exists, what memory it has, and who else computes here."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import torch

from viper_e2e.errors import ViperError
from viper_e2e.runtime.console import console

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_LOCAL = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
CGROUP = Path("/sys/fs/cgroup")
"""Linux's folder of a container's limits (cgroup 2)."""
_MEETING_POINT = ("MASTER_ADDR", "MASTER_PORT")


def own_device(wanted: str | None) -> str:
    """The device asked for, else this process's GPU, else the CPU.

    Raises `ViperError` for one that is not there.
    """
    if not wanted:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ViperError(f"--device {wanted}: no such kind of device; give cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        why = (
            "this PyTorch was built without CUDA"
            if torch.version.cuda is None
            else "PyTorch finds no NVIDIA GPU"
        )
        raise ViperError(
            f"--device {wanted}: {why} (nvidia-smi lists those of this machine); leave it out for cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ViperError(f"--device {wanted}: this machine has cuda:0 to cuda:{last}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ViperError(f"--device {wanted}: PyTorch finds no Apple GPU here; leave it out for cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ViperError(f"--device {wanted}: is not supported; give cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        # What gets "cuda" without a number (NVDEC) goes there as well.
        torch.cuda.set_device(device.index or 0)
    return wanted


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take on the device; main memory is shared with those beside it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(min(psutil.virtual_memory().available, _group_bytes())) // num_processes


def _group_bytes() -> int | float:
    """Memory that the container may still take."""
    limit, used = (CGROUP / name for name in ("memory.max", "memory.current"))
    if not limit.is_file() or limit.read_text().strip() == "max":
        return math.inf
    return int(limit.read_text()) - int(used.read_text())


def heed_launcher() -> None:
    """Several processes only where a launcher says where they meet; call it before an `Accelerator` is made.

    Batch systems (mpirun, an interactive Slurm shell) leave numbers of processes in the environment of
    everything that is started in them. Without a meeting point the first process continues alone, and says so;
    further ones would do the same work again, into the same files. Those that do meet without a GPU meet on
    the CPU, which accelerate has to be told: each would work alone.
    """
    if all(os.environ.get(name) for name in _MEETING_POINT):
        if os.environ.get("WORLD_SIZE", "1") != "1" and not torch.cuda.is_available():
            os.environ.setdefault("ACCELERATE_USE_CPU", "1")
        return
    sizes = [name for name in _SIZES if os.environ.get(name, "1") != "1"]
    further = [name for name in _RANKS if os.environ.get(name, "0") != "0"]
    if further:
        raise ViperError(
            f"{further[0]} is {os.environ[further[0]]}, but MASTER_ADDR is not set: start several "
            "processes with torchrun --nproc_per_node N, and a single one without mpirun or srun"
        )
    for name in (*_SIZES, *_RANKS, *_LOCAL):
        os.environ.pop(name, None)
    if sizes:
        console.print(f"[yellow]{sizes[0]} is set and MASTER_ADDR is not: this process works alone[/yellow]")
