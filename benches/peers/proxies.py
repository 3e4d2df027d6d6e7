"""Starting and stopping what is compared, each pinned to CPU 0, and the backend on CPU 1."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PATIENCE = 60  # seconds until something that starts must be ready


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


# What Tidegate logs of each request: the common log format.
COMMON_LOG = (
    '$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime] '
    '"$context.httpMethod $context.resourcePath $context.protocol" $context.status $context.responseLength $context.requestId'
)


class Proxy:
    """A running proxy."""

    def __init__(self, name, process, port, tls_port=None, prefix="", headers=()):
        self.name, self.process, self.port, self.tls_port = name, process, port, tls_port
        self.prefix, self.headers = prefix, list(headers)

    def pids(self):
        return children(self.process.pid)

    def target(self, path, tls):
        """The URL of a path, and the header fields that it needs."""
        scheme, port = ("https", self.tls_port) if tls else ("http", self.port)
        return f"{scheme}://127.0.0.1:{port}{self.prefix}{path}", self.headers


class Field:
    """Everything that takes part, from start to stop."""

    def __init__(self, wanted, binaries, driver):
        self.wanted, self.binaries, self.driver = wanted, Path(binaries).resolve(), driver
        self.processes, self.proxies, self.told = [], [], {}

    def __enter__(self):
        self._temporary = tempfile.TemporaryDirectory(prefix="tidegate-peers-")
        self.directory = Path(self._temporary.name)
        try:
            self._certificate()
            port = free_port()
            self.backend = f"127.0.0.1:{port}"
            await_port(port, self._start("responder", 1, [self.binaries / "peers-responder", self.backend]), "the backend")
            for name in self.wanted:
                getattr(self, f"_{name}")()
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

    def facts(self):
        return self.told

    def _start(self, name, cpu, command):
        log = open(self.directory / f"{name}.log", "ab")
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
        )
        self.processes.append(process)
        return process

    def _certificate(self):
        key, certificate = self.directory / "key.pem", self.directory / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )
        (self.directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())

    def _fill(self, template, port, tls_port):
        text = (HERE / template).read_text()
        for name, value in {"PORT": port, "TLS_PORT": tls_port, "BACKEND": self.backend, "DIR": self.directory}.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.directory / template
        path.write_text(text)
        return path

    def _nginx(self):
        port, tls_port = free_port(), free_port()
        path = self._fill("nginx.conf", port, tls_port)
        process = self._start("nginx", 0, [machine.find("nginx"), "-c", path, "-e", self.directory / "nginx-start.log"])
        await_port(port, process, "nginx", self.directory / "nginx.log")
        self.proxies.append(Proxy("nginx", process, port, tls_port))

    def _haproxy(self):
        port, tls_port = free_port(), free_port()
        path = self._fill("haproxy.cfg", port, tls_port)
        process = self._start("haproxy", 0, [machine.find("haproxy"), "-db", "-f", path])
        await_port(port, process, "haproxy", self.directory / "haproxy.log")
        self.proxies.append(Proxy("haproxy", process, port, tls_port))

    def _floor(self):
        port = free_port()
        process = self._start("floor", 0, [self.binaries / "peers-floor", f"127.0.0.1:{port}", self.backend, self.driver])
        await_port(port, process, "the floor", self.directory / "floor.log")
        self.proxies.append(Proxy("floor", process, port))

    def _tidegate(self):
        """Both planes apart: the control plane on CPU 1, where it idles, the data plane on CPU 0."""
        binary = self.binaries / "tidegate"
        control = self._ready("controlplane", 1, [
            binary, "controlplane", "--data-dir", self.directory / "control", "--admin", "127.0.0.1:0", "--management", "127.0.0.1:0",
            "--config", "127.0.0.1:0",
        ])[1]
        join = self.directory / "join"
        join.write_text(self._ask(binary, "node", "token"))
        process, node = self._ready("dataplane", 0, [
            binary, "dataplane", "--control", control["config"], "--join", join, "--data-dir", self.directory / "node",
            "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--shards", "1", "--io-driver", self.driver,
        ])
        self.told["Tidegate's driver"] = node["driver"]
        definition = self.directory / "bench.json"
        definition.write_text(json.dumps(self._definition()))
        deployed = json.loads(self._ask(binary, "import", definition, "--stage", "bench", "-o", "json"))
        settings = self.directory / "stage.json"
        settings.write_text(json.dumps({
            "name": f"restApis/{deployed['apiId']}/stages/bench",
            "stage": {"accessLogSettings": {"destinationArn": "arn:aws:logs:us-east-1:000000000000:log-group:bench", "format": COMMON_LOG}},
        }))
        self._ask(binary, "apply", "-f", settings)
        host = f"Host: {deployed['apiId']}.execute-api.localhost"
        port, tls_port = (int(node[name].rsplit(":", 1)[1]) for name in ("http", "https"))
        self.proxies.append(Proxy("tidegate", process, port, tls_port, "/bench", [host]))

    def _ready(self, name, cpu, command):
        """Starts one plane and waits for its ready file."""
        path = self.directory / f"{name}.ready"
        process = self._start(name, cpu, [*command, "--ready-file", path])
        deadline = time.monotonic() + PATIENCE
        while True:
            if path.exists() and (text := path.read_text()):
                return process, json.loads(text)
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"tidegate {name} did not get ready:\n{(self.directory / f'{name}.log').read_text()[-3000:]}")
            time.sleep(0.02)

    def _ask(self, binary, *arguments):
        result = subprocess.run(
            [binary, *arguments, "--data-dir", self.directory / "control"], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if result.returncode != 0:
            sys.exit(f"tidegate {' '.join(map(str, arguments))}: {result.stderr}")
        return result.stdout

    def _definition(self):
        def proxy(path):
            return {
                "responses": {"200": {"description": "ok"}},
                "x-amazon-apigateway-integration": {"type": "http_proxy", "httpMethod": "GET", "uri": f"http://{self.backend}{path}"},
            }

        mock = {
            "responses": {"200": {"description": "ok"}},
            "x-amazon-apigateway-integration": {
                "type": "mock",
                "requestTemplates": {"application/json": '{"statusCode": 200}'},
                "responses": {"default": {"statusCode": "200"}},
            },
        }
        return {
            "openapi": "3.0.1",
            "info": {"title": "bench", "version": "1"},
            "paths": {"/": {"get": proxy("/")}, "/b": {"get": proxy("/b")}, "/direct": {"get": mock}},
        }
