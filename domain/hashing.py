"""The checksums of bits, computed side by side."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from domain.beside import Beside
from domain.package import Digests

if TYPE_CHECKING:
    from domain.ports import Bits

INLINE = 4 << 20  # bytes up to which a thread more would cost about what it saves


def digests_of(bits: Bits) -> Digests:
    """SHA-1 and SHA-256, in one pass over the bits; of large ones on two cores.

    Takes as long as the slower of the two. Raises what reading raises.
    """
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    if bits.size <= INLINE:
        for chunk in bits.chunks():
            sha1.update(chunk)
            sha256.update(chunk)
        return Digests(sha1.hexdigest(), sha256.hexdigest())
    with Beside[None]("sha256") as beside:
        begun = False
        for chunk in bits.chunks():  # while the one before it is still being hashed beside
            if begun:
                beside.result()
            beside.begin(partial(sha256.update, chunk))
            begun = True
            sha1.update(chunk)
        if begun:
            beside.result()
    return Digests(sha1.hexdigest(), sha256.hexdigest())
