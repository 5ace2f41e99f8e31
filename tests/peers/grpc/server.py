"""A gRPC server made of grpcio: says on its standard output what it is asked.

    server.py

Says `{"port": N}` first, then a line for each thing that happens to a call. Its messages
are octets, not protobuf: what is in them is nobody's business on the way.

    /test.Calls/Unary          the message back, once the call's `x-hold` ms are over
    /test.Calls/ServerStream   the message `x-count` times, `x-hold` ms apart
    /test.Calls/ClientStream   how many messages and octets there were
    /test.Calls/Bidi           each message back as it comes
    /test.Calls/Fail           the status `x-status`, with details

Each answer has the initial metadata `x-initial: yes`, which are sent at once unless the
call is `x-silent`, and the trailing `x-trailing: yes`.
"""

import json
import threading
import time
from concurrent import futures

import grpc

lock = threading.Lock()


def say(**what):
    with lock:
        print(json.dumps(what), flush=True)


class Calls(grpc.GenericRpcHandler):
    def service(self, details):
        asked = dict(details.invocation_metadata)
        name = details.method.rsplit("/", 1)[1]
        hold = int(asked.get("x-hold", "0")) / 1000
        mark = asked.get("x-mark", "")

        def begin(context):
            say(began=name, mark=mark, left=context.time_remaining(), metadata=asked)
            # Also called when it has ended by itself.
            context.add_callback(lambda: say(over=name, mark=mark))
            if "x-silent" not in asked:
                context.send_initial_metadata((("x-initial", "yes"),))
            context.set_trailing_metadata((("x-trailing", "yes"),))

        def unary(message, context):
            begin(context)
            end = time.monotonic() + hold
            while context.is_active() and time.monotonic() < end:
                time.sleep(0.01)
            say(answered=name, mark=mark, active=context.is_active())
            return message

        def fail(message, context):
            begin(context)
            code = {code.value[0]: code for code in grpc.StatusCode}[int(asked["x-status"])]
            context.abort(code, "as it was asked to: 100 % \u00fc")

        def server_stream(message, context):
            begin(context)
            for _ in range(int(asked["x-count"])):
                yield message
                time.sleep(hold)
            say(answered=name, mark=mark, active=context.is_active())

        def client_stream(messages, context):
            begin(context)
            lengths = [len(message) for message in messages]
            say(answered=name, mark=mark, active=context.is_active())
            return f"{len(lengths)} {sum(lengths)}".encode()

        def bidi(messages, context):
            begin(context)
            for message in messages:
                yield message
            say(answered=name, mark=mark, active=context.is_active())

        return {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        }.get(name)


def main():
    options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(64), handlers=[Calls()], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(port=port)
    server.wait_for_termination()


main()
