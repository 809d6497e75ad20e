"""One JSON object with its length in front, over a stream socket: how a checker and its caller talk."""

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Write the message; ASCII, so that null bytes and lone surrogates pass. Raises OSError where no one reads."""
    content = json.dumps(message).encode("ascii")
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next message, None where the other side has gone."""
    header = _exactly(connection, _LENGTH.size)
    content = None if header is None else _exactly(connection, _LENGTH.unpack(header)[0])
    return None if content is None else json.loads(content)


def _exactly(connection: socket.socket, num_bytes: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < num_bytes:
        try:
            part = connection.recv(num_bytes - len(parts))
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
