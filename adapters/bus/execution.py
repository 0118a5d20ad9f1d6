"""What a command by message does: who may is checked, then the services are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.authorization import Guard
from adapters.bus import contract
from adapters.claims import Claim, Claims
from adapters.fields import STAGING_FIELDS, new_package_of, wanted_of
from adapters.http.admission import UploadRules
from adapters.http.multipart import plain_file_name
from adapters.store import Services
from adapters.tokens import Caller
from domain.aggregate import Cause
from domain.droplet_processing import BuildReport
from domain.errors import InvalidRequest
from domain.journal import Committed


class Execution:
    """Carries out commands whose sender is known. May raise what its `Guard` does."""

    def __init__(self, claims: Claims, rules: UploadRules, guard: Guard) -> None:
        self._claims = claims
        self._rules = rules
        self._guard = guard

    def execute(
        self,
        data: Mapping[str, Any],
        kind: type[contract.CommandData],
        caller: Caller,
        services: Services,
        by: Cause,
    ) -> Committed[Any]:
        """Raises the refusals of what it is about; `InvalidRequest`, `NotAuthorized`."""
        if kind is contract.CreatePackage:
            fields = {name: value for name, value in data.items() if name != "app_guid"}
            type, url = new_package_of(fields, str(data.get("app_guid", "")))
            create = contract.CreatePackage.of(data)
            self._guard.change_app(caller, create.app_guid)
            return services.packages.create(create.app_guid, type, url, by)
        if kind is contract.StagePackage and "environment_variables" in data:
            raise InvalidRequest(
                ["Environment variables may be secrets, and never travel in a message"]
            )
        if kind is contract.UploadPackage:
            self._rules.check_enabled(caller)
        checked = kind.of(data)
        self._check_access(checked, services, caller)
        return self._dispatch(checked, services, by)

    def _check_access(
        self, command: contract.CommandData, services: Services, caller: Caller
    ) -> None:
        """Raises `NotAuthorized`, and the refusals for what a caller may not see."""
        guard = self._guard

        def app_of_package(guid: str) -> str:
            return services.packages.get(guid).app_guid

        def app_of_droplet(guid: str) -> str:
            return services.droplets.get(guid).app_guid

        match command:
            case contract.CopyPackage():
                guard.change_app(caller, command.app_guid)
                guard.change_package(caller, command.source_guid, app_of_package)
            case contract.UploadPackage() | contract.DeletePackage() | contract.StagePackage():
                guard.change_package(caller, command.guid, app_of_package)
            case contract.DeleteDroplet():
                guard.change_droplet(caller, command.guid, app_of_droplet)
            case contract.StagingStarted() | contract.DropletStaged() | contract.StagingFailed():
                guard.answer_for_droplet(caller, command.guid, app_of_droplet)

    def _dispatch(
        self, command: contract.CommandData, services: Services, by: Cause
    ) -> Committed[Any]:
        packages, droplets, directory = services.packages, services.droplets, services.directory
        match command:
            case contract.UploadPackage():
                claim = Claim(command.bits_path, command.bits_url)
                name = plain_file_name(command.bits_name or "")
                return self._claims.upload(packages, command.guid, claim, name, by)
            case contract.CopyPackage():
                return packages.copy(command.source_guid, command.app_guid, by)
            case contract.DeletePackage():
                return packages.delete(command.guid, by)
            case contract.StagePackage():
                fields = command.model_dump(exclude={"guid"}, exclude_none=True)
                return droplets.stage(command.guid, wanted_of(fields, STAGING_FIELDS), by).committed
            case contract.DeleteDroplet():
                return droplets.delete(command.guid, by)
            case contract.StagingStarted():
                return droplets.start_staging(command.guid, by)
            case contract.DropletStaged():
                claim = Claim(command.bits_path, command.bits_url)
                report = BuildReport(command.sha1, command.process_types, command.buildpack)
                return self._claims.droplet(droplets, command.guid, claim, report, by)
            case contract.StagingFailed():
                return droplets.fail(command.guid, command.error, by)
            case contract.AppCreated():
                return directory.announce_app(
                    command.guid, command.name, command.space_guid, command.buildpack, by
                )
            case contract.AppRenamed():
                return directory.rename_app(command.guid, command.name, by)
            case contract.AppDeleted():
                return directory.delete_app(command.guid, by)
            case contract.SpaceCreated():
                return directory.announce_space(
                    command.guid, command.name, command.organization_guid, by
                )
            case contract.SpaceRenamed():
                return directory.rename_space(command.guid, command.name, by)
            case contract.SpaceDeleted():
                return directory.delete_space(command.guid, by)
            case contract.OrganizationCreated():
                return directory.announce_organization(
                    command.guid, command.name, by, command.suspended
                )
            case contract.OrganizationRenamed():
                return directory.rename_organization(command.guid, command.name, by)
            case contract.OrganizationDeleted():
                return directory.delete_organization(command.guid, by)
            case contract.RoleRemoved():
                return directory.remove_role(command.grant, by)
            case contract.RoleAssigned():
                return directory.assign_role(command.grant, by)
        raise AssertionError(f"nobody carries out {command.TYPE}")
