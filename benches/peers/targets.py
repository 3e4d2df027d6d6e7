"""What Tidegate is to reach, and whether it did."""

import statistics
from dataclasses import dataclass

import idle
from workloads import WORKLOADS


@dataclass(frozen=True)
class Target:
    """Bounds, each what must be and what would be good, for one workload."""

    what: str
    workload: str
    ratio: tuple | None = None
    above: tuple | None = None  # microseconds above the floor
    own: str = "tidegate"
    against: str = "nginx"


TARGETS = [
    Target("plain proxy, keep-alive, 128-byte body, 50 connections", "small", (0.85, 0.75), (2.0, 1.0)),
    Target("the same with browser-sized headers", "browser", (0.80, 0.68), (2.5, 1.2)),
    Target("the same, 500 connections", "many", (0.80, 0.68), (2.0, 1.0)),
    Target("10 KiB body", "large", (0.95, 0.84), (2.0, 1.0)),
    Target("TLS 1.3 keep-alive", "tls", (0.80, 0.70), (2.5, 1.2)),
    Target("TLS 1.3 full handshake a request", "handshake", (0.55, 0.42)),
    Target("direct answer", "direct", (0.95, 0.85), (1.5, 0.7)),
    Target("HTTP/2 direct answer, 10 streams", "h2-direct", (0.55, 0.38)),
    Target("throttle, access log, detailed metrics; nginx with a rate limit and a log", "full", (0.80, 0.70), (3.0, 1.5), against="nginx-full"),
    Target("the same against bare nginx", "full", (0.95, 0.80)),
    Target("HTTP/2 proxied, 100 streams", "h2-proxy"),
    Target("1 MiB bodies, by the byte", "megabyte"),
    Target("connection a request", "connect"),
    Target("validated 1 KiB JSON body and a template each way, against passing it on", "reshaped", (2.0, 2.0), own="reshaped", against="posted"),
    Target("100,000 routes in place of 10", "routes", (1.05, 1.02), own="routes-100000", against="routes-10"),
]

OPEN_LOOPS = ("open-10", "open-50", "open-100")


def of(samples, workload, proxy):
    return [sample for sample in samples if sample.workload == workload and sample.proxy == proxy]


def paired(samples, workload, proxy, against, value=lambda sample: sample.cost):
    """The ratio of costs within each round."""
    other = {sample.number: value(sample) for sample in of(samples, workload, against)}
    return [value(sample) / other[sample.number] for sample in of(samples, workload, proxy) if sample.number in other]


def above_floor(samples, workload, proxy):
    """Microseconds above the floor within each round."""
    floor = {sample.number: sample.cost for sample in of(samples, workload, "floor")}
    return [sample.cost - floor[sample.number] for sample in of(samples, workload, proxy) if sample.number in floor]


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def table(samples):
    """The targets with what was measured, as Markdown; workloads that were not run are left out."""
    lines = [
        "| workload | us above the floor | must / goal | against nginx | must / goal | reached |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target in TARGETS:
        ratios = paired(samples, target.workload, target.own, target.against)
        if not ratios:
            continue
        above = above_floor(samples, target.workload, target.own)
        told = [(above, target.above, 1), (ratios, target.ratio, 2)]
        cells = [cell for values, bounds, digits in told for cell in (spread(values, digits) if values else "-", _bounds(bounds))]
        # Told as a figure alone where no floor ran.
        asked = [(statistics.median(values), bounds) for values, bounds, _ in told if values and bounds]
        name = target.what if target.against == "nginx" else f"{target.what} (against {target.against})"
        lines.append(f"| {name} | {' | '.join(cells)} | {_verdict(asked)} |")
    return [*lines, ""] if len(lines) > 2 else []


def latencies(samples):
    """Open-loop latencies beside nginx's: the median's ratio, and whether the 99th percentile lies in nginx's spread."""
    lines = [
        "| workload | p50 ms | nginx's | ratio | must | p99 ms | nginx's | reached |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for workload in OPEN_LOOPS:
        own, peer = of(samples, workload, "tidegate"), of(samples, workload, "nginx")
        if not own or not peer:
            continue
        ratios = paired(samples, workload, "tidegate", "nginx", lambda sample: sample.load.p50)
        tails, peers_tails = ([sample.load.p99 for sample in some] for some in (own, peer))
        good = statistics.median(ratios) <= 1.05 and statistics.median(tails) <= max(peers_tails)
        lines.append(
            f"| {WORKLOADS[workload].what} | {spread([s.load.p50 for s in own], 2)} | {spread([s.load.p50 for s in peer], 2)} | {spread(ratios, 2)} | 1.05 "
            f"| {spread(tails, 2)} | {spread(peers_tails, 2)} | {'yes' if good else 'no'} |"
        )
    return [*lines, ""] if len(lines) > 2 else []


def idle_table(growths):
    """Growth an idle connection, as Markdown."""
    lines = ["| idle connections | proxy | bytes of resident memory each | must / goal | reached |", "| --- | --- | --- | --- | --- |"]
    for kind, (what, _, _, bounds) in idle.KINDS.items():
        peers = [growth.bytes for growth in growths if growth.kind == kind and growth.proxy == "nginx"]
        for proxy in dict.fromkeys(growth.proxy for growth in growths if growth.kind == kind):
            own = [growth.bytes for growth in growths if growth.kind == kind and growth.proxy == proxy]
            wanted, reached = "-", "-"
            if proxy == "tidegate" and bounds:
                wanted, reached = _bounds(bounds), _verdict([(statistics.median(own), bounds)])
            elif proxy == "tidegate" and peers:
                wanted, reached = "nginx's", "yes" if statistics.median(own) <= statistics.median(peers) else "no"
            lines.append(f"| {what} | {proxy} | {spread(own, 0)} | {wanted} | {reached} |")
    return [*lines, ""] if len(lines) > 2 else []


def _bounds(bounds):
    return f"{bounds[0]:g} / {bounds[1]:g}" if bounds else "-"


def _verdict(asked):
    """How far: the worst of what is asked for."""
    if not asked:
        return "told only"
    if all(value <= goal for value, (_, goal) in asked):
        return "goal"
    return "must" if all(value <= must for value, (must, _) in asked) else "no"
