"""A project with real DVC and a remote of its own: what belongs together, signatures, the card."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from huggingface_hub import ModelCard
from workspace import Workspace

from nanogpt2.__main__ import main
from nanogpt2.base.system import checksums
from nanogpt2.base.system.files import sha256
from nanogpt2.experiments.proof.signature import verify_signature
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project whose run was committed, and pushed to a remote: a folder."""
    folder = tmp_path_factory.mktemp("proof")
    workspace = Workspace.trained(folder / "project")
    workspace.dvc("remote", "add", "--default", "place", str(folder / "remote"))
    workspace.dvc("push")
    workspace.commit("a run")
    return workspace


@pytest.fixture(scope="module")
def content(made: Workspace) -> dict[Path, bytes]:
    """The files of the project as its run left them."""
    there = (path for path in made.root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in there if not {".git", ".dvc"} & {*path.parts}}


@pytest.fixture
def project(
    made: Workspace, content: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """The project as the current folder; what a test damages comes back after it."""
    monkeypatch.chdir(made.root)
    yield made
    for path, whole in content.items():
        if path.read_bytes() != whole:
            path.write_bytes(whole)


def verify(*options: str) -> tuple[int, list[str]]:
    """Return the exit status of `verify` in the current folder, and its lines: last the summary."""
    done = CliRunner().invoke(main, ["verify", "--quiet", *options], catch_exceptions=False)
    return done.exit_code, done.output.splitlines()


def named(lines: list[str], verdict: str) -> set[str]:
    return {line.split()[1].rstrip(":") for line in lines if line.startswith(verdict)}


def test_a_run_as_it_was_recorded_fits(project: Workspace) -> None:
    status, lines = verify()
    assert (status, named(lines, "DIFFERS"), named(lines, "missing")) == (0, set(), set()), lines
    assert lines[-1] == f"all {len(lines) - 1} things fit together"
    for name in ("checkpoints/best_model.pt", "data/prepared/train.bin", "params.yaml"):
        assert name in named(lines, "fits")
    for name in ("samples", "nanogpt2/model", "metrics/eval.json", "dvc.lock", "data/raw"):
        assert name in named(lines, "fits")


def test_what_is_missing_is_told_with_its_way_back(project: Workspace) -> None:
    lock = project.root / "dvc.lock"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(text.replace("path: nanogpt2/model", "path: nanogpt2/of_before"), "utf-8")
    (project.root / "samples").rename("elsewhere")
    (project.root / "stages/sample.py").rename("another.py")
    try:
        missing = {line for line in verify()[1] if line.startswith("missing")}
    finally:
        Path("elsewhere").rename("samples")
        Path("another.py").rename("stages/sample.py")
    assert missing == {
        "missing nanogpt2/of_before: is not here, and no stage of dvc.yaml reads or writes it now",
        "missing samples: is not here; dvc pull samples",
        "missing stages/sample.py: is not here; git restore stages/sample.py",
    }


def change_byte(path: Path) -> None:
    """Change one byte in the middle of a file, so that texts stay texts."""
    content = bytearray(path.read_bytes())
    path.chmod(0o644)
    middle = len(content) // 2
    while path.suffix not in (".pt", ".bin") and not chr(content[middle]).isalnum():
        middle += 1
    content[middle] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        *("checkpoints/best_model.pt", "checkpoints/final_model.pt", "samples/sample_2.txt"),
        *("data/prepared/train.bin", "data/prepared/test.bin", "data/prepared/tokenizer.json"),
        *("data/prepared/dataset.json", "metrics/eval.json", "metrics/train.json"),
        *("nanogpt2/model/gpt.py", "stages/train.py", "data/raw/sonnet.txt", "plots/loss.csv"),
    ],
)
def test_one_changed_byte_is_named(project: Workspace, name: str) -> None:
    change_byte(project.root / name)
    status, lines = verify()
    different = named(lines, "DIFFERS")
    assert status == 1
    assert any(name == each or name.startswith(f"{each}/") for each in different), lines
    assert different <= {name, *map(str, Path(name).parents), *BEHIND.get(name, ())}, lines


