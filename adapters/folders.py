"""Folders of bits that belong to one log, and stay the folders that they were."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from adapters.bits import sync_folder
from domain.errors import StoreAway


class NotOurFolder(Exception):
    """A folder holds the bits of another log, or something else."""


class FolderAway(StoreAway):
    """A folder is not there, or not the one that it was."""


class BitsFolder:
    """A folder of bits. Its mark, an empty folder in `marks_in`, names the log that it is of."""

    def __init__(self, path: Path, marks_in: Path) -> None:
        self.path = path
        self._name = str(path)
        self._marks_in = marks_in
        self._pinned: tuple[int, int] | None = None
        self.token = ""  # what tells this folder from every other, also when it is moved

    def claim(self, identity: str) -> None:
        """Makes the folder for the log of that identity, or finds that it is this log's.

        Raises `NotOurFolder` for another log's, and for one with files that has no mark;
        `OSError`.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = f".{self.path.name}-of-"
        marks = list(self._marks_in.glob(f"{prefix}{identity}.*"))
        if not marks:
            others = list(self._marks_in.glob(f"{prefix}*"))
            if others:
                raise NotOurFolder(
                    f"{self.path} has the bits of another log than this one: restore that log "
                    f"(its mark is {others[0]}), or name another folder"
                )
            if any(self.path.iterdir()):
                raise NotOurFolder(f"{self.path} has files in it that are not ours: name another")
            marks = [self._marks_in / f"{prefix}{identity}.{uuid4().hex}"]
            marks[0].mkdir(mode=0o700)
        # of processes that start at once each may have made one: the first counts
        marks = sorted(self._marks_in.glob(f"{prefix}{identity}.*"))
        self.token = marks[0].name.rpartition(".")[2]
        for folder in {self.path, self.path.parent, self._marks_in}:
            sync_folder(folder)
        status = self.path.stat()
        self._pinned = status.st_dev, status.st_ino

    def require(self) -> None:
        """Raises `FolderAway` if it was unmounted, moved or removed since it was claimed."""
        try:
            status = os.stat(self._name)  # noqa: PTH116 - for each upload: a Path takes longer
        except FileNotFoundError:
            raise FolderAway(f"{self.path} is not there") from None
        if self._pinned is not None and (status.st_dev, status.st_ino) != self._pinned:
            raise FolderAway(f"{self.path} is not the folder that it was")

    def check(self) -> None:
        """Raises `FolderAway`, or `PermissionError` if it can't be written to."""
        self.require()
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(f"{self.path} can't be written to")
