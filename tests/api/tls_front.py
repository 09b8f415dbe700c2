"""TLS before a server that has none: what comes over TLS is passed on in plain text."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from infra.kafka_probe import free_port

HOST = "127.0.0.1"


@asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Listen on a port of this machine, which is given, for the server at another."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await source.read(65_536):
                sink.write(part)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(HOST, port)
        await asyncio.gather(pump(reader, behind_writer), pump(behind_reader, writer))

    own = free_port(HOST)
    server = await asyncio.start_server(serve, HOST, own, ssl=context)
    try:
        yield own
    finally:
        server.close()
