"""Files and folders that others than the service get at (a part of `packtrail check`)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from adapters.token_keys import UnusableKey, load_secrets, public_key_file
from entrypoints.findings import Finding, note, weak
from entrypoints.guessable import fault_of_secret
from entrypoints.setting_values import PREFIX
from entrypoints.settings import Settings

READ_BY_OTHERS, WRITTEN_BY_OTHERS, WRITTEN_BY_GROUP = 0o004, 0o002, 0o020


def secret_file(path: Path, user: int) -> Iterator[Finding]:
    name = str(path)
    if path.is_symlink():
        yield weak(name, "the secret's file is a link", "a file of its own in the data folder")
    try:
        found = path.stat()
        faults = [fault_of_secret(secret) for secret in load_secrets(path)]
    except (OSError, UnusableKey) as error:
        yield weak(name, f"the secret can't be used: {error}", "a file that this user can read")
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        yield weak(name, f"its mode is {mode:04o}: others than its owner get at it", "mode 0600")
    yield from _owner(name, path, user)
    for fault in faults:
        if fault is not None:
            yield weak(name, f"the secret {fault}", "remove it: the next start makes one")


def public_key(path: Path, user: int) -> Iterator[Finding]:
    name = f"{PREFIX}JWT_PUBLIC_KEY"
    try:
        public_key_file(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnusableKey) as error:
        yield weak(name, str(error), "a PEM file with an RSA public key of 2048 bits or more")
        return
    if mode & (WRITTEN_BY_GROUP | WRITTEN_BY_OTHERS):
        yield weak(
            name, f"{path} has mode {mode:04o}: who can write it, can sign tokens", "mode 0644"
        )
    yield from _owner(name, path, user)
    yield from (replace(finding, setting=name) for _, finding in _open_parents(path, user))


def files(settings: Settings, user: int) -> Iterator[Finding]:
    data = settings.data_dir
    yield from _place(f"{PREFIX}DATA_DIR", data, data, user)
    if settings.sqlite_file is not None:
        name, file = f"{PREFIX}EVENT_STORE", settings.sqlite_file
        for path in (file, *(file.with_name(file.name + more) for more in ("-wal", "-shm"))):
            yield from _place(name, path, data, user)
    yield from _place(f"{PREFIX}CHECKPOINT_KEY", settings.checkpoint_key, data, user)
    if settings.blob_dir is not None:
        yield from _place(f"{PREFIX}BLOB_STORE", settings.blob_dir, data, user)
    yield from _place(f"{PREFIX}DATA_DIR", settings.staging_dir, data, user)
    yield from _place(f"{PREFIX}UPLOAD_DIR", settings.upload_dir, data, None)
    told: set[Path] = set()
    for place in (data, settings.sqlite_file, settings.blob_dir, settings.upload_dir):
        for parent, finding in _open_parents(place, user) if place is not None else ():
            if parent not in told:
                told.add(parent)
                yield finding


def _place(name: str, path: Path, data: Path, user: int | None) -> Iterator[Finding]:
    """Who else gets at what we keep; with no user a front server's group may."""
    if not path.exists():
        return
    mode, kept = _mode_within(path, data), "0700" if path.is_dir() else "0600"
    right = f"chmod {kept} {path}"
    if mode & WRITTEN_BY_OTHERS:
        yield weak(name, f"everybody on this machine can write {path}", right)
    elif mode & READ_BY_OTHERS:
        yield weak(name, f"everybody on this machine can read {path}", right)
    if mode & WRITTEN_BY_GROUP and not mode & WRITTEN_BY_OTHERS:
        told = f"the group of {path} can write there"
        if user is None:
            yield note(name, told, "a group that the front server is in, and nobody else")
        else:
            yield weak(name, told, right)
    if user is not None:
        yield from _owner(name, path, user)


def _mode_within(path: Path, data: Path) -> int:
    """A path's mode, without what a closed folder above it shuts out, up to the data folder."""
    mode = stat.S_IMODE(path.stat().st_mode)
    for parent in path.parents:
        if not parent.is_relative_to(data):
            break
        above = stat.S_IMODE(parent.stat().st_mode)
        if not above & 0o001:
            mode &= ~0o007
        if not above & 0o011:
            mode &= ~0o070
    return mode


def _owner(name: str, path: Path, user: int) -> Iterator[Finding]:
    owner = path.stat().st_uid
    if owner not in (user, 0):
        yield weak(
            name, f"{path} belongs to user {owner}, who can change it",
            f"chown {user} {path}, the user that this runs as",
        )  # fmt: skip


def _open_parents(path: Path, user: int) -> Iterator[tuple[Path, Finding]]:
    """Folders above in which others can put something else in the place of what is ours.

    Where a link leads, they count as those do in which it lies.
    """
    for parent in dict.fromkeys((*path.parents, *path.resolve().parents)):
        try:
            found = parent.stat()
        except OSError:  # not there yet, or not ours to look at
            continue
        what = f"put something else in the place of what is in {parent}"
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            yield parent, weak(
                str(parent), f"everybody can {what}",
                f"chmod o-w {parent}, or the sticky bit, as /tmp has it",
            )  # fmt: skip
        elif found.st_uid not in (user, 0):
            yield parent, weak(
                str(parent), f"user {found.st_uid}, whose folder it is, can {what}",
                "a folder in which this user, or root, alone can write",
            )  # fmt: skip
