"""Rounds of load, and what they cost the proxy under it."""

import subprocess
from dataclasses import dataclass

import machine
from load import Clients, Load
from workloads import WORKLOADS


@dataclass
class Sample:
    """One proxy under one workload for some seconds."""

    workload: str
    proxy: str
    number: int
    load: Load
    resident: float  # MB

    @property
    def cost(self):
        """CPU microseconds a unit."""
        return self.load.cpu / 1000 / self.load.units

    @property
    def busy(self):
        """Share of one core that the proxy used, in per cent."""
        return 100 * self.load.cpu / 1e9 / self.load.seconds


def run(field, names, rounds, seconds):
    """All rounds; a list of samples."""
    samples, clients = [], Clients(field.binaries)
    for name in names:
        workload = WORKLOADS[name]
        entrants = [proxy for proxy in field.proxies if workload.door in proxy.doors]
        if workload.share and clients.peak is None:
            clients.find_peak(entrants[0], workload, seconds)
            field.told["the peak of open loops"] = f"{clients.peak:.0f} requests/s, {entrants[0].name}'s with {workload.connections} connections"
        for proxy in entrants:
            clients.load(proxy, workload, 1)  # connections to the backend, caches, first allocations
        for number in range(1, rounds + 1):
            line = []
            for proxy in entrants:
                load = clients.load(proxy, workload, seconds)
                samples.append(Sample(name, proxy.name, number, load, machine.resident_of(proxy.pids())))
                line.append(f"{proxy.name} {samples[-1].cost:.1f} us")
            print(f"{name} {number}/{rounds}: {', '.join(line)}", flush=True)
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
    Clients(field.binaries).load(proxy, WORKLOADS["small"], 5)
    recorder.wait(timeout=60)
    text = subprocess.run(
        ["perf", "report", "-i", str(data), "--no-children", "--stdio", "-g", "none", "--percent-limit", "0.3", "--sort", "comm,dso,symbol"],
        capture_output=True, text=True, check=False,
    ).stdout
    path = directory / f"{name}-profile.txt"
    path.write_text(text)
    print("profile:", path)
