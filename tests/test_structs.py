"""Data classes beside the standard library's, which are the oracle."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from graphc import structs


def plain() -> type:
    """A class of fields with and without defaults, made anew: the standard library changes the one that it is given."""

    class Plain:
        """Three fields."""

        a: int
        b: str = "b"
        c: tuple[int, ...] = ()

        def doubled(self) -> int:
            """Uses a field."""
            return 2 * self.a

    return Plain


def both(**options: bool) -> tuple[Any, Any]:
    """The class as graphc makes it, and as the standard library does."""
    keep = options.pop("keep_hash", False)
    return (
        structs.dataclass(slots=True, keep_hash=keep, **options)(plain()),
        dataclasses.dataclass(slots=True, **options)(plain()),
    )


@pytest.mark.parametrize(
    "options", [{"frozen": True}, {}, {"frozen": True, "eq": False}, {"frozen": True, "keep_hash": True}]
)
def test_as_the_standard_library(options: dict[str, bool]) -> None:
    ours, theirs = both(**options)
    for make in (ours, theirs):
        one, two, other = make(1), make(a=1, b="b"), make(1, "x", c=(2,))
        assert repr(other).endswith("Plain(a=1, b='x', c=(2,))")
        assert (one == two) == options.get("eq", True)
        assert one != other
        assert one != (1, "b", ())
        assert other.doubled() == 2
        assert not hasattr(one, "__dict__")
        assert make.__match_args__ == ("a", "b", "c")
        assert make.__doc__ == "Three fields."
        with pytest.raises(TypeError):
            make()
        with pytest.raises(TypeError):
            make(1, d=2)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    replaced = structs.replace(ours(1), b="y")
    assert (replaced.a, replaced.b, structs.fields(ours)) == (1, "y", ("a", "b", "c"))


@pytest.mark.parametrize("keep_hash", [False, True])
def test_frozen(keep_hash: bool) -> None:
    ours, theirs = both(frozen=True, keep_hash=keep_hash)
    assert hash(ours(1, "x")) == hash(ours(1, "x")) == hash(theirs(1, "x"))
    for make in (ours, theirs):
        one = make(1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.a = 2
        with pytest.raises(dataclasses.FrozenInstanceError):
            del one.a
        assert one.a == 1


def test_mutable_ones_have_no_hash() -> None:
    ours, theirs = both()
    for make in (ours, theirs):
        one = make(1)
        one.a = 3
        assert one == make(3)
        with pytest.raises(TypeError):
            hash(one)


def test_a_subclass_adds_fields_and_a_method_of_its_own_stays() -> None:
    @structs.dataclass(frozen=True)
    class Base:
        a: int
        b: int = 2

        def __hash__(self) -> int:
            return 7

    @structs.dataclass(frozen=True)
    class More(Base):
        c: int = 3

    assert repr(More(1, c=4)).endswith("More(a=1, b=2, c=4)")
    assert More(1) != Base(1)
    assert hash(Base(1)) == 7


def test_a_default_before_a_field_without_one() -> None:
    with pytest.raises(SyntaxError, match="non-default argument"):
        structs.dataclass()(type("Bad", (), {"__annotations__": {"a": "int", "b": "int"}, "a": 1}))
