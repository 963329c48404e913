"""A proxy that delays what a service sends back: ``python late_proxy.py PORT MILLISECONDS``.

Prints its own port, and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import sys


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        if delay:
            loop.call_later(delay, writer.write, data)
        else:
            writer.write(data)
    await asyncio.sleep(delay)
    writer.close()


async def main(port: int, delay: float) -> None:
    """Forward each connection to the local ``port``, and delay each response by ``delay`` seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pump(reader, back, 0), _pump(there, writer, delay), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) / 1000))
