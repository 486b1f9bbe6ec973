"""An endpoint of HTTP/1.1 that answers, or fails to, as the path of each request says.

    endpoint.py ADDRESS PORT[,PORT...] NAME

    /...          200, and a body that tells NAME, the request's line and fields, its body's length, and its trailers
    /status/N     the status N, without a body
    /slow/MS      200 after so many milliseconds
    /fleeting     200; after some of them the connection is closed without a word of warning
    /silent       nothing at all
    /closed       the connection is closed instead of an answer
    /reset        the connection is reset instead of an answer
    /hang         a head, and nothing of its body
    /half         a head, and half of its body
    /cut          the same, and then the connection is closed
    /torn         the same, and then the connection is reset
    /events       one event; the next one once somebody has asked for /go
    /trailers     a body in chunks, with trailers
    /refuses      413 before the body; a client that expects 100 is not told to go on
    /go           200; lets one /events go on
    /count/PATH   200, and how many requests there were for PATH
"""

import asyncio
import collections
import socket
import struct
import sys

# Requests on a connection before it goes without a word.
FLEETING = 5

HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n0123456789"


class Endpoint:
    def __init__(self, name):
        self.name = name
        self.go = asyncio.Semaphore(0)
        self.seen = collections.Counter()

    async def serve(self, reader, writer):
        try:
            answered = 0
            while await self.exchange(reader, writer, answered):
                answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def exchange(self, reader, writer, answered):
        """Answers one request, after so many others; false when the connection ends with it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.strip().split("\r\n")
        fields = [field.split(": ", 1) for field in lines]
        by_name = {name.lower(): value for name, value in fields}
        path = line.split(" ")[1].split("?")[0]
        kind, _, argument = path[1:].partition("/")
        self.seen[path] += 1
        if kind == "refuses":
            writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbig\n")
            await writer.drain()
            return False
        body, trailers = await read_body(reader, writer, by_name)
        if kind in ("closed", "reset"):
            return ends(writer, kind == "reset")
        if kind == "silent":
            await reader.read()
            return False
        if kind in ("hang", "half", "cut", "torn"):
            writer.write(HALF[:-10] if kind == "hang" else HALF)
            await writer.drain()
            if kind in ("cut", "torn"):
                return ends(writer, kind == "torn")
            await reader.read()
            return False
        if kind == "events":
            await self.events(writer)
            return True
        if kind == "trailers":
            writer.write(b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(b"5\r\nbody\n\r\n0\r\nx-sum: 42\r\n\r\n")
            await writer.drain()
            return True
        if kind == "slow":
            await asyncio.sleep(int(argument) / 1000)
        if kind == "go":
            self.go.release()
        if kind == "count":
            answer = str(self.seen["/" + argument])
        else:
            told = [f"{name.lower()}: {value}" for name, value in fields]
            told += [f"trailer {field}" for field in trailers]
            answer = "\n".join([f"endpoint: {self.name}", f"line: {line}", *told, f"length: {len(body)}"])
        status = argument if kind == "status" else "200"
        answer = "" if kind == "status" else answer + "\n"
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\nx-endpoint: {self.name}\r\n\r\n"
        writer.write((head + ("" if line.startswith("HEAD ") else answer)).encode("latin-1"))
        await writer.drain()
        return kind != "fleeting" or answered < FLEETING

    async def events(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in (b"data: first\n\n", b"data: second\n\n"):
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            if event.startswith(b"data: first"):
                await self.go.acquire()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def read_body(reader, writer, by_name):
    """A request's body, and its trailers as lines."""
    if by_name.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if by_name.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(by_name.get("content-length", 0))), []
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readuntil(b"\r\n")
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers.append(line.decode("latin-1").strip())
    return body, trailers


def ends(writer, by_reset):
    if by_reset:
        # A close that does not wait for what was not sent yet is a reset (socket(7), SO_LINGER).
        linger = struct.pack("ii", 1, 0)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    return False


async def main(address, ports, name):
    endpoint = Endpoint(name)
    servers = [await asyncio.start_server(endpoint.serve, address, int(port)) for port in ports.split(",")]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*sys.argv[1:]))
