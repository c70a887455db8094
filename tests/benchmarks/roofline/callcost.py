"""What one call from Python into native code costs: a no-op that takes two NumPy arrays and gives a float. One core."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sysconfig
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np

SOURCE = r"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
float nop(const float *x, const float *y) { return x[0] + y[0]; }
static PyObject *call(PyObject *self, PyObject *const *a, Py_ssize_t n) {
  Py_buffer x, y;
  if (PyObject_GetBuffer(a[0], &x, PyBUF_C_CONTIGUOUS) || PyObject_GetBuffer(a[1], &y, PyBUF_C_CONTIGUOUS)) return NULL;
  float sum = nop(x.buf, y.buf);
  PyBuffer_Release(&x); PyBuffer_Release(&y);
  return PyFloat_FromDouble(sum);
}
static PyMethodDef methods[] = {{"call", (PyCFunction)(void *)call, METH_FASTCALL, 0}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "callcost", 0, -1, methods};
PyMODINIT_FUNC PyInit_callcost(void) { return PyModule_Create(&definition); }
"""


def compiled() -> Path:
    """The shared library of the source above."""
    folder = Path(tempfile.mkdtemp(prefix="callcost-"))
    file, library = folder / "callcost.c", folder / "callcost.so"
    file.write_text(SOURCE, encoding="utf-8")
    include = f"-I{sysconfig.get_paths()['include']}"
    subprocess.check_call(["gcc", "-O2", "-shared", "-fPIC", include, str(file), "-o", str(library)])
    return library


def report(name: str, function: Callable[[], object], n: int = 200_000) -> None:
    """Prints the best mean time of n calls."""
    print(f"{name:56s} {min(timeit.repeat(function, number=n, repeat=5)) / n * 1e6:7.3f} us")


def main() -> None:
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    library = compiled()
    spec = importlib.util.spec_from_file_location("callcost", library)
    assert spec is not None and spec.loader is not None
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    address = ctypes.cast(ctypes.CDLL(str(library)).nop, ctypes.c_void_p).value
    assert address is not None
    x, y, fixed = np.ones((16, 8), np.float32), np.ones((16, 1), np.float32), np.empty((16, 8), np.float32)
    pointers = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)(address)
    x_at, y_at = x.ctypes.data, y.ctypes.data
    array = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    arrays = ctypes.CFUNCTYPE(ctypes.c_float, array, array)(address)
    report("empty Python call", lambda: None)
    report("CPython extension, buffer protocol", lambda: extension.call(x, y))
    report("ctypes, addresses known before", lambda: pointers(x_at, y_at))
    report("ctypes, a.ctypes.data at each call", lambda: pointers(x.ctypes.data, y.ctypes.data))
    report("ctypes, numpy.ctypeslib.ndpointer arguments", lambda: arrays(x, y))
    report("copy of a 16x8 input into a fixed array", lambda: fixed.__setitem__(..., x))


if __name__ == "__main__":
    main()
