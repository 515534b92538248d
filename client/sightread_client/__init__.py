"""Asks a Sightread service what pictures show and what texts say."""

from sightread_client.answers import (
    Answer,
    Area,
    ImageAnswer,
    ImageExplanation,
    ModelCard,
    ModelState,
    ModelVersion,
    Prediction,
    ProblemOfItem,
    TextAnswer,
    TextExplanation,
    Token,
    VersionState,
)
from sightread_client.asking import ImageOptions, Options, Picture
from sightread_client.async_client import AsyncClient
from sightread_client.client import Client
from sightread_client.errors import (
    BadInput,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    ServiceFault,
    SightreadError,
    Unauthorized,
    Unreachable,
)

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Area",
    "AsyncClient",
    "BadInput",
    "Client",
    "DeadlineExceeded",
    "ImageAnswer",
    "ImageExplanation",
    "ImageOptions",
    "ModelCard",
    "ModelState",
    "ModelVersion",
    "NotFound",
    "NotReady",
    "Options",
    "Overloaded",
    "Picture",
    "Prediction",
    "ProblemOfItem",
    "ServiceFault",
    "SightreadError",
    "TextAnswer",
    "TextExplanation",
    "Token",
    "Unauthorized",
    "Unreachable",
    "VersionState",
]
