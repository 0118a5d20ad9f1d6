"""Checkpoints: signed by the service, checked by anybody, kept elsewhere."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.event_store.chain import Record
from adapters.proof.checkpoints import Checkpoint
from adapters.store import Store, open_sqlite
from domain.package import PackageType
from tests.support.issuer import pem_of, rsa_key
from tests.support.packages import BY
from tests.support.proof import Desk, desk_of
from tests.support.service import ROOT


@pytest.fixture
def any_desk(any_store: Store, tmp_path: Path) -> Desk:
    """A log of twelve events, on either engine."""
    any_store.migrate()
    made = desk_of(any_store, tmp_path)
    made.fill(3)
    return made


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """The same in an SQLite file."""
    with closing(open_sqlite(tmp_path / "log.db")) as store:
        store.migrate()
        made = desk_of(store, tmp_path)
        made.fill(3)
        yield made


@pytest.fixture
def kept(desk: Desk, tmp_path: Path) -> Path:
    """A file elsewhere with a checkpoint at position 12, and one at 20."""
    path = desk.checkpoint(tmp_path / "checkpoints.jsonl")
    desk.fill(2, "later")
    return desk.checkpoint(path)


def head_of(desk: Desk) -> Record:
    return desk.records()[-1]


def public_key(desk: Desk, path: Path) -> Path:
    path.write_text(desk.run("checkpoint", "--public-key")[1])
    return path


def test_a_checkpoint_tells_the_newest_event(any_desk: Desk) -> None:
    """On one line, with the log's identity and the time of signing."""
    code, out, err = any_desk.run("checkpoint")
    assert (code, out.count("\n"), err) == (0, 1, "")
    told, head = json.loads(out), head_of(any_desk)
    assert list(told) == ["log", "position", "appended_at", "hash", "signed_at", "key", "signature"]
    assert (told["log"], told["position"]) == (any_desk.store.identity, head.position)
    assert told["hash"] == head.hash.hex()
    assert told["appended_at"] < told["signed_at"]


def test_the_key_is_made_once_for_its_owner_alone(desk: Desk) -> None:
    """The next checkpoint is signed by the same; another file may be named."""
    first, second = (json.loads(desk.run("checkpoint")[1])["key"] for _ in range(2))
    path = desk.data_dir / "checkpoint.key"
    assert first == second
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = {"PACKTRAIL_CHECKPOINT_KEY": str(desk.data_dir / "other.key")}
    assert json.loads(desk.run("checkpoint", settings=other)[1])["key"] != first
    assert "-----BEGIN PRIVATE KEY-----" in (desk.data_dir / "other.key").read_text()


