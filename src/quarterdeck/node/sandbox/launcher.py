"""First code of every container process: confine itself as told, then exec. Run as ``python -I -S launcher.py FD``.

The instructions are one JSON object read from FD until end of file. A node that dies before it has written them leaves
a launcher that reads nothing whole and exits, so no container starts that the node has not recorded.
Keys: argv, env, cwd, cgroups (cgroup.procs files), rlimits {name: [soft, hard]}, landlock {read, write, connect}, uid,
gid, groups, drop_caps, client (a container engine's client: it confines the container, and may need setuid programs
to do so), tty (make standard input the controlling terminal), join (enter the namespaces of this process
first; then no uid is set, since the container's user namespace has one already).
"""

import json
import os
import resource
import sys
from typing import Any


def _read(fd: int) -> bytes:
    parts = []
    while chunk := os.read(fd, 65536):
        parts.append(chunk)
    os.close(fd)
    return b"".join(parts)


def _prctl(*args: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(*args, *([0] * (5 - len(args))))


def _drop_capabilities() -> None:
    for capability in range(64):
        _prctl(24, capability)  # PR_CAPBSET_DROP
    import ctypes

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())


def _new_keyring() -> None:
    """An empty session keyring instead of the one of whoever started the node (keyrings(7))."""
    import ctypes

    number = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING; kernels without keyrings have none


def _limit(spec: dict[str, Any]) -> None:
    for path in spec.get("cgroups", ()):
        with open(path, "w") as procs:
            procs.write(str(os.getpid()))
    for name, limits in spec.get("rlimits", {}).items():
        kind = getattr(resource, name)
        ceiling = resource.getrlimit(kind)[1]
        soft, hard = (value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in limits)
        resource.setrlimit(kind, (soft, hard))


def _confine(spec: dict[str, Any]) -> None:
    if spec.get("tty"):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    rules = spec.get("landlock")
    if rules:
        import landlock  # pyright: ignore[reportMissingImports]

        landlock.restrict(rules.get("read"), rules.get("write", ()), rules.get("connect"))
    if os.getuid() == 0 and "join" not in spec:
        if spec.get("gid") is not None or spec.get("groups"):
            os.setgroups(spec.get("groups", []))
            if spec.get("gid") is not None:
                os.setgid(spec["gid"])
        if spec.get("uid"):
            os.setuid(spec["uid"])
    if spec.get("drop_caps"):
        _drop_capabilities()
    if spec.get("client"):
        return
    _new_keyring()
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS


def _execute(spec: dict[str, Any]) -> None:
    env = {k: v for k, v in spec["env"].items() if "\0" not in v}
    try:
        _confine(spec)
        os.umask(0o022)
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], env)  # noqa: S606
    except OSError as error:
        _fail(spec, error)


def _fail(spec: dict[str, Any], error: OSError) -> None:
    what = error.filename or spec["argv"][0]
    sys.stderr.write(f"quarterdeck: cannot start {spec['argv'][0]!r}: {what}: {error.strerror}\n")
    sys.stderr.flush()
    os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def main() -> None:
    try:
        spec = json.loads(_read(int(sys.argv[1])))
    except ValueError:
        os._exit(120)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    try:
        _limit(spec)
        if "join" in spec:
            for name in ("fcntl", "termios", "landlock"):  # while our own file system is still in view
                __import__(name)
            import join  # pyright: ignore[reportMissingImports]

            if join.enter(spec["join"]):
                join.in_child(lambda: _execute(spec))
    except OSError as error:
        _fail(spec, error)
    _execute(spec)


if __name__ == "__main__":
    main()
