"""What a connection costs in memory that has had one request and then does nothing."""

import sys
import time
from dataclasses import dataclass

import machine
from load import Clients

# name: (what it is, door, kind of peers-client hold, what it must not exceed and what would be good, in bytes)
KINDS = {
    "idle": ("plain", "http", "plain", (2048, 1024)),
    "idle-tls": ("TLS 1.3", "https", "full", None),
}

# The first connections bring what is there once; growth is counted over the others.
BEFORE, COUNTED = 1000, 5000
SETTLED = 3  # seconds until buffers of connections that have gone quiet are given back


@dataclass
class Growth:
    """Bytes of resident memory that a connection added to a proxy."""

    kind: str
    proxy: str
    number: int
    bytes: float


def run(make_field, kinds, rounds):
    """All rounds. Each starts every proxy anew: what another load left in an allocator would hide growth."""
    found = []
    for kind in kinds:
        _, door, secured, _ = KINDS[kind]
        for number in range(1, rounds + 1):
            with make_field() as field:
                clients = Clients(field.binaries)
                entrants = [proxy for proxy in field.proxies if door in proxy.doors]
                for proxy in entrants:
                    found.append(Growth(kind, proxy.name, number, _growth(clients, proxy, door, secured)))
            told = ", ".join(f"{growth.proxy} {growth.bytes:.0f} B" for growth in found[-len(entrants):])
            print(f"{kind} {number}/{rounds}: {told}", flush=True)
    return found


def _growth(clients, proxy, door, secured):
    with clients.start(proxy.doors[door], "hold", "/", secured) as client:
        sizes = []
        for count in (BEFORE, COUNTED):
            client.stdin.write(f"{count}\n")
            client.stdin.flush()
            if not client.stdout.readline().startswith("ready"):
                sys.exit(f"{proxy.name} failed idle connections: {client.stderr.read()}")
            time.sleep(SETTLED)
            sizes.append(machine.resident_of(proxy.pids()) * 1e6)
        client.stdin.close()
    return (sizes[1] - sizes[0]) / COUNTED
