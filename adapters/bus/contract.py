"""What other systems may tell us by message: the data of each command, and who may send it.

The types are the contract: messages are checked against them, and the document that
describes them (`adapters.bus.asyncapi`) is made of them. Fields are added, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.fields import faults_of_names
from adapters.tokens import Scope
from domain.aggregate import MAX_GUID_LENGTH
from domain.directory import MAX_NAME
from domain.droplet import MAX_ERROR
from domain.errors import InvalidRequest
from domain.role import Grant

AUTHORIZATION = "authorization"  # the header that a command's token is in: "bearer …"
REPLY_SOURCE = "/v3/commands"
MAX_ID = 255  # characters of a command's id, source and type
Guid = Annotated[str, Field(min_length=1, max_length=MAX_GUID_LENGTH)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
D = TypeVar("D", bound="CommandData")


class CommandData(BaseModel):
    """The data of a command."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    TYPE: ClassVar[str]
    SCOPE: ClassVar[Scope] = Scope.WRITE
    EXAMPLE: ClassVar[Mapping[str, Any]]

    @classmethod
    def of(cls: type[D], data: Mapping[str, Any]) -> D:
        """Raises `InvalidRequest`, with all that is wrong."""
        for name, value in data.items():
            if isinstance(value, str) and "\0" in value:
                raise InvalidRequest([f"{_label(name)} must not hold NUL characters"])
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InvalidRequest(_sentences(data, list(cls.model_fields), error)) from None


def _label(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


_MUST_BE = {
    "string_type": "be a string",
    "int_type": "be an integer",
    "dict_type": "be an object",
    "string_too_short": "have {min_length} or more characters",
    "string_too_long": "have {max_length} or less characters",
    "literal_error": "be one of {expected}",
    "bool_type": "be true or false",
}


def _sentences(data: Mapping[str, Any], known: list[str], error: ValidationError) -> list[str]:
    faults = faults_of_names(data, known)
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] == "extra_forbidden":
            continue
        label = _label(".".join(str(part) for part in detail["loc"]))
        if detail["type"] == "missing":
            faults.append(f"{label} is required")
        else:
            must = _MUST_BE.get(detail["type"], f"be right: {detail['msg']}")
            faults.append(f"{label} must {must.format(**detail.get('ctx', {}))}")
    return faults


class _Bits(CommandData):
    """Bits travel beside the message: a file in the upload directory, or an object."""

    bits_path: str | None = Field(
        None, description="The absolute path of a file in the service's upload directory."
    )
    bits_url: str | None = Field(
        None, description="The URL of an object behind the service's s3://bucket/prefix/uploads/."
    )


class CreatePackage(CommandData):
    """Creates a package of an app."""

    TYPE = "package.create"
    EXAMPLE = {"app_guid": "0aee4e24-8f0c-4a6e-a9f9-7d5b0a0f0b0d", "type": "bits"}
    app_guid: Guid
    type: Literal["bits", "docker"]
    url: str | None = Field(None, description="The image of a docker package.")


class UploadPackage(_Bits):
    """Starts the upload of bits to a package that awaits them.

    They are removed from where they are.
    """

    TYPE = "package.upload"
    EXAMPLE = {
        "guid": "6a5bdd0d-65bb-4b1d-8a7d-0c5d2f2a6a4e",
        "bits_path": "/var/lib/packtrail/uploads/app.zip",
        "bits_name": "app.zip",
    }
    guid: Guid
    bits_name: str | None = Field(None, max_length=4096, description="The file's name.")


class CopyPackage(CommandData):
    """Copies a READY package to another app."""

    TYPE = "package.copy"
    EXAMPLE = {
        "source_guid": "6a5bdd0d-65bb-4b1d-8a7d-0c5d2f2a6a4e",
        "app_guid": "5b9c7d0e-0f38-43d3-9a21-3f3f9f2a7b11",
    }
    source_guid: Guid
    app_guid: Guid


class DeletePackage(CommandData):
    """Deletes a package, with its bits."""

    TYPE = "package.delete"
    EXAMPLE = {"guid": "6a5bdd0d-65bb-4b1d-8a7d-0c5d2f2a6a4e"}
    guid: Guid


