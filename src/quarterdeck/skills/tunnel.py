"""``python -m quarterdeck.skills.tunnel PROXY HOST PORT``: ssh's way through an HTTP proxy (RFC 9110 §9.3.6)."""

from __future__ import annotations

import os
import socket
import sys
import threading
from urllib.parse import urlsplit


def main(proxy: str, host: str, port: str) -> int:
    where = urlsplit(proxy)
    try:
        sock = socket.create_connection((where.hostname or "127.0.0.1", where.port or 3128), 30)
    except OSError as error:
        print(f"proxy {proxy}: {error.strerror or error}", file=sys.stderr)
        return 1
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 65536:
        byte = sock.recv(1)
        if not byte:
            break
        head += byte
    if b" 200 " not in head.partition(b"\r\n")[0]:
        print(f"proxy {proxy}: {head.decode('utf-8', 'replace')[:300]}", file=sys.stderr)
        return 1
    sock.settimeout(None)
    threading.Thread(target=_send, args=(sock,), daemon=True).start()
    while data := sock.recv(65536):
        os.write(1, data)
    return 0


def _send(sock: socket.socket) -> None:
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
