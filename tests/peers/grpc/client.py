"""A gRPC client made of grpcio that does what it is told.

    client.py HOST:PORT [CA_FILE]

Reads commands from its standard input, one JSON object a line, and answers each with one:

    {"do": "call", "id": I, "method": M, "size": N, "timeout": S, "metadata": {}}
        begins a call; streams of requests begin without a message
    {"do": "send", "id": I, "size": N}     sends a message of a stream
    {"do": "end", "id": I}                 ends a stream of requests
    {"do": "receive", "id": I}             {"size": N}, or {"size": null} at the end
    {"do": "cancel", "id": I}
    {"do": "finish", "id": I}
        waits for the end: {"code", "details", "sizes", "text", "initial", "trailing"}
"""

import json
import queue
import sys

import grpc

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    # What is seen is what the proxy has sent, not what a retry makes of it.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Call:
    def __init__(self, channel, method, size, timeout, metadata):
        path = f"/test.Calls/{method}"
        self.requests = queue.Queue()
        self.sizes = []
        self.text = None
        metadata = list(metadata.items())
        message = b"m" * size
        if method in ("Unary", "Fail"):
            self.rpc = channel.unary_unary(path).future(message, timeout, metadata)
        elif method == "ServerStream":
            self.rpc = channel.unary_stream(path)(message, timeout, metadata)
        elif method == "ClientStream":
            stub = channel.stream_unary(path)
            self.rpc = stub.future(iter(self.requests.get, None), timeout, metadata)
        else:
            stub = channel.stream_stream(path)
            self.rpc = stub(iter(self.requests.get, None), timeout, metadata)
        self.streams = method in ("ServerStream", "Bidi")

    def receive(self):
        message = next(self.rpc, None)
        if message is not None:
            self.sizes.append(len(message))
        return None if message is None else len(message)

    def finish(self):
        try:
            if self.streams:
                while self.receive() is not None:
                    pass
            else:
                message = self.rpc.result()
                self.sizes.append(len(message))
                self.text = message[:100].decode()
        except (grpc.RpcError, grpc.FutureCancelledError):
            pass
        return {
            "code": self.rpc.code().value[0],
            "details": self.rpc.details(),
            "sizes": self.sizes,
            "text": self.text,
            "initial": {k: v for k, v in self.rpc.initial_metadata() or () if v},
            "trailing": {k: v for k, v in self.rpc.trailing_metadata() or () if v},
        }


def main():
    place, *ca = sys.argv[1:]
    if ca:
        with open(ca[0], "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        channel = grpc.secure_channel(place, credentials, OPTIONS)
    else:
        channel = grpc.insecure_channel(place, OPTIONS)
    calls = {}
    for line in sys.stdin:
        command = json.loads(line)
        kind, mark = command.pop("do"), command.pop("id")
        said = {}
        if kind == "call":
            calls[mark] = Call(channel, **command)
        elif kind == "send":
            calls[mark].requests.put(b"m" * command["size"])
        elif kind == "end":
            calls[mark].requests.put(None)
        elif kind == "receive":
            said["size"] = calls[mark].receive()
        elif kind == "cancel":
            said["cancelled"] = calls[mark].rpc.cancel()
        elif kind == "finish":
            said = calls[mark].finish()
        print(json.dumps(said), flush=True)


main()
