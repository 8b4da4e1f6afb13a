from __future__ import annotations

import errno
import json
import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.config import to_dict
from mergevq.errors import CheckpointError, OutputError, UsageError
from mergevq.models import store
from mergevq.models.tokenizer.tokenizer import Tokenizer

SMALL = {
    "encoder.depth": 2,
    "encoder.channels": 16,
    "encoder.width": 16,
    "encoder.heads": 1,
    "decoder.depth": 1,
    "decoder.channels": 16,
    "decoder.width": 16,
    "decoder.heads": 1,
    "recovery.width": 16,
    "recovery.heads": 1,
    "recovery.depth": 1,
}


def build(seed: int = 0) -> mergevq.models.tokenizer.tokenizer.Tokenizer:
    torch.manual_seed(seed)
    return mergevq.create("tiny-32", **SMALL).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "tok"
    mergevq.save(build(), folder)
    return folder


def edit(folder: Path, change) -> None:
    path = folder / "config.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def rehash(folder: Path) -> None:
    edit(folder, lambda described: described.update(sha256=store.sha256(folder / "model.safetensors")))


def assert_equal(one: torch.nn.Module, other: torch.nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_round_trip_is_exact(tmp_path):
    tokenizer, images = build(), torch.rand(2, 3, 32, 32) * 2 - 1
    mergevq.save(tokenizer, tmp_path / "deep" / "tok")
    loaded = mergevq.load(tmp_path / "deep" / "tok")
    assert_equal(loaded, tokenizer)
    assert loaded.config == tokenizer.config and not loaded.training
    tokens, wanted = loaded.encode(images), tokenizer.encode(images)
    assert torch.equal(tokens.indices, wanted.indices) and torch.equal(tokens.source, wanted.source)
    assert torch.equal(loaded.decode(tokens), tokenizer.decode(wanted))
    assert torch.equal(loaded.decode(tokens.indices), tokenizer.decode(wanted.indices))


def test_a_channels_last_model_round_trips(tmp_path):
    tokenizer = build().to(memory_format=torch.channels_last)
    mergevq.save(tokenizer, str(tmp_path))
    assert_equal(mergevq.load(str(tmp_path)), tokenizer)


def test_the_folder_holds_json_and_safetensors_and_nothing_else(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    described = json.loads((saved / "config.json").read_text())
    assert described["config"] == to_dict(build().config)
    header = int.from_bytes((saved / "model.safetensors").read_bytes()[:8], "little")
    json.loads((saved / "model.safetensors").read_bytes()[8 : 8 + header])
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o666 & ~umask}


def test_saving_again_replaces(saved):
    mergevq.save(build(seed=1), saved)
    assert_equal(mergevq.load(saved), build(seed=1))


def test_create_takes_groups_and_dotted_keys():
    one = mergevq.create("tiny-32", **SMALL)
    groups: dict[str, dict] = {}
    for path, value in SMALL.items():
        group, key = path.split(".")
        groups.setdefault(group, {})[key] = value
    assert mergevq.create("tiny-32", **groups).config == one.config


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flipped(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def renamed_pickle(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "model.safetensors")


def renamed_pickle_with_its_hash(folder: Path) -> None:
    renamed_pickle(folder)
    rehash(folder)


def truncated_with_its_hash(folder: Path) -> None:
    truncated(folder)
    rehash(folder)


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    rehash(folder)


def other_config(folder: Path) -> None:
    edit(folder, lambda described: described["config"]["decoder"].update(width=32))


def deeper_config(folder: Path) -> None:
    edit(folder, lambda described: described["config"]["decoder"].update(depth=2))


def unknown_key(folder: Path) -> None:
    edit(folder, lambda described: described["config"]["encoder"].update(dept=2))


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


DAMAGE = [
    (pointer, r"model\.safetensors is a git-lfs pointer"),
    (truncated, r"model\.safetensors is truncated"),
    (flipped, r"is not the file that its config\.json describes"),
    (renamed_pickle, r"is not the file that its config\.json describes"),
    (renamed_pickle_with_its_hash, "cannot be read as safetensors"),
    (truncated_with_its_hash, "cannot be read as safetensors"),
    (empty_weights, r"model\.safetensors is empty"),
    (other_config, "does not fit its configuration"),
    (deeper_config, "does not fit its configuration: Missing key"),
    (unknown_key, r"unknown key 'encoder\.dept'; did you mean 'encoder\.depth'"),
    (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
    (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), r"config\.json cannot be read"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "does not describe a mergevq tokenizer"),
    (lambda folder: (folder / "config.json").write_text('{"a": 1}'), "does not describe a mergevq tokenizer"),
    (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors"),
    (
        lambda folder: edit(folder, lambda described: described.pop("sha256")),
        "is truncated or is not the file",
    ),
    (lambda folder: edit(folder, lambda described: described.pop("config")), "without a configuration"),
    (lambda folder: edit(folder, lambda described: described.update(config=[1])), "without a configuration"),
    (lambda folder: edit(folder, lambda d: d["config"].update(image_size="x")), "image_size must be int"),
    (
        lambda folder: edit(folder, lambda d: d["config"]["encoder"].update(depth=-1)),
        r"encoder\.depth is -1",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[message for _, message in DAMAGE])
def test_a_damaged_folder_is_one_clear_error(saved, damage, message):
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        mergevq.load(saved)
    assert "\n" not in str(caught.value)


def test_another_models_weights_are_found_out(saved, tmp_path):
    mergevq.save(build(seed=1), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not the file"):
        mergevq.load(saved)


BLOWN_UP = [
    ("image_size", 10**9), ("image_size", 10**20), ("encoder.depth", 10**9), ("decoder.depth", 10**15),
    ("recovery.depth", 10**10), ("encoder.blocks", 10**9), ("decoder.blocks", 10**9), ("encoder.width", 10**12),
    ("encoder.channels", 10**10), ("recovery.width", 2**16), ("encoder.depth", 1024), ("decoder.blocks", 256),
    ("encoder.width", 2**16), ("decoder.channels", 2**16), ("encoder.mlp_ratio", 64.0), ("quantizer.bits", 31),
    ("image_size", 2**14), ("recovery.depth", 3), ("encoder.multipliers", [1] * 17), ("merge.keep", 10**19),
]  # fmt: skip


@pytest.mark.parametrize("as_checkpoint", [False, True])
@pytest.mark.parametrize(("key", "value"), BLOWN_UP, ids=[f"{key}={value}" for key, value in BLOWN_UP])
def test_a_description_of_a_larger_model_is_refused_before_it_is_built(
    saved, monkeypatch, key, value, as_checkpoint
):
    def on_the_meta_device(config):
        assert torch.empty(0).is_meta, "memory would have been taken"
        return Tokenizer(config)

    described = json.loads((saved / "config.json").read_text())
    node = described["config"]
    *groups, name = key.split(".")
    for group in groups:
        node = node[group]
    node[name] = value
    path = saved
    if as_checkpoint:
        path = saved / "last.ckpt"
        training_checkpoint(path, build(), mergevq={"config": {"model": described["config"]}})
    else:
        (saved / "config.json").write_text(json.dumps(described))
    monkeypatch.setattr(store, "Tokenizer", on_the_meta_device)
    with pytest.raises(CheckpointError, match=r"does not fit its conf|configuration that cannot be"):
        mergevq.load(path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a": ' * 100_000, '{"format": "mergevq-tokenizer", "config": ' + "9" * 5000 + "}"],
)
def test_a_description_that_no_reader_takes_is_one_clear_error(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: it (is n|holds a number)"):
        mergevq.load(saved)


def test_looking_at_the_layout_first_draws_nothing(saved):
    before = torch.get_rng_state()
    store.build(lambda: Tokenizer(build().config), 1, build().state_dict(), saved)
    torch.set_rng_state(before)
    Tokenizer(build().config)
    expected = torch.get_rng_state()
    torch.set_rng_state(before)
    mergevq.load(saved)
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("name", ["/no/such/place", "./missing", "missing", "a/b/c", "~/x", "user/name"])
def test_a_missing_path_is_one_clear_error(name):
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        mergevq.load(name)


def test_a_mistyped_path_names_the_nearest_and_asks_nobody(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(saved.parent.parent)
    run = saved.parent.name
    for wrong, near in [(f"{run}/tokk", f"{run}/tok"), (f"{run}x/tok", run), (saved.parent / "tik", saved)]:
        with pytest.raises(CheckpointError, match=re.escape(f"did you mean {near}?")):
            mergevq.load(wrong)
    with pytest.raises(CheckpointError, match=r"a model on the Hugging Face hub is hf://someone/other$"):
        mergevq.load("someone/other")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_of_the_folder_is_answered_with_the_folder(saved, file):
    with pytest.raises(CheckpointError, match=re.escape(f"one file of a model; give its folder, {saved}")):
        mergevq.load(saved / file)


def test_a_home_folder_is_understood(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert_equal(mergevq.load("~/tok"), build())
    mergevq.save(build(seed=1), "~/other")
    assert_equal(mergevq.load(saved.parent / "other"), build(seed=1))
    with pytest.raises(UsageError, match="no such home folder"):
        mergevq.load("~nobody-of-this-name/tok")


def test_a_repository_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise ConnectionError("no network\nsecond line")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"^hf://someone/tok cannot be had from the hub: no network$"):
        mergevq.load("hf://someone/tok")


@pytest.mark.parametrize("name", ["hf://tok", "hf://a/b/c", "hf:", "hf://a/b?c", "hf://../x/y"])
def test_a_hub_name_that_is_none_is_refused(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="is hf://user/name"):
        mergevq.load(name)


@pytest.mark.parametrize("where", ["hf://someone/tok", Path("hf://someone/tok")])
def test_a_repository_is_downloaded_without_its_other_files(saved, monkeypatch, where):
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def download(repository, **options):
        asked[repository] = options["allow_patterns"]
        return str(saved)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert_equal(mergevq.load(where), build())
    own = ["config.json", "model.safetensors"]
    assert asked == {"someone/tok": [*own, *(f"tokenizer/{file}" for file in own)]}


def test_without_the_hubs_client_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install mergevq\[hub\]"):
        mergevq.load("hf://someone/tok")


def training_checkpoint(path: Path, tokenizer, **changes) -> None:
    weights = {f"ema.{name}": value for name, value in tokenizer.state_dict().items()}
    checkpoint = {
        "state_dict": {**weights, "tokenizer.encoder.cls": torch.zeros(1)},
        "mergevq": {"config": {"model": to_dict(tokenizer.config)}},
    }
    torch.save({**checkpoint, **changes}, path)


def test_a_training_checkpoint_gives_its_averaged_weights(tmp_path):
    training_checkpoint(tmp_path / "last.ckpt", build())
    loaded = mergevq.load(tmp_path / "last.ckpt")
    assert_equal(loaded, build())
    assert not loaded.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mergevq": None}, "is not a training checkpoint of a mergevq tokenizer"),
        ({"mergevq": {"config": {}}}, "is not a training checkpoint of a mergevq tokenizer"),
        ({"mergevq": {}}, "is not a training checkpoint of a mergevq tokenizer"),
        ({"mergevq": {"config": None}}, "is not a training checkpoint of a mergevq tokenizer"),
        ({"mergevq": {"config": {"model": {"name": 3}}}}, "name must be str"),
        ({"state_dict": {}}, "does not fit its configuration"),
        ({"state_dict": [1]}, "is not a training checkpoint"),
    ],
)
def test_a_training_checkpoint_of_something_else_is_refused(tmp_path, changes, message):
    training_checkpoint(tmp_path / "last.ckpt", build(), **changes)
    with pytest.raises(CheckpointError, match=message):
        mergevq.load(tmp_path / "last.ckpt")


def test_a_state_dict_alone_is_refused(tmp_path):
    torch.save(build().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="is not a training checkpoint"):
        mergevq.load(tmp_path / "weights.pt")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_objects_are_never_executed(tmp_path, zipped):
    bomb = tmp_path / "executed"
    training_checkpoint(tmp_path / "last.ckpt", build(), extra=Bomb(bomb))
    if not zipped:
        (tmp_path / "last.ckpt").write_bytes(pickle.dumps({"state_dict": {}, "extra": Bomb(bomb)}))
    with pytest.raises(CheckpointError, match="cannot be read safely") as caught:
        mergevq.load(tmp_path / "last.ckpt")
    assert not bomb.exists() and "\n" not in str(caught.value)
    if zipped:
        torch.load(tmp_path / "last.ckpt", weights_only=False)
    else:
        pickle.loads((tmp_path / "last.ckpt").read_bytes())
    assert bomb.exists()  # the bomb was live


def test_any_damage_to_a_training_checkpoint_is_a_checkpoint_error(tmp_path):
    path = tmp_path / "last.ckpt"
    training_checkpoint(path, build())
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)

    def number(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    legacy = pickle.dumps({"state_dict": {"a": [1, 2.5, "x", (3,), None]}})
    damaged = [whole[: number(len(whole))] for _ in range(10)] + [b"", b"\x80", b"PK\x03\x04", os.urandom(50)]
    for _ in range(60):
        content = bytearray(legacy)
        content[number(len(content))] = number(256)
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            mergevq.load(path)


@pytest.mark.parametrize("after", ["read_description", "sha256"])
def test_a_model_that_is_replaced_while_it_is_read(saved, monkeypatch, after):
    """Between its description and its weights, and between the look at their hash and at themselves."""
    original, seeds = getattr(store, after), [1, 2]

    def replaced(*arguments):
        found = original(*arguments)
        if seeds:
            with monkeypatch.context() as patch:
                patch.setattr(store, after, original)
                mergevq.save(build(seeds.pop(0)), saved)
        return found

    monkeypatch.setattr(store, after, replaced)
    assert_equal(mergevq.load(saved), build(seed=2))
    (saved / "model.safetensors").write_bytes(b"damage")
    with pytest.raises(CheckpointError, match="is truncated or is not the file"):
        mergevq.load(saved)


def test_a_full_disk_leaves_the_old_checkpoint(saved, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in [
        (store, "save_file"),
        (Path, "write_text"),
        (os, "fsync"),
        (Path, "replace"),
        (os, "open"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(
                OutputError, match="No space left on device; what was there before is unchanged"
            ):
                mergevq.save(build(seed=1), saved)
        assert_equal(mergevq.load(saved), build())
        assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_a_kill_between_the_renames_leaves_a_model_that_loads(saved, monkeypatch):
    """And again when the next one is killed there too."""
    rename = Path.replace

    def killed(path, target):
        rename(path, target)
        raise KeyboardInterrupt

    for seed in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                mergevq.save(build(seed), saved)
        assert_equal(mergevq.load(saved), build())


def test_a_disk_that_fills_at_any_call_leaves_the_old_checkpoint(saved, monkeypatch):
    """The n-th flush to the disk fails, for every n that a save makes."""
    calls = 0

    def failing_at(nth: int):
        def fsync(_):
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(errno.ENOSPC, "No space left on device")

        return fsync

    for nth in range(1, 9):
        calls = 0
        monkeypatch.setattr(os, "fsync", failing_at(nth))
        try:
            mergevq.save(build(seed=1), saved)
        except OutputError:
            assert_equal(mergevq.load(saved), build())
        else:
            break
    assert nth == 3  # one flush a file
    assert_equal(mergevq.load(saved), build(seed=1))


WITHIN_A_LIMIT = """
import resource, sys
import mergevq
tokenizer = mergevq.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    mergevq.save(tokenizer, sys.argv[1])
except mergevq.errors.OutputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_write_that_the_system_cuts_short_leaves_the_old_checkpoint(saved, run_python):
    result = run_python("-c", WITHIN_A_LIMIT, str(saved))
    assert "cannot write" in result.stdout and "what was there before is unchanged" in result.stdout, (
        result.stderr
    )
    assert_equal(mergevq.load(saved), build())
    assert len(list(saved.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot write"):
            mergevq.save(build(), place)
    assert (tmp_path / "file").read_text() == ""


def test_writing_atomically_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "new" / "numbers.txt"
    store.write_atomically(path, lambda temporary: temporary.write_text("one"))

    def half(temporary: Path) -> None:
        temporary.write_text("tw")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        store.write_atomically(path, half)
    with pytest.raises(KeyError):
        store.write_atomically(path, lambda temporary: {}["bug"])
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]
