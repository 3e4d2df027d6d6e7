"""What is asked of the proxies, and by which client."""

from dataclasses import dataclass

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://www.example.org/shop/list?page=2",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1",
    "DNT: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Priority: u=0, i",
)


@dataclass(frozen=True)
class Workload:
    """A kind of load. Whoever has the door takes part."""

    what: str
    client: str = "wrk"  # a function of load.py
    door: str = "http"  # of the proxy
    path: str = "/"
    connections: int = 50
    streams: int = 1  # of each connection, HTTP/2
    headers: tuple = ()
    kind: str = "plain"  # of peers-client connect
    unit: str = "request"  # what costs are told by: a request, or an MB of bodies
    share: float = 0  # of nginx's peak, open loop
    rate: int = 0  # requests a second, open loop


WORKLOADS = {
    "small": Workload("128-byte body, keep-alive, 50 connections"),
    "browser": Workload("the same with a browser's eleven header fields", headers=BROWSER),
    "many": Workload("128-byte body, 500 connections", connections=500),
    "large": Workload("10 KiB body, 50 connections", path="/b"),
    "tls": Workload("128-byte body over TLS 1.3, keep-alive, 50 connections", door="https"),
    "handshake": Workload("direct answer over TLS 1.3, a full handshake each, ECDSA P-256, X25519, 12 connections at a time",
                          client="connect", door="https", path="/direct", connections=12, kind="full"),
    "direct": Workload("answered without a backend, 50 connections", path="/direct"),
    "h2-direct": Workload("answered without a backend, HTTP/2 without TLS, 10 connections of 10 streams",
                          client="h2load", door="h2", path="/direct", connections=10, streams=10),
    "full": Workload("128-byte body, 50 connections; Tidegate and nginx-full throttle and log, Tidegate counts detailed metrics", door="full"),
    "h2-proxy": Workload("128-byte body, HTTP/2 without TLS, 10 connections of 100 streams", client="h2load", door="h2", connections=10, streams=100),
    "connect": Workload("128-byte body, a connection each, 12 at a time", client="connect", connections=12),
    "resumed": Workload("direct answer over TLS 1.3, a resumed handshake each, 12 connections at a time",
                        client="connect", door="resumed", path="/direct", connections=12, kind="resumed"),
    "megabyte": Workload("1 MiB bodies, 10 connections", path="/m", connections=10, unit="MB"),
    "hundred-megabytes": Workload("100 MiB bodies, 4 connections", path="/g", connections=4, unit="MB"),
    "ten-thousand": Workload("128-byte body, 5,000 requests/s over 10,000 connections in turn", client="open_loop", connections=10_000, rate=5_000),
    "open-10": Workload("128-byte body, 100 connections, open loop at 10 % of nginx's peak", client="open_loop", connections=100, share=0.1),
    "open-50": Workload("128-byte body, 100 connections, open loop at 50 % of nginx's peak", client="open_loop", connections=100, share=0.5),
    "open-100": Workload("128-byte body, 100 connections, open loop at 100 % of nginx's peak", client="open_loop", connections=100, share=1.0),
    "slow": Workload("128-byte body, 50 connections, beside 200 clients that take 100 MiB bodies at 128 KiB/s", client="beside_slow"),
    "reshaped": Workload("1 KiB of JSON posted and 1 KiB answered, 50 connections: passed on as it is, and validated with a template each way",
                         door="reshaped", path="/shape"),
    "routes": Workload("128-byte body, 50 connections, over all of 10, 1,000 and 100,000 routes of Tidegate's", door="routes"),
}
