"""WebSockets as streams of HTTP/2 (RFC 8441) through the edge, by libraries that its users have: h2 and wsproto are the
client and the endpoint of HTTP/2, websockets is that of HTTP/1.1.

    websockets_over_http2.py EDGE_HOST EDGE_PORT ONE_PORT TWO_PORT
    websockets_over_http2.py serve PORT

Paths below /one go to the endpoint of HTTP/1.1, below /two to that of HTTP/2, which the second form is. Prints a line for
each thing that was seen to be so; the first that is not ends it with an exception.
"""

import asyncio
import contextlib
import http
import logging
import socket
import struct
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import websockets.asyncio.server
from wsproto import events as ws
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import PerMessageDeflate

AUTHORITY = "ws.example.com"
LIMIT = 30


def say(what):
    print(what, flush=True)


class Peer:
    """One end of a connection of HTTP/2."""

    def __init__(self, reader, writer, is_client):
        self.reader, self.writer = reader, writer
        configuration = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        self.http2 = h2.connection.H2Connection(configuration)
        self.streams = {}
        self.settings = asyncio.Event()
        self.room = asyncio.Condition()

    def begin(self):
        self.http2.initiate_connection()
        self.flush()

    def flush(self):
        self.writer.write(self.http2.data_to_send())

    async def read(self):
        """Takes what the other end sends, until it ends the connection."""
        while data := await self.reader.read(65536):
            for event in self.http2.receive_data(data):
                await self.take(event)
            self.flush()

    async def take(self, event):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings.set()
        if isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
            async with self.room:
                self.room.notify_all()
        elif isinstance(event, h2.events.DataReceived):
            self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is not None:
            stream.incoming.put_nowait(event)

    def stream(self, number):
        self.streams[number] = stream = Stream(self, number)
        return stream


class Client(Peer):
    @classmethod
    async def connect(cls, host, port):
        client = cls(*await asyncio.open_connection(host, port), is_client=True)
        client.begin()
        client.task = asyncio.create_task(client.read())
        await asyncio.wait_for(client.settings.wait(), LIMIT)
        return client

    def open(self, fields, end):
        """A stream that begins with these fields."""
        stream = self.stream(self.http2.get_next_available_stream_id())
        self.http2.send_headers(stream.number, fields, end_stream=end)
        self.flush()
        return stream

    async def get(self, path):
        """Status and body of a plain request."""
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY), (":path", path)]
        stream = self.open(fields, end=True)
        status, _ = await stream.head()
        return status, await stream.rest()

    async def websocket(self, path):
        """A WebSocket, its status, and the fields of the answer."""
        deflate = PerMessageDeflate()
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", AUTHORITY),
            (":path", path),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "echo"),
            ("sec-websocket-extensions", f"{deflate.name}; {deflate.offer()}"),
        ]
        stream = self.open(fields, end=False)
        status, answer = await stream.head()
        if agreed := answer.get("sec-websocket-extensions"):
            deflate.finalize(agreed)
        stream.messages = Connection(ConnectionType.CLIENT, [deflate] if agreed else [])
        return stream, status, answer


class Reset(Exception):
    """The stream was reset."""


