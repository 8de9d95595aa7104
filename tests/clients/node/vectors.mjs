/** The cosine of two vectors. */
export function cosine(a, b) {
  const product = (x, y) => x.reduce((sum, value, index) => sum + value * y[index], 0);
  return product(a, b) / Math.sqrt(product(a, a) * product(b, b));
}
