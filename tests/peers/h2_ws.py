"""WebSockets on one HTTP/2 connection (RFC 8441), on Python's `h2`: says `open` when all of
them are there and have had an echo, sends numbered messages on each until it is told
1001, answers that, and says at the end what it saw in one line of JSON.

`h2` takes nothing more from a connection once it has been told GOAWAY: a tunnel that is
open then is lost, as it is to a browser.
"""

import argparse
import collections
import json
import os
import random
import socket
import ssl
import urllib.parse

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

# Longer than any drain of a test.
PATIENCE = 60

CLOSE = 8
BINARY = 2


def masked(opcode, payload):
    """A frame of a client."""
    head = bytearray([0x80 | opcode])
    if len(payload) <= 125:
        head.append(0x80 | len(payload))
    elif len(payload) <= 0xFFFF:
        head.append(0x80 | 126)
        head += len(payload).to_bytes(2, "big")
    else:
        head.append(0x80 | 127)
        head += len(payload).to_bytes(8, "big")
    key = os.urandom(4)
    body = bytes(octet ^ key[at % 4] for at, octet in enumerate(payload))
    return bytes(head) + key + body


def take(octets):
    """The first frame of a server, taken out; None if it is not whole."""
    if len(octets) < 2:
        return None
    first, length, at = octets[0], octets[1], 2
    if first & 0x70 or length & 0x80:
        raise ValueError(f"a frame that begins with {first:#x} {length:#x}")
    wide = {126: 2, 127: 8}.get(length, 0)
    if wide:
        length, at = int.from_bytes(octets[2:2 + wide], "big"), 2 + wide
    if len(octets) < at + length:
        return None
    payload = bytes(octets[at:at + length])
    del octets[:at + length]
    return first & 0x8F, payload


class Tunnel:
    """One WebSocket."""

    def __init__(self):
        self.unread = bytearray()
        self.unsent = bytearray()
        self.awaited = collections.deque()
        self.status = None
        self.echoes = 0
        self.told = self.ended = False


class Client:
    """The connection."""

    def __init__(self, arguments):
        self.random = random.Random(arguments.seed)
        self.url = urllib.parse.urlsplit(arguments.url)
        self.socket = socket.create_connection((self.url.hostname, self.url.port), PATIENCE)
        if self.url.scheme == "https":
            context = ssl.create_default_context(cafile=arguments.ca)
            context.set_alpn_protocols(["h2"])
            context.check_hostname = False
            self.socket = context.wrap_socket(self.socket)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.tunnels = {}
        self.faults = []
        self.open_at_goaway = None
        self.said_open = False
        self.h2.initiate_connection()
        self.flush()
        while not self.h2.remote_settings.enable_connect_protocol:
            self.hear()
        for number in range(arguments.count):
            stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream, [
                (":method", "CONNECT"), (":protocol", "websocket"),
                (":scheme", self.url.scheme), (":path", f"/chat/{number}"),
                (":authority", "app.test"), ("sec-websocket-version", "13")])
            self.tunnels[stream] = Tunnel()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def say(self, tunnel):
        """One more message, with its number, if the last one has come back."""
        if tunnel.status == 200 and not tunnel.told and not tunnel.awaited:
            length = self.random.choice([0, 100, 1000, 20_000])
            message = tunnel.echoes.to_bytes(8, "big") + os.urandom(self.random.randint(0, length))
            tunnel.awaited.append(message)
            tunnel.unsent += masked(BINARY, message)

    def send(self, stream, tunnel):
        while tunnel.unsent and not tunnel.ended:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                return
            piece = bytes(tunnel.unsent[:self.random.randint(1, room)])
            del tunnel.unsent[:len(piece)]
            self.h2.send_data(stream, piece)

    def understand(self, tunnel):
        while (frame := take(tunnel.unread)) is not None:
            first, payload = frame
            if tunnel.told:
                self.faults.append("a frame behind a Close")
            elif first == 0x80 | CLOSE:
                tunnel.told = True
                if payload != (1001).to_bytes(2, "big"):
                    self.faults.append(f"a Close with {payload}")
                tunnel.unsent += masked(CLOSE, payload)
            elif first == 0x80 | BINARY and tunnel.awaited and payload == tunnel.awaited[0]:
                tunnel.awaited.popleft()
                tunnel.echoes += 1
            else:
                self.faults.append(f"a frame {first:#x} that nobody expects")

    def note(self, event):
        tunnel = self.tunnels.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            tunnel.status = int(dict(event.headers)[":status"])
            if tunnel.status != 200:
                self.faults.append(f"status {tunnel.status}")
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            tunnel.unread += event.data
            self.understand(tunnel)
        elif isinstance(event, h2.events.StreamEnded):
            tunnel.ended = True
            if tunnel.unread or not tunnel.told:
                self.faults.append("an end that was not told")
            if not tunnel.unsent:
                self.h2.end_stream(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.faults.append(f"a reset with {event.error_code}")
            tunnel.ended = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.count_open()

    def hear(self):
        octets = self.socket.recv(65_536)
        if not octets:
            return False
        try:
            for event in self.h2.receive_data(octets):
                self.note(event)
        except h2.exceptions.ProtocolError:
            # The PING behind the GOAWAY is too much for `h2`.
            self.count_open()
        if self.open_at_goaway is None:
            self.flush()
        return True

    def count_open(self):
        self.open_at_goaway = sum(not it.ended for it in self.tunnels.values())

    def run(self):
        while self.open_at_goaway is None:
            for stream, tunnel in self.tunnels.items():
                self.say(tunnel)
                self.send(stream, tunnel)
            self.flush()
            if not self.hear():
                break
            if not self.said_open and all(it.echoes for it in self.tunnels.values()):
                self.said_open = True
                print("open", flush=True)
        every = self.tunnels.values()
        print(json.dumps({
            "echoes": sum(it.echoes for it in every), "told": sum(it.told for it in every),
            "ended": sum(it.ended for it in every), "open_at_goaway": self.open_at_goaway,
            "faults": self.faults}), flush=True)


parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True)
parser.add_argument("--ca")
parser.add_argument("--count", type=int, required=True)
parser.add_argument("--seed", type=int, default=0)
Client(parser.parse_args()).run()
