"""The rule for message contracts: what was said to others once holds for ever."""

from __future__ import annotations

from typing import Any

PROSE = ("description", "title", "examples", "default")


def breaches(earlier: dict[str, Any], later: dict[str, Any]) -> list[str]:
    """What of an earlier AsyncAPI document a later one no longer keeps.

    Messages and fields may be added. A message that others read must go on having all its
    fields, as they were; of one that they send, what was right must stay right.
    """
    found = []
    after = later["components"]["messages"]
    for name, message in earlier["components"]["messages"].items():
        if name not in after:
            found.append(f"{name} is gone")
            continue
        sent_by_others = name.startswith("command.")
        found += _object(name, message["payload"], after[name]["payload"], sent_by_others)
        required = after[name].get("headers", {}).get("required", [])
        added = set(required) - set(message.get("headers", {}).get("required", []))
        found += [f"{name} needs the header {header}" for header in sorted(added)]
    for name, channel in earlier["channels"].items():
        kept = later["channels"].get(name, {})
        if (kept.get("address"), kept.get("bindings")) != (
            channel["address"],
            channel.get("bindings"),
        ):
            found.append(f"channel {name} is another")
    return found


def _object(
    where: str, before: dict[str, Any], after: dict[str, Any], sent_by_others: bool
) -> list[str]:
    found = []
    for field, schema in before["properties"].items():
        place, kept = f"{where}.{field}", after["properties"].get(field)
        if kept is None:
            found.append(f"{place} is gone")
        elif "properties" in schema and "properties" in kept:
            found += _object(place, schema, kept, sent_by_others)
        elif _bare(schema) != _bare(kept):
            found.append(f"{place} was {_bare(schema)} and is {_bare(kept)}")
    were, are = set(before.get("required", [])), set(after.get("required", []))
    if sent_by_others:
        found += [f"{where}.{field} is required now" for field in sorted(are - were)]
    else:
        found += [f"{where}.{field} may be missing now" for field in sorted(were - are)]
    if before.get("additionalProperties") != after.get("additionalProperties"):
        found.append(f"{where} takes other additional properties")
    return found


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in PROSE}
