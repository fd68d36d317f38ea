"""One process of the test plane: started, stopped, killed and paused at will, its output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_STOP_SECONDS = 20.0


class Component:
    """``start()`` again after ``stop()`` or ``kill()`` gives the same process anew, with its old data."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] = {}) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._env = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", **env}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Raises RuntimeError when it was never started."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """In a session of its own: Ctrl-C at the terminal reaches pytest, which ends it in order."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self._env,
                start_new_session=True,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """SIGTERM, and SIGKILL when that is not enough."""
        if self._process is None:
            return
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def tail(self, size: int = 3000) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""
