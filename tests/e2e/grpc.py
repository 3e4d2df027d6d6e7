"""A gRPC server and client that nobody here wrote, on the package `grpcio`, with bytes for messages.

`grpc.py serve` prints its port. `grpc.py call HOST:PORT NAME PREFIX CA` goes through the kinds of calls over TLS, and
fails where anything is amiss.
"""

import queue
import sys
import threading
from concurrent import futures

# This file has the name of the package that it is about.
sys.path.pop(0)
import grpc  # noqa: E402

SERVICE = "tide.Test"
WAIT = 20


class Handlers:
    def __init__(self):
        self.go = threading.Event()
        self.cancelled = threading.Event()

    def unary(self, request, context):
        context.set_trailing_metadata((("x-trail", "behind"), ("x-raw-bin", b"\x00\xff")))
        if request == b"fail":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such tide: ü")
        if request == b"go":
            self.go.set()
        if request == b"cancelled?":
            return b"yes" if self.cancelled.wait(WAIT) else b"no"
        return request + dict(context.invocation_metadata()).get("x-word", "").encode()

    def down(self, request, context):
        yield b"first"
        assert self.go.wait(WAIT), "nobody said go"
        for number in range(int(request)):
            yield bytes([number % 256]) * 10000

    def both(self, requests, context):
        for request in requests:
            yield request[::-1]

    def up(self, requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def hang(self, request, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(WAIT)
        return b"late"


def serve():
    handlers = Handlers()
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    "Unary": grpc.unary_unary_rpc_method_handler(handlers.unary),
                    "Down": grpc.unary_stream_rpc_method_handler(handlers.down),
                    "Up": grpc.stream_unary_rpc_method_handler(handlers.up),
                    "Both": grpc.stream_stream_rpc_method_handler(handlers.both),
                    "Hang": grpc.unary_unary_rpc_method_handler(handlers.hang),
                },
            ),
        )
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def call(address, name, prefix, authority_file):
    with open(authority_file, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = [("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(address, credentials, options) as channel:
        path = f"{prefix}/{SERVICE}/"
        unary = channel.unary_unary(path + "Unary")

        answer, done = unary.with_call(b"a", timeout=WAIT, metadata=(("x-word", "b"),))
        assert answer == b"ab", answer
        trailers = {item.key: item.value for item in done.trailing_metadata()}
        assert trailers["x-trail"] == "behind" and trailers["x-raw-bin"] == b"\x00\xff", trailers

        large = bytes(range(256)) * 12000
        assert unary(large, timeout=WAIT) == large, "a large message differs"

        try:
            unary(b"fail", timeout=WAIT)
            raise AssertionError("did not fail")
        except grpc.RpcError as error:
            seen = (error.code(), error.details())
            assert seen == (grpc.StatusCode.NOT_FOUND, "no such tide: ü"), seen

        # The first message has come before the server may go on.
        stream = channel.unary_stream(path + "Down")(b"300", timeout=WAIT)
        assert next(stream) == b"first"
        unary(b"go", timeout=WAIT)
        rest = list(stream)
        assert rest == [bytes([number % 256]) * 10000 for number in range(300)], len(rest)

        sizes = [1, 0, 100_000, 65_536]
        total = channel.stream_unary(path + "Up")(iter([bytes(size) for size in sizes]), timeout=WAIT)
        assert total == str(sum(sizes)).encode(), total

        # Each answer has come before the next question is asked.
        questions = queue.Queue()
        answers = channel.stream_stream(path + "Both")(iter(questions.get, None), timeout=WAIT)
        for word in [b"ebb", b"flow", b"x" * 200_000, b"tide"]:
            questions.put(word)
            assert next(answers) == word[::-1]
        questions.put(None)
        assert list(answers) == []
        assert answers.code() == grpc.StatusCode.OK

        try:
            channel.unary_unary(path + "Hang")(b"", timeout=0.5)
            raise AssertionError("did not time out")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert unary(b"cancelled?", timeout=WAIT) == b"yes", "the server was not told"


if sys.argv[1] == "serve":
    serve()
else:
    call(*sys.argv[2:])
    print("done")
