"""The clients of the soak, well-behaved and not. Each function makes one exchange, on a connection of its own, and returns
None when it ended as it must, else what came instead.
"""

import asyncio
import json
import random
import socket
import ssl
import struct
import time
import zlib
from dataclasses import dataclass

import http2
from backend import PATTERN

PATIENCE = 150  # seconds for anything that must come
STALLED = 75  # seconds after which the gateway must have given up on a peer that stalls: its bounds are 30 and 60
HEAD_TIMEOUT = 10  # seconds, the gateway's for a request's head


@dataclass
class Gateway:
    """A node, and how to ask for an API on it."""

    http: int
    https: int
    host: str
    secure: dict  # TLS contexts by ALPN
    retires: bool = False  # is upgraded: an answer may be its connection's last

    def head(self, path, more="", method="GET"):
        return f"{method} /soak{path} HTTP/1.1\r\nHost: {self.host}\r\n{more}\r\n".encode()


class Open:
    """A connection; closed at the end of the block. With `little`, no more is taken than is asked for."""

    def __init__(self, gateway, tls=False, alpn="http/1.1", little=False):
        self.gateway, self.tls, self.alpn, self.little = gateway, tls, alpn, little
        self.last = False

    async def __aenter__(self):
        options = {"ssl": self.gateway.secure[self.alpn], "server_hostname": self.gateway.host} if self.tls else {}
        port = self.gateway.https if self.tls else self.gateway.http
        with socket.socket() as plain:
            plain.setblocking(False)
            if self.little:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
            limit = 4096 if self.little else 1 << 16
            self.reader, self.writer = await asyncio.open_connection(sock=plain.dup(), limit=limit, **options)
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort() if self.tls else self.writer.close()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, path, more="", size=None):
        """One request and what is wrong with its answer; none behind an answer that said it was the last."""
        if self.last and self.gateway.retires:
            return None
        await self.send(self.gateway.head(path, more))
        return fits(await self.response(), size)

    async def response(self):
        """Status and body; status 0 when the connection has ended before or within the answer."""
        try:
            return await asyncio.wait_for(self._response(), PATIENCE)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""

    async def _response(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        self.last = fields.get(b"connection") == b"close"
        if fields.get(b"transfer-encoding") == b"chunked":
            body = bytearray()
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            while await self.reader.readline() != b"\r\n":
                pass
            return status, bytes(body)
        return status, await self.reader.readexactly(int(fields[b"content-length"]))

    async def ended(self, within=PATIENCE):
        """Reads to the connection's end; whether it came."""
        try:
            async with asyncio.timeout(within):
                while await self.reader.read(1 << 16):
                    pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def reset(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def fits(answer, size, status=200):
    got, body = answer
    if got != status:
        return f"status {got} for {status}"
    if size is not None and body != PATTERN[:size]:
        return f"{len(body)} bytes that are not the {size} asked for"
    return None


def first(*flaws):
    return next((flaw for flaw in flaws if flaw), None)


def contexts(authority):
    """TLS contexts that trust an authority's certificate, in PEM form."""
    made = {alpn: ssl.create_default_context(cadata=authority) for alpn in ("http/1.1", "h2")}
    for alpn, context in made.items():
        context.set_alpn_protocols([alpn])
    return made


def some_size():
    return random.choice([0, 1, 128, 5000, 16384, 70000, 400000])


async def kept(gateway):
    async with Open(gateway) as it:
        sizes = [some_size() for _ in range(10)]
        return first(*[await it.get(f"/b/{random.choice(['fixed', 'chunked'])}/{size}", size=size) for size in sizes])


async def fresh(gateway):
    async with Open(gateway) as it:
        flaw = await it.get("/b/fixed/128", "Connection: close\r\n", 128)
        return flaw or (None if await it.ended() else "not closed")


async def tls(gateway):
    async with Open(gateway, tls=True) as it:
        return first(*[await it.get(f"/b/fixed/{size}", size=size) for size in (128, 70000)])


async def resumed(gateway):
    """Two connections, the second with the first one's session."""
    def both():
        session = None
        for at in range(2):
            context = gateway.secure["http/1.1"]
            with socket.create_connection(("127.0.0.1", gateway.https), PATIENCE) as plain:
                with context.wrap_socket(plain, server_hostname=gateway.host, session=session) as secured:
                    secured.sendall(gateway.head("/b/fixed/128", "Connection: close\r\n"))
                    data = b""
                    while part := secured.recv(65536):
                        data += part
                    if not data.startswith(b"HTTP/1.1 200 ") or not data.endswith(PATTERN[:128]):
                        return f"{data[:60]!r}"
                    if at and not secured.session_reused:
                        return "not resumed"
                    session = secured.session
        return None

    return await asyncio.to_thread(both)


async def upload(gateway):
    body = PATTERN[: some_size()]
    async with Open(gateway) as it:
        if random.random() < 0.5:
            head, wire = f"Content-Length: {len(body)}\r\n", body
        else:
            parts = [body[at : at + 3000] for at in range(0, len(body), 3000)]
            head, wire = "Transfer-Encoding: chunked\r\n", b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        await it.send(gateway.head("/b/echo", head, "POST") + wire)
        status, text = await it.response()
        if status != 200:
            return f"status {status}"
        return None if json.loads(text) == {"length": len(body), "crc": zlib.crc32(body)} else f"{text}"


async def pipelined(gateway):
    async with Open(gateway) as it:
        sizes = [128, 5000, 0, 70000, 1]
        await it.send(b"".join(gateway.head(f"/b/fixed/{size}") for size in sizes))
        return first(*[fits(await it.response(), size) for size in sizes])


async def reset_in_body(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/echo", "Content-Length: 100000\r\n", "POST") + PATTERN[:50000])
        await asyncio.sleep(0.05)
        it.reset()


async def reset_in_answer(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/fixed/4000000"))
        await it.reader.readexactly(10000)
        it.reset()


async def half_closed(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/fixed/400000"))
        it.writer.write_eof()
        flaw = fits(await it.response(), 400000)
        return flaw or (None if await it.ended() else "not closed")


async def half_closed_in_body(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/echo", "Content-Length: 1000\r\n", "POST") + PATTERN[:500])
        it.writer.write_eof()
        return None if await it.ended() else "not closed"


async def stalled_upload(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/echo", "Content-Length: 100000\r\n", "POST") + PATTERN[:50000])
        return None if await it.ended(STALLED) else "not given up"


async def stalled_download(gateway):
    """Takes nothing until the gateway has given up: only what lies in the kernel's buffers is left then."""
    async with Open(gateway, little=True) as it:
        await it.send(gateway.head("/b/fixed/4000000"))
        await asyncio.sleep(STALLED)
        try:
            await asyncio.wait_for(it._response(), PATIENCE)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return "not given up"


async def slow_reader(gateway):
    async with Open(gateway, little=True) as it:
        await it.send(gateway.head("/b/fixed/400000"))
        await it.reader.readuntil(b"\r\n\r\n")
        got = b""
        while len(got) < 400000:
            part = await it.reader.read(16384)
            if not part:
                return f"ended after {len(got)} bytes"
            got += part
            await asyncio.sleep(0.05)
        return None if got == PATTERN[:400000] else "other bytes"


async def slow_head(gateway):
    async with Open(gateway) as it:
        head, began = gateway.head("/b/fixed/128"), time.monotonic()
        try:
            for at in range(0, len(head), 8):
                await it.send(head[at : at + 8])
                await asyncio.sleep(0.2)
            flaw = fits(await it.response(), 128)
        except ConnectionError as error:
            flaw = repr(error)
        # On a machine that gave us no time to send it, the gateway was right to give up.
        return None if time.monotonic() - began > HEAD_TIMEOUT else flaw


async def unfinished_head(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/fixed/128")[:-4])
        return first(fits(await it.response(), None, 408), None if await it.ended() else "not closed")


async def silent(gateway):
    async with Open(gateway) as it:
        return None if await it.ended() else "not closed"


async def idle(gateway):
    async with Open(gateway, tls=random.random() < 0.5) as it:
        flaw = await it.get("/b/fixed/128", size=128)
        return flaw or (None if await it.ended() else "not closed")


async def broken(gateway):
    bad = random.choice(["Content-Length: 1\r\nContent-Length: 2\r\n", "Transfer-Encoding: gzip\r\n", "X : y\r\n", "A: b\rc\r\n"])
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/echo", bad, "POST") + b"x" * 3000)
        status, _ = await it.response()
        return None if status in (400, 501) and await it.ended() else f"status {status}"


async def no_handshake(gateway):
    """Neither TLS that goes on, nor TLS at all."""
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.https)
    try:
        writer.write(random.choice([b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"]))
        await writer.drain()
        await asyncio.sleep(2)
    finally:
        writer.close()


async def backend_fails(gateway):
    """The gateway's answers to a backend that is silent or ends too early."""
    how, wanted = random.choice([("hang", {504}), ("reset", {502, 504}), ("half", {0})])
    async with Open(gateway) as it:
        await it.send(gateway.head(f"/b/{how}"))
        status, _ = await it.response()
        return None if status in wanted else f"status {status} for {how}"


async def backend_stalls(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/stall"))
        await it.reader.readexactly(1000)
        if random.random() < 0.5:
            return it.reset()
        return None if await it.ended(STALLED) else "not given up"


async def backend_is_early(gateway):
    async with Open(gateway) as it:
        await it.send(gateway.head("/b/early", "Content-Length: 400000\r\n", "POST") + PATTERN[:200000])
        return fits(await it.response(), None)


async def restarting(gateway):
    """A backend that is killed now and then: an answer, or the gateway's own."""
    async with Open(gateway) as it:
        for _ in range(5):
            await it.send(gateway.head("/r/fixed/70000"))
            answer = await it.response()
            if answer[0] == 0:
                return None  # killed within the body
            if answer[0] not in (502, 504) and (flaw := fits(answer, 70000)):
                return flaw
    return None


async def _http2(gateway, reads=True):
    secured = random.random() < 0.5
    it = Open(gateway, tls=secured, alpn="h2")
    await it.__aenter__()
    return it, http2.Connection(it.reader, it.writer, gateway.host, reads)


async def streams(gateway):
    it, connection = await _http2(gateway)
    async with asyncio.timeout(PATIENCE):
        sizes = {connection.request(f"/soak/b/{kind}/{size}"): size for size in (0, 128, 5000, 70000, 200000) for kind in ("fixed", "chunked")}
        sent = connection.request("/soak/b/echo", PATTERN[:40000])
        whole = await connection.wait_for({*sizes, sent})
    await it.__aexit__()
    if not whole:
        return f"{len(connection.whole)} of {len(sizes) + 1} streams came whole"
    wrong = [size for stream, size in sizes.items() if connection.lengths[stream] != size]
    return f"other lengths than {wrong}" if wrong else None


async def stream_resets(gateway):
    """Streams that are reset at once, in the body and in the answer, and one behind them that is not."""
    it, connection = await _http2(gateway)
    async with asyncio.timeout(PATIENCE):
        for at in range(12):
            if at % 3 == 0:
                connection.reset(connection.request("/soak/b/fixed/70000"))
            elif at % 3 == 1:
                connection.reset(connection.request("/soak/b/echo", PATTERN[:5000], say=9000))
            else:
                stream = connection.request("/soak/b/fixed/400000")
                await connection.wait_for({connection.request("/soak/b/fixed/0")})
                connection.reset(stream)
        whole = await connection.wait_for({connection.request("/soak/b/fixed/128")})
    await it.__aexit__()
    return None if whole else "the last stream did not come"


async def stalled_windows(gateway):
    """Streams whose windows are never given back: the gateway must give up on them, or on the connection."""
    it, connection = await _http2(gateway, reads=False)
    for _ in range(4):
        connection.request("/soak/b/fixed/400000")
    try:
        async with asyncio.timeout(STALLED):
            await connection.wait_for({0})
    except TimeoutError:
        pass  # the connection may stay: what it holds then is its streams' windows
    await it.__aexit__()


async def stalled_streams(gateway):
    """Bodies that do not go on."""
    it, connection = await _http2(gateway)
    for _ in range(4):
        connection.request("/soak/b/echo", PATTERN[:1000], say=90000)
    try:
        async with asyncio.timeout(STALLED):
            await connection.wait_for({0})
    except TimeoutError:
        pass
    await it.__aexit__()


async def abandoned_streams(gateway):
    it, connection = await _http2(gateway)
    connection.request("/soak/b/echo", PATTERN[:30000], say=60000)
    connection.request("/soak/b/fixed/4000000")
    async with asyncio.timeout(PATIENCE):
        await connection.wait_for({connection.request("/soak/b/fixed/128")})
    it.reset()


# name: (the exchange, how many a second)
MIX = {
    "kept connections, ten requests": (kept, 2),
    "a connection a request": (fresh, 4),
    "TLS": (tls, 2),
    "TLS, resumed": (resumed, 1),
    "uploads": (upload, 3),
    "pipelined": (pipelined, 1),
    "HTTP/2, eleven streams": (streams, 1),
    "reset within a request's body": (reset_in_body, 2),
    "reset within an answer": (reset_in_answer, 1),
    "half-closed behind a request": (half_closed, 0.5),
    "half-closed within a body": (half_closed_in_body, 0.5),
    "uploads that stall": (stalled_upload, 0.3),
    "downloads that stall": (stalled_download, 0.2),
    "slow readers": (slow_reader, 0.5),
    "slow heads": (slow_head, 0.5),
    "heads without an end": (unfinished_head, 0.5),
    "silent connections": (silent, 0.3),
    "idle connections": (idle, 0.5),
    "broken requests": (broken, 2),
    "broken handshakes": (no_handshake, 1),
    "backends that fail": (backend_fails, 1),
    "backends that stall": (backend_stalls, 0.5),
    "backends that answer early": (backend_is_early, 0.5),
    "a backend that is killed now and then": (restarting, 2),
    "HTTP/2, streams reset": (stream_resets, 1),
    "HTTP/2, windows not given back": (stalled_windows, 0.2),
    "HTTP/2, bodies that stall": (stalled_streams, 0.2),
    "HTTP/2, connections reset with open streams": (abandoned_streams, 0.5),
}

# What the node that is upgraded under load gets; nothing of it may be lost.
UPGRADED = {
    "upgraded node: a connection a request": (fresh, 5),
    "upgraded node: TLS": (tls, 1),
    "upgraded node: uploads": (upload, 1),
    "upgraded node: slow heads": (slow_head, 0.3),
    "upgraded node: idle connections": (idle, 0.3),
}
