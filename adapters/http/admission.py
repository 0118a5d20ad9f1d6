"""Decides about an upload when only its headers are in: before its body costs anything."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

from adapters.authorization import Guard
from adapters.http.answers import UNKNOWN_ERROR, answer_to, is_ours, new_request_id
from adapters.http.authentication import Authenticator, require_scope
from adapters.http.faults import BodyTooLarge, UnknownRequest
from adapters.http.multipart import boundary_of, parsed_content_type
from adapters.http.received_form import ReceivedForm
from adapters.http.server.body import SmallBody, StagedBody, UploadBody
from adapters.http.server.parser import Admitted, Refused, RequestHead
from adapters.http.throttle import RequestRate, UploadSlots
from adapters.limits import USUAL, Limits
from adapters.staging.intake import Intake
from adapters.tokens import Caller, Scope
from domain.errors import NoBitsInForm, UploadsDisabled, UploadTooLarge
from domain.package_service import PackageService

logger = logging.getLogger("packtrail.http")

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
SMALL_UPLOAD = 64 * 1024  # bytes of a form up to which its order of checks is the contract's
_UPLOAD = re.compile(r"/v3/packages/([^/]+)/upload")


@dataclass(frozen=True)
class UploadRules:
    """What uploads must keep to. `max_size` is in bytes, of the bits alone."""

    max_size: int
    enabled: bool = True
    limits: Limits = USUAL

    def check_enabled(self, caller: Caller) -> None:
        """Raises `UploadsDisabled`."""
        if not (self.enabled or caller.is_admin):
            raise UploadsDisabled


def form_of(content_type: str) -> str:
    """Which of the two forms an upload has. Raises `NoBitsInForm`."""
    kind = parsed_content_type(content_type)[0].lower()
    if kind not in (MULTIPART, URLENCODED):
        raise NoBitsInForm(f"an upload is {MULTIPART} or {URLENCODED}, not {kind[:100]!r}")
    return kind


class UploadAdmission:
    """The server's `Admission`.

    The checks come in the contract's order as far as the headers tell. Whether a form holds
    bits they don't tell, and the contract asks that before it looks for the package. So a
    body that is small is let in and answered in order; a larger one, or one
    that waits for "100 Continue", is refused at once if its package can't take it.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        packages: PackageService,
        intake: Intake,
        rules: UploadRules,
        guard: Guard,
        rate: RequestRate,
        slots: UploadSlots,
    ) -> None:
        self._guard = guard
        self._rate = rate
        self._slots = slots
        self._authenticator = authenticator
        self._packages = packages
        self._intake = intake
        self._rules = rules

    def concerns(self, head: RequestHead) -> bool:
        return head.method == "POST" and _UPLOAD.fullmatch(head.path) is not None

    def decide(self, head: RequestHead) -> Admitted | Refused:
        request_id = new_request_id(
            head.headers.get("X_VCAP_REQUEST_ID"), head.headers.get("X_REQUEST_ID")
        )
        caller: Caller | None = None
        try:
            guid = _guid_in(head.path)
            caller = self._authenticator.identify(head.headers.get("AUTHORIZATION"))
            self._rate.count(caller)
            require_scope(caller, Scope.WRITE)
            return Admitted(self._admit(head, guid, caller), request_id)
        except Exception as error:
            answer = answer_to(error)
            if is_ours(answer):
                is_defect = answer.status == UNKNOWN_ERROR.status
                logger.error(
                    "an upload can't be taken: %s",
                    error,
                    exc_info=is_defect,
                    extra={"request_id": request_id},
                )
            standing = self._rate.standing(caller) if caller else None
            if standing is not None:
                answer = replace(answer, headers={**standing.headers(), **answer.headers})
            return Refused(answer, request_id)

    def _admit(self, head: RequestHead, guid: str, caller: Caller) -> UploadBody | SmallBody:
        self._rules.check_enabled(caller)
        limits = self._rules.limits
        form = form_of(head.headers.get("CONTENT_TYPE", ""))
        if form == URLENCODED:
            if (head.declared_length or 0) > limits.max_body_size:
                raise BodyTooLarge(limits.max_body_size)
            if head.expects_continue:
                self._check_package(guid, caller)
            return SmallBody(limits.max_body_size)
        max_size, overhead = self._rules.max_size, limits.max_form_overhead
        declared = head.declared_length
        if head.expects_continue or declared is None or declared > SMALL_UPLOAD:
            self._check_package(guid, caller)
        if declared is not None and declared > max_size + overhead:
            raise UploadTooLarge(max_size)
        self._intake.require_room(declared or 0)
        release = self._slots.take(caller)
        try:
            file = self._intake.create(guid)
        except BaseException:
            release()
            raise
        return UploadBody(self._form_in(file, head), max_size, overhead, release)

    def _form_in(self, file: StagedBody, head: RequestHead) -> StagedBody:
        try:
            boundary = boundary_of(head.headers.get("CONTENT_TYPE", ""))
        except NoBitsInForm:
            return file  # it is refused when its turn has come
        return ReceivedForm(file, boundary, self._rules.limits.max_form_parts)

    def _check_package(self, guid: str, caller: Caller) -> None:
        """Whether the package may be uploaded to, and by whom."""
        self._guard.change_package(caller, guid, lambda guid: self._packages.get(guid).app_guid)
        self._packages.check_upload(guid)


def _guid_in(path: str) -> str:
    match = _UPLOAD.fullmatch(path)
    assert match is not None, "the admission concerns it"
    return segment_of(match[1])


def segment_of(encoded: str) -> str:
    """What a segment of a path says. Raises `UnknownRequest` where that is no UTF-8."""
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise UnknownRequest from None
