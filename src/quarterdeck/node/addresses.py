"""Pod IPs: a range that is local to this machine, chosen per data directory, and who has which address.

With CAP_NET_ADMIN one free 10.244.N.0/24 is made local by a route; without, one /16 of 127.64.0.0/10 is taken, which
works with the embedded API server only (a real one refuses loopback addresses in EndpointSlices).
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import IO, Any

from quarterdeck.errors import StorageError

log = logging.getLogger(__name__)
_CAP_NET_ADMIN = 1 << 12
_NS_GET_USERNS = 0xB701
"""ioctl_ns(2)"""
_LOCKS = Path("/tmp")  # noqa: S108 - one place for all instances, whatever their TMPDIR; the folder below is private
_RANGE = ipaddress.ip_network("10.244.0.0/16")


def can_add_routes() -> bool:
    """CAP_NET_ADMIN over this network namespace, and the command that uses it (Debian: iproute2)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return (
                bool(int(line.split()[1], 16) & _CAP_NET_ADMIN) and _owns_network() and shutil.which("ip") is not None
            )
    return False


def _owns_network() -> bool:
    """Root of a user namespace has the capability, but not over the network of the machine around it."""
    with Path("/proc/self/ns/net").open() as network:
        try:
            os.close(fcntl.ioctl(network, _NS_GET_USERNS))
        except OSError:  # EPERM: the owner is outside our user namespace; ENOTTY: a kernel before 4.9 cannot tell
            return False
    return True


def make_local(cidr: str) -> bool:
    """Let every address of a range be this machine's own; False when that is not ours to do."""
    if not can_add_routes():
        return False
    done = subprocess.run(["ip", "route", "add", "local", cidr, "dev", "lo"], capture_output=True)
    return done.returncode == 0


def drop_local(cidr: str) -> None:
    """Undo :func:`make_local`; a range that is not local stays so."""
    subprocess.run(["ip", "route", "del", "local", cidr, "dev", "lo"], capture_output=True)


def stale_ranges(routes: str, bound: set[str]) -> list[str]:
    """Pod ranges in the text of ``ip route show table local`` with no socket bound in them."""
    found: list[str] = []
    for line in routes.splitlines():
        words = line.split()
        if len(words) < 2 or not words[1].endswith("/24"):
            continue
        network = ipaddress.ip_network(words[1], strict=False)
        if network.subnet_of(_RANGE) and not any(ipaddress.ip_address(a) in network for a in bound):  # type: ignore[arg-type]
            found.append(words[1])
    return found


def bound_addresses() -> set[str]:
    """Local IPv4 addresses of this machine's TCP sockets, by /proc/net/tcp."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {str(ipaddress.ip_address(bytes.fromhex(line.split()[1][:8])[::-1])) for line in lines}


def _saved(path: Path) -> dict[str, Any]:
    """What was kept; a damaged file costs the Pods their old addresses, no more."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.warning("%s is damaged (%s); Pods get new addresses", path, error)
        return {}
    return found if isinstance(found, dict) else {}


class Addresses:
    """The address book of one node; survives restarts in ``directory/addresses.json``."""

    def __init__(self, directory: Path, cidr: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "addresses.json"
        self._lock: IO[str] | None = None
        self.taken: dict[str, str] = {}
        self._route_added = False
        self._next = 0
        saved = _saved(self._file)
        self.taken.update(saved.get("taken", {}))
        self._next = int(saved.get("next", 0))
        self.cidr = cidr or self._choose(directory, str(saved.get("cidr", "")))
        if cidr:
            self._make_local(cidr)
        self._hosts = ipaddress.ip_network(self.cidr)
        self._save()

    def _choose(self, directory: Path, before: str) -> str:
        seed = int.from_bytes(hashlib.sha256(str(directory.resolve()).encode()).digest()[:4], "big")
        if not can_add_routes():
            return before or f"127.{64 + seed % 64}.{0}.0/16"
        candidates = [f"10.244.{(seed + step) % 256}.0/24" for step in range(256)]
        if before in candidates:
            candidates.insert(0, before)
        self._sweep(keep=before)
        for candidate in candidates:
            if self._claim(candidate) and self._make_local(candidate, fresh=candidate != before):
                return candidate
        raise StorageError("no free Pod address range in 10.244.0.0/16: stop another instance or set --pod-cidr")

    def _sweep(self, keep: str) -> None:
        """Take away ranges left by instances that were killed: nobody holds the lock and no socket is bound there."""
        table = subprocess.run(
            ["ip", "route", "show", "table", "local", "type", "local"], capture_output=True, text=True
        )
        for cidr in stale_ranges(table.stdout, bound_addresses()):
            if cidr != keep and self._claim(cidr):
                drop_local(cidr)
                self._unclaim()

    def _unclaim(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self, cidr: str) -> bool:
        """One instance per range: a lock file that dies with its holder."""
        folder = _LOCKS / f"quarterdeck-cidr-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = (folder / cidr.replace("/", "_")).open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return False
        self._lock = handle
        return True

    def _make_local(self, cidr: str, *, fresh: bool = False) -> bool:
        """False when somebody else made this range local already (and ``fresh``: we have no claim to it)."""
        network = ipaddress.ip_network(cidr)
        if network.is_loopback or not can_add_routes():
            return True
        routes = subprocess.run(
            ["ip", "route", "show", "table", "local", "type", "local", cidr], capture_output=True, text=True
        ).stdout
        if routes.strip():
            self._route_added = not fresh
            return not fresh
        self._route_added = make_local(cidr)
        return self._route_added

    @property
    def own(self) -> str:
        """The first address of the range: the node's own, never a Pod's."""
        return str(self._hosts[1])

    def assign(self, uid: str) -> str:
        """The address of a Pod: the one it has, else the next one never used recently."""
        for address, owner in self.taken.items():
            if owner == uid:
                return address
        size = self._hosts.num_addresses
        for _ in range(size):
            self._next = self._next % (size - 3) + 1
            address = str(self._hosts[self._next + 1])
            if address not in self.taken:
                self.taken[address] = uid
                self._save()
                return address
        raise StorageError(f"all addresses of {self.cidr} are in use; delete Pods")

    def release(self, uid: str) -> None:
        for address in [a for a, owner in self.taken.items() if owner == uid]:
            del self.taken[address]
            self._save()

    def close(self, *, keep_route: bool) -> None:
        """Give the range back. ``keep_route`` while Pods go on running without us."""
        if self._route_added and not keep_route:
            drop_local(self.cidr)
        self._unclaim()

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"cidr": self.cidr, "next": self._next, "taken": self.taken}))
        fresh.replace(self._file)
