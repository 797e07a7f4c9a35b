#!/usr/bin/python3
"""Scores gnomon's forecasts as the M4 competition did (Makridakis et al. 2020).

    scripts/m4.py --gnomon bin/gnomon --dataset DIR

DIR is the competition's folder of that name (github.com/Mcompetitions/M4-methods).
Each series is forecast once, from its end, and the forecasts are compared with
what the competition held back. Needs Debian's python3-numpy.
"""
import argparse
import csv
import os
import subprocess

import numpy as np

# Season and horizon, and the season that gnomon is told.
SETS = {"Hourly": (24, 48, "24"), "Weekly": (1, 13, "auto")}
LEVELS = "0.025,0.5,0.975"


def wide(path):
    """Series by name, of a file with one in each row."""
    with open(path) as f:
        rows = csv.reader(f)
        next(rows)
        return {r[0]: np.array([float(v) for v in r[1:] if v]) for r in rows}


def forecast(gnomon, path, season, horizon):
    """Mean, lower and upper bound of each series' forecast."""
    out = subprocess.run([gnomon, "forecast", "--wide", "--season", season, "--horizon", str(horizon), "--quantiles", LEVELS, path],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    series = {}
    for r in csv.DictReader(out.splitlines()):
        series.setdefault(r["series"], []).append([float(r[c]) for c in ("mean", "q0.025", "q0.975")])
    return {name: np.array(rows).T for name, rows in series.items()}


def naive2(y, horizon, season):
    """The last value, of a series with a clear season without it, and with it again."""
    if season > 1 and len(y) >= 3 * season:
        d = y - y.mean()
        r = np.array([np.sum(d[k:] * d[:-k]) / np.sum(d * d) for k in range(1, season + 1)])
        if abs(r[-1]) > 1.645 * np.sqrt((1 + 2 * np.sum(r[:-1] ** 2)) / len(y)):
            weights = np.r_[0.5, np.ones(season - 1), 0.5] / season
            trend = np.convolve(y, weights, "valid")
            first = season // 2
            ratios = y[first:first + len(trend)] / trend
            index = np.array([np.mean(ratios[(np.arange(len(ratios)) + first) % season == k]) for k in range(season)])
            index /= index.mean()
            return y[-1] / index[(len(y) - 1) % season] * index[(len(y) + np.arange(horizon)) % season]
    return np.full(horizon, y[-1])


def smape(actual, point):
    return 100 * np.mean(2 * np.abs(actual - point) / (np.abs(actual) + np.abs(point)))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--gnomon", default="bin/gnomon")
    p.add_argument("--dataset", required=True)
    a = p.parse_args()
    print("| set | series | sMAPE | MASE | OWA | MSIS | coverage |\n|---|---:|---:|---:|---:|---:|---:|")
    for name, (season, horizon, told) in SETS.items():
        path = os.path.join(a.dataset, "Train", name + "-train.csv")
        known, held = wide(path), wide(os.path.join(a.dataset, "Test", name + "-test.csv"))
        ours = forecast(a.gnomon, path, told, horizon)
        scores = []
        for series, y in known.items():
            actual, (mean, low, high) = held[series], ours[series]
            scale = np.mean(np.abs(y[season:] - y[:-season]))
            plain = naive2(y, horizon, season)
            missed = np.maximum(low - actual, 0) + np.maximum(actual - high, 0)
            scores.append([smape(actual, mean), np.mean(np.abs(actual - mean)) / scale,
                           smape(actual, plain), np.mean(np.abs(actual - plain)) / scale,
                           np.mean(high - low + 2 / 0.05 * missed) / scale, 100 * np.mean(missed == 0)])
        s, m, s2, m2, msis, cover = np.mean(scores, axis=0)
        print(f"| {name} | {len(known)} | {s:.2f} | {m:.3f} | {(s / s2 + m / m2) / 2:.3f} | {msis:.2f} | {cover:.1f} |")


if __name__ == "__main__":
    main()
