/* Backward map of a triangle mesh with a depth test; see raster.py, which states the arrays. */
#include <math.h>
#include <stdint.h>

static int32_t lower(float a, float b, float c) {
  const float least = ceilf(fminf(a, fminf(b, c)));
  return least < 0 ? 0 : least > 1e6f ? 1000000 : (int32_t)least;
}

static int32_t upper(float a, float b, float c, int32_t end) {
  const float most = floorf(fmaxf(a, fmaxf(b, c)));
  return most > (float)end ? end : most < -1 ? -1 : (int32_t)most;
}

void rasterise(const float *points, const float *values, const int32_t *triangles, int32_t count, float *map, float *depth,
               int32_t height, int32_t width) {
  const float slack = -1e-4f; /* pixels on a shared edge belong to both triangles: no seams */
  for (int32_t t = 0; t < count; t++, triangles += 3) {
    const float *a = points + 3 * triangles[0], *b = points + 3 * triangles[1], *c = points + 3 * triangles[2];
    const float *va = values + 2 * triangles[0], *vb = values + 2 * triangles[1], *vc = values + 2 * triangles[2];
    const int32_t x0 = lower(a[0], b[0], c[0]), x1 = upper(a[0], b[0], c[0], width - 1);
    const int32_t y0 = lower(a[1], b[1], c[1]), y1 = upper(a[1], b[1], c[1], height - 1);
    const float abx = b[0] - a[0], aby = b[1] - a[1], acx = c[0] - a[0], acy = c[1] - a[1];
    const float area = abx * acy - aby * acx;
    if (x0 > x1 || y0 > y1 || fabsf(area) < 1e-6f) continue;
    const float step_b = acy / area, step_c = -aby / area;
    const float zb = b[2] - a[2], zc = c[2] - a[2];
    const float ub = vb[0] - va[0], uc = vc[0] - va[0], wb0 = vb[1] - va[1], wc0 = vc[1] - va[1];
    for (int32_t y = y0; y <= y1; y++) {
      const float dx = (float)x0 - a[0], dy = (float)y - a[1];
      float wb = (dx * acy - dy * acx) / area, wc = (abx * dy - aby * dx) / area;
      float *row = map + 2 * (y * width + x0), *near = depth + y * width + x0;
      for (int32_t x = x0; x <= x1; x++, wb += step_b, wc += step_c, row += 2, near++) {
        if (wb < slack || wc < slack || wb + wc > 1 - slack) continue;
        const float z = a[2] + wb * zb + wc * zc;
        if (z < *near) continue;
        *near = z;
        row[0] = va[0] + wb * ub + wc * uc;
        row[1] = va[1] + wb * wb0 + wc * wc0;
      }
    }
  }
}
