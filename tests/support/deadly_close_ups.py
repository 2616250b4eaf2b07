"""deadly_close_ups.py: a second decoding that some clips, by the end of their names, crash or hang."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from viper_e2e.loading.second_decoding import CloseUpJob, close_up


def close_up_of(job: CloseUpJob) -> np.ndarray:
    if "deadly" in job.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "endless" in job.name:
        time.sleep(3600)
    return close_up(*job)
