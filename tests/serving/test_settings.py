from pathlib import Path

from serving.settings import Settings


def test_settings_reach_a_worker_process_unchanged() -> None:
    settings = Settings(port=9000, models=Path("elsewhere"), deadline_seconds=2.5)
    environment = settings.environment()
    assert environment["SIGHTREAD_PORT"] == "9000"
    assert {f"SIGHTREAD_{name.upper()}" for name in Settings.model_fields} == set(environment)
