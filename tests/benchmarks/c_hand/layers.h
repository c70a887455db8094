/* The pieces of a training step, every size a constant of the caller. x is (B, I), W is (I, O), z and d are (B, O). */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <string.h>
#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
typedef const float *restrict in;
typedef float *restrict out;

INLINE void forward(in x, in W, in b, out z, int B, int I, int O) {
  for (int r = 0; r < B; r += 4) {
    for (int q = 0; q < 4; q++) for (int j = 0; j < O; j++) z[(r + q) * O + j] = b[j];
    for (int k = 0; k < I; k++)
      for (int q = 0; q < 4; q++)
        for (int j = 0; j < O; j++) z[(r + q) * O + j] += x[(r + q) * I + k] * W[k * O + j];
  }
}

INLINE void weight_gradient(in x, in d, out g, out gb, int B, int I, int O) {
  for (int j = 0; j < O; j++) gb[j] = 0;
  for (int r = 0; r < B; r++) for (int j = 0; j < O; j++) gb[j] += d[r * O + j];
  for (int k = 0; k < I; k++) {
    float t[O];
    for (int j = 0; j < O; j++) t[j] = 0;
    for (int r = 0; r < B; r++) for (int j = 0; j < O; j++) t[j] += x[r * I + k] * d[r * O + j];
    for (int j = 0; j < O; j++) g[k * O + j] = t[j];
  }
}

/* e = d Wᵀ; Wt is room for the transposed weight. */
INLINE void input_gradient(in W, in d, out e, out Wt, int B, int I, int O) {
  for (int k = 0; k < I; k++) for (int j = 0; j < O; j++) Wt[j * I + k] = W[k * O + j];
  for (int r = 0; r < B; r++) {
    for (int k = 0; k < I; k++) e[r * I + k] = 0;
    for (int j = 0; j < O; j++) for (int k = 0; k < I; k++) e[r * I + k] += d[r * O + j] * Wt[j * I + k];
  }
}

/* The loss; z becomes its derivative by z. */
INLINE float cross_entropy(out z, const int *y, int B, int O) {
  float loss = 0;
  for (int r = 0; r < B; r++) {
    float *p = z + r * O, m = p[0], s = 0, picked = p[y[r]];
    for (int j = 1; j < O; j++) m = p[j] > m ? p[j] : m;
    for (int j = 0; j < O; j++) { p[j] = expf(p[j] - m); s += p[j]; }
    loss += logf(s) + m - picked;
    float scale = 1.0f / (s * B);
    for (int j = 0; j < O; j++) p[j] *= scale;
    p[y[r]] -= 1.0f / B;
  }
  return loss / B;
}

INLINE float squared_error(out z, in y, int n) {
  float s = 0;
  for (int i = 0; i < n; i++) { float e = z[i] - y[i]; s += e * e; z[i] = 2.0f / n * e; }
  return s / n;
}

INLINE void sgd(out p, in g, out v, int n, float lr, float momentum) {
  if (momentum != 0) for (int i = 0; i < n; i++) { v[i] = momentum * v[i] + g[i]; p[i] -= lr * v[i]; }
  else for (int i = 0; i < n; i++) p[i] -= lr * g[i];
}

INLINE void adam(out p, in g, out m, out v, int n, float rate, float scale, float b1, float b2, float eps) {
  for (int i = 0; i < n; i++) {
    float mi = b1 * m[i] + (1 - b1) * g[i], vi = b2 * v[i] + (1 - b2) * g[i] * g[i];
    m[i] = mi; v[i] = vi; p[i] -= rate * mi / (sqrtf(vi) * scale + eps);
  }
}
