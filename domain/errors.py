"""Every way the service refuses: a type of its own, with the facts it was decided on.

The edge (HTTP, later messages) translates them, once, in one table.
"""

from __future__ import annotations

from collections.abc import Sequence


class Refusal(Exception):
    """The request was understood and is refused; nothing has changed."""


class PackageNotFound(Refusal):
    def __init__(self, guid: str) -> None:
        super().__init__(f"there is no package {guid!r}")
        self.guid = guid


class DropletNotFound(Refusal):
    def __init__(self, guid: str) -> None:
        super().__init__(f"there is no droplet {guid!r}")
        self.guid = guid


class AppNotFound(Refusal):
    def __init__(self, guid: str) -> None:
        super().__init__(f"there is no app {guid!r}")
        self.guid = guid


class SpaceNotFound(Refusal):
    def __init__(self, guid: str) -> None:
        super().__init__(f"there is no space {guid!r}")
        self.guid = guid


class OrganizationNotFound(Refusal):
    def __init__(self, guid: str) -> None:
        super().__init__(f"there is no organization {guid!r}")
        self.guid = guid


class RoleNotFound(Refusal):
    def __init__(self, user_guid: str, type: str) -> None:
        super().__init__(f"user {user_guid!r} has no such role as {type}")


class TooManyPackages(Refusal):
    """An app has as many packages as it may have."""

    def __init__(self, app_guid: str, limit: int) -> None:
        super().__init__(f"app {app_guid!r} has {limit} packages, the limit")
        self.limit = limit


class InvalidRequest(Refusal):
    """What was asked for breaks rules; `faults` are sentences for the client."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(", ".join(faults))
        self.faults = list(faults)


class InvalidPackage(InvalidRequest):
    """A package that can't be."""


class WrongState(Refusal):
    """The package or droplet is in a state (or of a type) in which this can't be done."""

    def __init__(self, guid: str, found: str) -> None:
        super().__init__(f"{guid!r} is {found}")
        self.guid = guid
        self.found = found


class BitsAlreadyUploaded(WrongState):
    """Bits are uploaded once, to a package that awaits them."""


class PackageTypeNotBits(WrongState):
    """Only a package of type bits has bits."""


class PackageNotReady(WrongState):
    """There are no bits to hand out yet, or any more."""


class PackageNotFailedByUs(WrongState):
    """Only work that failed by the service's own fault can be resumed."""


class SourceNotReady(WrongState):
    """Only a READY package can be copied."""


class PackageNotStageable(WrongState):
    """Only a READY package of type bits can be staged."""


class DropletNotWaiting(WrongState):
    """A builder answers for a droplet that waits for no answer."""


class DropletNotStaged(WrongState):
    """Only a STAGED droplet has bits."""


class StagingLimitExceeded(Refusal):
    """Staging was asked for with more than the limit; `what` it is of: memory or disk."""

    def __init__(self, what: str, asked: int, limit: int) -> None:
        super().__init__(f"{what} of {asked} MiB, and the limit is {limit}")
        self.what = what


class SourceAppIsDestination(Refusal):
    def __init__(self, app_guid: str) -> None:
        super().__init__(f"source and destination are both app {app_guid!r}")
        self.app_guid = app_guid


class KeyReused(Refusal):
    """An idempotency key was sent before, with a request for something else."""


class CommandIdReused(Refusal):
    """A command has the id of another that its source has sent before."""

    def __init__(self, identifier: str) -> None:
        super().__init__(f"the id {identifier!r} was used for another command")
        self.identifier = identifier


class AlreadyExecuted(Exception):
    """A command came again; `result` is the guid of what it was carried out on."""

    def __init__(self, result: str) -> None:
        super().__init__(f"it was carried out on {result!r}")
        self.result = result


class UploadsDisabled(Refusal):
    """An operator has switched uploads off."""


class NoBitsInForm(Refusal):
    """An upload's form holds no application zip file."""


class FormOverLimit(NoBitsInForm):
    """An upload's form has more of something than it may have; the text says which and how much."""


class FormTooLarge(NoBitsInForm):
    """An upload's form has more bytes around the bits than it may have."""

    def __init__(self, overhead: int, limit: int) -> None:
        super().__init__(f"The form has {overhead} bytes around the bits; the limit is {limit}")


class BitsPathInvalid(Refusal):
    """A front server named a file that may not be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"bits_path {path!r} {reason}")
        self.path = path
        self.reason = reason


class UploadTooLarge(Refusal):
    """More bytes than the limit, in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the limit is {limit} bytes")
        self.limit = limit


class NoRoomForUpload(Refusal):
    """The disk is full."""


class NothingRecorded(Exception):
    """The log could not be written to, and surely was not."""


class NewerData(Exception):
    """Something stored was written by a later version of the program than this one."""


class UnreadableEvent(Exception):
    """What the log keeps of an event are not the bytes that anybody writes for one."""

    def __init__(self, position: int, event_id: str, reason: str) -> None:
        super().__init__(f"event {event_id} at position {position} can't be read: {reason}")
        self.position = position
        self.event_id = event_id
        self.reason = reason


class StoreAway(OSError):
    """Staging or the blob store can't be reached: what is in it can't be said."""


class BitsAtFault(Exception):
    """The bits themselves are wrong; the message is a sentence for the client."""


class StagedBitsMissing(Exception):
    """Bits that the log names are not in staging: a defect, since only we remove them."""


class LargeBits(Exception):
    """Bits are larger than whoever works on them takes: the work is for somebody else.

    `size` is in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"the bits have {size} bytes")
        self.size = size


class BlobMissing(Exception):
    """A blob that the log names is not in the blob store."""
