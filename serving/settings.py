"""The gateway's settings: environment variables with the prefix SIGHTREAD_, each also a flag of `sightread serve`."""

import importlib
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self

import limits
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

HTTP_URL = re.compile(r"https?://[^/]")


class Settings(BaseSettings):
    """Serve picture and text classifiers over HTTP.

    Without --model-server a local model server is started, which serves the folder --models. That is for a laptop, a
    test or a demo; in production give the address of a TensorFlow Serving.
    """

    model_config = SettingsConfigDict(
        env_prefix="SIGHTREAD_",
        frozen=True,
        cli_prog_name="sightread serve",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose one, which is then printed."""
    workers: PositiveInt = 1
    """Gateway processes that share the port."""

    model_server: str = ""
    """gRPC target of a TensorFlow Serving, such as dns:///tensorflow-serving:8500. Empty: a local one is started."""
    models: Path = Path("models")
    """Model repository that the local model server reads."""
    image_model: str = "cnn"
    """Model behind /classify-image. Empty: none."""
    text_model: str = "lstm"
    """Model behind /classify-text. Empty: none."""
    poll_seconds: PositiveFloat = 1.0
    """How often the model server is asked for new and vanished versions."""

    deadline_seconds: float = Field(default=10.0, gt=0, le=86_400)
    """Time that a request may take, from its headers to its answer; X-Request-Timeout may shorten it."""
    not_ready_seconds: NonNegativeFloat = 1.0
    """Time from SIGTERM, at which /readyz says no, until no connection is taken any more."""
    drain_seconds: PositiveInt = 30
    """Time that accepted requests get to finish after SIGTERM."""
    max_body_bytes: PositiveInt = 32 * 1024 * 1024
    """Largest request body, counted while it streams in."""
    max_held_bytes: PositiveInt = 256 * 1024 * 1024
    """Most bytes of bodies at once, for each worker, until they are answered; beyond it 429."""
    max_pixels: PositiveInt = 50_000_000
    """Largest picture, width × height by its header."""
    decoders: NonNegativeInt = 0
    """Pictures decoded at once, for each worker; 0: as many as there are cores that it may use."""
    max_text_characters: PositiveInt = 100_000
    """Longest text."""
    max_items: PositiveInt = 128
    """Most pictures or texts in one request."""
    max_batch_size: PositiveInt = 64
    """Most rows in one call to the model server; not more than its own max_batch_size."""
    max_queue: PositiveInt = 1024
    """Most rows that wait for the model server, for each version; further ones are refused with 429."""

    canary_label: str = Field(default="canary", min_length=1)
    """Label of the version that gets a share of the requests which name no version."""
    canary_share: float = Field(default=0.0, ge=0, le=1)
    """That share; requests with the same X-Session-ID go to the same version."""
    shadow_label: str = Field(default="shadow", min_length=1)
    """Label of the version that answers a share of those requests, too: its answers are compared and counted only."""
    shadow_share: float = Field(default=0.0, ge=0, le=1)
    """That share."""

    max_connections: PositiveInt = 1000
    """Most connections at once, for each worker; beyond it the one that has idled longest is closed for a new one."""
    max_header_bytes: PositiveInt = 32 * 1024
    """Largest path and headers of a request together."""
    header_seconds: PositiveFloat = 10.0
    """Time that a client may take to send its headers."""
    idle_seconds: PositiveInt = 75
    """Time that a connection may stay idle between two requests; longer than a load balancer's own."""

    api_keys_file: str = ""
    """File with a line `name:sha256` for each API key (`sightread key NAME` makes one). Empty: all may come in."""
    guard_metrics: bool = False
    """Whether /metrics needs an API key, too."""
    guard_docs: bool = False
    """Whether the page at /, /docs and /openapi.json need an API key, too."""
    rate_limit: str = ""
    """Requests for each API key's holder, else for each address (IPv6: /64), such as 100/second. Empty: no limit."""
    max_concurrency: NonNegativeInt = 0
    """Requests at once for each API key's holder, else for each address. 0: no limit."""
    trusted_proxies: str = ""
    """Addresses or networks, separated by commas, whose X-Forwarded-For names the client. Empty: none."""
    cors_origins: str = ""
    """Origins, separated by commas, whose pages may ask. Empty: none but our own."""

    model_server_ca: str = ""
    """File with the certificates that the model server's is checked against; it turns TLS on. Empty: no TLS."""
    model_server_certificate: str = ""
    """File with the gateway's own certificate, for mutual TLS."""
    model_server_key: str = ""
    """File with the key of the gateway's own certificate."""

    traces_endpoint: str = ""
    """OpenTelemetry collector that gets traces, by OTLP over HTTP, such as http://collector:4318. Empty: none."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """Log lines for people (text) or machines (json); auto: text on a terminal, json elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines to write."""

    @field_validator("port", mode="before")
    @classmethod
    def _is_not_a_service_link(cls, port: Any) -> Any:
        # Kubernetes tells every pod of a Service named sightread as SIGHTREAD_PORT=tcp://10.0.0.1:8080
        return cls.model_fields["port"].default if str(port).startswith("tcp://") else port

    @field_validator("model_server")
    @classmethod
    def _is_a_grpc_target(cls, target: str) -> str:
        if target.startswith(("http://", "https://")):
            raise ValueError("it takes a gRPC target such as tensorflow-serving:8500, without http://")
        return target

    @field_validator("traces_endpoint")
    @classmethod
    def _is_a_collector_that_we_can_speak_to(cls, endpoint: str) -> str:
        if not endpoint:
            return endpoint
        if not HTTP_URL.match(endpoint):
            raise ValueError("it takes the URL of an OTLP/HTTP collector, such as http://collector:4318")
        try:
            importlib.import_module("serving.spans")
        except ImportError as error:
            raise ValueError(
                f"it needs OpenTelemetry, of which {error.name} is missing: pip install 'sightread[tracing]'"
            ) from error
        return endpoint

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: str) -> str:
        for network in networks.split(",") if networks else ():
            ip_network(network.strip())
        return networks

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, rate: str) -> str:
        if rate and len(limits.parse_many(rate)) > 1:
            raise ValueError("it takes one rate")
        return rate

    @model_validator(mode="after")
    def _has_two_models(self) -> Self:
        if self.image_model and self.image_model == self.text_model:
            raise ValueError("image_model and text_model are two models: leave one of them empty, or name another")
        return self

    @model_validator(mode="after")
    def _has_what_tls_needs(self) -> Self:
        if bool(self.model_server_certificate) != bool(self.model_server_key):
            raise ValueError("model_server_certificate and model_server_key go together")
        if self.model_server_certificate and not self.model_server_ca:
            raise ValueError("model_server_certificate needs model_server_ca: without it there is no TLS")
        return self

    def environment(self) -> dict[str, str]:
        """These settings as environment variables: how they reach worker processes."""
        return {f"SIGHTREAD_{name.upper()}": str(value) for name, value in self.model_dump().items()}
