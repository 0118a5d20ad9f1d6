"""The upload resource: takes bits that are in staging, or in the upload directory."""

from __future__ import annotations

from urllib.parse import parse_qs

import falcon

from adapters.claims import Claim, Claims
from adapters.http.admission import URLENCODED, UploadRules, form_of
from adapters.http.exchange import Commands, answer_json, body_of, cause_of
from adapters.http.multipart import boundary_of, plain_file_name
from adapters.http.received_form import ReceivedForm
from adapters.http.server.body import UploadBody
from adapters.metrics import Metrics
from adapters.staging.intake import Intake
from adapters.tokens import Scope
from domain.errors import FormOverLimit, FormTooLarge, NoBitsInForm, UploadTooLarge
from domain.journal import Committed, surely_not_recorded
from domain.package import Package, StagedBits
from projections.representation import represent, view_of


class Upload:
    """`/v3/packages/:guid/upload`

    When this answers 200, the bits are on the disk and the log says so, in that order.
    """

    scopes = {"POST": Scope.WRITE}

    def __init__(
        self,
        commands: Commands,
        intake: Intake,
        claims: Claims,
        rules: UploadRules,
        metrics: Metrics,
    ) -> None:
        self._claims = claims
        self._metrics = metrics
        self._commands = commands
        self._intake = intake
        self._rules = rules

    def on_post(self, req: falcon.Request, resp: falcon.Response, guid: str) -> None:
        self._rules.check_enabled(req.context.caller)
        if form_of(req.content_type or "") == URLENCODED:
            committed = self._take_file(req, guid)
        else:
            committed = self._take_body(req, guid)
        self._commands.settle(committed)
        answer_json(resp, represent(view_of(committed.aggregate)))

    def _take_body(self, req: falcon.Request, guid: str) -> Committed[Package]:
        """Form 1: the body holds the bits, and is in staging already."""
        upload: UploadBody | None = req.env.get("packtrail.upload")
        if upload is None:
            raise NoBitsInForm("the form is empty")
        limits = self._rules.limits
        form = upload.staged
        if not isinstance(form, ReceivedForm):
            boundary_of(req.content_type or "")  # tells what is wrong with it
            raise AssertionError("a form with a boundary is received as one")
        part = form.find_bits()
        if part.length > self._rules.max_size:
            raise UploadTooLarge(self._rules.max_size)
        overhead = form.size - part.length
        if overhead > limits.max_form_overhead:
            raise FormTooLarge(overhead, limits.max_form_overhead)
        self._commands.may_change_package(req, guid)
        self._commands.packages.check_upload(guid)
        staged = form.stage(self._intake, part, guid)
        return self._start(req, guid, staged, part.file_name)

    def _take_file(self, req: falcon.Request, guid: str) -> Committed[Package]:
        """Form 2: a front server has put the bits into the upload directory."""
        body, max_fields = body_of(req), self._rules.limits.max_form_fields
        found = body.count(b"&") + 1
        if found > max_fields:
            raise FormOverLimit(f"The form has {found} fields; the limit is {max_fields}")
        form = parse_qs(
            body.decode("utf-8", "surrogateescape"),
            keep_blank_values=True,
            errors="surrogateescape",  # a file's name need not be UTF-8
        )
        path = form.get("bits_path", [""])[-1]
        if not path:
            raise NoBitsInForm("the form names no bits_path")
        self._commands.may_change_package(req, guid)
        name = plain_file_name(form.get("bits_name", [""])[-1])
        return self._claims.upload(
            self._commands.packages, guid, Claim(path=path), name, cause_of(req)
        )

    def _start(
        self, req: falcon.Request, guid: str, staged: StagedBits, file_name: str | None
    ) -> Committed[Package]:
        try:
            committed = self._commands.packages.start_upload(guid, staged, file_name, cause_of(req))
        except Exception as error:
            if surely_not_recorded(error):
                self._intake.release(staged.uri)
            raise
        self._metrics.received_bytes.inc(staged.length)
        return committed