class Stream:
    def __init__(self, peer, number):
        self.peer, self.number = peer, number
        self.incoming = asyncio.Queue()
        self.parts = []

    async def event(self):
        event = await asyncio.wait_for(self.incoming.get(), LIMIT)
        if isinstance(event, h2.events.StreamReset):
            raise Reset(h2.errors.ErrorCodes(event.error_code).name)
        return event

    async def head(self):
        while not isinstance(event := await self.event(), h2.events.ResponseReceived):
            pass
        fields = dict(event.headers)
        return int(fields[":status"]), fields

    async def rest(self):
        """All of the body."""
        body = b""
        while not isinstance(event := await self.event(), h2.events.StreamEnded):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
        return body

    async def send(self, message):
        """Sends an event of wsproto as far as the windows allow."""
        data = self.messages.send(message)
        while data:
            async with self.peer.room:
                window = lambda: self.peer.http2.local_flow_control_window(self.number)
                await asyncio.wait_for(self.peer.room.wait_for(window), LIMIT)
                size = min(window(), self.peer.http2.max_outbound_frame_size)
                self.peer.http2.send_data(self.number, data[:size])
            data = data[size:]
            self.peer.flush()

    async def text(self, message):
        await self.send(ws.TextMessage(data=message))

    async def receive(self):
        """The next message, or what else the other side says; None where its side of the stream ends."""
        whole = None
        while True:
            while self.parts:
                part = self.parts.pop(0)
                if not isinstance(part, ws.Message):
                    return part
                whole = part.data if whole is None else whole + part.data
                if part.message_finished:
                    return whole
            event = await self.event()
            if isinstance(event, h2.events.StreamEnded):
                return None
            # The end of a stream may come with no data.
            if isinstance(event, h2.events.DataReceived) and event.data:
                self.messages.receive_data(event.data)
                self.parts += self.messages.events()

    def end(self):
        """Ends this side of the stream."""
        self.peer.http2.end_stream(self.number)
        self.peer.flush()


async def one(connection):
    """What the endpoint of HTTP/1.1 does with its messages."""
    async for message in connection:
        if message == "close":
            return await connection.close(4001, "enough")
        if message in ("reset", "leave"):
            if message == "reset":
                # A close that does not wait is a reset (socket(7), SO_LINGER).
                linger = struct.pack("ii", 1, 0)
                connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.transport.abort()
            return
        await connection.send(message)


def refuse(connection, request):
    if request.path.endswith("/refused"):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
    if request.path.endswith("/plain"):
        return connection.respond(http.HTTPStatus.OK, "plain\n")


class Two(Peer):
    """A connection of the endpoint of HTTP/2."""

    @classmethod
    async def serve(cls, reader, writer):
        own = cls(reader, writer, is_client=False)
        takes_connect = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
        own.http2.local_settings = h2.settings.Settings(client=False, initial_values=takes_connect)
        own.tasks = set()
        own.begin()
        # The gateway may be gone before all is read.
        with contextlib.suppress(ConnectionError):
            await own.read()

    async def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            task = asyncio.create_task(self.answer(self.stream(event.stream_id), dict(event.headers)))
            self.tasks.add(task)
        else:
            await super().take(event)

    async def answer(self, stream, fields):
        if fields[":path"].endswith("/refused") or fields.get(":protocol") != "websocket":
            self.http2.send_headers(stream.number, [(":status", "403")])
            self.http2.send_data(stream.number, b"not you\n", end_stream=True)
            return self.flush()
        deflate = PerMessageDeflate()
        accepted = deflate.accept(fields["sec-websocket-extensions"])
        answer = [(":status", "200"), ("sec-websocket-protocol", fields["sec-websocket-protocol"])]
        answer.append(("sec-websocket-extensions", f"{deflate.name}; {accepted}"))
        self.http2.send_headers(stream.number, answer)
        self.flush()
        stream.messages = Connection(ConnectionType.SERVER, [deflate])
        await self.talk(stream)

    async def talk(self, stream):
        is_closed = False
        while (said := await stream.receive()) is not None:
            if said == "close":
                is_closed = True
                await stream.send(ws.CloseConnection(code=4001, reason="enough"))
            elif said == "reset":
                self.http2.reset_stream(stream.number, h2.errors.ErrorCodes.CONNECT_ERROR)
                return self.flush()
            elif isinstance(said, ws.Ping):
                await stream.send(said.response())
            elif isinstance(said, ws.CloseConnection):
                if not is_closed:
                    await stream.send(said.response())
                return stream.end()
            elif isinstance(said, bytes):
                await stream.send(ws.BytesMessage(data=said))
            else:
                await stream.text(said)


async def serve(port):
    async with await asyncio.start_server(Two.serve, "127.0.0.1", int(port)) as server:
        await server.serve_forever()


class Server:
    """The endpoint of HTTP/2 in a process of its own."""

    def __init__(self, port):
        self.port = port

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(sys.executable, __file__, "serve", self.port)
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return self
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)

    async def __aexit__(self, *_):
        await self.kill()

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def is_reset(stream):
    try:
        raise AssertionError(f"not reset: {await stream.receive()}")
    except Reset as reset:
        assert str(reset) == "CANCEL", reset


