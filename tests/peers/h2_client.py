"""An HTTP/2 client on Python's `h2` that works until nobody listens any more, and
counts what it lost: one line of JSON at the end.

A connection stops opening streams at the first GOAWAY, as RFC 9113 says, waits for
those that are open, and is followed by a new connection. So every stream was opened
before the client had seen any GOAWAY, and one that is refused or lost is the
server's fault.

Clients differ in when they see it. Some connections here are far away: everything
reaches them late, and so does their answer to a PING. Others are of two parts, as
many real clients are: one that reads frames and answers a PING at once, and one that
opens streams and learns a while later of what was read.

`h2` takes nothing more from a connection once it has been told GOAWAY, not even the
rest of the streams that the server still answers. GOAWAY frames are therefore taken
out before `h2` sees them.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import random
import signal
import ssl
import sys
import urllib.parse

import h2.config
import h2.connection
import h2.errors
import h2.events

# Longer than any drain of a test: a stream without an answer by then hangs.
PATIENCE = 60

# The most descriptions of losses that are printed.
DETAILS_MAX = 20

FRAME_HEAD = 9
ACK = 1
PING = 6
GOAWAY = 7
EVERY_STREAM = 2**31 - 1


class Counts:
    """What all connections counted together."""

    def __init__(self):
        self.numbers = collections.Counter()
        self.details = []

    def count(self, name, detail=None):
        self.numbers[name] += 1
        if detail is not None and len(self.details) < DETAILS_MAX:
            self.details.append(f"{name}: {detail}")

    def line(self, client):
        names = ["ok", "connections", "told", "told_twice", "untold", "refused_connect",
                 "refused_stream", "lost"]
        numbers = {name: self.numbers[name] for name in names}
        return json.dumps({"client": client, **numbers, "details": self.details})


class Stream:
    """A request under way and what its answer must be."""

    def __init__(self, path, upload, want):
        self.path, self.upload, self.want = path, upload, want
        self.status, self.body = None, bytearray()


class Late:
    """The socket's frames, each handed out `delay` after it came. If `answers`, a PING
    is not among them but answered at once."""

    def __init__(self, reader, writer, delay, answers):
        self.reader, self.writer = reader, writer
        self.delay, self.answers = delay, answers
        self.unparsed = bytearray()
        self.queue = asyncio.Queue()
        self.task = asyncio.ensure_future(self.fill())

    def frames(self, octets):
        """The frames that are whole now."""
        self.unparsed += octets
        while len(self.unparsed) >= FRAME_HEAD:
            length = FRAME_HEAD + int.from_bytes(self.unparsed[:3], "big")
            if len(self.unparsed) < length:
                return
            frame = bytes(self.unparsed[:length])
            del self.unparsed[:length]
            if self.answers and frame[3] == PING and not frame[4] & ACK:
                self.writer.write(frame[:4] + bytes([ACK]) + frame[5:])
            else:
                yield frame

    async def fill(self):
        octets = True
        while octets:
            try:
                octets = await self.reader.read(65536)
                news = list(self.frames(octets)) or ([] if octets else [b""])
            except (OSError, ssl.SSLError) as error:
                octets, news = b"", [error]
            if news:
                due = asyncio.get_running_loop().time() + self.delay
                self.queue.put_nowait((due, news))

    async def read(self):
        """The frames that came together: an empty one at the end."""
        due, news = await self.queue.get()
        await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
        if isinstance(news[0], Exception):
            raise news[0]
        return news

    def __str__(self):
        return f"{self.delay} s late{', PINGs answered at once' if self.answers else ''}"


class Connection:
    """One connection and the streams on it."""

    def __init__(self, options, counts, rng, reader, writer):
        self.options, self.counts, self.rng, self.writer = options, counts, rng, writer
        self.late = Late(reader, writer, *rng.choice(options.delays))
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.open = {}
        self.goaways = []
        self.served = 0
        self.timers = set()
        self.leaves_first = rng.random() < 0.5

    def lose(self, why, number):
        stream = self.open.pop(number)
        self.counts.count(
            why[0],
            f"stream {number} {stream.path} {why[1]}; status {stream.status}, "
            f"{len(stream.body)} octets, GOAWAYs read {self.goaways}, {self.late}",
        )

    def may_open(self):
        most = min(self.options.streams, self.h2.remote_settings.max_concurrent_streams)
        return not self.goaways and not self.options.ended and len(self.open) < most

    def ask(self):
        """Opens a stream, if it may."""
        if not self.may_open():
            return
        number = self.h2.get_next_available_stream_id()
        kind = self.rng.randrange(10)
        if kind == 0:
            body = self.rng.randbytes(self.rng.randrange(1, 40_000))
            stream = Stream("/echo", memoryview(body), body)
        elif kind == 1:
            stream = Stream(f"/think/{self.rng.randrange(1, 60)}", b"", b"thought")
        else:
            path = f"/python/{self.rng.randrange(1 << 30)}"
            stream = Stream(path, b"", f"GET {path} 0".encode())
        head = [
            (":method", "POST" if stream.upload else "GET"),
            (":scheme", self.options.scheme),
            (":authority", self.options.authority),
            (":path", stream.path),
        ]
        self.open[number] = stream
        self.h2.send_headers(number, head, end_stream=not stream.upload)
        self.upload()

    def upload(self):
        """Sends of all bodies what the windows let through."""
        for number, stream in self.open.items():
            while stream.upload:
                size = min(
                    self.h2.local_flow_control_window(number),
                    self.h2.max_outbound_frame_size,
                    len(stream.upload),
                )
                if size <= 0:
                    break
                piece, stream.upload = stream.upload[:size], stream.upload[size:]
                self.h2.send_data(number, piece, end_stream=not stream.upload)

    def ask_soon(self):
        """Opens the next stream after a thought."""

        def now():
            self.timers.discard(timer)
            self.ask()
            self.flush()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.rng.random() * 0.005, now)
        self.timers.add(timer)

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    def receive(self, frame):
        """Keeps GOAWAY from `h2`, and gives it every other frame."""
        if frame[3] == GOAWAY:
            self.goaway(frame[FRAME_HEAD:])
            return
        for event in self.h2.receive_data(frame):
            self.happened(event)

    def goaway(self, payload):
        last = int.from_bytes(payload[:4], "big") & EVERY_STREAM
        code = int.from_bytes(payload[4:8], "big")
        if self.goaways and last > self.goaways[-1]:
            self.counts.count("lost", f"GOAWAY {last} after {self.goaways}")
        self.goaways.append(last)
        if code != 0:
            self.counts.count("lost", f"GOAWAY with code {code}: {payload[8:]!r}")
        for number in [number for number in self.open if number > last]:
            self.lose(("lost", "above the last stream of a GOAWAY not read yet"), number)

    def happened(self, event):
        number = getattr(event, "stream_id", None)
        stream = self.open.get(number)
        if isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, number)
            if stream:
                stream.body += event.data
        elif isinstance(event, h2.events.ResponseReceived) and stream:
            stream.status = dict(event.headers)[":status"]
        elif isinstance(event, h2.events.StreamReset) and stream:
            refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            why = "refused_stream" if refused else "lost"
            self.lose((why, f"reset with {event.error_code!r}"), number)
        elif isinstance(event, h2.events.StreamEnded) and stream:
            if stream.status != "200" or bytes(stream.body) != stream.want or stream.upload:
                self.lose(("lost", "answered wrongly"), number)
                return
            del self.open[number]
            self.counts.count("ok")
            self.served += 1
            self.ask_soon()

    def finished(self):
        """Whether the client leaves by itself: half of the time that is left to the
        server, which then has to say its last stream and to close."""
        over = self.options.ended or (self.goaways and self.leaves_first)
        return over and not self.open

    async def converse(self):
        self.h2.initiate_connection()
        for _ in range(self.options.streams):
            self.ask()
        self.flush()
        why = "EOF"
        try:
            while not self.finished():
                frames = await asyncio.wait_for(self.late.read(), PATIENCE)
                for frame in filter(None, frames):
                    self.receive(frame)
                if not frames[-1]:
                    break
                self.upload()
                self.flush()
                # Who takes no more may have said the rest before: it waits to be read.
                with contextlib.suppress(ConnectionResetError):
                    await self.writer.drain()
        except asyncio.TimeoutError:
            why = f"nothing for {PATIENCE} s"
        except (OSError, ssl.SSLError, h2.exceptions.ProtocolError) as error:
            why = repr(error)
        for number in list(self.open):
            self.lose(("lost", f"open at {why}"), number)
        if self.goaways:
            self.counts.count("told")
            if self.goaways[0] == EVERY_STREAM and self.goaways[-1] < EVERY_STREAM:
                self.counts.count("told_twice")
        elif not self.options.ended:
            self.counts.count("untold", f"{why} after {self.served} streams")

    def close(self):
        for timer in self.timers:
            timer.cancel()
        self.late.task.cancel()
        self.writer.close()


async def connect(options):
    name = "localhost" if options.tls else None
    opening = asyncio.open_connection(
        options.host, options.port, ssl=options.tls, server_hostname=name
    )
    reader, writer = await asyncio.wait_for(opening, PATIENCE)
    if options.tls and writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        raise ssl.SSLError("the server did not choose h2")
    return reader, writer


async def work(options, counts, rng):
    """One connection after the other, until told to end or refused."""
    while not options.ended:
        try:
            reader, writer = await connect(options)
        except ConnectionRefusedError:
            counts.count("refused_connect")
            return
        except (OSError, ssl.SSLError, asyncio.TimeoutError) as error:
            counts.count("lost", f"handshake: {error!r}")
            continue
        counts.count("connections")
        connection = Connection(options, counts, rng, reader, writer)
        try:
            await connection.converse()
        finally:
            connection.close()


async def run(options):
    loop, counts = asyncio.get_running_loop(), Counts()
    for number in signal.SIGTERM, signal.SIGINT:
        loop.add_signal_handler(number, setattr, options, "ended", True)
    tasks = [
        work(options, counts, random.Random(options.seed << 8 | which))
        for which in range(options.connections)
    ]
    await asyncio.gather(*tasks)
    print(counts.line(f"python-{options.scheme}"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--url", required=True, help="https://HOST:PORT, or http:// for clear text")
    parser.add_argument("--ca", help="file with the certificate to trust")
    parser.add_argument("--connections", type=int, default=6)
    parser.add_argument("--streams", type=int, default=8, help="most at once on a connection")
    parser.add_argument(
        "--delays",
        default="0",
        help="milliseconds, of which each connection chooses one; "
        "with a p where PINGs are answered at once",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    url = urllib.parse.urlsplit(options.url)
    options.scheme, options.authority = url.scheme, url.netloc
    options.host, options.port = url.hostname, url.port
    options.delays = [
        (float(delay.rstrip("p")) / 1000, delay.endswith("p"))
        for delay in options.delays.split(",")
    ]
    options.tls, options.ended = None, False
    if url.scheme == "https":
        options.tls = ssl.create_default_context(cafile=options.ca)
        options.tls.set_alpn_protocols(["h2"])
    asyncio.run(run(options))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
