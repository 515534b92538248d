"""The gateway, put together. This is the only place where its parts meet."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.certificates import Certificates
from serving.classification import Classifier
from serving.decoding import Decoders, cores
from serving.http.accepting import open_connections
from serving.http.api_keys import ApiKeys
from serving.http.connections import PLAIN_WAY
from serving.http.direct import Direct
from serving.http.endpoints import image_endpoint, text_endpoint
from serving.http.errors import install_error_handlers
from serving.http.guard import Guard
from serving.http.middleware import Bodies, BodyLimit, RequestRecord
from serving.http.openapi import complete_openapi
from serving.http.plain_way import PlainWay
from serving.http.routes import docs, page
from serving.http.routes.classify import classify_routes
from serving.http.routes.health import health_routes
from serving.http.routes.inference_protocol import inference_routes
from serving.http.routes.models import model_routes
from serving.logs import configure_logging, write_lines
from serving.metrics import Metrics
from serving.model_server import ModelServer
from serving.settings import Settings
from serving.stopping import Stopping
from serving.tracing import spans_to
from serving.traffic import Traffic
from serving.turns import Turns
from serving.versions import Model

COLLECTION = (10_000, 2, 2)
"""So many objects made and not gone again before garbage is looked for among them; every second time among those that
outlived one look, too, and every second time of these among all that were made since the start."""
DESCRIPTION = "Classifies pictures and texts. Every answer names the model version that gave it."


def create_app(settings: Settings) -> ASGIApp:
    """The gateway as an ASGI application.

    It answers at once, and is ready (`/readyz`) when every model has a version that proved itself. What it holds on to
    (the channel to the model server, threads, the tasks that follow versions) lives as long as its lifespan.
    """
    # texts come one by one: the library's own threads would only be waited for
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    metrics = Metrics()
    server = ModelServer(settings.model_server, Certificates.of(settings), metrics=metrics)
    stopping = Stopping(settings.not_ready_seconds, on_begin=open_connections().end)
    decoders = Decoders(settings.decoders or cores())
    turns = Turns()
    spans = spans_to(settings.traces_endpoint, model_server=settings.model_server)

    def model(name: str, kind: Literal["image", "text"]) -> Model:
        return Model(name, kind, server=server, settings=settings, metrics=metrics, spans=spans)

    def classifier(model: Model | None) -> Classifier | None:
        if model is None:
            return None
        traffic = Traffic(model, settings=settings, metrics=metrics)
        return Classifier(model, traffic=traffic, decoders=decoders, turns=turns, metrics=metrics, spans=spans)

    image_model = model(settings.image_model, "image") if settings.image_model else None
    text_model = model(settings.text_model, "text") if settings.text_model else None
    models = {model.name: model for model in (image_model, text_model) if model}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with server.connected(), asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(model.follow()) for model in models.values()]
            following.append(tasks.create_task(server.follow_certificates(settings.poll_seconds)))
            following.append(tasks.create_task(server.follow_address()))
            with stopping.watched():
                yield {PLAIN_WAY: plain_way} if plain_way is not None else {}
            for task in following:
                task.cancel()
        decoders.close()
        if spans is not None:
            await spans.close()
        write_lines()

    image, text = classifier(image_model), classifier(text_model)
    image_asked, text_asked = image_endpoint(image) if image else None, text_endpoint(text) if text else None
    classify = classify_routes(image_asked, text_asked, settings)
    keys = ApiKeys(Path(settings.api_keys_file)) if settings.api_keys_file else None
    bodies = Bodies(settings.max_held_bytes)
    plain_way = None
    # a trace has a span for every request; and limits for each client are the guard's
    if spans is None and not (settings.rate_limit or settings.max_concurrency):
        endpoints = [endpoint for endpoint in (image_asked, text_asked) if endpoint]
        plain_way = PlainWay(endpoints, keys=keys, turns=turns, bodies=bodies, metrics=metrics, settings=settings)
    app = FastAPI(
        title="Sightread",
        version=metadata.version("sightread"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    install_error_handlers(app)
    app.include_router(classify)
    app.include_router(model_routes(models))
    app.include_router(health_routes(models.values(), stopping, metrics))
    served = [classifier for classifier in (image, text) if classifier]
    app.include_router(inference_routes(served, stopping, settings))
    complete_openapi(app)
    docs.add_docs(app)
    page.add_page(app)
    layers = [
        Middleware(RequestRecord, metrics=metrics, spans=spans),
        *_cross_origin(settings),
        *_guard(settings, keys),
        Middleware(BodyLimit, max_bytes=settings.max_body_bytes, bodies=bodies),
        Middleware(Direct, routes=[route for route in classify.routes if isinstance(route, APIRoute)]),
    ]
    return _within(app, layers)


def _within(app: ASGIApp, layers: Sequence[Middleware]) -> ASGIApp:
    """The application within layers, the outermost first.

    As middleware of FastAPI they would stand inside its own, which `Direct` spares the requests that are asked most.
    """
    for layer, arguments, options in reversed(layers):
        app = layer(app, *arguments, **options)
    return app


def _cross_origin(settings: Settings) -> list[Middleware]:
    """What lets other origins' pages ask, where they may."""
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Inference-Header-Content-Length",
                "X-API-Key",
                "X-Request-ID",
                "X-Request-Timeout",
                "X-Session-ID",
                "traceparent",
            ],
            expose_headers=["Inference-Header-Content-Length", "Retry-After", "Server-Timing", "X-Request-ID"],
        )
    ]


def _guard(settings: Settings, keys: ApiKeys | None) -> list[Middleware]:
    """What keeps out who may not come in, where there is a rule for that."""
    if not (keys or settings.rate_limit or settings.max_concurrency):
        return []
    return [
        Middleware(
            Guard,
            keys=keys,
            open_paths=[
                *(() if settings.guard_metrics else ("/metrics",)),
                *(() if settings.guard_docs else (*page.PATHS, *docs.PATHS)),
            ],
            rate=settings.rate_limit,
            concurrency=settings.max_concurrency,
        )
    ]


def create_worker_app() -> ASGIApp:
    """The application of one worker process of several: its settings come through the environment."""
    settings = Settings()
    configure_logging(settings.log_format, settings.log_level)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()
    app = create_app(settings)
    calm_collector()
    return app


def calm_collector() -> None:
    """For a process that serves: have garbage collected less often, and not looked for in what stays for good.

    A request leaves next to no cycles behind; by its usual rule the collector would still run every few of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION)


def _stop_after(parent: multiprocessing.process.BaseProcess) -> None:
    """A worker whose parent was killed would hold its port for ever."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
