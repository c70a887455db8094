"""Data classes as the standard library's, for the few forms that graphc uses, made in a fifth of the time.

``import graphc`` makes some 140 classes. The standard library compiles six functions for each, one by one; here three
are compiled at once and the others are shared. A frozen instance is filled through its slots' descriptors, which also
halves what making one costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class _Factory:
    """The default of a field that is made anew for each instance."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


_MISSING: Any = object()


def field(*, default_factory: Callable[[], T]) -> T:
    """A field's default, made by calling ``default_factory`` for each instance.

    >>> @dataclass()
    ... class Bag:
    ...     things: list[int] = field(default_factory=list)
    >>> Bag().things is Bag().things
    False
    """
    made: Any = _Factory(default_factory)
    return made  # type: ignore[no-any-return]


@dataclass_transform(field_specifiers=(field,))
def dataclass(
    *, frozen: bool = False, slots: bool = True, eq: bool = True, keep_hash: bool = False
) -> Callable[[type[T]], type[T]]:
    """A class with ``__init__``, ``__repr__``, and by its fields' values ``__eq__`` and, if frozen, ``__hash__``.

    frozen: instances cannot be changed. slots: always; the argument says so at the class. eq: without it an instance
    equals itself alone. keep_hash: the hash is computed once an instance. A method that the class defines stays.

    Raises: SyntaxError for a field without default behind one with a default.

    >>> @dataclass(frozen=True, slots=True)
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, 0), len({Point(1), Point(1)}), replace(Point(1), y=2)
    (Point(x=1, y=0), True, 1, Point(x=1, y=2))
    """
    assert slots

    def make(cls: type[T]) -> type[T]:
        return _made(cls, frozen, eq, keep_hash)  # type: ignore[no-any-return]

    return make


def fields(of: object) -> tuple[str, ...]:
    """The names of the fields of a data class or of its instance, in order.

    >>> fields(dataclass()(type("Pair", (), {"__annotations__": {"a": "int", "b": "int"}})))
    ('a', 'b')
    """
    names: tuple[str, ...] = of.__match_args__  # type: ignore[attr-defined]
    return names


def replace(instance: T, /, **changes: object) -> T:
    """A new instance with some fields changed.

    Raises: TypeError for a name that is no field.
    """
    values = [
        changes.pop(name) if name in changes else getattr(instance, name)
        for name in instance.__match_args__  # type: ignore[attr-defined]
    ]
    return type(instance)(*values, **changes)


def _made(cls: Any, frozen: bool, eq: bool, keep_hash: bool) -> Any:
    inherited: tuple[str, ...] = getattr(cls, "__match_args__", ())
    defaults: dict[str, object] = dict(getattr(cls, "_field_defaults", {}))
    body = dict(cls.__dict__)
    own = tuple(name for name in body.get("__annotations__", {}) if name not in inherited)
    for name in own:
        if name in body:
            defaults[name] = body.pop(name)
    names = inherited + own
    for unwanted in ("__dict__", "__weakref__"):
        body.pop(unwanted, None)
    shared: dict[str, object] = {
        "__slots__": (*own, "_hash") if keep_hash else own,
        "__match_args__": names,
        "_field_defaults": defaults,
        "__qualname__": cls.__qualname__,
    }
    if frozen:
        shared["__setattr__"] = _refuse_change
        shared["__delattr__"] = _refuse_deletion
    made = type(cls)(cls.__name__, cls.__bases__, {"__repr__": _text, **body, **shared})
    for name, method in _methods(made, names, defaults, frozen, eq, keep_hash).items():
        if name not in body:
            setattr(made, name, method)
    if eq and not frozen and "__hash__" not in body:
        made.__hash__ = None
    return made


def _methods(
    cls: type, names: tuple[str, ...], defaults: dict[str, object], frozen: bool, eq: bool, keep_hash: bool
) -> dict[str, Callable[..., object]]:
    """``__init__`` and, if wanted, ``__eq__`` and ``__hash__``, compiled together."""
    scope: dict[str, Any] = {"_MISSING": _MISSING}
    parameters, lines = [], []
    for name in names:
        value = name
        if name in defaults:
            default = defaults[name]
            made = isinstance(default, _Factory)
            scope[f"_default_{name}"] = default.make if isinstance(default, _Factory) else default
            parameters.append(f"{name}={'_MISSING' if made else f'_default_{name}'}")
            value = f"_default_{name}() if {name} is _MISSING else {name}" if made else name
        else:
            parameters.append(name)
        if frozen:
            scope[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f" _set_{name}(self,{value})")
        else:
            lines.append(f" self.{name}={value}")
    text = ""
    if eq:
        mine, other = ("(" + "".join(f"{who}.{name}," for name in names) + ")" for who in ("self", "other"))
        text += "def __eq__(self,other):\n if other.__class__ is not self.__class__: return NotImplemented\n"
        text += f" return {mine}=={other}\n"
        if keep_hash:
            scope["_set__hash"] = vars(cls)["_hash"].__set__
            lines.append(" _set__hash(self,None)")
            hashed = f" if self._hash is None: _set__hash(self,hash({mine}))\n return self._hash"
        else:
            hashed = f" return hash({mine})"
        if frozen:
            text += f"def __hash__(self):\n{hashed}\n"
    text += f"def __init__({','.join(['self', *parameters])}):\n" + ("\n".join(lines) or " pass")
    methods: dict[str, Callable[..., object]] = {}
    exec(text, scope, methods)
    return methods


def _text(self: object) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in fields(self))
    return f"{type(self).__qualname__}({shown})"


def _refuse_change(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
