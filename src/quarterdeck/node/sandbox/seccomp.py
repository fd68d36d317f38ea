"""The system-call filter of ``seccompProfile: RuntimeDefault`` as a classic BPF program, for x86_64 and aarch64.

What container runtimes allow by default is allowed, the rest is refused with EPERM, and calls newer than this table
with ENOSYS, so that programs fall back. Stricter than theirs: no ptrace and no process_vm_* (they allow both), no raw
sockets, no socket families but unix, IP and netlink, no 32-bit programs, no TIOCSTI. Kernel documentation:
userspace-api/seccomp_filter.
"""

from __future__ import annotations

import struct
from functools import cache

NEWEST = 466
"""The highest system call this table knows (removexattrat, Linux 6.13); both machines count alike from 403 on."""

_DENIED: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117), "syslog": (103, 116), "uselib": (134, -1), "ustat": (136, -1), "sysfs": (139, -1),
    "vhangup": (153, 58), "pivot_root": (155, 41), "_sysctl": (156, -1), "chroot": (161, 51), "acct": (163, 89),
    "settimeofday": (164, 170), "mount": (165, 40), "umount2": (166, 39), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1),
    "ioperm": (173, -1), "create_module": (174, -1), "init_module": (175, 105), "delete_module": (176, 106),
    "get_kernel_syms": (177, -1), "query_module": (178, -1), "quotactl": (179, 60), "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18), "clock_settime": (227, 112), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236), "kexec_load": (246, 104), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "migrate_pages": (256, 238), "unshare": (272, 97), "move_pages": (279, 239),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "open_by_handle_at": (304, 265), "setns": (308, 268),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "finit_module": (313, 273),
    "kexec_file_load": (320, 294), "bpf": (321, 280), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount_setattr": (442, 442), "quotactl_fd": (443, 443),
    "set_mempolicy_home_node": (450, 450), "lsm_get_self_attr": (459, 459), "lsm_set_self_attr": (460, 460),
    "lsm_list_modules": (461, 461),
}  # fmt: skip
"""Refused with EPERM: numbers on x86_64 and aarch64, -1 where the machine has no such call."""

_CLONE, _CLONE3, _SOCKET = (56, 220), 435, (41, 198)
_PERSONALITY, _IOCTL = (135, 92), (16, 29)
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""uname's machine → (AUDIT_ARCH, column above)."""
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_LOAD, _GOTO, _EQUAL, _GREATER, _ANY_BIT, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes each, low half first


class _Assembler:
    """Instructions with jumps to labels, all forward."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        self._code.append((_LOAD, "", "", offset))

    def mask(self, bits: int) -> None:
        self._code.append((_AND, "", "", bits))

    def jump(self, code: int, value: int, yes: str = "", no: str = "") -> None:
        """Go to ``yes`` or ``no``; an empty label is the next instruction."""
        self._code.append((code, yes, no, value))

    def goto(self, label: str) -> None:
        self._code.append((_GOTO, label, "", 0))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def result(self, name: str, value: int) -> None:
        self.label(name)
        self._code.append((_RETURN, "", "", value))

    def bytes(self) -> bytes:
        def distance(at: int, label: str) -> int:
            return self._labels[label] - at - 1 if label else 0

        def packed(at: int, code: int, yes: str, no: str, value: int) -> bytes:
            if code == _GOTO:
                return struct.pack("<HBBI", code, 0, 0, distance(at, yes))
            return struct.pack("<HBBI", code, distance(at, yes), distance(at, no), value)

        return b"".join(packed(at, *instruction) for at, instruction in enumerate(self._code))


_ALONE: dict[str, tuple[int, int]] = {
    "socket": (41, 198), "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "ioprio_set": (251, 30), "mq_open": (240, 180),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "truncate": (76, 45),
}  # fmt: skip
"""Refused besides to a script: no network, and nothing shared with or done to other processes of its user."""
_SIGNALS: dict[str, tuple[int, int]] = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
}  # fmt: skip
"""Refused to a script where the kernel cannot keep its signals among its own processes."""
_PRLIMIT = (302, 261)


@cache
def program(machine: str, *, raw_sockets: bool = False, alone: bool = False, signals: bool = True) -> bytes | None:
    """The filter for this kind of machine as ``struct sock_filter[]``; None for one this module has no table of.

    ``alone``: for a script that shares its user with processes it must not reach; ``signals``: it may send some.
    """
    if machine not in _MACHINES:
        return None
    arch, column = _MACHINES[machine]
    refused = [numbers[column] for numbers in _DENIED.values()]
    refused += [numbers[column] for numbers in _ALONE.values()] if alone else []
    refused += [numbers[column] for numbers in _SIGNALS.values()] if alone and not signals else []
    out = _Assembler()
    out.load(_ARCH)
    out.jump(_EQUAL, arch, no="unknown")
    out.load(_NR)
    out.jump(_GREATER, NEWEST, yes="unknown")  # the x32 numbers, from 0x40000000 on, are among these
    out.jump(_EQUAL, _CLONE3, yes="unknown")  # its flags are out of a filter's sight; the C library takes clone then
    for number, label in (
        (_CLONE[column], "clone"), (_SOCKET[column], "socket"), (_IOCTL[column], "ioctl"),
        (_PERSONALITY[column], "personality"),
    ):  # fmt: skip
        if not alone or label != "socket":
            out.jump(_EQUAL, number, yes=label)
    if alone:
        out.jump(_EQUAL, _PRLIMIT[column], yes="prlimit")
    for number in refused:
        if number >= 0:
            out.jump(_EQUAL, number, yes="denied")
    out.goto("allowed")
    out.label("clone")
    out.load(_ARGS)
    out.jump(_ANY_BIT, _NEW_NAMESPACES, yes="denied", no="allowed")
    out.label("socket")
    out.load(_ARGS)
    for family in _FAMILIES:
        out.jump(_EQUAL, family, yes="internet" if family in (2, 10) and not raw_sockets else "allowed")
    out.goto("family")
    out.label("internet")
    out.load(_ARGS + 8)
    out.mask(0xF)
    out.jump(_EQUAL, 3, yes="denied", no="allowed")  # SOCK_RAW
    out.label("ioctl")
    out.load(_ARGS + 8)
    for request in _TERMINAL_INJECTION:
        out.jump(_EQUAL, request, yes="denied")
    out.goto("allowed")
    if alone:
        out.label("prlimit")
        out.load(_ARGS)
        out.jump(_EQUAL, 0, yes="allowed", no="denied")  # of no process but itself
    out.label("personality")
    out.load(_ARGS)
    for value in _PERSONALITIES:
        out.jump(_EQUAL, value, yes="allowed")
    out.result("denied", _ERRNO | _EPERM)
    out.result("allowed", _ALLOW)
    out.result("unknown", _ERRNO | _ENOSYS)
    out.result("family", _ERRNO | _EAFNOSUPPORT)
    return out.bytes()


def denied(machine: str) -> dict[str, int]:
    """The system calls refused whatever their arguments, by name."""
    column = _MACHINES[machine][1]
    return {name: numbers[column] for name, numbers in _DENIED.items() if numbers[column] >= 0}
