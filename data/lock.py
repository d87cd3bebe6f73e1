"""One writer per run: a lock file that says which process on which machine owns it.

The file is also held by `flock` where the system has it, so a lock ends with its process, even under kill -9, and two
processes that find a dead owner's lock cannot both take it over. A lock of another machine is never taken over: whether
its owner lives cannot be known from here.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import LockedError, StoreError
from .schema import now

try:
    import fcntl
except ImportError:
    fcntl = None

LOCK_NAME = "run.lock"
"""Name of the lock inside a run's folder."""


class RunLock:
    """Ownership of one run's folder, from construction until `release`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._handle = self._open()
        owner = read_owner(self.path)
        if owner and is_alive(owner) and not _is_me(owner):
            os.close(self._handle)
            raise _refusal(self.path, owner)
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_time(os.getpid()), "since": now()}
        os.ftruncate(self._handle, 0)
        os.write(self._handle, json.dumps(mine).encode())
        os.fsync(self._handle)

    def _open(self) -> int:
        """A handle on the file that stands at `path` now, exclusively locked."""
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise StoreError(f"could not write {self.path}: {error.strerror or error}") from error
            if fcntl is not None and not _try_flock(handle):
                os.close(handle)
                raise _refusal(self.path, read_owner(self.path) or {})
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    return handle
            os.close(handle)

    def release(self) -> None:
        """Remove the lock; a second call does nothing."""
        if self._handle >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1


def read_owner(path: Path) -> dict[str, Any] | None:
    """The pid, host and start time in a lock file, or None where there is none to read."""
    try:
        owner = json.loads(path.read_text())
        return owner if isinstance(owner.get("pid"), int) and owner.get("host") else None
    except (OSError, ValueError, AttributeError):
        return None


def is_alive(owner: dict[str, Any]) -> bool:
    """Whether the owner still runs; an owner on another machine counts as alive."""
    if owner["host"] != socket.gethostname() or os.name == "nt":
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _start_time(owner["pid"])
    return started is None or owner.get("started") is None or started == owner["started"]


def _is_me(owner: dict[str, Any]) -> bool:
    """A lock with our own pid that we could flock is a leftover of ours, or of a process that had our pid."""
    return owner["host"] == socket.gethostname() and owner["pid"] == os.getpid()


def _try_flock(handle: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _start_time(pid: int) -> str | None:
    """When a process started, in the kernel's clock ticks, to tell it from a later one with the same pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _refusal(path: Path, owner: dict[str, Any]) -> LockedError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    here = owner.get("host") == socket.gethostname() and not _is_me(owner)
    return LockedError(
        f"run {path.parent.name} is being written by {who}; expected no other writer. "
        f"Wait for it, or end it; if that process is gone for certain, remove {path}",
        run=path.parent.name,
        who=who,
        here=here,
    )
