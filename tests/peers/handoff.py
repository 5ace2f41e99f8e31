#!/usr/bin/python3
"""The other side of a handoff, written from its description and not from its source.

    handoff.py successor MODE FILE     as a proxy starts it; writes to FILE what it heard
    handoff.py connect PATH MODE       as a successor that somebody else started
    handoff.py listen PATH MODE        as a proxy that hands over

Each message is a packet: `EH`, the version, the number of descriptors, the length of the
JSON and of the octets behind it, both of four octets, little-endian; JSON; octets.
What is heard is printed, one message a line; {"type": "end"} is the end of the channel.
"""

import array
import json
import os
import socket
import struct
import sys
import time

VERSION = 1
LONGEST = 128 * 1024
# As long as a proxy with `upgrade.timeout` of a second may take to give up, and more.
PATIENCE = 15


def packet(message, version=VERSION, fds=0, lie=0, octets=b""):
    text = json.dumps(message).encode()
    head = struct.pack("<2sBBII", b"EH", version, fds, len(text) + lie, len(octets))
    return head + text + octets


def send(channel, octets, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([octets], rights)


def receive(channel):
    octets, rights, _, _ = channel.recvmsg(LONGEST + 1, socket.CMSG_SPACE(253 * 4))
    if not octets:
        return {"type": "end"}
    _, version, fds, length, _ = struct.unpack("<2sBBII", octets[:12])
    message = json.loads(octets[12:12 + length])
    came = 0
    for _, _, data in rights:
        numbers = array.array("i")
        numbers.frombytes(data[:len(data) - len(data) % numbers.itemsize])
        came += len(numbers)
        for number in numbers:
            os.close(number)
    message["descriptors"] = [fds, came]
    message["version_of_packet"] = version
    return message


def hello(**more):
    return {"type": "hello", "protocol": VERSION, "version": "9.9.9", "pid": os.getpid(), **more}


def welcome(**more):
    return {"type": "welcome", "protocol": VERSION, "generation": 2, "pid": os.getppid(),
            "tickets": [], "counted": [], **more}


def first_words(mode, first):
    """What is wrong from the first word on: octets, and descriptors."""
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    return {
        "packet-version": (packet(first(), version=99), ()),
        "protocol": (packet(first(protocol=99)), ()),
        "field": (packet(first(shoe_size=44)), ()),
        "type": (packet({"type": "sing"}), ()),
        "no-json": (struct.pack("<2sBBII", b"EH", VERSION, 0, 4, 0) + b"}{][", ()),
        "garbage": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ()),
        "short": (b"EH", ()),
        "lengths": (packet(first(), lie=7), ()),
        "octets": (packet(first(), octets=b"nobody asked for these"), ()),
        "too-long": (packet(first(version="9" * LONGEST)), ()),
        "descriptors": (packet(first(), fds=3), spare),
        "descriptors-untold": (packet(first()), spare),
        "descriptors-missing": (packet(first(), fds=3), ()),
        "out-of-turn": (packet({"type": "serving"}), ()),
    }.get(mode)


def successor(channel, mode, tell):
    wrong = first_words(mode, hello)
    if wrong:
        send(channel, *wrong)
    elif mode == "silent":
        pass
    elif mode == "ends":
        tell({"type": "end"})
        return
    else:
        send(channel, packet(hello()))
    while True:
        message = receive(channel)
        tell(message)
        kind = message["type"]
        if kind in ("end", "refused"):
            return
        if kind == "sockets":
            if mode == "acknowledges-another":
                send(channel, packet({"type": "ack", "batch": message["batch"] + 7}))
            elif mode != "acknowledges-nothing":
                send(channel, packet({"type": "ack", "batch": message["batch"]}))
        if kind == "begin":
            if mode == "fails":
                send(channel, packet({"type": "failed", "error": "the moon is full"}))
                return
            if mode == "ends-welcomed":
                return
            if mode == "serves-unasked":
                send(channel, packet({"type": "serving"}))
            elif mode in ("ready-ends", "ready-hangs", "serves-takes-nothing", "deaf", "declines",
                          "dismisses"):
                send(channel, packet({"type": "ready", "released": [], "unclaimed": []}))
        if kind == "go" and mode == "ready-ends":
            return
        if kind == "go" and mode == "deaf":
            time.sleep(PATIENCE)
            return
        if kind == "go" and mode == "declines":
            send(channel, packet({"type": "refused", "error": "no more room"}))
        if kind == "go" and mode == "dismisses":
            send(channel, packet({"type": "release", "names": ["127.0.0.1:0"]}))
        if kind == "go" and mode == "serves-takes-nothing":
            send(channel, packet({"type": "serving"}))
        if kind == "connections":
            # Not acknowledged: they are still the elder's.
            return


def elder(channel, mode, tell, listener, path):
    tell(receive(channel))
    wrong = first_words(mode, welcome)
    if wrong:
        send(channel, *wrong)
    elif mode == "refuses":
        send(channel, packet({"type": "refused", "error": "the moon is full"}))
    elif mode == "ends":
        return
    elif mode == "ends-after-welcome":
        send(channel, packet(welcome()))
        return
    elif mode == "begins":
        send(channel, packet(welcome()))
        given = {"kind": "takeover", "name": path}
        message = {"type": "sockets", "batch": 1, "sockets": [given]}
        send(channel, packet(message, fds=1), [listener.fileno()])
        send(channel, packet({"type": "begin"}))
    elif mode == "unknown-socket":
        send(channel, packet(welcome()))
        given = {"kind": "listener", "name": "a shoe"}
        spare = [os.open("/dev/null", os.O_RDONLY)]
        message = {"type": "sockets", "batch": 1, "sockets": [given]}
        send(channel, packet(message, fds=1), spare)
        send(channel, packet({"type": "begin"}))
    while True:
        message = receive(channel)
        tell(message)
        if message["type"] in ("end", "failed"):
            return


def main():
    role, *arguments = sys.argv[1:]
    tell = lambda message: print(json.dumps(message), flush=True)
    if role == "successor":
        mode, path = arguments[:2]
        channel = socket.socket(fileno=int(os.environ["EBBTIDE_HANDOFF"].split(",")[0]))
        file = open(path, "a", buffering=1)
        tell = lambda message: file.write(json.dumps(message) + "\n")
    elif role == "connect":
        path, mode = arguments
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.connect(path)
    else:
        path, mode = arguments
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(4)
        tell({"type": "listening"})
        listener.settimeout(PATIENCE)
        channel, _ = listener.accept()
        if mode.startswith("ends"):
            # Whoever finds that nobody is there any more listens here itself.
            listener.close()
    channel.setblocking(True)
    channel.settimeout(PATIENCE)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LONGEST)
    try:
        if role == "listen":
            elder(channel, mode, tell, listener, path)
        else:
            successor(channel, mode, tell)
    except (ConnectionResetError, BrokenPipeError):
        tell({"type": "end"})
    except TimeoutError:
        tell({"type": "nothing"})


main()
