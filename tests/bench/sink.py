"""A mail server that accepts and discards every message.

Prints its port, serves until the end of its standard input, then prints the number of accepted messages.
"""

from __future__ import annotations

import asyncio
import sys

GREETING = b"220 sink.example.com ESMTP\r\n"
HELLO = b"250-sink.example.com\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


class Sink(asyncio.Protocol):
    """An SMTP connection. It answers each command line, and discards each body up to the final dot."""

    taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the greeting."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._waiting = b""
        self._in_body = False
        transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        """Answer each complete command line and each complete message body."""
        self._waiting += data
        while True:
            mark = b"\r\n.\r\n" if self._in_body else b"\r\n"
            line, found, rest = self._waiting.partition(mark)
            if not found:
                return
            self._waiting = rest
            if self._in_body:
                self._in_body = False
                Sink.taken += 1
                self._transport.write(b"250 taken\r\n")
            else:
                self._answer(line[:4].upper())

    def _answer(self, verb: bytes) -> None:
        if verb == b"EHLO":
            self._transport.write(HELLO)
        elif verb == b"DATA":
            self._in_body = True
            # a body that is a lone dot begins at the line's start
            self._waiting = b"\r\n" + self._waiting
            self._transport.write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 ok\r\n")


async def main() -> None:
    """Serve until the end of standard input."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    print(Sink.taken, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
