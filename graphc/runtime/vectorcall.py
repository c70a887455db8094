"""Objects that CPython calls by an address of their own, without making a tuple and a dict of the arguments first.

CPython's "vectorcall protocol" (PEP 590): a type names the offset of a word in its instances, and a call of an instance
goes to the address there, or, where that is null, to ``__call__``. A class written in Python has no such word; one made
by ``PyType_FromSpecWithBases`` has.
"""

from __future__ import annotations

import ctypes
from typing import Any

_HAVE_VECTORCALL, _BASE_TYPE = 1 << 11, 1 << 10  # flags of a type
_TP_DOC, _TP_MEMBERS = 56, 72  # slots, by the numbers of the stable interface
_PY_SSIZE_T, _READ_ONLY = 19, 1  # of a member
_WORD = ctypes.sizeof(ctypes.c_void_p)


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("value", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int), ("flags", ctypes.c_uint),
        ("slots", ctypes.c_void_p),
    )  # fmt: skip


class _Member(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )  # fmt: skip


_MADE: dict[type[Any], type[Any]] = {}
_NAMES: list[bytes] = []


def called_by_address(base: type[Any]) -> type[Any]:
    """A subclass of ``base`` that differs in one thing: ``aim`` can give each instance the address that a call goes to.

    >>> class Greeting:
    ...     def __call__(self):
    ...         return "hello"
    >>> called_by_address(Greeting)()()
    'hello'
    """
    if base in _MADE:
        return _MADE[base]
    offset = base.__basicsize__
    members = (_Member * 2)(_Member(b"__vectorcalloffset__", _PY_SSIZE_T, offset, _READ_ONLY))
    doc = ctypes.create_string_buffer((base.__doc__ or "").encode())
    slots = (_Slot * 3)(_Slot(_TP_MEMBERS, ctypes.addressof(members)), _Slot(_TP_DOC, ctypes.addressof(doc)))
    name = f"{base.__module__}.{base.__qualname__}".encode()
    spec = _Spec(name, offset + _WORD, 0, _HAVE_VECTORCALL | _BASE_TYPE, ctypes.addressof(slots))
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object)
    made: type[Any] = prototype(("PyType_FromSpecWithBases", ctypes.pythonapi))(ctypes.addressof(spec), (base,))
    _NAMES.append(name)  # CPython before 3.12 keeps its address
    return _MADE.setdefault(base, made)


def aim(instance: object, address: int) -> None:
    """Let calls of an instance of ``called_by_address(its base)`` go to a C function of the vectorcall protocol."""
    kind = type(instance)
    assert kind is called_by_address(kind.__mro__[1])
    ctypes.c_void_p.from_address(id(instance) + kind.__basicsize__ - _WORD).value = address
