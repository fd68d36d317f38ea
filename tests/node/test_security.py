"""What a Pod's security context comes to, and what a restricted Pod cannot do, asked from inside."""

from __future__ import annotations

import errno
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.kube.resource import POD, Object
from quarterdeck.node.environment import ConfigurationError
from quarterdeck.node.images.spec import Engine, ImageSpec
from quarterdeck.node.node import Node
from quarterdeck.node.sandbox import seccomp
from quarterdeck.node.sandbox.isolation import Request
from quarterdeck.node.security import group_readable, security_of
from quarterdeck.node.uids import Uids, give, uid_key

from .fake_api import FakeApi
from .test_isolation import finished, node
from .test_node import log_of, pod, shell, until

__all__ = ["node"]

RESTRICTED = {
    "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip
CONTAINER = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
}  # fmt: skip
ROOT_IMAGE = ImageSpec(user="")


def security(context: dict[str, Any], image: ImageSpec = ROOT_IMAGE, of_pod: dict[str, Any] | None = None) -> Any:
    obj = {"metadata": {"name": "p", "namespace": "team", "uid": "u"}, "spec": {"securityContext": of_pod or {}}}
    return security_of(obj, {"name": "c", "securityContext": context}, image)


@pytest.mark.parametrize(
    ("context", "of_pod", "image", "ids"),
    [
        ({}, {}, ROOT_IMAGE, (0, None)),
        ({}, {}, ImageSpec(), (65532, None)),
        ({}, {}, ImageSpec(user="7"), (7, None)),
        ({}, {}, ImageSpec(user="7:8"), (7, 8)),
        ({"runAsUser": 5}, {}, ImageSpec(user="7:8"), (5, 8)),
        ({"runAsUser": 5}, {"runAsUser": 6, "runAsGroup": 9}, ROOT_IMAGE, (5, 9)),
        ({"runAsUser": None}, {"runAsUser": 6}, ROOT_IMAGE, (6, None)),
        ({}, {"runAsNonRoot": True}, ImageSpec(), (65532, None)),
        ({"runAsNonRoot": False}, {"runAsNonRoot": True}, ROOT_IMAGE, (0, None)),
        ({}, {}, ImageSpec(user="nginx", engine=Engine("podman", "/p")), (65532, None)),
    ],
)
def test_identity(context: dict[str, Any], of_pod: dict[str, Any], image: ImageSpec, ids: tuple[int, int]) -> None:
    found = security(context, image, of_pod)
    assert (found.uid, found.gid) == ids


