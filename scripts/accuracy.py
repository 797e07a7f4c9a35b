#!/usr/bin/python3
"""Writes docs/accuracy.md: how good each model's forecasts are on real traces.

    scripts/accuracy.py --gnomon bin/gnomon --traces DIR > docs/accuracy.md

DIR holds one folder a data set, with files as `gnomon forecast` reads them. The
references need Debian's python3-statsmodels; each of their forecasts is a search
for a model, so they are made at few moments of few series, and gnomon's at the
same ones.
"""
import argparse
import csv
import gzip
import io
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np

HORIZONS = [1, 5, 10, 30, 60]
LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
# One metric for each resource, by the names that the data sets have for it.
METRICS = ["cpu_pct", "cpu_norm", "mem_used_bytes", "mem_avail_bytes", "mem_pct", "mem_norm",
           "disk_write_bytes_s", "disk_write_norm", "disk_util_pct", "net_rx_bytes_s", "net_rx_norm",
           "cw_network_in_bytes", "cw_disk_write_bytes"]
RESAMPLES = 1000
WINDOW = 512  # newest values that a reference is fitted on


def backtest(gnomon, paths, origins, *more):
    """Runs the product's own backtest and returns its report."""
    out = subprocess.run(
        [gnomon, "forecast", "--backtest", "--format", "json", "--origins", str(origins),
         "--horizon", ",".join(map(str, HORIZONS)), "--quantiles", ",".join(map(str, LEVELS)), *more, *paths],
        check=True, stdout=subprocess.PIPE)
    return json.loads(out.stdout)


def table(report):
    """Results by model, then step."""
    out = {}
    for r in report["results"]:
        out.setdefault(r["model"], {})[int(r["step"])] = r
    return out


