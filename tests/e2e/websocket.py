"""A WebSocket server and client that nobody here wrote, on the package `websockets`.

`websocket.py serve` prints its port. `websocket.py call HOST:PORT AUTHORITY PATH [CA]` goes through everything that a
WebSocket does, and fails where anything is amiss; with CA over TLS.
"""

import os
import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve


def answer(connection):
    """Gives back what comes; `close` ends it with a code, `flood` sends a lot without being asked."""
    for message in connection:
        if message == "close":
            connection.close(4242, "as asked")
            return
        if message == "flood":
            for number in range(200):
                connection.send(bytes([number]) * 65536)
        else:
            connection.send(message)


def call(address, authority, path, authority_file=None):
    host, port = address.rsplit(":", 1)
    secure = None
    if authority_file:
        secure = ssl.create_default_context(cafile=authority_file)
    scheme = "wss" if secure else "ws"
    with connect(
        f"{scheme}://{authority}{path}",
        sock=socket.create_connection((host, int(port)), timeout=20),
        ssl=secure,
        subprotocols=["chat.v2", "chat.v1"],
        max_size=None,
        open_timeout=20,
        close_timeout=20,
    ) as connection:
        assert connection.subprotocol == "chat.v1", connection.subprotocol
        for text in ["hello", "ü" * 1000, ""]:
            connection.send(text)
            assert connection.recv(timeout=20) == text
        large = os.urandom(12 << 20)
        connection.send(large)
        assert connection.recv(timeout=20) == large, "a large message differs"
        assert connection.ping().wait(timeout=20), "no pong"
        connection.send("flood")
        for number in range(200):
            assert connection.recv(timeout=20) == bytes([number]) * 65536
        connection.send("close")
        try:
            connection.recv(timeout=20)
            raise AssertionError("not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4242, "as asked"), closed


if sys.argv[1] == "serve":
    with serve(answer, "127.0.0.1", 0, subprotocols=["chat.v1"], max_size=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()
else:
    call(*sys.argv[2:])
    print("done")
