"""Answers as the contract has them: JSON, its headers, and every refusal in one table."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from eventsourcing.persistence import PersistenceError
from sqlalchemy.exc import SQLAlchemyError

from adapters.authorization import AuthorizationAway, AuthorizationUnclear
from adapters.http import faults
from adapters.token_keys import KeysAway
from domain import errors

JSON_TYPE = "application/json;charset=utf-8"
REQUEST_ID_HEADER = "X-VCAP-Request-ID"
_CALLERS_REQUEST_ID = re.compile(r"[A-Za-z0-9:._-]{1,200}")
RETRY_AFTER = "1"  # seconds


def new_request_id(vcap_request_id: str | None, request_id: str | None) -> str:
    """A new UUID, behind the caller's own id if it sent one that is fit to be logged."""
    callers = vcap_request_id or request_id
    if callers and fit_to_be_logged(callers):
        return f"{callers}::{_uuid4()}"
    return _uuid4()


def _uuid4() -> str:
    """As `uuid.uuid4`, in a third of its time: every request has one (RFC 9562, section 5.4)."""
    drawn = bytearray(os.urandom(16))
    drawn[6] = drawn[6] & 0x0F | 0x40
    drawn[8] = drawn[8] & 0x3F | 0x80
    text = drawn.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def fit_to_be_logged(callers_id: str) -> bool:
    return _CALLERS_REQUEST_ID.fullmatch(callers_id) is not None


