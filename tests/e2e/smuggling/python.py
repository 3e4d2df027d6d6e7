"""As node.js, with h11, the parser of uvicorn and httpx."""

import json
import socket
import threading

import h11

seen = []


def answer(connection, stream, request, body):
    if request.target == b"/_seen":
        told = seen
    else:
        told = {"method": request.method.decode(), "target": request.target.decode("latin-1"), "body": body.decode("latin-1")}
        seen.append(told)
    text = json.dumps(told).encode()
    head = h11.Response(status_code=200, headers=[("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    without = request.method == b"HEAD"
    stream.sendall(b"".join(filter(None, (connection.send(event) for event in ([head] if without else [head, h11.Data(text)]) + [h11.EndOfMessage()]))))


def converse(stream):
    connection, request, body = h11.Connection(h11.SERVER), None, b""
    with stream:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    stream.sendall(connection.send(h11.InformationalResponse(status_code=100, headers=[])))
                connection.receive_data(stream.recv(65536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer(connection, stream, request, body)
                if connection.our_state is h11.MUST_CLOSE:
                    return
                connection.start_next_cycle()
            else:
                return


def serve(stream):
    try:
        converse(stream)
    except (h11.RemoteProtocolError, OSError):
        pass  # what is no HTTP, or not whole, is nothing that was seen


listener = socket.socket(fileno=0)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
