"""The app behind the ebbtides, for uvicorn: a page, the WebSocket and the event stream
that the page holds."""

import asyncio
import pathlib

PAGE = pathlib.Path(__file__).with_name("page.html").read_bytes()

# How often an event is sent, in seconds.
BEAT = 0.05


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http" and scope["path"] == "/events":
        await events(receive, send)
    elif scope["type"] == "http":
        await answer(send, b"text/html; charset=utf-8", PAGE)


async def answer(send, kind, body):
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def events(receive, send):
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await receive()
    gone = asyncio.ensure_future(receive())
    number = 0
    while not gone.done():
        number += 1
        event = b"retry: 100\nid: %d\ndata: event %d\n\n" % (number, number)
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.wait([gone], timeout=BEAT)
