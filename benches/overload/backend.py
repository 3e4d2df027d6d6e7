"""A backend with a known capacity: so many requests at a time, each for so long. Counts what it answers.

`backend.py PORT SLOTS MILLISECONDS` serves until it is ended. `GET /count` answers `{"answered": N, "most": M}`: requests
answered with their work done, and the most that were under way at a time.
"""

import asyncio
import json
import sys


class Backend:
    def __init__(self, slots, milliseconds):
        self.free = asyncio.Semaphore(slots)
        self.work = milliseconds / 1000
        self.answered = self.under_way = self.most = 0

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /count "):
                    body = json.dumps({"answered": self.answered, "most": self.most}).encode()
                else:
                    self.under_way += 1
                    self.most = max(self.most, self.under_way)
                    try:
                        async with self.free:
                            await asyncio.sleep(self.work)
                    finally:
                        self.under_way -= 1
                    self.answered += 1
                    body = b"x" * 128
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main():
    port, slots, milliseconds = (int(argument) for argument in sys.argv[1:4])
    backend = Backend(slots, milliseconds)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
