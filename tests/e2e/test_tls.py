"""TLS and mutual TLS to the model server, and certificates that are rotated while the gateway runs."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture

QUICK = ("--poll-seconds", "0.1")


@contextmanager
def tls_before(server: Service, context: ssl.SSLContext) -> Iterator[str]:
    """A port that speaks TLS (HTTP/2, as gRPC wants it) and passes everything on to a model server without TLS."""
    host, port = server.url.rsplit(":", 1)
    context.set_alpn_protocols(["h2"])
    listens: Future[int] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(host, int(port))
        ways = [asyncio.create_task(copy(reader, behind_writer)), asyncio.create_task(copy(behind_reader, writer))]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*ways, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in [*ways, stopped]:
            task.cancel()
        await asyncio.gather(*ways, stopped, return_exceptions=True)
        for end in (behind_writer, writer):
            end.transport.abort()

    async def listen() -> None:
        listening = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
        listens.set_result(listening.sockets[0].getsockname()[1])
        await stop.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.1)  # the aborted transports close their sockets

    thread = threading.Thread(target=loop.run_until_complete, args=(listen(),))
    thread.start()
    try:
        yield f"127.0.0.1:{listens.result()}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def is_refused(service: Service) -> bool:
    return service.post("/classify-image", content=picture()).status_code == 503


def test_the_gateway_trusts_only_the_authority_it_was_given(
    repository: Path, tmp_path: Path, start_model_server: Start, start_gateway: Start
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    ca = tmp_path / "ca.pem"
    stranger.cert_pem.write_to_path(str(ca))
    with tls_before(start_model_server(repository), server_context(authority)) as address:
        service = start_gateway("--model-server", address, "--model-server-ca", str(ca), *QUICK)
        service.wait_for(lambda: "cannot be reached" in service.get("/readyz").text)
        assert is_refused(service)
        # the right authority, put into the same place: no restart
        authority.cert_pem.write_to_path(str(ca))
        service.wait_for(service.is_ready)
        assert service.post("/classify-image", content=picture("red")).json()["label"] == "red"
        # and a file that was emptied by mistake changes nothing
        ca.write_text("")
        service.wait_for(lambda: "certificates stay as they were" in service.log.read_text())
        assert service.is_ready()


def test_mutual_tls_lets_in_only_who_has_a_certificate(
    repository: Path, tmp_path: Path, start_model_server: Start, start_gateway: Start
) -> None:
    authority = trustme.CA()
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(ca))
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with tls_before(start_model_server(repository), context) as address:
        tls = ("--model-server", address, "--model-server-ca", str(ca))
        without = start_gateway(*tls, *QUICK)
        without.wait_for(lambda: "cannot be reached" in without.get("/readyz").text)
        assert is_refused(without)
        own = authority.issue_cert("gateway.example")
        own.cert_chain_pems[0].write_to_path(str(certificate))
        own.private_key_pem.write_to_path(str(key))
        mutual = ("--model-server-certificate", str(certificate), "--model-server-key", str(key))
        service = start_gateway(*tls, *mutual, *QUICK)
        service.wait_for(service.is_ready)
        assert service.post("/classify-image", content=picture("blue")).json()["label"] == "blue"