def test_openssl_alone_checks_a_signature(desk: Desk, tmp_path: Path) -> None:
    """By the lines that docs/audit.md has; a changed position is refused."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = public_key(desk, tmp_path / "public.pem")
    told = json.loads(desk.run("checkpoint")[1])
    signature = tmp_path / "signature"
    signature.write_bytes(base64.b64decode(told["signature"]))
    statement = tmp_path / "statement"

    def check(position: int) -> int:
        statement.write_text(
            "packtrail checkpoint 1\n"
            f"log: {told['log']}\nposition: {position}\nappended_at: {told['appended_at']}\n"
            f"hash: {told['hash']}\nsigned_at: {told['signed_at']}\nkey: {told['key']}\n"
        )
        return subprocess.run(
            [
                "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin",
                "-in", statement, "-sigfile", signature,
            ],
            capture_output=True,
        ).returncode  # fmt: skip

    assert check(told["position"]) == 0
    assert check(told["position"] + 1) != 0
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", key, "-outform", "DER"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True
    ).stdout
    assert digest.decode().startswith(told["key"])


def test_an_empty_log_has_nothing_to_sign(any_store: Store, tmp_path: Path) -> None:
    """It is told, on stderr: a file that lines are added to gets none."""
    any_store.migrate()
    code, out, err = desk_of(any_store, tmp_path).run("checkpoint")
    assert (code, out) == (2, "")
    assert "the log is empty" in err


def test_a_head_that_does_not_fit_is_not_signed(desk: Desk) -> None:
    """Nobody vouches for what is evidently wrong."""
    desk.set(12, "state", b"{}")
    code, out, err = desk.run("checkpoint")
    assert (code, out) == (1, "")
    assert "position 12" in err and "packtrail verify" in err


def test_a_head_of_a_time_that_is_none_is_not_signed(desk: Desk) -> None:
    """Also where its chain was made anew: no checkpoint can tell such a time."""
    head = desk.records()[-1].position
    desk.set(head, "appended_at", 2**62)
    desk.chain_anew(head - 1)
    code, out, err = desk.run("checkpoint")
    assert (code, out) == (1, "")
    assert f"at position {head}, was appended at a time that is none" in err


def test_a_key_of_another_kind_is_told(desk: Desk, tmp_path: Path) -> None:
    """With the file, and how a right one is made."""
    path = tmp_path / "rsa.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    settings = {"PACKTRAIL_CHECKPOINT_KEY": str(path)}
    code, out, err = desk.run("checkpoint", settings=settings)
    assert (code, out) == (2, "")
    assert str(path) in err and "ed25519" in err and err.count("\n") == 1


def test_checkpoints_of_an_untouched_log_are_right(desk: Desk, kept: Path, tmp_path: Path) -> None:
    """Checked with the auditor's copy of the key, or with the service's own, which is told."""
    key = public_key(desk, tmp_path / "public.pem")
    outcome = desk.verify("--checkpoint", str(kept), "--key", str(key))
    assert (outcome.code, outcome.summary["checked"]["checkpoints"]) == (0, 2)
    assert "own key" not in outcome.stderr
    outcome = desk.verify("--checkpoint", str(kept), "--checkpoint", str(kept))
    assert (outcome.code, outcome.summary["checked"]["checkpoints"]) == (0, 4)
    assert "the service's own key" in outcome.stderr


def test_a_cut_off_tail_is_found_by_a_checkpoint_alone(any_desk: Desk, tmp_path: Path) -> None:
    """What is left is a log as good as any."""
    kept = any_desk.checkpoint(tmp_path / "checkpoints.jsonl")
    for position in range(7, 13):
        any_desk.remove(position)
    assert any_desk.verify().code == 0
    outcome = any_desk.verify("--checkpoint", str(kept))
    assert (outcome.code, outcome.named("checkpoints")) == (1, [12])
    assert "ends at 6: its tail was cut off" in outcome.told("checkpoints")[0]


def test_a_log_rewritten_from_some_point_on_is_found_by_a_checkpoint_alone(
    desk: Desk, kept: Path
) -> None:
    """Which checkpoints are still right tells from where on."""
    desk.set(14, "state", desk.records()[13].state.replace(b"app-1", b"app-9"))
    desk.chain_anew(13)
    assert desk.verify().code == 0
    outcome = desk.verify("--checkpoint", str(kept))
    assert (outcome.code, outcome.named("checkpoints")) == (1, [20])
    assert "rewritten" in outcome.told("checkpoints")[0]


def test_a_removed_event_that_a_checkpoint_names_is_told(desk: Desk, kept: Path) -> None:
    """Beside what the chain tells."""
    desk.remove(12)
    outcome = desk.verify("--checkpoint", str(kept))
    assert outcome.named("checkpoints") == [12]
    assert "and there is none" in outcome.told("checkpoints")[0]


def test_lines_that_were_changed_are_named(desk: Desk, kept: Path, tmp_path: Path) -> None:
    """Each with its file and number; those that are right are checked all the same."""
    good, later = kept.read_text().splitlines()
    forged = json.loads(good) | {"position": 11, "hash": desk.records()[10].hash.hex()}
    lines = [
        good, json.dumps(forged), "", "not json", "[]", json.dumps({"log": 1}),
        json.dumps(json.loads(good) | {"position": "12"}),
        json.dumps(json.loads(good) | {"log": "a\nb"}),
        json.dumps(json.loads(good) | {"signature": "x"}),
        json.dumps(json.loads(good) | {"key": "0" * 16}),
        "x" * 10_000, later, later[:40],
    ]  # fmt: skip
    kept.write_text("\n".join(lines))
    outcome = desk.verify("--checkpoint", str(kept))
    told = outcome.told("checkpoints")
    numbers = [int(line.partition(", line ")[2].partition(":")[0]) for line in told]
    assert numbers == [2, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    assert "its signature is wrong" in told[0]
    assert "key 0000000000000000" in told[7]
    assert outcome.code == 1


def test_a_file_without_checkpoints_has_checked_nothing(desk: Desk, tmp_path: Path) -> None:
    """Whoever has collected nothing must not hear that all is well."""
    desk.checkpoint(tmp_path / "kept")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    code, out, err = desk.run(
        "verify", "--checkpoint", str(tmp_path / "kept"), "--checkpoint", str(empty)
    )
    assert (code, out) == (2, "")
    assert f"could not check all checkpoints: {empty} has none" in err


def test_a_checkpoint_of_another_key_or_log_is_told(desk: Desk, kept: Path, tmp_path: Path) -> None:
    """Whoever can sign with a key of their own proves nothing."""
    other = {"PACKTRAIL_CHECKPOINT_KEY": str(tmp_path / "other.key")}
    line = desk.run("checkpoint", settings=other)[1]
    key = public_key(desk, tmp_path / "public.pem")
    kept.write_text(line)
    outcome = desk.verify("--checkpoint", str(kept), "--key", str(key))
    assert "is signed with the key" in outcome.told("checkpoints")[0]
    assert Checkpoint.of_line(line.encode()).line + "\n" == line
    kept.unlink()
    desk.checkpoint(kept)
    desk.execute("UPDATE packtrail_schema SET identity = 'another'")
    outcome = desk.verify("--checkpoint", str(kept), "--key", str(key))
    assert "this one is another" in outcome.told("checkpoints")[0]


def test_keys_that_can_not_check_are_told(desk: Desk, kept: Path, tmp_path: Path) -> None:
    """A private one, one of another kind, none, and that there is none: exit code 2."""
    private, rsa, none = desk.data_dir / "checkpoint.key", tmp_path / "rsa.pem", tmp_path / "none"
    rsa.write_bytes(pem_of(rsa_key()))
    none.write_text("nothing")
    for path, what in ((private, "private key"), (rsa, "not of Ed25519"), (none, "no public key")):
        code, _, err = desk.run("verify", "--checkpoint", str(kept), "--key", str(path))
        assert (code, what in err) == (2, True), err
    private.unlink()
    code, _, err = desk.run("verify", "--checkpoint", str(kept))
    assert code == 2 and "--key" in err


DOCS = (ROOT / "docs" / "audit.md").read_text()


def test_the_checker_in_the_docs_needs_none_of_our_programs(desk: Desk, tmp_path: Path) -> None:
    """It finds an export right, and the line that somebody has changed."""
    checker = tmp_path / "check.py"
    checker.write_text(DOCS.partition("```python\n")[2].partition("```")[0])
    desk.store.packages.create("äpp \u2028", PackageType.BITS, None, BY)
    export = tmp_path / "log.ndjson"
    assert desk.run("export", str(export))[0] == 0

    def check(content: bytes) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", checker], input=content, capture_output=True, cwd=tmp_path
        )
        return done.returncode, done.stdout.decode()

    content = export.read_bytes()
    head = head_of(desk)
    expected = f"0 wrong; at position {head.position} the hash is {head.hash.hex()}\n"
    assert check(content) == (0, expected)
    code, told = check(content.replace(b"app.zip", b"app.zap", 1))
    assert (code, told.count("does not fit")) == (1, 1)


def test_the_lines_in_the_docs_check_a_signature(desk: Desk, tmp_path: Path) -> None:
    """By jq and openssl, in a shell."""
    for program in ("jq", "openssl", "base64"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    public_key(desk, tmp_path / "public.pem")
    desk.checkpoint(tmp_path / "checkpoint.json")
    begin = DOCS.index('    jq -r \'"packtrail checkpoint 1"')
    lines = DOCS[begin:].partition("\n\n")[0]
    done = subprocess.run(["bash", "-ec", lines], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Verified Successfully" in done.stdout, done.stderr
