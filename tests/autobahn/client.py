"""The fuzzing client of the Autobahn test suite: runs its cases against one server, many
at once, and writes a line of JSON for each."""

import argparse
import asyncio
import fnmatch
import json
import ssl
from urllib.parse import urlsplit

import txaio

txaio.use_asyncio()

from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

from suite import cases, octets, text

# The cases have bounds of a second on a machine that does nothing else. Each is as many
# times as long: what ends by itself does not take longer for it.
PATIENCE = 5

# The most seconds that a case may take, and all of them.
BOUND = 240
BOUND_OF_ALL = 600

# How many cases are run at once: those that mostly wait, and those that mostly work.
WAITING = 48
WORKING = 6

# The categories of the latter: size and speed, and compression.
LARGE = {"9", "12", "13"}


class Fuzzer(WebSocketClientProtocol):
    """One connection, on which one case is run."""

    def __init__(self, case, factory):
        super().__init__()
        self.factory = factory
        self.ended = asyncio.get_running_loop().create_future()
        self.connectionWasOpen = False
        self.createWirelog = False
        self.txFrameStats = {}
        self.runCase = case(self)
        # The cases with compression take octets as octets.
        self.heard = bytes if hasattr(case, "TESTDATA") else text

    def onOpen(self):
        self.connectionWasOpen = True
        self.runCase.onOpen()

    def onMessage(self, payload, isBinary):
        self.runCase.onMessage(self.heard(payload), isBinary)

    def onPing(self, payload):
        self.runCase.onPing(self.heard(payload))
        super().onPing(payload)

    def onPong(self, payload):
        self.runCase.onPong(self.heard(payload))

    def onClose(self, wasClean, code, reason):
        self.runCase.onClose(wasClean, code, reason)

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.runCase.onConnectionLost(self.failedByMe)
        if not self.ended.done():
            self.ended.set_result(None)

    # What the cases ask of the suite's own client.

    def enableWirelog(self, enable):
        self.createWirelog = enable

    def logTxFrame(self, frameHeader, payload, repeatLength, chopsize, sync):
        count = self.txFrameStats.get(frameHeader.opcode, 0)
        self.txFrameStats[frameHeader.opcode] = count + 1

    def logRxFrame(self, *_):
        pass

    def logRxOctets(self, _):
        pass

    def logTxOctets(self, *_):
        pass

    def later(self, delay, deed):
        def unless_closed():
            if self.state != self.STATE_CLOSED:
                deed()

        asyncio.get_running_loop().call_later(delay, unless_closed)

    def continueLater(self, delay, deed, tag=None):
        self.later(delay, deed)

    def killAfter(self, delay):
        self.later(delay * PATIENCE, lambda: self._fail_connection())

    def closeAfter(self, delay):
        # Short ones are the end of a case that waits for nothing more.
        self.later(delay if delay <= 3 else delay * PATIENCE, self.sendClose)

    # The same as theirs, for octets as the cases write them.

    def sendFrame(self, opcode, payload=b"", *rest, **named):
        super().sendFrame(opcode, octets(payload), *rest, **named)

    def sendMessage(self, payload, *rest, **named):
        super().sendMessage(octets(payload), *rest, **named)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, octets(reasonUtf8), isReply)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(octets(payload), sync)


class Client:
    """Runs cases against one server."""

    def __init__(self, url, authority):
        self.at = urlsplit(url)
        self.tls = None
        if self.at.scheme == "wss":
            self.tls = ssl.create_default_context(cafile=authority)
        self.factory = WebSocketClientFactory(url)
        Fuzzer.log.warn = lambda *_, **__: None
        self.factory.logFrames = True
        # An end in the words of the protocol, and patience with a busy server.
        self.factory.setProtocolOptions(
            failByDrop=False,
            openHandshakeTimeout=60,
            closeHandshakeTimeout=30,
            serverConnectionDropTimeout=30,
        )

    async def run(self, number, case):
        fuzzer = Fuzzer(case, self.factory)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: fuzzer, self.at.hostname, self.at.port, ssl=self.tls
            )
            await asyncio.wait_for(fuzzer.ended, BOUND)
            how = [fuzzer.runCase.behavior, fuzzer.runCase.behaviorClose, fuzzer.remoteCloseCode]
            why = f"{fuzzer.runCase.result} {fuzzer.runCase.resultClose}"
        except (OSError, asyncio.TimeoutError) as error:
            how, why = ["NO END", "NO END", None], repr(error)
            if fuzzer.transport:
                fuzzer.transport.abort()
        line = {"case": number, "behavior": how[0], "behavior_close": how[1], "code": how[2]}
        print(json.dumps(line | {"why": why}), flush=True)

    async def run_all(self, wanted, at_once):
        room = asyncio.Semaphore(at_once)

        async def run_in_turn(number, case):
            async with room:
                await self.run(number, case)

        await asyncio.gather(*(run_in_turn(*one) for one in wanted.items()))


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--ca", help="who issued the server's certificate")
    parser.add_argument("--messages", type=int, default=50, help="where the suite sends 1000")
    parser.add_argument("--cases", nargs="*", default=["*"], help="patterns of numbers")
    options = parser.parse_args()
    wanted = {
        number: case
        for number, case in cases(options.messages).items()
        if any(fnmatch.fnmatch(number, pattern) for pattern in options.cases)
    }
    client = Client(options.url, options.ca)
    # Those that wait are first: their seconds are not to be taken up by the others.
    waiting = {k: v for k, v in wanted.items() if k.split(".")[0] not in LARGE}
    working = {k: v for k, v in wanted.items() if k not in waiting}
    async with asyncio.timeout(BOUND_OF_ALL):
        await client.run_all(waiting, WAITING)
        await client.run_all(working, WORKING)


if __name__ == "__main__":
    asyncio.run(main())
