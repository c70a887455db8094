/* The Python module around step(): init(weights), step(x, y), epoch(x, y, losses), all through the buffer protocol. */
static int take(PyObject *o, Py_buffer *b, int flags) { return PyObject_GetBuffer(o, b, flags) == 0; }

static PyObject *py_init(PyObject *self, PyObject *const *a, Py_ssize_t n) {
  Py_buffer b;
  if (!take(a[0], &b, PyBUF_C_CONTIGUOUS)) return NULL;
  memcpy(P, b.buf, sizeof P); PyBuffer_Release(&b);
  refresh();
  Py_RETURN_NONE;
}

static PyObject *py_step(PyObject *self, PyObject *const *a, Py_ssize_t n) {
  Py_buffer x, y;
  if (!take(a[0], &x, PyBUF_C_CONTIGUOUS) || !take(a[1], &y, PyBUF_C_CONTIGUOUS)) return NULL;
  float loss = step(x.buf, y.buf);
  PyBuffer_Release(&x); PyBuffer_Release(&y);
  return PyFloat_FromDouble(loss);
}

static PyObject *py_epoch(PyObject *self, PyObject *const *a, Py_ssize_t n) {
  Py_buffer x, y, l;
  if (!take(a[0], &x, PyBUF_C_CONTIGUOUS) || !take(a[1], &y, PyBUF_C_CONTIGUOUS) || !take(a[2], &l, PyBUF_WRITABLE))
    return NULL;
  for (long i = 0; i < l.len / 4; i++)
    ((float *)l.buf)[i] = step((const float *)x.buf + i * BATCH * N_INPUTS, (const Y_TYPE *)y.buf + i * BATCH * N_TARGETS);
  PyBuffer_Release(&x); PyBuffer_Release(&y); PyBuffer_Release(&l);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
  {"init", (PyCFunction)(void *)py_init, METH_FASTCALL, 0}, {"step", (PyCFunction)(void *)py_step, METH_FASTCALL, 0},
  {"epoch", (PyCFunction)(void *)py_epoch, METH_FASTCALL, 0}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "c_hand_step", 0, -1, methods};
PyMODINIT_FUNC PyInit_c_hand_step(void) { return PyModule_Create(&definition); }
