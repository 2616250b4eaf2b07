"""sitecustomize.py: imported first where this folder is on PYTHONPATH: takes away what Windows lacks.

From our own code alone, since the libraries that are installed here are those for Linux. Workers inherit
PYTHONPATH, so they lack the same.
"""

import builtins
import multiprocessing
import multiprocessing.reduction
import os
import signal
import types

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix"}
OF_OS = "sched_getaffinity sched_setaffinity pread pwrite preadv memfd_create mkfifo getuid geteuid"
OF_OS += " getpgid killpg fork fchmod fchown chown sysconf uname statvfs O_DIRECTORY O_NOFOLLOW O_CLOEXEC"
OF_SIGNAL = "SIGUSR1 SIGUSR2 SIGHUP SIGALRM SIGKILL SIGCHLD SIGPIPE SIGQUIT setitimer alarm pause sigwait"

_import = builtins.__import__


def _open_no_folder(path, *rest, **named):
    if not isinstance(path, int) and os.path.isdir(path):  # noqa: PTH112
        raise PermissionError(13, "Permission denied", path)
    return os.open(path, *rest, **named)


def _without(module, names):
    poorer = types.ModuleType(module.__name__)
    poorer.__dict__.update({name: what for name, what in vars(module).items() if name not in names.split()})
    return poorer


POORER = {"os": _without(os, OF_OS), "signal": _without(signal, OF_SIGNAL)}
POORER["os"].open = _open_no_folder


def _import_for_us(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and (globals or {}).get("__name__", "").startswith("viper_e2e"):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in POORER:
            return POORER[name]
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = _import_for_us
multiprocessing.reduction.HAVE_SEND_HANDLE = False
del multiprocessing.reduction.send_handle, multiprocessing.reduction.recv_handle
for _method in ("fork", "forkserver"):
    multiprocessing.context._concrete_contexts.pop(_method)
multiprocessing.context._default_context._default_context = multiprocessing.get_context("spawn")
