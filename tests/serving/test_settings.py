from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serving.settings import Settings


def test_settings_reach_a_worker_process_unchanged() -> None:
    settings = Settings(port=9000, models=Path("elsewhere"), deadline_seconds=2.5)
    environment = settings.environment()
    assert environment["SIGHTREAD_PORT"] == "9000"
    assert {f"SIGHTREAD_{name.upper()}" for name in Settings.model_fields} == set(environment)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rate_limit": "10/second;100/hour"}, "it takes one rate"),
        ({"deadline_seconds": float("inf")}, "less than or equal to 86400"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds"),
        ({"image_model": "one", "text_model": "one"}, "are two models"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**settings)


def test_a_service_may_have_one_model_only_or_none() -> None:
    assert Settings(image_model="", text_model="").image_model == ""
