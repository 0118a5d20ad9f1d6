"""What schemathesis can't know of the API: what the contract refuses, and what a zip is."""

from __future__ import annotations

import os
import re
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData, UnsupportedMethodResponse

from tests.support.waiting import eventually
from tests.support.zips import random_zip

# what a client uploads: mostly a zip
schemathesis.openapi.format(
    "binary", strategies.one_of(strategies.just(random_zip(1000)), strategies.binary())
)

# Requests that are well-formed, and that the state of things forbids: the document can't tell
# them from those that are carried out. Nothing else may be refused that it allows.
REFUSED_BY_STATE = {
    "createPackage": (
        "Request invalid due to parse error: invalid request body",  # none, and nothing to copy
        "App guid must not hold NUL characters",  # a pattern takes schemathesis minutes to break
        "Url must not hold credentials",  # an @ that is percent-encoded
        "Source package must be READY",
        "Source and destination app cannot be the same",
        "Idempotency-Key was used for another request",
    ),
    "showPackage": (
        r"The query parameter is invalid: At: position \d+ is beyond the newest event, .+",
        r"The query parameter is invalid: At: '.+' is in the future: .+",
    ),
    "uploadBits": (
        "Bits may be uploaded only once. Create a new package to upload different bits.",
        "Package type must be bits.",
        "Bits path is invalid",
    ),
    "downloadBits": (
        "Package type must be bits.",
        "Package has no bits to download.",
        r"the package has \d+ bytes",  # and the range begins behind them
    ),
    "downloadDroplet": ("Droplet has no bits to download.", r"the package has \d+ bytes"),
    "stagePackage": (
        "The request is invalid",  # the package is not READY, or not of type bits
        "Staging request could not be completed: (memory|disk) limit exceeded",
        "Idempotency-Key was used for another request",
        "(Memory|Disk) limit must be an integer(, Disk limit must be an integer)?",  # as 1.0 is
    ),
    "assignCurrentDroplet": (
        "Droplet must be one of the app's own",
        "Droplet must be STAGED, and is (PENDING|STAGING|FAILED|EXPIRED)",
    ),
}


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: Response,
) -> bool:
    """Whether a failure is one."""
    if isinstance(failure, UnsupportedMethodResponse):
        # The contract knows no 405: a known path with another method is an unknown request.
        return (response.status_code, refusal(response).get("code")) != (404, 10000)
    if isinstance(failure, RejectedPositiveData):
        id = case.operation.definition.raw.get("operationId", "")
        description = refusal(response).get("description", "")
        reason = description.removeprefix("The request is semantically invalid: ")
        return not any(re.fullmatch(known, reason) for known in REFUSED_BY_STATE.get(id, ()))
    return True


def refusal(response: Response) -> dict[str, Any]:
    body = response.json()
    return body if isinstance(body, dict) else {}


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Waits with what needs bits until they are stored, as a client does."""
    if case.operation.definition.raw.get("operationId") in ("stagePackage", "downloadBits"):
        await_bits((case.path_parameters or {}).get("guid"))


def await_bits(guid: object) -> None:
    if not isinstance(guid, str) or not guid.isascii() or "/" in guid or not guid.isprintable():
        return
    with httpx.Client(
        base_url=os.environ["PACKTRAIL_URL"],
        headers={"Authorization": f"bearer {os.environ['PACKTRAIL_TOKEN']}"},
    ) as client:
        eventually(lambda: "PROCESSING_UPLOAD" not in client.get(f"/v3/packages/{guid}").text)
