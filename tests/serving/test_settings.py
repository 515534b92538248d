"""The README tells every setting, with the default and the words that the code has."""

import re
from pathlib import Path

from serving.settings import Settings

README = Path(__file__).parents[2] / "README.md"
ROW = re.compile(r"^\| `SIGHTREAD_(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)


def test_the_readme_documents_every_setting_and_no_other() -> None:
    documented = {name: (default, purpose) for name, default, purpose in ROW.findall(README.read_text())}
    real = {
        name.upper(): (f"`{field.default}`" if str(field.default) else "", field.description)
        for name, field in Settings.model_fields.items()
    }
    assert documented == real


def test_settings_reach_a_worker_process_unchanged() -> None:
    settings = Settings(port=9000, models=Path("elsewhere"), deadline_seconds=2.5)
    environment = settings.environment()
    assert environment["SIGHTREAD_PORT"] == "9000"
    assert {f"SIGHTREAD_{name.upper()}" for name in Settings.model_fields} == set(environment)
