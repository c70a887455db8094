/* The custom loss in one pass over the rows, BATCH of them, 32 features. P is the weight (32, 2), then the bias. */
static float W0[32], W1[32];

static void refresh(void) { for (int k = 0; k < 32; k++) { W0[k] = P[2 * k]; W1[k] = P[2 * k + 1]; } }

static float step(in x, in target) {
  enum { ROWS = 64 };
  float g0[32] = {0}, g1[32] = {0}, gb0 = 0, gb1 = 0, loss = 0;
  for (int r = 0; r < BATCH; r += ROWS) {
    float z0[ROWS], z1[ROWS];
    for (int i = 0; i < ROWS; i++) {
      float s0 = P[64], s1 = P[65];
      for (int k = 0; k < 32; k++) { s0 += x[(r + i) * 32 + k] * W0[k]; s1 += x[(r + i) * 32 + k] * W1[k]; }
      z0[i] = s0; z1[i] = s1;
    }
    for (int i = 0; i < ROWS; i++) {
      float d = z0[i] - target[r + i], a = fabsf(d), e = expf(-2 * a), gate = 1 / (1 + expf(-z1[i]));
      float sign = d < 0 ? -1.0f : 1.0f, huber = a <= 1 ? 0.5f * d * d : a - 0.5f;
      float log_cosh = a + logf(1 + e) - 0.69314718f, difference = huber - log_cosh;
      loss += gate * difference + log_cosh;
      float d_log_cosh = sign * (1 - e) / (1 + e), d_huber = a <= 1 ? d : sign;
      z0[i] = (gate * (d_huber - d_log_cosh) + d_log_cosh) * (1.0f / BATCH);
      z1[i] = difference * gate * (1 - gate) * (1.0f / BATCH);
      gb0 += z0[i]; gb1 += z1[i];
    }
    for (int i = 0; i < ROWS; i++)
      for (int k = 0; k < 32; k++) { g0[k] += z0[i] * x[(r + i) * 32 + k]; g1[k] += z1[i] * x[(r + i) * 32 + k]; }
  }
  for (int k = 0; k < 32; k++) { G[2 * k] = g0[k]; G[2 * k + 1] = g1[k]; }
  G[64] = gb0; G[65] = gb1;
  UPDATE
  refresh();
  return loss / BATCH;
}