# What is no longer proved by a file that was changed.
CHAIN = ("checkpoints/best_model.pt", "checkpoints/final_model.pt")
BEHIND = {
    "data/prepared/dataset.json": (*CHAIN, "metrics/eval.json"),
    "data/prepared/tokenizer.json": CHAIN,
    "metrics/train.json": CHAIN,
}


def test_a_changed_source_is_named_by_its_file(project: Workspace) -> None:
    change_byte(project.root / "nanogpt2/sample/stream.py")
    line = next(line for line in verify()[1] if line.startswith("DIFFERS"))
    assert "changed since the last commit: nanogpt2/sample/stream.py" in line


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("params.yaml", "max_iters: 8", "max_iters: 9", "max_iters is not as in the run of train"),
        ("params.yaml", "seed: 1337", "seed: [", "params.yaml: line"),
        ("params.yaml", "  temperature: 0.8", "  temperature: 0.9", "sample is not as in the run"),
        ("dvc.lock", "max_iters: 8", "max_iters: 9", "max_iters is not as in the run of train"),
        (
            "dvc.lock",
            "--out data/shake",
            "--out data/snake",
            "cmd of corpus is not that of dvc.yaml",
        ),
        ("dvc.lock", "    - path: samples", "    - path: simples", "outs of sample are not those"),
        ("dvc.lock", "schema: '2.0'", "schema: '2.1'", "its form is not that of DVC 3"),
        ("dvc.lock", "nfiles: 5", "nfiles: 6", "is not the one that dvc.lock records"),
        ("dvc.lock", "  sample:", "  simple:", "the stage sample is not recorded"),
        ("dvc.yaml", "      - ema_decay", "      - patience", "params of train are not those"),
    ],
)
def test_a_changed_parameter_or_record_is_named(
    project: Workspace, file: str, old: str, new: str, what: str
) -> None:
    path = project.root / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    status, lines = verify()
    assert status == 1
    assert any(what in line and line.startswith("DIFFERS") for line in lines), lines


def spoil_last_hash(record: Path) -> None:
    """Change a digit of the last hash in a dvc.lock, that of the samples."""
    text = record.read_text(encoding="utf-8")
    start = text.rindex("md5: ") + 5
    digit = "0" if text[start] != "0" else "1"
    record.write_text(text[:start] + digit + text[start + 1 :], encoding="utf-8")


def test_each_digit_of_a_hash_in_the_record_counts(project: Workspace) -> None:
    spoil_last_hash(project.root / "dvc.lock")
    status, lines = verify()
    assert (status, named(lines, "DIFFERS")) == (1, {"samples"})