class StagePackage(CommandData):
    """Asks for a droplet of a READY package.

    Environment variables may be secrets, and so never travel in a message: who needs them
    for staging asks by HTTP.
    """

    TYPE = "package.stage"
    EXAMPLE = {"guid": "6a5bdd0d-65bb-4b1d-8a7d-0c5d2f2a6a4e", "memory_limit": 2048}
    guid: Guid
    memory_limit: int | None = Field(None, description="MiB; raised to 1024.")
    disk_limit: int | None = Field(None, description="MiB; raised to 4096.")
    stack: str | None = None
    buildpack: str | None = Field(None, description="null means the app's.")


class DeleteDroplet(CommandData):
    """Deletes a droplet, with its bits."""

    TYPE = "droplet.delete"
    EXAMPLE = {"guid": "8f7e2c2a-7c1b-4d4e-8c54-2e0d7f5f6f10"}
    guid: Guid


class StagingStarted(CommandData):
    """A builder has begun to make a droplet."""

    TYPE = "droplet.staging_started"
    EXAMPLE = {"guid": "8f7e2c2a-7c1b-4d4e-8c54-2e0d7f5f6f10"}
    guid: Guid


class DropletStaged(_Bits):
    """A builder has made a droplet: where it is, and how the app's processes are started.

    The file or object is removed from where it is once it is stored.
    """

    TYPE = "droplet.staged"
    EXAMPLE = {
        "guid": "8f7e2c2a-7c1b-4d4e-8c54-2e0d7f5f6f10",
        "bits_path": "/var/lib/packtrail/uploads/droplet.tgz",
        "sha1": "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "process_types": {"web": "python app.py"},
        "buildpack": "procfile",
    }
    guid: Guid
    sha1: str = Field(description="Of the droplet's bits: 40 lower-case hexadecimal digits.")
    process_types: dict[str, str] = Field(description="Each process type's command.")
    buildpack: str | None = Field(None, description="What the builder made it with.")


class StagingFailed(CommandData):
    """A builder can't make a droplet."""

    TYPE = "droplet.staging_failed"
    EXAMPLE = {
        "guid": "8f7e2c2a-7c1b-4d4e-8c54-2e0d7f5f6f10",
        "error": "The package has no Procfile",
    }
    guid: Guid
    error: str = Field(
        min_length=1, max_length=MAX_ERROR, description="A sentence for the developer."
    )


class _Announcement(CommandData):
    SCOPE = Scope.ADMIN


class AppCreated(_Announcement):
    """There is an app, and these are its facts now. Told again, it changes what differs."""

    TYPE = "app.created"
    EXAMPLE = {
        "guid": "0aee4e24-8f0c-4a6e-a9f9-7d5b0a0f0b0d",
        "name": "shop",
        "space_guid": "c5a7d7b1-6f1c-4f0c-9c53-6f5bb2c5d6a1",
    }
    guid: Guid
    name: Name
    space_guid: Guid | None = None
    buildpack: str | None = None


class AppRenamed(_Announcement):
    """An app has another name."""

    TYPE = "app.renamed"
    EXAMPLE = {"guid": "0aee4e24-8f0c-4a6e-a9f9-7d5b0a0f0b0d", "name": "store"}
    guid: Guid
    name: Name


class AppDeleted(_Announcement):
    """An app is no more: its packages and droplets are deleted."""

    TYPE = "app.deleted"
    EXAMPLE = {"guid": "0aee4e24-8f0c-4a6e-a9f9-7d5b0a0f0b0d"}
    guid: Guid


class SpaceCreated(_Announcement):
    """There is a space, and these are its facts now."""

    TYPE = "space.created"
    EXAMPLE = {
        "guid": "c5a7d7b1-6f1c-4f0c-9c53-6f5bb2c5d6a1",
        "name": "production",
        "organization_guid": "f2d6b3c4-0d7d-4d0e-b7c3-1f4f0f6f3d52",
    }
    guid: Guid
    name: Name
    organization_guid: Guid | None = None


