"""How events are made of what the log keeps, whatever it keeps."""

from __future__ import annotations

import sys

import pytest

from adapters.event_store.transcoding import EventMapper
from domain.errors import NewerData


@pytest.mark.parametrize(
    "topic", ["this", "entrypoints.__main__", "os:system", "package", "package.event", "", ".x"]
)
def test_a_topic_is_the_name_of_an_event_and_of_nothing_else(topic: str) -> None:
    """Whoever writes to the log, or an export, must not have modules imported that they name."""
    before = set(sys.modules)
    with pytest.raises(NewerData, match="that this program does not know"):
        EventMapper().event_of("package:guid", 1, topic, b"{}")
    assert set(sys.modules) == before
