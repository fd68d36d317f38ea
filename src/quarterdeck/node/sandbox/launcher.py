"""First code of every container process: confine itself as told, then exec. Run as ``python -I -S launcher.py FD``.

The instructions are one JSON object read from FD until end of file. A node that dies before it has written them leaves
a launcher that reads nothing whole and exits, so no container starts that the node has not recorded.
Keys: argv, env, cwd, cgroups (cgroup.procs files), rlimits {name: [soft, hard]}, landlock {read, write, connect}, uid,
gid, groups (of the machine), drop_caps, client (a container engine's client: it confines the container, and may need
setuid programs to do so), tty (make standard input the controlling terminal), stage (files and folders to show in a
private /tmp, by number, for a uid that cannot walk to them), seccomp (a filter in base64; it is handed on instead of
being applied where argv has the word @seccomp), join (enter the namespaces of this process first; its uid there
follows from the one taken here).
"""

import binascii
import ctypes
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
    ctypes.CDLL(None).prctl(*args, *([0] * (5 - len(args))))


def _drop_capabilities() -> None:
    for capability in range(64):
        _prctl(24, capability)  # PR_CAPBSET_DROP
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())


def _new_keyring() -> None:
    """An empty session keyring instead of the one of whoever started the node (keyrings(7))."""
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


def _stage(sources: list[str]) -> None:
    """Show ``sources`` as /tmp/0, /tmp/1, … in a mount namespace of our own: needs root, helps who is not."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, kind: str | None, flags: int) -> None:
        names = (source.encode(), target.encode(), kind.encode() if kind else None)
        if libc.mount(*names, ctypes.c_ulong(flags), b"mode=0755" if kind else None) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), source)

    if libc.unshare(0x20000) != 0:  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "own mount namespace")
    mount("none", "/", None, 0x44000)  # MS_REC | MS_PRIVATE
    handles = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]
    mount("tmpfs", "/tmp", "tmpfs", 0x6)  # noqa: S108 - MS_NOSUID | MS_NODEV
    for number, (source, handle) in enumerate(zip(sources, handles, strict=True)):
        target = f"/tmp/{number}"  # noqa: S108 - in our own mount
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        try:
            mount(f"/proc/self/fd/{handle}", target, None, 0x5000)  # MS_BIND | MS_REC
        except OSError as error:
            raise OSError(error.errno, error.strerror, source) from error
        os.close(handle)


def _become(spec: dict[str, Any]) -> None:
    """Take the container's uid and groups of the machine, for good."""
    if os.getuid() != 0 or spec.get("uid") is None:
        return
    os.setgroups(spec.get("groups", []))
    os.setgid(spec["gid"] if spec.get("gid") is not None else spec["uid"])
    os.setuid(spec["uid"])


def _filter(spec: dict[str, Any]) -> None:
    """The system-call filter: handed on to bubblewrap in a file, or applied here, last of all."""
    if not spec.get("seccomp"):
        return
    program = binascii.a2b_base64(spec["seccomp"])
    if "@seccomp" in spec["argv"]:
        file = os.memfd_create("seccomp", 0)
        os.write(file, program)
        os.lseek(file, 0, os.SEEK_SET)
        spec["argv"][spec["argv"].index("@seccomp")] = str(file)
        return

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    whole = Program(len(program) // 8, program)
    if libc.prctl(22, 2, ctypes.byref(whole), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), "seccomp filter")


def _confine(spec: dict[str, Any]) -> None:
    if spec.get("tty"):
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    rules = spec.get("landlock")
    if rules:
        import landlock  # pyright: ignore[reportMissingImports]

        landlock.restrict(rules.get("read"), rules.get("write", ()), rules.get("connect"))
    if "join" not in spec:
        _become(spec)
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
        _filter(spec)
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
        if spec.get("stage") or "join" in spec:
            for name in ("fcntl", "termios", "landlock"):  # while the machine's file system is in view
                __import__(name)
        if spec.get("stage"):
            _stage(spec["stage"])
        if "join" in spec:
            import join  # pyright: ignore[reportMissingImports]

            if join.enter(spec["join"], lambda: _become(spec)):
                join.in_child(lambda: _execute(spec))
    except OSError as error:
        _fail(spec, error)
    _execute(spec)


if __name__ == "__main__":
    main()
