"""Password files as Apache's ``htpasswd`` and OpenSSL write them: bcrypt, apr1, SHA-crypt and ``{SHA}``."""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5, sha1, sha256, sha512
from hmac import compare_digest
from typing import Any

from quarterdeck.errors import ConfigError

_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_APR1_ORDER = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))
_ROUNDS = 5000
_MOST_ROUNDS = 100_000  # of a SHA-crypt entry; one of 999,999,999 would hold the process for minutes
_NOBODY = "$apr1$quarterd$0000000000000000000000"
"""Checked for unknown users, so that they cost time, too."""


def parse_htpasswd(text: str, where: str) -> dict[str, str]:
    """User → hash. Raises ConfigError for a line that is none, or a hash of an unsupported kind."""
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, mark, rest = line.partition(":")
        hashed = rest.partition(":")[0]
        if not mark or not name:
            raise ConfigError(f"{where}: line {number} of htpasswd is not NAME:HASH")
        if not supported(hashed):
            raise ConfigError(
                f"{where}: line {number} of htpasswd: the hash of {name} is of no supported kind; "
                "make it with: htpasswd -nB NAME, or openssl passwd -6"
            )
        users[name] = hashed
    return users


def supported(hashed: str) -> bool:
    """Whether :func:`check` knows this kind of hash."""
    if hashed.startswith(("$5$", "$6$")):
        rounds = hashed.split("$")[2]
        return not rounds.startswith("rounds=") or (
            rounds[7:].isdecimal() and len(rounds) < 16 and int(rounds[7:]) <= _MOST_ROUNDS
        )
    return hashed.startswith(("$2y$", "$2b$", "$2a$", "$apr1$", "{SHA}"))


def check(password: bytes, hashed: str) -> bool:
    """Whether the password is the one that was hashed. Takes up to 0.3 s for bcrypt: not for the event loop."""
    if hashed.startswith("$2"):
        import bcrypt  # a compiled library: only where such a hash is configured

        try:
            return bcrypt.checkpw(password[:72], hashed.encode())
        except ValueError:
            return False
    if hashed.startswith("$apr1$"):
        computed = apr1(password, hashed.split("$")[2].encode())
    elif hashed.startswith(("$5$", "$6$")):
        computed = sha_crypt(password, hashed)
    else:
        computed = "{SHA}" + b64encode(sha1(password, usedforsecurity=False).digest()).decode()
    return compare_digest(computed.encode(), hashed.encode())


def check_user(users: dict[str, str], name: str, password: bytes) -> bool:
    """Whether the file knows the user by this password; an unknown one takes as long as a wrong password."""
    hashed = users.get(name)
    if hashed is None:
        check(password, next(iter(users.values()), _NOBODY))
        return False
    return check(password, hashed)


def _sixty_four(value: int, count: int) -> bytes:
    return bytes(_ALPHABET[value >> (6 * at) & 63] for at in range(count))


def apr1(password: bytes, salt: bytes) -> str:
    """Apache's variant of MD5-crypt."""
    salt = salt[:8]
    inner = md5(password + salt + password, usedforsecurity=False).digest()
    data = password + b"$apr1$" + salt + (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        data += b"\0" if length & 1 else password[:1]
        length >>= 1
    digest = md5(data, usedforsecurity=False).digest()
    for turn in range(1000):
        data = password if turn & 1 else digest
        data += salt if turn % 3 else b""
        data += password if turn % 7 else b""
        data += digest if turn & 1 else password
        digest = md5(data, usedforsecurity=False).digest()
    out = b"".join(_sixty_four(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _APR1_ORDER)
    return f"$apr1${salt.decode()}${(out + _sixty_four(digest[11], 2)).decode()}"


def sha_crypt(password: bytes, setting: str) -> str:
    """SHA-crypt (Drepper): ``$5$`` and ``$6$``, with the salt and the rounds of ``setting``."""
    parts = setting.split("$")
    large = parts[1] == "6"
    make: Any = sha512 if large else sha256
    explicit = parts[2].startswith("rounds=")
    rounds = max(1000, int(parts[2][7:])) if explicit else _ROUNDS
    salt = (parts[3] if explicit else parts[2])[:16].encode()
    size = 64 if large else 32

    def stretched(block: bytes, length: int) -> bytes:
        return (block * (length // size + 1))[:length]

    alternate = make(password + salt + password).digest()
    first = make(password + salt + stretched(alternate, len(password)))
    length = len(password)
    while length:
        first.update(alternate if length & 1 else password)
        length >>= 1
    digest = first.digest()
    p = stretched(make(password * len(password)).digest(), len(password))
    s = stretched(make(salt * (16 + digest[0])).digest(), len(salt))
    for turn in range(rounds):
        block = p if turn & 1 else digest
        block += s if turn % 3 else b""
        block += p if turn % 7 else b""
        digest = make(block + (digest if turn & 1 else p)).digest()
    prefix = f"${parts[1]}$" + (f"rounds={rounds}$" if explicit else "")
    return f"{prefix}{salt.decode()}${_permuted(digest, large).decode()}"


def _permuted(digest: bytes, large: bool) -> bytes:
    """The digest's bytes in Drepper's order, three at a time."""
    groups, step = (21, 22) if large else (10, 11)
    a, b, c = 0, groups, 2 * groups
    out = b""
    for _ in range(groups):
        out += _sixty_four(digest[a] << 16 | digest[b] << 8 | digest[c], 4)
        a, b, c = (b + 1, c + 1, a + 1) if step == 22 else (c + 1, a + 1, b + 1)
    return out + (_sixty_four(digest[63], 2) if large else _sixty_four(digest[31] << 8 | digest[30], 3))
