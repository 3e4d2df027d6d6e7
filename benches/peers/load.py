"""The clients, on CPU 1. A failed request ends the measurement."""

import re
import subprocess
import sys
from dataclasses import dataclass, replace

import machine

PINNED = ["taskset", "-c", "1"]

# Longer than the kernel's buffers, so that the proxy has to wait.
SLOW_PATH, SLOW_CLIENTS, SLOW_BYTES = "/g", 200, 128 * 1024


@dataclass
class Load:
    """What a client did, and what it saw: units of the workload, latencies in milliseconds."""

    units: float
    seconds: float
    rate: float  # units a second
    cpu: int  # nanoseconds of the proxy's
    p50: float | None = None
    p99: float | None = None


class Clients:
    """The clients of one measurement."""

    def __init__(self, binaries):
        self.own = binaries / "peers-client"
        self.peak = None  # requests a second, for open loops

    def load(self, proxy, workload, seconds):
        return getattr(self, workload.client)(proxy, workload, seconds)

    def wrk(self, proxy, workload, seconds):
        door = proxy.doors[workload.door]
        command = [machine.find("wrk"), "-t1", f"-c{workload.connections}", f"-d{seconds}s", "--latency"]
        for header in (*workload.headers, *door.headers()):
            command += ["-H", header]
        if door.script:
            command += ["-s", door.script]
        text, cpu = _run(proxy, workload, seconds, [*command, door.url(workload.path)])
        if "Non-2xx" in text or re.search(r"Socket errors: .*(connect|read|write) [1-9]", text):
            _fail(proxy, workload, text)
        requests, took, minutes, count, unit = re.search(r"(\d+) requests in ([\d.]+)(?:s|(m)), ([\d.]+)([KMGT]?B) read", text).groups()
        units = int(requests)
        if workload.unit == "MB":
            units = float(count) * 1024 ** " KMGT".index(unit[0] if len(unit) > 1 else " ") / 1e6
        if not units:
            _fail(proxy, workload, text)
        seconds = float(took) * (60 if minutes else 1)
        return Load(units, seconds, units / seconds, cpu, _latency(text, "50%"), _latency(text, "99%"))

    def h2load(self, proxy, workload, seconds):
        door = proxy.doors[workload.door]
        command = [machine.find("h2load"), f"-c{workload.connections}", f"-m{workload.streams}", "-t1", f"-D{seconds}"]
        if door.host:
            command += ["-H", f":authority: {door.host}"]
        text, cpu = _run(proxy, workload, seconds, [*command, door.url(workload.path)])
        value, unit = re.search(r"finished in ([\d.]+)(us|ms|s)", text).groups()
        took = float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]
        done, succeeded, failed = map(int, re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", text).groups())
        good = int(re.search(r"status codes: (\d+) 2xx", text).group(1))
        if failed or not good or good < succeeded:
            _fail(proxy, workload, text)
        return Load(done, took, done / took, cpu)

    def connect(self, proxy, workload, seconds):
        command = self._command(proxy.doors[workload.door], "connect", workload.path, (workload.kind, seconds, workload.connections))
        text, cpu = _run(proxy, workload, seconds, command)
        values = _values(text)
        if workload.kind == "resumed" and values["resumed"] < 0.9 * values["requests"]:
            sys.exit(f"{proxy.name} resumed only {values['resumed']:.0f} of {values['requests']:.0f} sessions")
        return _loaded(values, cpu)

    def open_loop(self, proxy, workload, seconds):
        rate = workload.rate or workload.share * self.peak
        door = proxy.doors[workload.door]
        with self.start(door, "open", workload.path, seconds, workload.connections, f"{rate:.0f}") as client:
            if not client.stdout.readline().startswith("ready"):
                _fail(proxy, workload, client.stderr.read())
            pids = proxy.pids()
            before = machine.cpu_of(pids)  # what the connections cost is not what requests cost
            text, errors = client.communicate("begin\n", timeout=seconds + 120)
            cpu = machine.cpu_of(pids) - before
            if client.returncode != 0:
                _fail(proxy, workload, errors)
        return _loaded(_values(text), cpu)

    def beside_slow(self, proxy, workload, seconds):
        door = proxy.doors[workload.door]
        with self.start(door, "slow", SLOW_PATH, SLOW_CLIENTS, SLOW_BYTES) as slow:
            if not slow.stdout.readline().startswith("ready"):
                sys.exit(f"{proxy.name} failed slow clients: {slow.stderr.read()}")
            result = self.wrk(proxy, workload, seconds)
            _, errors = slow.communicate(timeout=60)
            if slow.returncode != 0:
                sys.exit(f"{proxy.name} failed slow clients: {errors}")
        return result

    def find_peak(self, proxy, workload, seconds):
        """Requests a second of a closed loop over as many connections."""
        self.peak = self.wrk(proxy, replace(workload, client="wrk"), seconds).rate

    def start(self, door, mode, path, *arguments):
        """Starts a client of ours that is spoken to while it runs."""
        return subprocess.Popen(
            PINNED + self._command(door, mode, path, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _command(self, door, mode, path, arguments):
        host = door.host or f"127.0.0.1:{door.port}"
        return list(map(str, (self.own, mode, f"127.0.0.1:{door.port}", host, door.prefix + path, *arguments)))


def _values(text):
    return {name: float(value) for name, value in (line.split() for line in text.splitlines())}


def _loaded(values, cpu):
    requests, seconds = values["requests"], values["seconds"]
    return Load(requests, seconds, requests / seconds, cpu, values.get("p50"), values.get("p99"))


def _run(proxy, workload, seconds, command):
    """Runs a client; what it printed, and the CPU time that the proxy used meanwhile."""
    pids = proxy.pids()
    before = machine.cpu_of(pids)
    result = subprocess.run(PINNED + list(map(str, command)), capture_output=True, text=True, timeout=seconds + 120, check=False)
    if result.returncode != 0:
        _fail(proxy, workload, result.stdout + result.stderr)
    return result.stdout, machine.cpu_of(pids) - before


def _fail(proxy, workload, text):
    sys.exit(f"{proxy.name} failed requests of this workload: {workload.what}\n{text}")


def _latency(text, quantile):
    value, unit = re.search(rf"{re.escape(quantile)}\s+([\d.]+)(us|ms|s|m)\b", text).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]
