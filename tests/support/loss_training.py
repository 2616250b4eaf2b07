"""loss_training.py: a small model trained on the loss alone, by one process or several."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from viper_e2e.training.losses import IntensityLoss

E = 7
ALL = {"mse": 1.0, "pearson": 0.5, "ccc": 0.25}


def train_on_loss(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    model: nn.Module = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, E))
    for i, p in enumerate(model.parameters()):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(i))
    gather = None
    if processes > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=processes)
        model = nn.parallel.DistributedDataParallel(model)

        def gather(rows: Tensor) -> Tensor:
            parts = [torch.empty_like(rows) for _ in range(processes)]
            torch.distributed.all_gather(parts, rows)
            return torch.cat(parts)

    loss, optimizer = IntensityLoss(ALL, E, memory_rows=20), torch.optim.SGD(model.parameters(), lr=0.1)
    size = 12 // processes
    for index in range(5):
        generator = torch.Generator().manual_seed(index)
        inputs, targets = torch.randn(12, 5, generator=generator), torch.rand(12, E, generator=generator)
        weights = (torch.rand(12, generator=generator) < 0.8).float()
        mine = slice(rank * size, (rank + 1) * size)
        out = loss(model(inputs[mine]), targets[mine], weights[mine], weights.sum(), gather, rank)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    if rank == 0:
        state = torch.cat([p.detach().flatten() for p in model.parameters()])
        np.save(f"{folder}/{processes}.npy", np.append(state.numpy(), float(out.value)))
    if processes > 1:
        torch.distributed.destroy_process_group()
