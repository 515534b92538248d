"""Where the local model server finds what a `models.config` names."""

from pathlib import Path

import pytest

from serving.local_model_server.config import parse


def folder(base_path: str, relative_to: Path) -> Path:
    (model,) = parse(f'model_config_list {{ config {{ name: "cnn" base_path: "{base_path}" }} }}', relative_to)
    return model.folder


@pytest.mark.parametrize("base_path", ["/no/such/place/pictures", "/no/such/place/pictures/", "elsewhere/pictures"])
def test_a_base_path_that_is_not_there_stands_for_the_folder_of_its_name_beside_the_file(
    base_path: str, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    assert folder(base_path, tmp_path) == tmp_path / "pictures"


def test_a_base_path_that_is_there_is_taken_as_it_stands(tmp_path: Path) -> None:
    for place in ("beside/pictures", "elsewhere/pictures"):
        (tmp_path / place).mkdir(parents=True)
    assert folder(f"{tmp_path}/elsewhere/pictures", tmp_path / "beside") == tmp_path / "elsewhere" / "pictures"
    assert folder("../elsewhere/pictures", tmp_path / "beside") == tmp_path / "beside" / ".." / "elsewhere" / "pictures"


def test_a_folder_that_is_nowhere_keeps_its_name_for_the_complaint(tmp_path: Path) -> None:
    assert folder("/no/such/place/pictures", tmp_path) == Path("/no/such/place/pictures")
