"""Load, and what it cost the proxy under it."""

import re
import subprocess
import sys
from pathlib import Path

import machine

BROWSER = [
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
]

# name: (what it is, path, connections, over TLS, header fields, who takes part)
WORKLOADS = {
    "small": ("128-byte body, keep-alive, 50 connections", "/", 50, False, [], None),
    "browser": ("the same with a browser's eleven header fields", "/", 50, False, BROWSER, None),
    "many": ("128-byte body, 500 connections", "/", 500, False, [], None),
    "large": ("10 KiB body, 50 connections", "/b", 50, False, [], None),
    "tls": ("128-byte body over TLS 1.3, keep-alive, 50 connections", "/", 50, True, [], {"nginx", "haproxy", "tidegate"}),
    "direct": ("answered without a backend, 50 connections", "/direct", 50, False, [], {"nginx", "haproxy", "tidegate"}),
}


class Sample:
    """One proxy under one workload for some seconds."""

    def __init__(self, workload, proxy, number, requests, cpu, seconds, rate, p50, p99, resident):
        self.workload, self.proxy, self.number = workload, proxy, number
        self.requests, self.cpu, self.seconds, self.rate = requests, cpu, seconds, rate
        self.p50, self.p99, self.resident = p50, p99, resident

    @property
    def cost(self):
        """CPU microseconds a request."""
        return self.cpu / 1000 / self.requests

    @property
    def busy(self):
        """Share of one core that the proxy used, in per cent."""
        return 100 * self.cpu / 1e9 / self.seconds


def cpu_of(pids):
    """Nanoseconds on a CPU of all threads of these processes so far."""
    total = 0
    for pid in pids:
        for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(stat.read_text().split()[0])
            except OSError:
                pass  # the thread has just ended
    return total


def resident_of(pids):
    """Resident memory of these processes, in MB."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096 / 1e6


def load(proxy, workload, seconds):
    """Runs wrk; its output as (requests, seconds, rate, p50, p99). A failed request ends the measurement."""
    _, path, connections, tls, headers, _ = WORKLOADS[workload]
    url, own_headers = proxy.target(path, tls)
    command = ["taskset", "-c", "1", machine.find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for header in headers + own_headers:
        command += ["-H", header]
    result = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 60, check=True)
    text = result.stdout
    if "Non-2xx" in text or re.search(r"Socket errors: .*(connect|read|write) [1-9]", text):
        sys.exit(f"{proxy.name} failed requests of workload {workload}:\n{text}")
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", text).groups()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    return int(requests), float(took), rate, _latency(text, "50%"), _latency(text, "99%")


def _latency(text, quantile):
    value, unit = re.search(rf"{re.escape(quantile)}\s+([\d.]+)(us|ms|s)", text).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def run(field, workloads, rounds, seconds):
    """All rounds; a list of samples."""
    samples = []
    for workload in workloads:
        takes_part = WORKLOADS[workload][5]
        entrants = [proxy for proxy in field.proxies if takes_part is None or proxy.name in takes_part]
        for proxy in entrants:
            load(proxy, workload, 1)  # connections to the backend, caches, first allocations
        for number in range(1, rounds + 1):
            line = []
            for proxy in entrants:
                pids = proxy.pids()
                before = cpu_of(pids)
                requests, took, rate, p50, p99 = load(proxy, workload, seconds)
                cpu = cpu_of(pids) - before
                samples.append(Sample(workload, proxy.name, number, requests, cpu, took, rate, p50, p99, resident_of(pids)))
                line.append(f"{proxy.name} {samples[-1].cost:.1f} us")
            print(f"{workload} {number}/{rounds}: {', '.join(line)}", flush=True)
    return samples


def profile(field, directory, name):
    """A perf profile of Tidegate under small-body load, as text, if perf is there."""
    if machine.find("perf") is None:
        print("no profile: perf is not installed")
        return
    proxy = field.by_name("tidegate")
    data = field.directory / "perf.data"
    recorder = subprocess.Popen(
        ["perf", "record", "-e", "cpu-clock", "-F", "4000", "-g", "-o", str(data), "-p", ",".join(map(str, proxy.pids())), "--", "sleep", "4"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    load(proxy, "small", 5)
    recorder.wait(timeout=60)
    text = subprocess.run(
        ["perf", "report", "-i", str(data), "--no-children", "--stdio", "-g", "none", "--percent-limit", "0.3", "--sort", "comm,dso,symbol"],
        capture_output=True, text=True, check=False,
    ).stdout
    path = directory / f"{name}-profile.txt"
    path.write_text(text)
    print("profile:", path)
