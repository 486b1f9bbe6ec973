"""Calls of gRPC through the edge, by the library that its users have: grpcio on both sides.

    grpc_calls.py EDGE_ADDRESS BACKEND_ADDRESS

Serves at the backend's address and calls through the edge. Messages are plain bytes. Prints a line for each thing that
was seen to be so; the first that is not ends it with an exception.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

AUTHORITY = "grpc.example.com"
SLEEP = 30


class Handler(grpc.GenericRpcHandler):
    """Methods of the service `lab.Echo`."""

    def __init__(self):
        self.metadata = {}
        self.cancelled = threading.Event()

    def service(self, call):
        self.metadata[call.method] = dict(call.invocation_metadata)
        methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Server": grpc.unary_stream_rpc_method_handler(self.server),
            "Client": grpc.stream_unary_rpc_method_handler(self.client),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
        }
        return methods.get(call.method.rsplit("/", 1)[1])

    def unary(self, request, context):
        context.send_initial_metadata((("head", "h"),))
        context.set_trailing_metadata((("tail", "t"), ("tail-bin", b"\x00\xff")))
        return request

    def server(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def client(self, requests, context):
        return b"+".join(requests)

    def both(self, requests, context):
        for request in requests:
            yield request

    def fail(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: \u00e4 %")

    def fail_late(self, request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "second")

    def sleep(self, request, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(SLEEP)
        return b"slept"


def say(what):
    print(what, flush=True)


def fails(call, code):
    """The error of a call, whose code is this one."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error
    raise AssertionError("it did not fail")


def main(edge, backend):
    handler = Handler()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((handler,))
    assert server.add_insecure_port(backend) != 0
    server.start()
    channel = grpc.insecure_channel(edge, options=(("grpc.default_authority", AUTHORITY),))
    grpc.channel_ready_future(channel).result(SLEEP)

    unary = channel.unary_unary("/lab.Echo/Unary")
    reply, call = unary.with_call(b"abc", metadata=(("x-own", "1"),), timeout=SLEEP)
    assert reply == b"abc"
    assert ("head", "h") in call.initial_metadata()
    trailers = dict(call.trailing_metadata())
    assert (trailers["tail"], trailers["tail-bin"]) == ("t", b"\x00\xff"), trailers
    seen = handler.metadata["/lab.Echo/Unary"]
    assert seen["x-own"] == "1" and "x-request-id" in seen, seen
    say("unary, with metadata at both ends")

    assert unary(b"x" * 3_000_000, timeout=SLEEP) == b"x" * 3_000_000
    say("a message of three megabytes")

    replies = list(channel.unary_stream("/lab.Echo/Server")(b"1000", timeout=SLEEP))
    assert replies == [b"%d" % number for number in range(1000)]
    say("a stream of the server")

    joined = channel.stream_unary("/lab.Echo/Client")(iter([b"a", b"b", b"c"]), timeout=SLEEP)
    assert joined == b"a+b+c"
    say("a stream of the client")

    # Each message is sent once the one before has come back: nothing may be held back on the way.
    go = threading.Semaphore(1)

    def requests():
        for number in range(100):
            assert go.acquire(timeout=SLEEP)
            yield b"%d" % number

    count = 0
    for reply in channel.stream_stream("/lab.Echo/Both")(requests(), timeout=SLEEP):
        assert reply == b"%d" % count
        count += 1
        go.release()
    assert count == 100
    say("a stream of both, by turns")

    error = fails(lambda: channel.unary_unary("/lab.Echo/Fail")(b"", timeout=SLEEP), grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "no: \u00e4 %", error.details()
    late = channel.unary_stream("/lab.Echo/FailLate")(b"", timeout=SLEEP)
    assert next(late) == b"first"
    assert fails(lambda: next(late), grpc.StatusCode.DATA_LOSS).details() == "second"
    fails(lambda: channel.unary_unary("/lab.Echo/Nothing")(b"", timeout=SLEEP), grpc.StatusCode.UNIMPLEMENTED)
    say("statuses of the server, in heads and in trailers")

    begun = time.monotonic()
    sleep = channel.unary_unary("/lab.Echo/Sleep")
    fails(lambda: sleep(b"", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - begun < SLEEP / 2
    assert handler.cancelled.wait(SLEEP / 2), "the server sleeps on"
    say("a deadline, which the server learns of")

    handler.cancelled.clear()
    call = sleep.future(b"", timeout=SLEEP)
    time.sleep(0.3)
    call.cancel()
    assert handler.cancelled.wait(SLEEP / 2), "the server sleeps on"
    say("a call that is cancelled")

    # What the edge answers by itself (Envoy maps 404 to UNIMPLEMENTED, 503 to UNAVAILABLE and 429 likewise).
    fails(lambda: channel.unary_unary("/nowhere/X")(b"", timeout=SLEEP), grpc.StatusCode.UNIMPLEMENTED)
    error = fails(lambda: channel.unary_unary("/gone/X")(b"", timeout=SLEEP), grpc.StatusCode.UNAVAILABLE)
    assert "upstream connect error" in error.details(), error.details()
    fails(lambda: channel.unary_unary("/abort/X")(b"", timeout=SLEEP), grpc.StatusCode.RESOURCE_EXHAUSTED)
    say("statuses of the edge's own answers")
    channel.close()
    server.stop(0).wait()


main(*sys.argv[1:])