def pretty_json(value: Any) -> bytes:
    """JSON as every answer carries it: UTF-8, indented by two spaces, no newline at the end."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


@dataclass(frozen=True)
class ErrorAnswer:
    """A refusal as the client gets it. `status` is the HTTP status code."""

    status: int
    code: int
    error_code: str
    description: str
    headers: dict[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        return {"code": self.code, "description": self.description, "error_code": self.error_code}

    def body(self) -> bytes:
        return pretty_json(self.shown())


def not_found(what: str) -> ErrorAnswer:
    return ErrorAnswer(404, 10010, "CF-ResourceNotFound", f"{what} not found")


def unprocessable(reason: str, status: int = 422) -> ErrorAnswer:
    return ErrorAnswer(
        status, 10008, "CF-UnprocessableEntity", f"The request is semantically invalid: {reason}"
    )


def unparsable(reason: str, status: int = 400) -> ErrorAnswer:
    return ErrorAnswer(
        status, 1001, "CF-MessageParseError", f"Request invalid due to parse error: {reason}"
    )


NOT_AUTHENTICATED = ErrorAnswer(401, 10002, "CF-NotAuthenticated", "Authentication error")
INVALID_TOKEN = ErrorAnswer(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token")
NOT_AUTHORIZED = ErrorAnswer(
    403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action"
)
FEATURE_DISABLED = ErrorAnswer(
    403, 330002, "CF-FeatureDisabled", "Feature Disabled: app_bits_upload"
)
UNKNOWN_REQUEST = ErrorAnswer(404, 10000, "CF-NotFound", "Unknown request")
ALREADY_UPLOADED = ErrorAnswer(
    400,
    150004,
    "CF-PackageBitsAlreadyUploaded",
    "Bits may be uploaded only once. Create a new package to upload different bits.",
)
NOT_STAGEABLE = ErrorAnswer(400, 10004, "CF-InvalidRequest", "The request is invalid")
UNKNOWN_ERROR = ErrorAnswer(500, 10001, "UnknownError", "An unknown error occurred.")
DATABASE_ERROR = ErrorAnswer(
    503, 10011, "CF-DatabaseError", "Database error", {"Retry-After": RETRY_AFTER}
)
STORE_AWAY = ErrorAnswer(
    503, 10001, "UnknownError", "The store for bits is away.", {"Retry-After": RETRY_AFTER}
)
KEYS_AWAY = ErrorAnswer(
    503,
    10001,
    "UnknownError",
    "The server is away that tells the keys of tokens.",
    {"Retry-After": RETRY_AFTER},
)
AUTHORIZATION_AWAY = ErrorAnswer(
    503,
    10001,
    "UnknownError",
    "The server is away that tells what you may do.",
    {"Retry-After": RETRY_AFTER},
)
NO_ROOM = ErrorAnswer(507, 10001, "UnknownError", "There is no room to store the upload.")
NO_BITS_IN_FORM = unprocessable("Bits path An application zip file must be uploaded")
TYPE_MUST_BE_BITS = unprocessable("Package type must be bits.")

_TABLE: list[tuple[type[Exception], Callable[[Any], ErrorAnswer]]] = [
    (faults.UnknownRequest, lambda e: UNKNOWN_REQUEST),
    (faults.AuditEventNotFound, lambda e: not_found("Event")),
    (faults.NotAuthenticated, lambda e: NOT_AUTHENTICATED),
    (faults.InvalidToken, lambda e: INVALID_TOKEN),
    (faults.NotAuthorized, lambda e: NOT_AUTHORIZED),
    (
        faults.RateLimited,
        lambda e: ErrorAnswer(
            429, 10013, "CF-RateLimitExceeded", "Rate Limit Exceeded", dict(e.headers)
        ),
    ),
    (
        faults.TooManyUploads,
        lambda e: ErrorAnswer(
            429,
            10013,
            "CF-RateLimitExceeded",
            f"Rate Limit Exceeded: {e.limit} uploads at once",
            {"Retry-After": str(e.retry_after)},
        ),
    ),
    (KeysAway, lambda e: KEYS_AWAY),
    (AuthorizationAway, lambda e: AUTHORIZATION_AWAY),
    (AuthorizationUnclear, lambda e: AUTHORIZATION_AWAY),
    (
        faults.TooManyApps,
        lambda e: unprocessable(
            f"There are packages of more than {e.limit} apps: ask for those of one app"
        ),
    ),
    (faults.UnparsableBody, lambda e: unparsable(str(e))),
    (
        faults.BadQuery,
        lambda e: ErrorAnswer(
            400, 10005, "CF-BadQueryParameter", f"The query parameter is invalid: {e}"
        ),
    ),
    (faults.ReadModelBehind, lambda e: DATABASE_ERROR),
    (
        faults.RangeNotSatisfiable,
        lambda e: ErrorAnswer(
            416,
            10008,
            "CF-UnprocessableEntity",
            f"The request is semantically invalid: the package has {e.size} bytes",
            {"Content-Range": f"bytes */{e.size}"},
        ),
    ),
    (errors.UploadsDisabled, lambda e: FEATURE_DISABLED),
    (errors.PackageNotFound, lambda e: not_found("Package")),
    (errors.DropletNotFound, lambda e: not_found("Droplet")),
    (errors.AppNotFound, lambda e: not_found("App")),
    (errors.SpaceNotFound, lambda e: not_found("Space")),
    (errors.OrganizationNotFound, lambda e: not_found("Organization")),
    (errors.RoleNotFound, lambda e: not_found("Role")),
    (
        errors.TooManyPackages,
        lambda e: unprocessable(f"App has {e.limit} packages, the limit"),
    ),
    (errors.InvalidRequest, lambda e: unprocessable(", ".join(e.faults))),
    (errors.PackageNotStageable, lambda e: NOT_STAGEABLE),
    (
        errors.StagingLimitExceeded,
        lambda e: ErrorAnswer(
            400,
            10009,
            "CF-UnableToPerform",
            f"Staging request could not be completed: {e.what} limit exceeded",
        ),
    ),
    (errors.DropletNotStaged, lambda e: unprocessable("Droplet has no bits to download.")),
    (
        errors.DropletNotWaiting,
        lambda e: unprocessable(f"Droplet is {e.found}, and waits for no builder"),
    ),
    (errors.BitsAlreadyUploaded, lambda e: ALREADY_UPLOADED),
    (errors.PackageTypeNotBits, lambda e: TYPE_MUST_BE_BITS),
    (errors.PackageNotReady, lambda e: unprocessable("Package has no bits to download.")),
    (errors.SourceNotReady, lambda e: unprocessable("Source package must be READY")),
    (
        errors.SourceAppIsDestination,
        lambda e: unprocessable("Source and destination app cannot be the same"),
    ),
    (
        errors.KeyReused,
        lambda e: unprocessable("Idempotency-Key was used for another request"),
    ),
    (
        errors.CommandIdReused,
        lambda e: unprocessable(f"The id '{e.identifier}' was used for another command"),
    ),
    (
        faults.BadKey,
        lambda e: unprocessable("Idempotency-Key must be 1 to 255 visible ASCII characters"),
    ),
    (errors.FormTooLarge, lambda e: unprocessable(str(e), 413)),
    (errors.FormOverLimit, lambda e: unprocessable(str(e))),
    (errors.NoBitsInForm, lambda e: NO_BITS_IN_FORM),
    (errors.BitsPathInvalid, lambda e: unprocessable("Bits path is invalid")),
    (
        errors.UploadTooLarge,
        lambda e: unprocessable(f"The upload is larger than {e.limit} bytes, the limit", 413),
    ),
    (
        faults.BodyTooLarge,
        lambda e: unprocessable(f"The body is larger than {e.limit} bytes, the limit", 413),
    ),
    (errors.NoRoomForUpload, lambda e: NO_ROOM),
    (errors.StoreAway, lambda e: STORE_AWAY),
    (errors.NewerData, lambda e: DATABASE_ERROR),
    (PersistenceError, lambda e: DATABASE_ERROR),
    (SQLAlchemyError, lambda e: DATABASE_ERROR),
]

KINDS = [kind for kind, _ in _TABLE]


def answer_to(error: BaseException) -> ErrorAnswer:
    """What a client is told of an error; never more than `UNKNOWN_ERROR` of a fault of ours."""
    for kind, answer in _TABLE:
        if isinstance(error, kind):
            return answer(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NO_ROOM
    return UNKNOWN_ERROR


def is_ours(answer: ErrorAnswer) -> bool:
    """Whether an operator must see in the log what was behind the answer."""
    return answer.status >= 500
