"""WebSockets through the edge, by a library that its users have, on both sides.

    websockets_through.py EDGE_HOST EDGE_PORT BACKEND_PORT

Prints a line for each thing that was seen to be so; the first that is not ends it with an exception.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

HOST = "ws.example.com"
LIMIT = 30


def say(what):
    print(what, flush=True)


async def answer(socket):
    """Gives messages back; `close` closes with a code of the server's."""
    async for message in socket:
        if message == "close":
            await socket.close(4001, "enough")
            return
        await socket.send(message)


async def main(edge, port, backend):
    url = f"ws://{HOST}/chat"
    async with serve(answer, "127.0.0.1", int(backend), subprotocols=["echo"], max_size=None):

        def through():
            more = {"host": edge, "port": int(port), "max_size": None, "proxy": None}
            return connect(url, subprotocols=["echo"], **more)

        async with through() as socket:
            assert socket.subprotocol == "echo"
            assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            for message in ["", "text \u00e4", b"\x00\xff", "x" * 1_000_000, b"y" * 1_000_000]:
                await socket.send(message)
                assert await asyncio.wait_for(socket.recv(), LIMIT) == message
            say("messages, small and large, with protocol and compression agreed on")
            await asyncio.wait_for(await socket.ping(b"abc"), LIMIT)
            say("ping and pong")
            await socket.send(part for part in ["a", "b", "c"])
            assert await asyncio.wait_for(socket.recv(), LIMIT) == "abc"
            say("a message in fragments")
            await asyncio.sleep(3)
            await socket.send("later")
            assert await asyncio.wait_for(socket.recv(), LIMIT) == "later"
            say("silence in between")

        async with through() as socket:
            await socket.send("close")
            try:
                await asyncio.wait_for(socket.recv(), LIMIT)
                raise AssertionError("it goes on")
            except ConnectionClosed as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "enough"), closed
            say("the server's word at the end")

        sockets = [await through() for _ in range(100)]
        for number, socket in enumerate(sockets):
            await socket.send(str(number))
        for number, socket in enumerate(sockets):
            assert await asyncio.wait_for(socket.recv(), LIMIT) == str(number)
        await asyncio.gather(*(socket.close() for socket in sockets))
        say("a hundred at once")

    try:
        async with through():
            raise AssertionError("nobody is there")
    except InvalidStatus as refused:
        assert refused.response.status_code == 503, refused
    say("503 where no server is")


asyncio.run(main(*sys.argv[1:]))