def test_a_clone_says_what_is_not_pulled_and_fits_once_it_is(
    made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.git("clone", "--quiet", str(made.root), str(tmp_path / "clone"))
    clone = Workspace.at(tmp_path / "clone", made.env)
    monkeypatch.chdir(clone.root)
    status, lines = verify()
    assert (status, named(lines, "DIFFERS")) == (1, set()), lines
    assert {"checkpoints/best_model.pt", "data/prepared", "samples", "data/raw"} <= named(
        lines, "missing"
    )
    assert "not here, so not verified: checkpoints/best_model.pt, " in lines[-1]
    clone.dvc("pull")
    assert verify()[0] == 0, verify()[1]


def test_a_checkpoint_of_another_run_is_named_with_what_differs(
    project: Workspace, tmp_path: Path
) -> None:
    shutil.copy("checkpoints/best_model.pt", tmp_path)
    other = str(tmp_path / "best_model.pt")
    assert verify(other)[0] == 0
    text = (project.root / "params.yaml").read_text(encoding="utf-8")
    changed = text.replace("learning_rate: ", "learning_rate: 1", 1)
    (project.root / "params.yaml").write_text(changed, encoding="utf-8")
    status, lines = verify(other)
    assert status == 1
    assert any(
        line.startswith(f"DIFFERS {other}: was trained with learning_rate") for line in lines
    ), lines


def test_a_checkpoint_that_began_with_other_weights_is_named(
    project: Workspace, tmp_path: Path
) -> None:
    loaded = load_checkpoint("checkpoints/best_model.pt", device="cpu")
    model, other = loaded.model, str(tmp_path / "tuned.pt")
    save_checkpoint(
        other,
        model.state_dict(),
        model.config,
        tokenizer=loaded.tokenizer,
        origin={**loaded.origin, "init": "0" * 64},
    )
    status, lines = verify(other)
    assert status == 1
    what = "was trained from other weights than those of data/init/model.pt"
    assert f"DIFFERS {other}: {what}" in lines


def test_a_replay_writes_the_same_bytes_finds_others_and_touches_nothing(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", warm.executable())
    spoil_last_hash(project.root / "dvc.lock")
    before = project.outputs()
    status, lines = verify("--replay")
    assert status == 1
    assert named(lines, "DIFFERS") == {"samples"}
    assert "DIFFERS samples: was written with other bytes than dvc.lock records" in lines
    again = [line for line in lines if line.endswith("written again, the same to the byte")]
    assert [line.split()[1].rstrip(":") for line in again] == [
        *("data/validated.json", "data/shakespeare"),
        *("data/init/model.pt", "data/init/tokenizer.json", "data/prepared"),
        *("checkpoints/best_model.pt", "checkpoints/final_model.pt"),
        *("metrics/train.json", "plots/loss.csv", "metrics/copies.txt", "metrics/eval.json"),
        *("plots/position.csv", "plots/tokens.csv"),
    ]
    assert project.outputs() == before


def test_files_that_dvc_ignores_are_of_no_account(project: Workspace) -> None:
    for name in ("nanogpt2/model/gpt.py~", "nanogpt2/model/.gpt.py.swp", "samples/.DS_Store"):
        Path(name).touch()
    status, lines = verify()
    for name in ("nanogpt2/model/gpt.py~", "nanogpt2/model/.gpt.py.swp", "samples/.DS_Store"):
        Path(name).unlink()
    assert status == 0, lines


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("cmd: python -m stages.validate", "cmd: rm -r stages.validate", "found the command rm -r"),
        (
            "stages.validate --all-keys",
            "stages.validate --no-keys",
            "validate: failed in a copy of",
        ),
    ],
)
def test_a_record_that_cannot_be_replayed_has_its_line(
    project: Workspace, monkeypatch: pytest.MonkeyPatch, old: str, new: str, line: str
) -> None:
    monkeypatch.setattr("sys.executable", warm.executable())
    text = Path("dvc.lock").read_text(encoding="utf-8")
    Path("dvc.lock").write_text(text.replace(old, new), encoding="utf-8")
    status, lines = verify("--replay")
    assert status == 1
    assert line in lines[-1]


def test_without_git_nothing_is_replayed(made: Workspace) -> None:
    for name in ("dvc.lock", "dvc.yaml", "params.yaml"):
        shutil.copy(made.root / name, name)
    assert "git knows no file here; this needs a clone of the project" in verify("--replay")[1][-1]


