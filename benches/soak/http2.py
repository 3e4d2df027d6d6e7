"""As much of an HTTP/2 client as the soak needs: heads without compression, whole bodies, and every way to be rude."""

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8
STATUS_200 = 0x88  # its place in HPACK's static table


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields):
    """A field block of literals; names and values shorter than 127 bytes."""
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


class Connection:
    """One connection; requests are numbered as their streams."""

    def __init__(self, reader, writer, host, reads=True):
        self.reader, self.writer, self.host, self.reads = reader, writer, host, reads
        self.next, self.lengths, self.whole, self.closed = 1, {}, set(), False
        writer.write(PREFACE + frame(SETTINGS, 0, 0))

    def request(self, path, body=None, say=0):
        """Begins a stream; with `body` a POST that says a length of `say`, or its own."""
        stream, self.next = self.next, self.next + 2
        fields = [
            (b":method", b"GET" if body is None else b"POST"), (b":scheme", b"http"), (b":authority", self.host.encode()), (b":path", path.encode()),
        ]
        if body is not None:
            fields.append((b"content-length", b"%d" % (say or len(body))))
        self.writer.write(frame(HEADERS, END_HEADERS | (END_STREAM if body is None else 0), stream, block(fields)))
        for at in range(0, len(body or b""), 16384):
            part = body[at : at + 16384]
            self.writer.write(frame(DATA, END_STREAM if at + len(part) == (say or len(body)) else 0, stream, part))
        return stream

    def reset(self, stream):
        self.writer.write(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    async def wait_for(self, streams):
        """Reads until these streams have come whole, with status 200, or the connection has ended."""
        while not self.closed and not self.whole.issuperset(streams):
            try:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                self.closed = True
                break
            self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        return self.whole.issuperset(streams)

    def _take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            self.writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.writer.write(frame(PING, ACK, 0, payload))
        elif kind == HEADERS and payload[0] == STATUS_200:
            self.lengths[stream] = 0
        elif kind == DATA and stream in self.lengths:
            self.lengths[stream] += len(payload)
            if payload and self.reads:
                step = struct.pack(">I", len(payload))
                self.writer.write(frame(WINDOW_UPDATE, 0, 0, step) + frame(WINDOW_UPDATE, 0, stream, step))
        if kind in (DATA, HEADERS) and flags & END_STREAM and stream in self.lengths:
            self.whole.add(stream)
