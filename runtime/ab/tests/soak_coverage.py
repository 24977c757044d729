# How often noise without growth is taken for growth: the lower end of a 95 % interval of the slope is over 0, which is to be so
# in 2.5 %. The table of docs/soak.md. Run it with: python3 runtime/ab/tests/soak_coverage.py (numpy and scipy; seconds)
import numpy as np
from scipy import stats

SERIES, SAMPLES, LEVEL = 4000, 480, 0.95
random = np.random.default_rng(1)


def noise(share):
    """Series in which each value hangs on the one before, over this share of the whole time."""
    rho = np.exp(-1 / (share * SAMPLES))
    steps = random.standard_normal((SERIES, SAMPLES)) * np.sqrt(1 - rho**2)
    values = np.empty_like(steps)
    values[:, 0] = random.standard_normal(SERIES)
    for i in range(1, SAMPLES):
        values[:, i] = rho * values[:, i - 1] + steps[:, i]
    return values


def fit(values):
    """Slope, its standard error and the residuals' correlation from one to the next."""
    n = values.shape[1]
    t = np.arange(n) - (n - 1) / 2
    slope = values @ t / (t @ t)
    rest = values - values.mean(1, keepdims=True) - slope[:, None] * t
    squares = (rest**2).sum(1)
    return slope, np.sqrt(squares / (n - 2) / (t @ t)), (rest[:, 1:] * rest[:, :-1]).sum(1) / squares


def wrong(values, widened):
    slope, error, rho = fit(values)
    n = values.shape[1]
    factor = np.sqrt((1 + widened(rho, n)) / (1 - widened(rho, n)))
    return 100 * (slope - stats.t.ppf((1 + LEVEL) / 2, n - 2) * error * factor > 0).mean()


ways = {
    "not": lambda rho, n: 0 * rho,
    "rho": lambda rho, n: np.clip(rho, 0, 0.95),
    "rho and bias": lambda rho, n: np.clip(rho + 2 * (1 + 4 * np.maximum(rho, 0)) / n, 0, 0.95),
}
for share in (0.01, 0.03, 0.1, 0.3):
    values = noise(share)
    row = [f"all samples {wrong(values, ways['not']):.1f}"]
    for blocks in (12, 20):
        means = values.reshape(SERIES, blocks, -1).mean(2)
        row += [f"{blocks} blocks, widened by {name}: {wrong(means, way):.1f}" for name, way in ways.items()]
    print(f"{share:.0%}:", "; ".join(row))