def test_a_folder_is_looked_at_by_its_list(made: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(made.root / "data/prepared", folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    assert verify(str(folder))[0] == 0
    change_byte(folder / "val.bin")
    (folder / "test.bin").unlink()
    (folder / "more.bin").touch()
    status, lines = verify(str(folder))
    assert status == 1
    assert named(lines, "DIFFERS") == {str(folder / "val.bin"), str(folder / "more.bin")}
    assert named(lines, "missing") == {str(folder / "test.bin")}
    (folder / "dataset.json").write_text(json.dumps({"files": {"../x": ""}}), encoding="utf-8")
    assert verify(str(folder))[1][-1] == f"differ: {folder / 'dataset.json'}"


def test_where_there_is_nothing_to_look_at_a_line_says_so(made: Workspace) -> None:
    assert verify() == (1, ["dvc.lock: no such file: give this command in the project's folder"])
    assert verify("no.pt") == (1, ["no.pt: no such file or folder"])
    line = ".: it has neither export.json nor dataset.json: no folder of ours"
    assert verify(".") == (1, [line])


def test_a_checkpoint_far_from_its_project_is_whole_or_not(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    lines = ["fits    here.pt: is whole", "all 1 things fit together"]
    assert verify("here.pt") == (0, lines)
    change_byte(Path("here.pt"))
    lines = ["DIFFERS here.pt: damaged, or not a checkpoint", "differ: here.pt"]
    assert verify("here.pt") == (1, lines)


# --- Signatures ---


def keys(name: str) -> tuple[str, str]:
    """Write a private and a public key; return their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path(f"{name}.pem").write_bytes(private)
    Path(f"{name}.pub").write_bytes(public)
    return f"{name}.pem", f"{name}.pub"


@pytest.fixture
def signing() -> None:
    """The tests that need the library model-signing, with all that it imports."""
    pytest.importorskip("OpenSSL", reason="model-signing imports pyOpenSSL")


@pytest.mark.usefixtures("signing")
def test_a_signed_checkpoint_is_its_signers_until_a_byte_changes(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    (private, public), (_, other) = keys("mine"), keys("other")
    assert verify("here.pt", "--sign", private)[1][-1] == "signed: here.pt.sig"
    status, lines = verify("here.pt", "--key", public)
    assert (status, lines[1]) == (0, "fits    here.pt: is signed by the owner of mine.pub")
    status, lines = verify("here.pt", "--key", other)
    assert status == 1
    assert lines[1].endswith("is not signed so by the owner of other.pub: another key signed it")
    change_byte(Path("here.pt"))
    status, lines = verify("here.pt", "--key", public)
    assert status == 1
    assert lines[1].endswith("by the owner of mine.pub: its files are not those that were signed")
    assert verify("here.pt", "--sign", private)[1][-1] == "not signed: sign what fits together"


@pytest.mark.usefixtures("signing")
def test_a_signed_folder_is_signed_in_each_of_its_files(made: Workspace) -> None:
    shutil.copytree(made.root / "data/prepared", "folder")
    private, public = keys("mine")
    assert verify("folder", "--sign", private)[1][-1] == "signed: folder/model.sig"
    assert verify("folder", "--key", public)[0] == 0
    change_byte(Path("folder/val.bin"))
    assert verify("folder", "--key", public)[1][-1] == "differ: folder, folder/val.bin"


@pytest.mark.usefixtures("signing")
def test_a_damaged_signature_proves_nothing(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    private, public = keys("mine")
    verify("here.pt", "--sign", private)
    whole = Path("here.pt.sig").read_bytes()
    for place in range(0, len(whole), 97):
        Path("here.pt.sig").write_bytes(whole[:place] + b"~" + whole[place + 1 :])
        assert verify_signature("here.pt", public).verdict == "DIFFERS", place


@pytest.mark.usefixtures("signing")
def test_a_file_that_is_no_key_has_its_line(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    private, public = keys("mine")
    Path("text.pem").write_text("no key", encoding="utf-8")
    curve = ec.generate_private_key(ec.SECP256K1())
    odd = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path("odd.pem").write_bytes(odd)
    for options, line in (
        (("--sign", public), "mine.pub: no private key in PEM form, without a password"),
        (("--key", private), "mine.pem: no public key in PEM form, without a password"),
        (("--sign", "text.pem"), "text.pem: no private key in PEM form, without a password"),
        (("--sign", "none.pem"), "none.pem: cannot be read: No such file or directory"),
        (("--key", public), "here.pt.sig: cannot be read: No such file or directory"),
    ):
        assert verify("here.pt", *options)[1][-1] == line
    assert verify("here.pt", "--sign", "odd.pem")[1][-1].startswith(
        "odd.pem: found a key on secp256k1; allowed: secp256r1"
    )


# --- Its card ---


def metadata(text: str) -> Any:
    """Return what Hugging Face's library makes of a card's head."""
    return ModelCard(text).data


def figures_in(text: str) -> dict[tuple[str, str], float]:
    results = metadata(text).eval_results or []
    return {(each.dataset_split, each.metric_type): each.metric_value for each in results}


def card(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["card", *options], catch_exceptions=False)
    return done.exit_code, done.stdout if done.stdout else done.stderr


def test_the_card_of_a_recorded_run_has_its_figures(project: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "README.md"
    status, line = card("--license", "mit", "--out", str(out))
    assert (status, line.partition(" -> ")[2]) == (0, f"{out}\n")
    text = out.read_text(encoding="utf-8")
    figures = json.loads(Path("metrics/eval.json").read_text(encoding="utf-8"))
    found = figures_in(text)
    assert found["val", "loss"] == figures["val"]["loss"]
    assert sha256(Path("checkpoints/best_model.pt").read_bytes()) in text
    assert sha256(Path("data/prepared/dataset.json").read_bytes()) in text
    assert f"git checkout {project.git('rev-parse', 'HEAD').strip()}" in text
    assert "`sonnet.txt`" in text
    assert Path("samples/sample_1.txt").read_text(encoding="utf-8") in text
    assert "## Not told" not in text
    assert card("--license", "mit") == (0, text.replace("# README", "# project"))


def test_figures_of_another_checkpoint_are_left_out(project: Workspace) -> None:
    metrics = Path("metrics/eval.json")
    metrics.write_bytes(metrics.read_bytes().replace(b"loss", b"less"))
    text = card()[1]
    assert figures_in(text) == {}
    assert "figures, samples and commit: dvc.lock records none of this checkpoint" in text
    assert "`sonnet.txt`" in text


def test_a_checkpoint_without_a_project_has_a_card(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    text = card("--checkpoint", "here.pt", "--name", "Alone")[1]
    assert "\n# Alone\n" in text
    assert figures_in(text) == {}
    assert "the training data: data/prepared/dataset.json is not here" in text


def test_the_card_of_an_export_lies_in_it_with_what_was_compared(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    Path("out").mkdir()
    Path("out/config.json").write_text("{}", encoding="utf-8")
    record = {
        "format": "huggingface",
        "notes": ["Its text ends at 16 tokens"],
        "proof": {"largest_difference": 1e-06},
        "files": checksums.hash_files("out", ["config.json"]),
    }
    checksums.write_sealed("out/export.json", record)
    status, line = card("--checkpoint", "here.pt", "--export", "out")
    assert (status, line.partition(" -> ")[2]) == (0, "out/README.md\n")
    text = Path("out/README.md").read_text(encoding="utf-8")
    assert metadata(text).library_name == "transformers"
    assert "- format: huggingface\n- largest difference: 1e-06\n- Its text" in text
    assert verify("out")[0] == 0
    assert card("--checkpoint", "here.pt", "--export", "out")[0] == 0


def test_another_file_is_not_overwritten_and_a_licence_is_a_word(made: Workspace) -> None:
    shutil.copy(made.root / "checkpoints/best_model.pt", "here.pt")
    Path("README.md").write_text("# My project\n", encoding="utf-8")
    line = "README.md: is there and no model card; choose another name\n"
    assert card("--checkpoint", "here.pt", "--out", "README.md") == (1, line)
    line = "--license: found 'a\\nb'; allowed: an identifier, such as mit\n"
    assert card("--checkpoint", "here.pt", "--license", "a\nb") == (1, line)
