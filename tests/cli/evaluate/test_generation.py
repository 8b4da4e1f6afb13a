"""evaluate generation: numbers with their protocol, from a generator and from a folder; what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import mergevq
from mergevq.cli.evaluate.samples import class_numbers
from mergevq.cli.shared.sampling import picture_seed
from mergevq.data.images.builtin import open_builtin
from mergevq.data.images.transforms import to_uint8
from mergevq.generation.store import create_generator, load_generator, save
from mergevq.metrics.features.classifier import Classifier, ClassifierCard, load_classifier, save_classifier

WORDS = ("evaluate", "generation", "--reference", "builtin:digits", "--workers", 0)


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    """A classifier of digits with random weights."""
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    card = ClassifierCard(
        data="digits",
        classes=tuple("0123456789"),
        size=8,
        train_images=0,
        test_images=359,
        accuracy=0.25,
        epochs=0,
        seed=0,
    )
    save_classifier(Classifier(10), card, folder)
    return folder


@pytest.fixture(scope="session")
def generator(tmp_path_factory, tiny):
    """A generator of ten classes with random weights."""
    folder = tmp_path_factory.mktemp("generator") / "gen"
    torch.manual_seed(0)
    save(create_generator("nano", "raster", mergevq.load(tiny), classes=10), folder)
    return folder


@pytest.fixture
def digits(tmp_path):
    """Twenty digits in folders of their class."""
    source = open_builtin("digits", "train")
    for index in range(20):
        folder = tmp_path / "digits" / source.classes[source.label(index)]
        folder.mkdir(parents=True, exist_ok=True)
        source.open(index).save(folder / f"{index}.png")
    return tmp_path / "digits"


REFERENCE = (
    "data builtin:digits: 1438 training and 359 validation pictures (built in), 10 classes (0 ... 9)\n"
)


@pytest.fixture
def evaluate(mergevq_main, judge, tmp_path):
    """Calls the command in this process with a cache of its own."""

    def run(*arguments):
        return mergevq_main(*WORDS, "--network", judge, "--cache", tmp_path / "cache", *arguments)

    return run


def test_a_generator(mergevq_process, generator, judge, tmp_path):
    options = ("--number", 6, "--classes", "3,1", "--batch-size", 4, "--seed", 5, "--top-k", 9, "--limit", 30)
    files = ("--cache", tmp_path / "cache", "--json", tmp_path / "r.json")
    result = mergevq_process(*WORDS, "--generator", generator, "--network", judge, *options, *files)
    assert (result.code, result.err) == (0, REFERENCE)
    for words in (
        "Frechet distance (digits classifier)",
        "class score (digits classifier)",
        "time per image",
        "25.00% of 359 test pictures right",
        "split test, 30 at the most",
        "6 generated against 30 reference pictures",
        "seed 5 (",
        "top k 9",
        "guidance off",
        "short side to 32 px",
        "rounded to the nearest of 256 levels",
    ):
        assert words in result.out, words
    assert "FID" not in result.out and "IS " not in result.out
    report = json.loads((tmp_path / "r.json").read_text())
    # The pictures of `mergevq generate`, made one at a time.
    made = load_generator(generator)
    labels = [3, 1, 3, 1, 3, 1]
    seeds = [picture_seed(5, label, row // 2) for row, label in enumerate(labels)]
    images = torch.cat(
        [made.generate([label], seed=seed, top_k=9) for label, seed in zip(labels, seeds, strict=True)]
    )
    found = load_classifier(judge)(to_uint8(images))[1].argmax(1)
    assert report["class_consistency"] == pytest.approx(
        float((found == torch.tensor(labels)).double().mean())
    )
    assert set(report["consistency_by_class"]) == {"1", "3"} and report["images"] == 6


def test_a_folder_and_a_reference_that_is_remembered(evaluate, digits, judge, tmp_path):
    first = evaluate("--images", digits, "--json", tmp_path / "first.json")
    said = f"data {digits}: {len(list(digits.rglob('*.png')))} pictures, "
    assert first.code == 0 and first.err.startswith(said) and first.err.endswith(f"\n{REFERENCE}")
    assert first.err.count("\n") == 2
    assert "time per image" not in first.out and "short side to 8 px" in first.out
    remembered = list((tmp_path / "cache").iterdir())
    assert len(remembered) == 1 and remembered[0].suffix == ".safetensors"
    written = remembered[0].stat().st_mtime_ns
    second = evaluate("--images", digits, "--json", tmp_path / "second.json")
    assert (
        second.out == first.out
        and (tmp_path / "second.json").read_text() == (tmp_path / "first.json").read_text()
    )
    assert remembered[0].stat().st_mtime_ns == written
    pixels = [(int(path.parent.name), np.array(Image.open(path))) for path in sorted(digits.rglob("*.png"))]
    labels = torch.tensor([label for label, _ in pixels])
    images = torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for _, picture in pixels])
    expected = (load_classifier(judge)(images)[1].argmax(1) == labels).double().mean()
    assert json.loads((tmp_path / "first.json").read_text())["class_consistency"] == pytest.approx(
        float(expected)
    )
    remembered[0].write_bytes(remembered[0].read_bytes()[:-9])
    third = evaluate("--images", digits)
    assert third.out == first.out and "made again" in third.err
    evaluate("--images", digits, "--size", 16, "--number", 7)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_folders_that_are_no_classes(evaluate, digits, tmp_path):
    (digits / "0").rename(digits / "zero")
    result = evaluate("--images", digits)
    assert result.code == 0 and "class consistency  " not in result.out
    assert "the network has no class zero: no class consistency" in result.out
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in list(digits.rglob("*.png")):
        path.rename(flat / path.name)
    assert "no sub-folders: no class consistency" in evaluate("--images", flat).out


def test_class_numbers_are_found_by_name_then_by_number():
    known = ("cat", "dog", "0")
    assert class_numbers(["dog", "0"], known) == ([1, 2], "sub-folders have the names of classes")
    assert class_numbers(["0", "001"], known) == ([0, 1], "sub-folders have the numbers of classes")
    assert class_numbers(["1", "3"], known)[0] is None
    assert class_numbers(["cat", "1"], known)[0] is None
    assert class_numbers(["cat"], ())[0] is None


def test_a_broken_picture_is_named_and_counted(evaluate, digits):
    broken = digits / "0" / "broken.png"
    broken.write_bytes(b"no picture")
    result = evaluate("--images", digits)
    assert result.code == 1 and str(broken) in result.err and "left out" in result.out
    assert result.error.startswith("1 of 21 generated pictures could not be read; the numbers are")


def test_a_broken_reference_is_named_each_time(mergevq_main, digits, judge, tmp_path):
    (digits / "0" / "broken.png").write_bytes(b"no picture")
    options = ("--network", judge, "--cache", tmp_path / "cache", "--split", "all", "--workers", 0)
    for _ in range(2):
        result = mergevq_main(*WORDS[:2], "--images", digits, "--reference", digits, "--number", 9, *options)
        assert result.code == 1 and "1 of 21 reference pictures could not be read" in result.error
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--classes", "0,10"), 2, "there is no class 10"),
        (("--classes", "0,x"), 2, "--classes: 'x' is not"),
        (("--number", "1"), 2, "1 generated picture cannot be evaluated; at least 4"),
        (("--limit", "2", "--number", "4"), 2, "2 reference pictures cannot be evaluated"),
        (("--reference", "nowhere"), 2, "nowhere does not exist"),
        (("--network", "nowhere"), 1, "nowhere is not a classifier"),
        (("--network", "inception=nowhere"), 2, "there is no InceptionV3 weights file nowhere"),
        (("--json", "/proc/nowhere/r.json"), 1, "cannot write /proc/nowhere/r.json"),
        (("--size", "32"), 2, "--size is for --images"),
        (("--images", "folder"), 2, "--images: not allowed with argument --generator"),
        (("--number", "4", "--steps", "3"), 2, "only rand_ar decodes several tokens"),
        (("--number", "4", "--guidance", "-1"), 2, "guidance is -1.0"),
        (("--top-p", "2", "--reference", "nowhere"), 2, "top_p is 2.0"),  # before real pictures are read
    ],
)
def test_what_a_generator_cannot_do(evaluate, generator, arguments, code, said):
    result = evaluate("--generator", generator, "--limit", 4, *arguments)
    assert result.code == code and said in result.error and result.out == ""


def test_what_a_folder_cannot_do(evaluate, digits, tiny, tmp_path):
    assert "--top-k is for --generator" in evaluate("--images", digits, "--top-k", 3).error
    (tmp_path / "empty").mkdir()
    assert "empty holds no pictures" in evaluate("--images", tmp_path / "empty").error
    assert "1 generated picture cannot" in evaluate("--images", digits, "--number", 1).error
    assert "does not describe a mergevq generator" in evaluate("--generator", tiny).error
    assert "one of the arguments --generator --images is required" in evaluate().error
