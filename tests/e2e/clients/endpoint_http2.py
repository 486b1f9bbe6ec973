"""An endpoint of HTTP/2 by hypercorn, on any number of ports.

    endpoint_http2.py ADDRESS PORT[,PORT...] NAME

    /...       200, and a line
    /events    one event; the next one once somebody has asked for /go
    /go        200; lets one /events go on
"""

import asyncio
import sys

import hypercorn.asyncio
import hypercorn.config

go = asyncio.Semaphore(0)


async def answer(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/events":
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        await go.acquire()
        return await send({"type": "http.response.body", "body": b"data: second\n\n"})
    if scope["path"] == "/go":
        go.release()
    await send({"type": "http.response.body", "body": scope["http_version"].encode() + b"\n"})


async def main(address, ports, _):
    config = hypercorn.config.Config()
    config.bind = [f"{address}:{port}" for port in ports.split(",")]
    config.errorlog = None
    # Connections are the gateway's to close.
    config.keep_alive_timeout = 3600
    await hypercorn.asyncio.serve(answer, config)


asyncio.run(main(*sys.argv[1:]))
