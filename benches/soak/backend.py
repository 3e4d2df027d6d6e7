"""A backend that behaves, and misbehaves, as the path asks. `backend.py PORT` serves until it is ended.

| Path | What comes |
| --- | --- |
| `/fixed/N` | N bytes with a Content-Length |
| `/chunked/N` | N bytes in chunks of 5,000, and a trailer |
| `/echo` | length and CRC-32 of the body that came, as JSON |
| `/hang` | nothing |
| `/stall` | a head, half of the body, then nothing |
| `/half` | a head, half of the body, then the end |
| `/reset` | half a head, then a reset |
| `/early` | an answer that does not wait for the body, then the end |
"""

import asyncio
import json
import socket
import struct
import sys
import zlib

PATTERN = bytes(b"a"[0] + at % 251 % 26 for at in range(251)) * 17000  # the longest body is 4 MB


def answer(body, more=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), more, body)


async def read_body(reader, head):
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readline() != b"\r\n":
            pass
        return body
    return await reader.readexactly(int(fields.get(b"content-length", 0)))


async def converse(reader, writer):
    """One connection; ends by returning."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        kind, _, size = head.split(b" ", 2)[1][1:].partition(b"/")
        if kind == b"early":
            writer.write(answer(b"early", b"Connection: close\r\n"))
            return await writer.drain()
        body = await read_body(reader, head)
        if kind == b"fixed":
            writer.write(answer(PATTERN[: int(size)]))
        elif kind == b"chunked":
            whole = PATTERN[: int(size)]
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(whole), 5000):
                part = whole[at : at + 5000]
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            writer.write(b"0\r\nX-Trailer: t\r\n\r\n")
        elif kind == b"echo":
            writer.write(answer(json.dumps({"length": len(body), "crc": zlib.crc32(body)}).encode()))
        elif kind in (b"stall", b"half"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + PATTERN[:10000])
        elif kind == b"reset":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        await writer.drain()
        if kind == b"half":
            return None
        if kind == b"reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return writer.transport.abort()
        if kind in (b"hang", b"stall"):
            await reader.read()  # until the gateway gives up
            return None


async def serve(reader, writer):
    try:
        await converse(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the gateway has gone, which it may
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
