from pathlib import Path

import numpy as np
import pytest

from export.reference.__main__ import main
from export.reference.accuracy import interval
from export.reference.vectors import fuse


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Runs a command that must be refused; returns the one line that it printed."""
    assert main([str(word) for word in argv]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    return output.err


def saved(file: Path, array: np.ndarray) -> Path:
    np.save(file, array)
    return file


def test_a_catalogue_needs_a_count_and_a_new_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "--count: expected 1 or more" in fails(
        capsys, "catalogue", "--out", tmp_path, "--count", 0
    )
    assert "--seed" in fails(capsys, "catalogue", "--out", tmp_path, "--seed", -1)
    (tmp_path / "file").write_text("x")
    line = fails(capsys, "catalogue", "--out", tmp_path / "file", "--count", 1)
    assert "expected a folder" in line
    assert main(["catalogue", "--out", str(tmp_path / "file" / "x"), "--count", "1"]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_vectors_look_for_their_files_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ("vectors", "--out", tmp_path / "rows.npy")
    assert "expected a folder" in fails(capsys, *argv, "--photos", tmp_path / "absent")
    assert "expected a file" in fails(capsys, *argv, "--titles", tmp_path / "absent")
    assert "expected a file" in fails(capsys, "vectors", "--out", tmp_path)


def test_the_image_tower_needs_photos(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ("image", "--out", tmp_path / "repo", "--photos")
    assert "expected a folder" in fails(capsys, *argv, tmp_path / "absent")
    assert "found none" in fails(capsys, *argv, tmp_path)
    assert "--epochs" in fails(capsys, *argv, tmp_path, "--epochs", 0)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 384), np.float32), "row 0 is zero or not finite"),
        (np.full((4, 384), np.nan, np.float32), "row 0 is zero or not finite"),
        (np.ones((4, 5), np.float32), "expected rows of 8 values or more"),
        (np.ones((4, 384), np.int64), "expected floating-point values"),
        (np.ones((40, 384), np.float32), "expected at least 16384 rows"),
    ],
)
def test_embeddings_that_cannot_be_learned_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, array: np.ndarray, said: str
) -> None:
    file = saved(tmp_path / "rows.npy", array)
    assert said in fails(capsys, "semantic_id", "--embeddings", file, "--out", tmp_path)


def test_the_tokenizers_other_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = saved(tmp_path / "rows.npy", np.ones((40, 384), np.float32))
    argv = ("semantic_id", "--embeddings", rows, "--out", tmp_path / "repo")
    absent = tmp_path / "absent.npy"
    line = fails(capsys, "semantic_id", "--embeddings", absent, "--out", tmp_path)
    assert "absent.npy" in line
    assert "NAME@VERSION" in fails(capsys, *argv, "--encoder", "image_encoder")
    assert "image_encoder" in fails(capsys, *argv, "--encoder", "image_encoder@1")
    assert "--previous" in fails(capsys, *argv, "--previous", tmp_path / "absent")
    for array, said in (
        (np.ones((3, 2), np.int64), "expected (m, 3)"),
        (np.ones((3, 3), np.float32), "expected integers"),
        (np.full((3, 3), 40, np.int64), "expected rows 0..39"),
        (np.full((3, 3), 2, np.int64), "expected labels 0 and 1"),
    ):
        pairs = saved(tmp_path / "pairs.npy", array)
        assert said in fails(capsys, *argv, "--pairs", pairs)


def test_vectors_and_accuracy_need_what_they_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, drawn_photos: Path
) -> None:
    assert "--out" in fails(capsys, "vectors", "--out", tmp_path / "no" / "rows.npy")
    assert "expected a folder" in fails(capsys, "accuracy", "--photos", tmp_path / "absent")
    line = fails(capsys, "accuracy", "--photos", drawn_photos, "--models", tmp_path / "none")
    assert "image_encoder" in line


def test_intervals_are_wilsons() -> None:
    # Agresti and Coull 1998, and the R package binom: 8 of 10.
    low, high = interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert interval(10, 10)[1] == pytest.approx(1.0)


def test_fused_rows_are_unit_and_between_their_sides() -> None:
    image, text = np.eye(3, 384, dtype=np.float32), np.eye(3, 384, k=5, dtype=np.float32)
    rows = fuse(image, text)
    np.testing.assert_allclose((rows * image).sum(1), 2**-0.5, rtol=1e-6)
    np.testing.assert_allclose((rows * text).sum(1), 2**-0.5, rtol=1e-6)
