"""What a result was made from, as it is recorded beside the result, and whether it still is the same.

A record holds every setting, also those at their default: so a changed default is a change. A setting that an older
record does not know is no change while it is at its default: a new field must have a default that does what the
program did without it.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from distilrubert.common.configuration import Section, flattened


class Recorded(dict[str, Any]):
    """Plain JSON values by key.

    Attributes:
        at_default: the keys whose value is the default of its field.
    """

    at_default: frozenset[str] = frozenset()


def recorded(section: Section, exclude: Collection[str] = ()) -> Recorded:
    """All settings of a section, without the fields in `exclude`, and of the sections in it, as plain JSON values."""
    dumped = section.model_dump(mode="json", exclude=set(exclude))
    values = Recorded({name: _plain(getattr(section, name), dumped[name]) for name in dumped})
    fields = type(section).model_fields
    values.at_default = frozenset(
        name
        for name in dumped
        if not fields[name].is_required()
        and getattr(section, name) == fields[name].get_default(call_default_factory=True)
    )
    return values


def agrees(record: Any, now: Any) -> bool:
    """Whether a record says the same as these values, which may have new keys at their defaults.

    Args:
        record: as it was read from a file.
        now: plain values, mappings of them and :class:`Recorded`.
    """
    if isinstance(now, Mapping):
        if not isinstance(record, Mapping) or record.keys() - now.keys():
            return False
        known: frozenset[str] = getattr(now, "at_default", frozenset())
        return all(agrees(record[key], value) if key in record else key in known for key, value in now.items())
    if isinstance(now, list):
        same_length = isinstance(record, list) and len(record) == len(now)
        return same_length and all(agrees(old, new) for old, new in zip(record, now, strict=True))
    # As JSON holds it: a tuple is a list there.
    return bool(record == json.loads(json.dumps(now)))


def difference(record: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first value that changed, as :func:`agrees` has it, and how many others did; empty where none did."""
    before, after = flattened(record), flattened(_without_new_defaults(record, now))
    changed = [
        key
        for key in sorted(before | after)
        if (key in before) != (key in after) or not agrees(before[key], after[key])
    ]
    if not changed:
        return ""
    old, new = (_shown(values, changed[0]) for values in (before, after))
    if old == new:
        # A number and its text.
        old, new = (json.dumps(values.get(changed[0])) for values in (before, after))
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{changed[0]} was {old} and is {new}{more}"


def _without_new_defaults(record: Any, now: Any) -> Any:
    """The values without keys at their defaults that the record does not know."""
    if isinstance(now, Mapping) and isinstance(record, Mapping):
        known: frozenset[str] = getattr(now, "at_default", frozenset())
        kept = {key: value for key, value in now.items() if key in record or key not in known}
        return {key: _without_new_defaults(record.get(key), value) for key, value in kept.items()}
    if isinstance(now, list) and isinstance(record, list) and len(now) == len(record):
        return [_without_new_defaults(old, new) for old, new in zip(record, now, strict=True)]
    return now


def _plain(value: Any, dumped: Any) -> Any:
    if isinstance(value, Section):
        return recorded(value)
    if isinstance(value, list):
        return [_plain(item, plain) for item, plain in zip(value, dumped, strict=True)]
    return dumped


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "not set"
    return values[key] if isinstance(values[key], str) else json.dumps(values[key])