def regular(times, values):
    """Values at equal distances, NaN for rows that are absent."""
    interval = sorted(np.diff(times))[(len(times) - 1) // 2]
    out = [values[0]]
    for gap, v in zip(np.diff(times), values[1:]):
        out += [math.nan] * (min(2048, int(gap / interval + 0.5) - 1)) + [v]
    known = [i for i, v in enumerate(out) if not math.isnan(v)]
    return out[known[0]:known[-1] + 1] if known else []


def read(path):
    """The series of a file, by metric."""
    raw = open(path, "rb").read()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    rows = list(csv.reader(io.StringIO(raw.decode())))
    times = [float(r[0]) for r in rows[1:]]
    for i, name in enumerate(rows[0]):
        if name in METRICS and len(times) > 2 * HORIZONS[-1]:
            ys = regular(times, [float(r[i]) if r[i] else math.nan for r in rows[1:]])
            if len(set(ys)) > 2 and len(ys) > 2 * HORIZONS[-1]:
                yield name, ys


def sample(folder, most):
    """A few series of a data set, evenly from its files and metrics in turn."""
    files = sorted(os.path.join(d, f) for d, _, names in os.walk(folder) for f in names if f.endswith((".csv", ".csv.gz")))
    out = []
    for i in range(min(most, len(files))):
        series = list(read(files[i * len(files) // min(most, len(files))]))
        if series:
            name, ys = series[i % len(series)]
            out.append((os.path.basename(files[i * len(files) // min(most, len(files))]).split(".")[0] + "/" + name, ys))
    return out


def normal_quantiles(mean, deviation):
    from scipy.stats import norm
    return mean, np.array([[max(0.0, m + norm.ppf(q) * s) for q in LEVELS] for m, s in zip(mean, deviation)])


def auto_ets(ys):
    """Error, trend and damping by AICc (Hyndman et al. 2008)."""
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    ys = pd.Series(ys)
    best = None
    for trend, damped in ((None, False), ("add", False), ("add", True)):
        fit = ETSModel(ys, error="add", trend=trend, damped_trend=damped).fit(disp=False, maxiter=200)
        if best is None or fit.aicc < best.aicc:
            best = fit
    p = best.get_prediction(start=len(ys), end=len(ys) + HORIZONS[-1] - 1)
    return normal_quantiles(np.asarray(p.predicted_mean), np.sqrt(np.asarray(p.forecast_variance)))


def auto_arima(ys):
    """d by the KPSS test, p and q of at most 2 by AICc (Hyndman and Khandakar 2008)."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX
    from statsmodels.tsa.stattools import kpss
    d = 1 if kpss(ys, nlags="auto")[1] < 0.05 else 0
    best = None
    for p in range(3):
        for q in range(3):
            try:
                fit = SARIMAX(ys, order=(p, d, q), trend="n" if d else "c").fit(disp=False, maxiter=50)
            except (ValueError, np.linalg.LinAlgError):
                continue
            if np.isfinite(fit.aicc) and (best is None or fit.aicc < best.aicc):
                best = fit
    f = best.get_forecast(HORIZONS[-1])
    return normal_quantiles(np.asarray(f.predicted_mean), np.asarray(f.se_mean))


REFERENCES = {"statsmodels ETS": auto_ets, "statsmodels ARIMA": auto_arima}


def refer(task):
    """A reference's scores on one series, by step: MASE, pinball, coverage; how often it failed."""
    name, ys, scale, origins = task
    import statsmodels.tsa.api  # noqa: F401: it sets filters of its own
    warnings.filterwarnings("ignore")
    sums, failed = {h: [] for h in HORIZONS}, 0
    for origin in origins:
        past = np.array(ys[max(0, origin - WINDOW):origin])
        for i in range(len(past)):  # the references take no missing values
            if math.isnan(past[i]):
                past[i] = past[i - 1] if i else np.nanmean(past)
        size = np.nanstd(past) or 1.0
        try:
            mean, quantiles = REFERENCES[name](past / size)
            mean, quantiles = mean * size, quantiles * size
        except Exception:  # whatever a solver raises: the forecast is the last value
            failed += 1
            mean, quantiles = np.full(HORIZONS[-1], past[-1]), np.full((HORIZONS[-1], len(LEVELS)), past[-1])
        for h in HORIZONS:
            y, q = ys[origin + h - 1], quantiles[h - 1]
            if not math.isnan(y):
                loss = np.mean([l * (y - v) if y > v else (1 - l) * (v - y) for l, v in zip(LEVELS, q)])
                sums[h].append((abs(y - max(0, mean[h - 1])) / scale, loss / scale, float(q[0] <= y <= q[-1])))
    return name, failed, {h: np.mean(v, axis=0) for h, v in sums.items() if v}


def references(gnomon, folder, most, origins, pool):
    """Scores of gnomon and of the references at the same moments of the same series."""
    series = sample(folder, most)
    if not series:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as f:
        f.write("series\n")
        for name, ys in series:
            f.write(name + "," + ",".join("" if math.isnan(y) else repr(y) for y in ys) + "\n")
        f.flush()
        report = backtest(gnomon, [f.name], origins, "--wide", "--model", "auto,naive,seasonal-naive")
    out = table(report)
    values = dict(series)
    tasks = [(ref, values[s["series"]], s["scale"], s["origins"]) for ref in REFERENCES for s in report["series"]]
    by_model, failures = {}, {}
    for name, failed, scores in pool.imap_unordered(refer, tasks):
        failures[name] = failures.get(name, 0) + failed
        for h, s in scores.items():
            by_model.setdefault(name, {}).setdefault(h, []).append(s)
    for name, steps in by_model.items():
        out[name] = {h: dict(zip(("mase", "pinball", "coverage"), np.mean(v, axis=0))) for h, v in steps.items()}
    return out, len(report["series"]), sum(len(s["origins"]) for s in report["series"]), failures


def rows(results, best_of=None):
    """The lines of a table; of what is best in a column, in bold."""
    names = list(results)
    head = "| model | " + " | ".join(f"{m} {h}" for m in ("MASE", "pinball", "coverage") for h in HORIZONS) + " |"
    lines = [head, "|---|" + "---:|" * (3 * len(HORIZONS))]
    least = {(m, h): min(results[n][h][m] for n in names if h in results[n]) for m in ("mase", "pinball") for h in HORIZONS
             if any(h in results[n] for n in names)}
    for n in names:
        cells = []
        for m in ("mase", "pinball", "coverage"):
            for h in HORIZONS:
                v = results[n].get(h, {}).get(m)
                text = "" if v is None else f"{v:.3f}" if m != "coverage" else f"{100 * v:.1f}"
                cells.append(f"**{text}**" if (m, h) in least and v is not None and v <= least[m, h] * 1.0005 else text)
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return lines


def beside_best(report, h):
    """auto's pinball loss over that of the model that is best at a step, and the
    lower end of its 95 % interval over the choice of series (Efron 1979)."""
    results = table(report)
    best = min(results, key=lambda m: results[m][h]["pinball"])
    losses = {m: np.array([r["pinball"] for s in report["series"] for r in s["results"] if r["model"] == m and int(r["step"]) == h],
                          dtype=float) for m in ("auto", best)}
    drawn = np.random.default_rng(1).integers(0, len(losses["auto"]), (RESAMPLES, len(losses["auto"])))
    ratios = np.nanmean(losses["auto"][drawn], axis=1) / np.nanmean(losses[best][drawn], axis=1)
    return results["auto"][h]["pinball"] / results[best][h]["pinball"], np.quantile(ratios, 0.025)


def summary(every):
    """auto's pinball loss over that of the best model, and its coverage."""
    lines = ["| data set | series | " + " | ".join(f"pinball {h}" for h in HORIZONS) + " | " + " | ".join(f"coverage {h}" for h in HORIZONS) + " |",
             "|---|---:|" + "---:|" * (2 * len(HORIZONS))]
    within = beyond_chance = 0
    for name, report in every.items():
        pairs = [beside_best(report, h) for h in HORIZONS]
        within += sum(r <= 1.02 for r, _ in pairs)
        beyond_chance += sum(least > 1.02 for _, least in pairs)
        auto = table(report)["auto"]
        lines.append(f"| {name} | {len(report['series'])} | " + " | ".join(f"{r:.3f}" + ("*" if least > 1.02 else "") for r, least in pairs) + " | "
                     + " | ".join(f"{100 * auto[h]['coverage']:.1f}" for h in HORIZONS) + " |")
    return lines, within, beyond_chance


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--gnomon", default="bin/gnomon")
    p.add_argument("--traces", required=True)
    p.add_argument("--origins", type=int, default=200)
    p.add_argument("--reference-series", type=int, default=4)
    p.add_argument("--reference-origins", type=int, default=2)
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    a = p.parse_args()
    folders = sorted(e.path for e in os.scandir(a.traces) if e.is_dir())
    if not folders:
        sys.exit(f"{a.traces}: no folder there: want one for each data set")
    every, beside = {}, {}
    with multiprocessing.Pool(a.jobs) as pool:
        for folder in folders:
            name = os.path.basename(folder)
            print(name, file=sys.stderr, flush=True)
            report = backtest(a.gnomon, [folder], a.origins, "--metric", ",".join(METRICS))
            every[name] = report
            beside[name] = references(a.gnomon, folder, a.reference_series, a.reference_origins, pool)
    version = subprocess.run([a.gnomon, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    lines, within, beyond_chance = summary(every)
    print(f"""# Accuracy

How good the forecasts are on traces of real machines, by `scripts/accuracy.py` (`make accuracy TRACES=…`) with {version}. The traces are not part of the project. Of each machine one metric a resource is a series; a series that never changes is left out.

Each series is forecast from up to {a.origins} moments of its second half, by a forecaster that saw what came before, value by value. The columns are steps ahead. MASE (Hyndman & Koehler 2006) is the mean error over the mean change from one value to the next; pinball is the mean loss of the quantiles {', '.join(map(str, LEVELS))}, in the same unit; coverage is the share of outcomes, in percent, between the first and the last of these: it is to be 90. All are means over the series of a data set. The least of a column is bold.

## auto beside the best model

auto's pinball loss over that of whichever single model is best there, known only afterwards: at most 1.02 in {within} of {len(every) * len(HORIZONS)} places. A star marks the {beyond_chance} in which it is more beyond chance: on 97.5 % of {RESAMPLES} resamples of the data set's series with replacement (Efron 1979). Then its coverage.
""")
    print("\n".join(lines))
    print(f"""
## Beside statsmodels

Of each data set up to {a.reference_series} series at {a.reference_origins} moments each, few enough for what a fit takes. ETS: error and trend additive, trend and damping by AICc; ARIMA: d by the KPSS test, p and q of at most 2 by AICc; both on the newest {WINDOW} values, quantiles normal, cut off at 0. With so few moments, differences of some percent are chance.
""")
    for name, result in beside.items():
        if result:
            results, n, moments, failures = result
            print(f"### {name}: {n} series, {moments} moments\n")
            print("\n".join(rows(results)))
            failed = ", ".join(f"{k} {v}" for k, v in failures.items() if v)
            print("\n" + (f"No fit, so the last value was taken: {failed}.\n" if failed else ""))
    print("## Every model\n")
    for name, report in every.items():
        print(f"### {name}: {len(report['series'])} series\n")
        print("\n".join(rows(table(report))) + "\n")


if __name__ == "__main__":
    main()