async def talks(client, path):
    stream, status, answer = await client.websocket(path)
    assert (status, answer.get("sec-websocket-protocol")) == (200, "echo"), answer
    assert "permessage-deflate" in answer["sec-websocket-extensions"], answer
    assert not {"upgrade", "connection", "sec-websocket-accept"} & answer.keys(), answer
    for message in ["text \u00e4", "x" * 1_000_000]:
        await stream.text(message)
        assert await stream.receive() == message
    for message in [b"\x00\xff", bytes(range(256)) * 4000]:
        await stream.send(ws.BytesMessage(data=message))
        assert await stream.receive() == message
    await stream.send(ws.Ping(payload=b"abc"))
    assert await stream.receive() == ws.Pong(payload=b"abc")
    say(f"{path}: messages both ways, small and large, with protocol and compression agreed on")

    # The client closes: the server answers, and both sides of the stream end.
    await stream.send(ws.CloseConnection(code=1000, reason="done"))
    closed = await stream.receive()
    assert isinstance(closed, ws.CloseConnection) and closed.code == 1000, closed
    assert await stream.receive() is None
    stream.end()
    say(f"{path}: a close by the client")

    stream, *_ = await client.websocket(path)
    await stream.text("close")
    closed = await stream.receive()
    assert (closed.code, closed.reason) == (4001, "enough"), closed
    await stream.send(closed.response())
    assert await stream.receive() is None
    stream.end()
    say(f"{path}: a close by the server")


async def refuses(client, path):
    stream, status, _ = await client.websocket(f"{path}/refused")
    assert (status, await stream.rest()) == (403, b"not you\n")
    say(f"{path}: what the server answers instead")


async def many_at_once(client):
    many = [(await client.websocket(path))[0] for path in ["/one", "/two"] * 20]
    for number, stream in enumerate(many):
        await stream.text(str(number))
    for number, stream in enumerate(many):
        assert await stream.receive() == str(number)
    say("many at once over one connection")
    return many[::2], many[1::2]


async def cuts(client, server):
    """Each stream whose server is cut is reset, and the others go on."""
    of_one, of_two = await many_at_once(client)
    other, *_ = await client.websocket("/one")

    async def others_go_on():
        await other.text("still there")
        assert await other.receive() == "still there"
        assert await client.get("/one/plain") == (200, b"plain\n")

    cut, left, *rest = of_one
    also_cut, *of_two = of_two
    for stream in [cut, also_cut]:
        await stream.text("reset")
        await is_reset(stream)
        await others_go_on()
    for stream in of_two:
        await stream.text("before")
        assert await stream.receive() == "before"
    say("a server that resets its connection or its stream resets the client's")

    await left.text("leave")
    assert await left.receive() is None
    left.end()
    await others_go_on()
    say("a server that ends its connection ends the stream")

    await server.kill()
    for stream in of_two:
        await is_reset(stream)
    await others_go_on()
    for stream in rest:
        await stream.text("after")
        assert await stream.receive() == "after"
    say("a server of HTTP/2 that is killed has its streams reset, and no others")


async def main(host, port, one_port, two_port):
    # That clients leave in the middle is nothing to tell of.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    serving = websockets.asyncio.server.serve(
        one, "127.0.0.1", int(one_port), subprotocols=["echo"], max_size=None, process_request=refuse
    )
    async with serving:
        client = await Client.connect(host, int(port))
        assert client.http2.remote_settings.enable_connect_protocol == 1
        async with Server(two_port) as server:
            for path in ["/one", "/two"]:
                await talks(client, path)
                await refuses(client, path)
            await cuts(client, server)

        _, status, _ = await client.websocket("/two")
        assert status == 503, status
        async with Server(two_port):
            stream, status, _ = await client.websocket("/two")
            assert status == 200, status
            await stream.text("again")
            assert await stream.receive() == "again"
        say("503 while no server is there, and the next one serves on")
        client.task.cancel()
        client.writer.close()


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2]))
else:
    asyncio.run(main(*sys.argv[1:]))
