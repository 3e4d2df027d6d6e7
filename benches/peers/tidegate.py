"""Tidegate's part: both planes apart, the control plane on CPU 1, where it idles, the data plane on CPU 0."""

import json
import subprocess
import sys
import time

PATIENCE = 60  # seconds until a plane must be ready
SLOW_PATIENCE = 600  # the same for a command on many APIs

# What is logged of each request: the common log format.
COMMON_LOG = (
    '$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime] '
    '"$context.httpMethod $context.resourcePath $context.protocol" $context.status $context.responseLength $context.requestId'
)

# On the data plane, beside the defaults: HTTP/2 on the plain port, and bodies of 100 MiB.
SETTINGS = {"TIDEGATE_HTTP2_PRIOR_KNOWLEDGE": "true", "TIDEGATE_LIMITS__PAYLOAD_BYTES": "1GiB"}

# A throttle that holds nobody back.
THROTTLE = {"throttlingRateLimit": 1_000_000, "throttlingBurstLimit": 1_000_000, "metricsEnabled": True}


class Installation:
    """A control plane and its only node."""

    def __init__(self, field, name):
        self.field, self.name = field, name
        self.binary = field.binaries / "tidegate"
        control = self._ready("control", 1, [
            "controlplane", "--data-dir", self._path("control"), "--admin", "127.0.0.1:0", "--management", "127.0.0.1:0", "--config", "127.0.0.1:0",
        ])[1]
        join = self._path("join")
        join.write_text(self.ask("node", "token"))
        self.process, self.node = self._ready("node", 0, [
            "dataplane", "--control", control["config"], "--join", join, "--data-dir", self._path("data"),
            "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--shards", "1", "--io-driver", field.driver,
        ], SETTINGS)
        self.http, self.https = (int(self.node[door].rsplit(":", 1)[1]) for door in ("http", "https"))

    def import_api(self, definition, stage, *options):
        """Imports and deploys a definition; the API's host."""
        path = self._path("definition.json")
        path.write_text(json.dumps(definition))
        deployed = json.loads(self.ask("import", path, "--stage", stage, "-o", "json", *options))
        return deployed["apiId"]

    def apply(self, stages, *options):
        """Sets up stages: (API, stage, its settings)."""
        path = self._path("stages.yaml")
        path.write_text("\n---\n".join(
            json.dumps({"name": f"restApis/{api}/stages/{stage}", "stage": settings}) for api, stage, settings in stages
        ))
        self.ask("apply", "-f", path, *options)

    def ask(self, *arguments):
        result = subprocess.run(
            [self.binary, *arguments, "--data-dir", self._path("control")], capture_output=True, text=True, timeout=SLOW_PATIENCE, check=False
        )
        if result.returncode != 0:
            sys.exit(f"tidegate {' '.join(map(str, arguments))}: {result.stderr}")
        return result.stdout

    def _path(self, name):
        return self.field.directory / f"{self.name}-{name}"

    def _ready(self, plane, cpu, command, settings=None):
        """Starts one plane and waits for its ready file."""
        path = self._path(f"{plane}.ready")
        process = self.field.start(f"{self.name}-{plane}", cpu, [self.binary, *command, "--ready-file", path], settings)
        deadline = time.monotonic() + PATIENCE
        while True:
            if path.exists() and (text := path.read_text()):
                return process, json.loads(text)
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.field.directory / f"{self.name}-{plane}.log").read_text()[-3000:]
                sys.exit(f"tidegate {command[0]} did not get ready:\n{said}")
            time.sleep(0.02)


def log_settings():
    return {"accessLogSettings": {"destinationArn": "arn:aws:logs:us-east-1:000000000000:log-group:bench", "format": COMMON_LOG}}


def host(api):
    return f"{api}.execute-api.localhost"


def passed_on(backend, path):
    """An operation that is proxied."""
    return {
        "responses": {"200": {"description": "ok"}},
        "x-amazon-apigateway-integration": {"type": "http_proxy", "httpMethod": "GET", "uri": f"http://{backend}{path}"},
    }


def definition(backend):
    """What every workload but `routes` asks for."""
    mock = {
        "responses": {"200": {"description": "ok"}},
        "x-amazon-apigateway-integration": {
            "type": "mock",
            "requestTemplates": {"application/json": '{"statusCode": 200}'},
            "responses": {"default": {"statusCode": "200"}},
        },
    }
    paths = {path: {"get": passed_on(backend, path)} for path in ("/", "/b", "/m", "/g")}
    return {"openapi": "3.0.1", "info": {"title": "bench", "version": "1"}, "paths": {**paths, "/direct": {"get": mock}}}


def routes(backend, count):
    """A definition of so many routes."""
    return {
        "openapi": "3.0.1",
        "info": {"title": "routes", "version": "1"},
        "paths": {f"/collection{number}/items": {"get": passed_on(backend, "/")} for number in range(count)},
    }


# What is posted: a kibibyte of JSON that fits `SCHEMA`.
BODY = json.dumps({
    "name": "Bella", "type": "dog", "price": 249.99, "tags": ["small", "young", "brown"],
    "notes": [{"id": number, "text": "likes long walks along the water"} for number in range(18)],
}, separators=(",", ":"))

SCHEMA = {
    "type": "object",
    "required": ["name", "type", "price"],
    "properties": {
        "name": {"type": "string"},
        "type": {"type": "string", "enum": ["dog", "cat", "fish"]},
        "price": {"type": "number", "minimum": 25, "maximum": 500},
        "tags": {"type": "array", "items": {"type": "string"}},
        "notes": {"type": "array", "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}, "text": {"type": "string"}}}},
    },
}

REQUEST_TEMPLATE = """#set($pet = $input.path('$'))
{"kind": "$pet.type", "label": "$pet.name", "cost": $pet.price, "stage": "$context.stage", "notes": [
#foreach($note in $pet.notes)
{"number": $note.id, "says": "$note.text"}#if($foreach.hasNext),#end

#end
]}"""

RESPONSE_TEMPLATE = """#set($root = $input.path('$'))
[
#foreach($pet in $root.pets)
{"description": "Item $pet.id is a $pet.type.", "askingPrice": $pet.price}#if($foreach.hasNext),#end

#end
]"""


def shapes(backend):
    """The same call twice: passed on as it is, and validated and reshaped both ways."""
    responses = {"200": {"description": "ok"}}
    passed = {"type": "http_proxy", "httpMethod": "POST", "uri": f"http://{backend}/j"}
    reshaped = {
        "type": "http", "httpMethod": "POST", "uri": f"http://{backend}/j",
        "requestTemplates": {"application/json": REQUEST_TEMPLATE},
        "responses": {"default": {"statusCode": "200", "responseTemplates": {"application/json": RESPONSE_TEMPLATE}}},
    }
    operations = {
        "/passed/shape": {"responses": responses, "x-amazon-apigateway-integration": passed},
        "/reshaped/shape": {
            "responses": responses, "x-amazon-apigateway-integration": reshaped, "x-amazon-apigateway-request-validator": "body",
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
        },
    }
    return {
        "openapi": "3.0.1",
        "info": {"title": "shapes", "version": "1"},
        "x-amazon-apigateway-request-validators": {"body": {"validateRequestBody": True, "validateRequestParameters": False}},
        "components": {"schemas": {"Pet": SCHEMA}},
        "paths": {path: {"post": operation} for path, operation in operations.items()},
    }