class SpaceRenamed(_Announcement):
    """A space has another name."""

    TYPE = "space.renamed"
    EXAMPLE = {"guid": "c5a7d7b1-6f1c-4f0c-9c53-6f5bb2c5d6a1", "name": "staging"}
    guid: Guid
    name: Name


class SpaceDeleted(_Announcement):
    """A space is no more: its apps are deleted."""

    TYPE = "space.deleted"
    EXAMPLE = {"guid": "c5a7d7b1-6f1c-4f0c-9c53-6f5bb2c5d6a1"}
    guid: Guid


class OrganizationCreated(_Announcement):
    """There is an organization, and these are its facts now."""

    TYPE = "organization.created"
    EXAMPLE = {"guid": "f2d6b3c4-0d7d-4d0e-b7c3-1f4f0f6f3d52", "name": "retail"}
    guid: Guid
    name: Name
    suspended: bool | None = Field(
        None, description="Whether its members reach nothing in it; null leaves it as it is."
    )


class OrganizationRenamed(_Announcement):
    """An organization has another name."""

    TYPE = "organization.renamed"
    EXAMPLE = {"guid": "f2d6b3c4-0d7d-4d0e-b7c3-1f4f0f6f3d52", "name": "sales"}
    guid: Guid
    name: Name


class OrganizationDeleted(_Announcement):
    """An organization is no more: its spaces are deleted, and their apps."""

    TYPE = "organization.deleted"
    EXAMPLE = {"guid": "f2d6b3c4-0d7d-4d0e-b7c3-1f4f0f6f3d52"}
    guid: Guid


class RoleAssigned(_Announcement):
    """A user has a role in a space or an organization."""

    TYPE = "role.assigned"
    EXAMPLE = {
        "user_guid": "uaa-id-431",
        "type": "SpaceDeveloper",
        "space_guid": "c5a7d7b1-6f1c-4f0c-9c53-6f5bb2c5d6a1",
    }
    user_guid: Guid = Field(description="As tokens have it: never an address.")
    type: Literal["SpaceDeveloper", "SpaceManager", "SpaceAuditor", "OrgManager"]
    space_guid: Guid | None = Field(None, description="Where: of a role in a space.")
    organization_guid: Guid | None = Field(None, description="Where: of an OrgManager.")

    @property
    def grant(self) -> Grant:
        """Raises `InvalidRequest`."""
        return Grant.of(self.user_guid, self.type, self.space_guid, self.organization_guid)


class RoleRemoved(RoleAssigned):
    """A user has a role no more."""

    TYPE = "role.removed"
    EXAMPLE = {
        "user_guid": "uaa-id-431",
        "type": "OrgManager",
        "organization_guid": "f2d6b3c4-0d7d-4d0e-b7c3-1f4f0f6f3d52",
    }


COMMANDS: Mapping[str, type[CommandData]] = {
    kind.TYPE: kind
    for kind in (
        CreatePackage,
        UploadPackage,
        CopyPackage,
        DeletePackage,
        StagePackage,
        DeleteDroplet,
        StagingStarted,
        DropletStaged,
        StagingFailed,
        AppCreated,
        AppRenamed,
        AppDeleted,
        SpaceCreated,
        SpaceRenamed,
        SpaceDeleted,
        OrganizationCreated,
        OrganizationRenamed,
        OrganizationDeleted,
        RoleAssigned,
        RoleRemoved,
    )
}


class CommandAccepted(BaseModel):
    """The command was carried out, now or when it first came."""

    TYPE: ClassVar[str] = "command.accepted"
    command_id: str
    command_source: str
    guid: str = Field(description="Of what it was carried out on, or what it has made.")
    position: int = Field(
        description="The log has what the command led to at this position, or before it."
    )


class CommandRefused(BaseModel):
    """Nothing has changed; the error is what HTTP would say."""

    TYPE: ClassVar[str] = "command.refused"
    command_id: str | None
    command_source: str | None
    status: int = Field(description="The HTTP status.")
    code: int
    error_code: str
    description: str
