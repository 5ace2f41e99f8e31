"""An app server that holds as many WebSockets and event streams as there are descriptors,
by Debian's Python alone. Says its port on standard output, and ends with standard input."""

import asyncio
import base64
import hashlib
import sys

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE = 0x88

EVENT = b"data: here\n\n"


def chunk(octets):
    return b"%x\r\n%s\r\n" % (len(octets), octets)


async def websocket(reader, writer, fields):
    key = fields[b"sec-websocket-key"] + MAGIC
    proof = base64.b64encode(hashlib.sha1(key).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
    writer.write(b"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n" % proof)
    # The only frame that comes is a short Close; it is answered.
    first, second = await reader.readexactly(2)
    assert first == CLOSE and second & 0x80, (first, second)
    masked = await reader.readexactly(4 + (second & 0x7F))
    payload = bytes(octet ^ masked[i % 4] for i, octet in enumerate(masked[4:]))
    writer.write(bytes([CLOSE, len(payload)]) + payload)


async def events(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n" + chunk(EVENT))
    # To the end of the proxy's connection, which is not used again.
    assert await reader.read() == b""


async def serve(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        names = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        fields = {name.lower(): value for name, value in names.items()}
        if b"upgrade" in fields:
            await websocket(reader, writer, fields)
        else:
            await events(reader, writer)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
