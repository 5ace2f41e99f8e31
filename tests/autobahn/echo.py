"""An echo server by PyPI's `autobahn`, with permessage-deflate, for the cases of the
Autobahn test suite. It answers frame by frame, so that its answers do not depend on how
many frames come at once. Says its port on standard output, and ends with standard input."""

import asyncio
import sys

import txaio

txaio.use_asyncio()

from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

# The most seconds in which a client may end a connection behind the server.
LINGER = 30


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)

    def _closeConnection(self, abort=False):
        # A close with octets unread would be a reset, and might take the answers along
        # that the client has not read yet: its own end is waited for.
        self.transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER, self.transport.abort)


def accept(offers):
    """The first offer as it is."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)


async def main():
    factory = WebSocketServerFactory()
    factory.protocol = Echo
    # What the cases do to it is no news.
    Echo.log.warn = lambda *_, **__: None
    # An end in the words of the protocol, and patience with a busy client.
    factory.setProtocolOptions(
        failByDrop=False,
        openHandshakeTimeout=60,
        closeHandshakeTimeout=30,
        perMessageCompressionAccept=accept,
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