@pytest.mark.parametrize(
    ("context", "image", "message"),
    [
        ({"runAsNonRoot": True, "runAsUser": 0}, ROOT_IMAGE, "container's runAsUser breaks non-root policy"),
        ({"runAsNonRoot": True}, ROOT_IMAGE, "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True}, ImageSpec(user="app"), r"image has non-numeric user \(app\), cannot verify"),
        ({}, ImageSpec(user="app"), "unable to find user app"),
        ({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}, ROOT_IMAGE, 'Localhost .*"a.json"'),
    ],
)
def test_refused_as_a_kubelet_does(context: dict[str, Any], image: ImageSpec, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        security(context, image)
    if "runAsNonRoot" in context:
        assert '(pod: "p_team(u)", container: c)' in str(refused.value)


def test_user_by_name_out_of_the_images_own_database(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:1001:1002::/app:/bin/sh\n")
    found = security({}, ImageSpec(root=tmp_path, user="app"))
    assert (found.uid, found.gid) == (1001, 1002)


def test_what_is_not_given_is_listed() -> None:
    found = security({
        "privileged": True, "allowPrivilegeEscalation": True, "capabilities": {"add": ["SYS_ADMIN", "CAP_CHOWN"]},
    })  # fmt: skip
    assert found.capabilities == ("CHOWN",)
    assert found.refused == ("capability SYS_ADMIN", "privileged", "allowPrivilegeEscalation")
    assert security({"seccompProfile": {"type": "Unconfined"}}).filtered is False


def test_group_readable() -> None:
    assert [oct(group_readable(mode)) for mode in (0o600, 0o400, 0o644, 0o000)] == ["0o640", "0o440", "0o644", "0o0"]


def test_uids_are_kept_and_claims_share_one(tmp_path: Path) -> None:
    uids = Uids(tmp_path)
    first, second = uids.assign("a"), uids.assign("b")
    assert first != second
    assert Uids(tmp_path).assign("b") == second
    assert uids.owner(first) == "a"
    assert uids.owner(0) is None
    uids.release("a")
    assert uids.assign("c") not in (first, second), "a uid is not used again at once"
    with_claim = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}
    keys = [uid_key({"metadata": {"namespace": "n", "uid": u}, "spec": s}) for u, s in (("1", with_claim), ("2", {}))]
    assert keys == ["claims/n", "2"]
    kept = uids.assign("claims/n")
    uids.release("claims/n")
    assert uids.assign("claims/n") == kept
    (tmp_path / "uids.json").write_text("{")
    assert Uids(tmp_path).assign("d") > Uids(tmp_path).first


@pytest.mark.skipif(
    os.getuid() != 0 or "4294967295" not in Path("/proc/self/uid_map").read_text(),
    reason="only the machine's root gives files away",
)
def test_give_follows_no_symlinks(tmp_path: Path) -> None:
    (tmp_path / "claim" / "deep").mkdir(parents=True)
    (tmp_path / "outside").write_text("")
    (tmp_path / "claim" / "deep" / "link").symlink_to(tmp_path / "outside")
    give(tmp_path / "claim", 4242)
    assert (tmp_path / "claim" / "deep").stat().st_uid == 4242
    assert (tmp_path / "outside").stat().st_uid == 0


class Machine:
    """What a classic BPF program answers, by interpreting it."""

    def __init__(self, program: bytes) -> None:
        import struct

        self._code = list(struct.iter_unpack("<HBBI", program))

    def run(self, arch: int, number: int, *args: int) -> int:
        words = {0: number, 4: arch} | {16 + 8 * i: value & 0xFFFFFFFF for i, value in enumerate((*args, 0, 0, 0))}
        at, accumulator = 0, 0
        while True:
            code, yes, no, value = self._code[at]
            at += 1
            if code == 0x06:
                return value
            if code == 0x20:
                accumulator = words[value]
            elif code == 0x54:
                accumulator &= value
            elif code == 0x05:
                at += value
            else:
                taken = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: accumulator & value}[code]
                at += yes if taken else no


ALLOW = 0x7FFF0000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_program(machine: str) -> None:
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    clone, socket, ioctl, personality, read = {
        "x86_64": (56, 41, 16, 135, 0), "aarch64": (220, 198, 29, 92, 63),
    }[machine]  # fmt: skip
    program = seccomp.program(machine)
    assert program is not None and len(program) // 8 < 255
    run = Machine(program).run

    def answer(*call: int) -> int:
        found = run(arch, *call)
        return 0 if found == ALLOW else found & 0xFFFF

    assert answer(read) == 0
    assert {answer(number) for number in seccomp.denied(machine).values()} == {errno.EPERM}
    assert answer(435) == errno.ENOSYS == answer(seccomp.NEWEST + 1) == answer(0x40000000)
    assert answer(clone, 0x01200011) == 0
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(clone, flag | 17) == errno.EPERM
    assert answer(socket, 2, 1) == answer(socket, 10, 0x80802) == answer(socket, 16, 3) == answer(socket, 1, 1) == 0
    assert answer(socket, 2, 3) == answer(socket, 10, 0x80803) == errno.EPERM
    assert answer(socket, 17, 3) == answer(socket, 40, 1) == answer(socket, 38, 5) == errno.EAFNOSUPPORT
    assert answer(ioctl, 0, 0x5412) == answer(ioctl, 0, 0x541C) == errno.EPERM
    assert answer(ioctl, 0, 0x5413) == 0
    assert answer(personality, 0xFFFFFFFF) == 0
    assert answer(personality, 0x0040000) == errno.EPERM
    assert run(arch ^ 1, read) & 0xFFFF == errno.ENOSYS
    raw = seccomp.program(machine, raw_sockets=True)
    assert raw is not None and Machine(raw).run(arch, socket, 2, 3) == ALLOW


def test_no_filter_for_a_machine_without_table() -> None:
    assert seccomp.program("riscv64") is None


ESCAPES = r"""
import ctypes, errno, json, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def attempt(name, work):
    try:
        found[name] = work()
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, str(error.errno))
def call(name, *args):
    def work():
        ctypes.set_errno(0)
        if getattr(libc, name)(*args) == -1:
            raise OSError(ctypes.get_errno(), name)
        return "done"
    return work
def write(path):
    def work():
        with open(path, "w"): return "done"
    return work
attempt("write /", write("/x"))
attempt("write /usr", write("/usr/x"))
attempt("write /etc", write("/etc/x"))
attempt("write home", write(os.path.expanduser("~") + "/x"))
attempt("setuid", lambda: os.setuid(0) or "done")
attempt("setgid", lambda: os.setgid(0) or "done")
attempt("setgroups", lambda: os.setgroups([0]) or "done")
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and "done")
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) and "done")
attempt("mount", call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
attempt("umount", call("umount2", b"/proc", 2))
attempt("unshare user", call("unshare", 0x10000000))
attempt("unshare mount", call("unshare", 0x20000))
attempt("ptrace parent", call("ptrace", 16, os.getppid(), None, None))
attempt("ptrace init", call("ptrace", 16, 1, None, None))
attempt("chroot", call("chroot", b"/tmp"))
attempt("sethostname", call("sethostname", b"x", 1))
attempt("io_uring", call("syscall", 425, 1, None))
attempt("bpf", call("syscall", 321 if os.uname().machine == "x86_64" else 280, 0, None, 0))
attempt("keyctl", call("syscall", 250 if os.uname().machine == "x86_64" else 219, 0, -3, 0))
attempt("mknod", lambda: os.mknod("/tmp/dev", 0o20666, os.makedev(1, 5)) or "done")
attempt("tiocsti", call("ioctl", 0, 0x5412, b"x"))
done = subprocess.run(["su", "-c", "id -u"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
found["setuid binary"] = done.stdout.strip()
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
found["status"] = {key: status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
found["uid"] = os.getuid()
attempt("tmp", write(os.environ["TMPDIR"] + "/own"))
print(json.dumps(found))
"""


async def running(node: Node, name: str) -> None:
    """Wait until a Pod that says ok has said so."""
    await until(lambda: node.worker("default", name) is not None and "ok" in log_of(node, name))


def escaping(**more: Any) -> dict[str, Any]:
    volume = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    return {
        "name": "main", "image": "", "command": ["python3", "-c", ESCAPES], "securityContext": CONTAINER,
    } | volume | more  # fmt: skip


async def test_a_restricted_pod_cannot_get_out(node: Node) -> None:
    if seccomp.program(platform.machine()) is None:
        pytest.skip(f"no system-call filter for {platform.machine()}")
    assert node.runtime is not None
    bwrap = node.runtime.sandbox.level == "bwrap"
    text = await finished(
        node, "out", escaping(), securityContext=RESTRICTED, volumes=[{"name": "tmp", "emptyDir": {}}]
    )
    found = json.loads(text)
    for name in ("write /", "write /usr", "write /etc", "write home"):
        assert found[name] in ("EROFS", "EACCES", "EPERM"), name
    for name in ("mount", "umount", "unshare user", "unshare mount", "ptrace parent", "ptrace init", "chroot", "bpf",
                 "sethostname", "io_uring", "keyctl", "raw", "tiocsti"):  # fmt: skip
        assert found[name] == "EPERM", (name, found[name])
    assert found["packet"] == "EAFNOSUPPORT"
    assert found["setuid binary"] == ""
    if bwrap or node.runtime.uids is not None:
        for name in ("setuid", "setgid", "setgroups", "mknod"):
            assert found[name] in ("EPERM", "EINVAL", "EACCES", "EROFS"), (name, found[name])
    assert found["status"]["CapEff"] == "0" * 16
    assert (found["status"]["NoNewPrivs"], found["status"]["Seccomp"]) == ("1", "2")
    assert found["tmp"] == "done"
    if bwrap:
        assert found["uid"] == 65532


async def test_another_pod_is_out_of_reach(node: Node) -> None:
    """Its files, and its processes for signals and ptrace, by their ids on the machine."""
    assert node.runtime is not None
    api: FakeApi = node.config.client  # type: ignore[assignment]
    await api.create(POD, pod("other", shell("echo mine > $HOME/own; echo ok; sleep 1000"), securityContext=RESTRICTED))
    await running(node, "other")
    other = node.worker("default", "other")
    assert other is not None
    pid = other.processes["main"].pid
    code = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, work in (('kill', lambda: os.kill({pid}, 15)),\n"
        f"    ('environ', lambda: open('/proc/{pid}/environ').read()),\n"
        f"    ('root', lambda: os.listdir('/proc/{pid}/root/')),\n"
        f"    ('files', lambda: os.listdir({str(other.files.home)!r})),\n"
        f"    ('own', lambda: open({str(other.files.home / 'own')!r}).read())):\n"
        "    try: print(name, work())\n"
        "    except OSError: pass\n"
        f"print(libc.ptrace(16, {pid}, None, None))\n"
    )
    spy = {"name": "main", "image": "", "command": ["python3", "-c", code]}
    assert await finished(node, "spy", spy, securityContext=RESTRICTED) == "-1\n"
    if node.runtime.uids is not None:
        mine = node.runtime.uids.assign(str(other.uid))
        owner = (other.files.home / "own").stat().st_uid
        status = Path(f"/proc/{pid}/status").read_text()
        assert owner == mine
        assert f"Uid:\t{mine}\t{mine}\t{mine}\t{mine}" in status


async def test_joined_commands_are_confined_alike(node: Node) -> None:
    from quarterdeck.node.execute import run_in

    api: FakeApi = node.config.client  # type: ignore[assignment]
    await api.create(POD, pod("run", shell("echo ok; sleep 1000"), securityContext=RESTRICTED))
    await running(node, "run")
    worker = node.worker("default", "run")
    assert worker is not None
    code, text = await run_in(
        worker.processes["main"], worker.files.confinement("main"), ["python3", "-c", ESCAPES], 20
    )
    assert code == 0, text
    found = json.loads(text)
    assert {found[name] for name in ("mount", "unshare user", "ptrace init", "raw")} == {"EPERM"}
    assert {found["status"][name] for name in ("NoNewPrivs", "Seccomp")} == {"1", "2"}
    assert found["status"]["CapEff"] == "0" * 16  # what a user may not bound it cannot gain either: no_new_privs


async def test_volumes_belong_to_the_pod(node: Node) -> None:
    """Claims stay writable for the Pod that comes next; Secrets and tokens are readable at any mode."""
    assert node.runtime is not None
    volumes = [
        {"name": "state", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    script = {"name": "main", "image": "", "volumeMounts": mounts}
    write = "cd {0}/state && echo $WHO >> log && chmod 600 log && cat log && cat {0}/token/t && touch {0}/scratch/x"
    if node.runtime.sandbox.level != "bwrap":
        pytest.skip("volumes have no fixed place without namespaces")
    for who, uid in (("one", 65532), ("two", 1000)):
        env = [{"name": "WHO", "value": who}]
        command = ["/bin/sh", "-c", write.format("/v")]
        text = await finished(
            node, who, script | {"command": command, "env": env}, volumes=volumes,
            securityContext=RESTRICTED | {"runAsUser": uid},
        )  # fmt: skip
        assert f"{who}\ntoken-[]" in text, text


async def test_non_root_policy_is_a_configuration_error(node: Node) -> None:
    api: FakeApi = node.config.client  # type: ignore[assignment]
    broken = shell("true", securityContext={"runAsNonRoot": True, "runAsUser": 0})
    await api.create(POD, pod("root", broken))

    def waiting(p: Object | None) -> bool:
        statuses = ((p or {}).get("status") or {}).get("containerStatuses") or [{}]
        found = (statuses[0].get("state") or {}).get("waiting") or {}
        return found.get("reason") == "CreateContainerConfigError" and "breaks non-root policy" in found["message"]

    await api.wait("root", waiting)


async def test_unconfined_has_no_filter_and_says_nothing_of_one(node: Node) -> None:
    context = {"seccompProfile": {"type": "Unconfined"}}
    text = await finished(node, "free", shell("grep ^Seccomp: /proc/self/status", securityContext=context))
    assert text.split() == ["Seccomp:", "0"]


async def test_a_capability_that_is_granted_holds_in_the_pods_own_namespaces(node: Node) -> None:
    assert node.runtime is not None
    if not node.runtime.sandbox.network:
        pytest.skip("needs network namespaces")
    code = "import socket; socket.create_server(('127.0.0.1', 80)); print('bound')"
    context = CONTAINER | {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    server = {"name": "main", "image": "", "command": ["python3", "-c", code], "securityContext": context}
    assert await finished(node, "low", server, securityContext={"runAsUser": 0}) == "bound\n"
    request = Request(
        [], {}, "/", Path("/h"), Path("/t"), "h", capabilities=("NET_BIND_SERVICE",), uid=65532, machine_uid=1
    )
    assert "capability NET_BIND_SERVICE" in node.runtime.sandbox.means(request)[1], "not for other uids, and it says so"
