from pathlib import Path

import pytest

from export import shipped
from export.reference.__main__ import main
from export.reference.accuracy import lines, measure
from export.repository import Repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("models"))
    shipped.make(made, ("image_encoder", "text_encoder"), lambda *_: None)
    return made


def test_exported_encoders_name_drawn_clothing(repository: Repository, drawn_photos: Path) -> None:
    found = measure(drawn_photos, repository)
    assert found.total == len(list(drawn_photos.glob("*/*.jpg")))
    assert found.correct / found.total > 0.5
    report = "\n".join(lines(found))
    assert f"({found.correct} of {found.total} photos)" in report
    assert all(name in report for name in found.classes)


def test_the_command_prints_the_report_and_refuses_broken_photos(
    repository: Repository,
    drawn_photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = str(repository.root)
    assert main(["accuracy", "--photos", str(drawn_photos), "--models", models]) == 0
    assert capsys.readouterr().out.startswith("top-1 ")
    (tmp_path / "dress").mkdir()
    (tmp_path / "dress" / "a.jpg").write_text("no picture")
    assert main(["accuracy", "--photos", str(tmp_path), "--models", models]) == 2
    assert "a.jpg is not a picture" in capsys.readouterr().err
