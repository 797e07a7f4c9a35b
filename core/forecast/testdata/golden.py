#!/usr/bin/python3
"""Writes golden.json: forecasts and fits by statsmodels on fixed series.

Run with Debian's python3-statsmodels (0.13.5): /usr/bin/python3 golden.py > golden.json
"given" cases hold parameters and starting states, and the forecasts that follow
from them; "fitted" ones the least squared error statsmodels reached by itself.
"""
import json
import sys
import warnings

import numpy as np
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.theta import ThetaModel
from statsmodels.tsa.holtwinters import ExponentialSmoothing
from statsmodels.tsa.statespace.sarimax import SARIMAX

warnings.filterwarnings("ignore")
HORIZON = 18

# Monthly totals of international airline passengers, 1949 to 1960, thousands
# (Box and Jenkins 1976, series G).
AIRLINE = """
112 118 132 129 121 135 148 148 136 119 104 118 115 126 141 135 125 149 170 170 158 133 114 140
145 150 178 163 172 178 199 199 184 162 146 166 171 180 193 181 183 218 230 242 209 191 172 194
196 196 236 235 229 243 264 272 237 211 180 201 204 188 235 227 234 264 302 293 259 229 203 229
242 233 267 269 270 315 364 347 312 274 237 278 284 277 317 313 318 374 413 405 355 306 271 306
315 301 356 348 355 422 465 467 404 347 305 336 340 318 362 348 363 435 491 505 404 359 310 337
360 342 406 396 420 472 548 559 463 407 362 405 417 391 419 461 472 535 622 606 508 461 390 432
"""


def series():
    r = np.random.RandomState(7)
    t = np.arange(240)
    out = {"airline": (np.array(AIRLINE.split(), float), 12)}
    out["trend"] = (200 + 1.5 * t[:100] + r.normal(0, 8, 100), 0)
    out["noise"] = (100 + r.normal(0, 10, 120), 0)
    out["season"] = (300 + 0.3 * t[:96] + 60 * np.sin(2 * np.pi * t[:96] / 12) + r.normal(0, 9, 96), 12)
    e = r.normal(0, 10, 300)
    ar = np.zeros(300)
    for i in range(2, 300):
        ar[i] = 1.2 * ar[i - 1] - 0.5 * ar[i - 2] + e[i]
    out["ar"] = (400 + ar, 0)
    day = 40 + 30 * np.sin(2 * np.pi * (t - 6) / 24) + 90 * ((t % 24) == 3)
    walk = np.cumsum(r.normal(0, 1.5, 240))
    out["demand"] = (np.maximum(5, 60 + day + walk + r.normal(0, 6, 240)), 24)
    return {k: (np.round(v, 2), p) for k, (v, p) in out.items()}


def smoothing(name, y, period, model, trend, damped, seasonal, given, phi=None):
    kw = dict(trend=trend, damped_trend=damped, seasonal=seasonal)
    if seasonal:
        kw["seasonal_periods"] = period
    init = dict(initial_level=float(np.mean(y[:8])))
    if trend:
        init["initial_trend"] = float((y[7] - y[0]) / 7)
    if seasonal:
        first, mean = y[:period], np.mean(y[:period])
        init["initial_level"] = float(mean)
        init["initial_seasonal"] = [float(v) for v in (first - mean if seasonal == "add" else first / mean)]
    steps = HORIZON
    if seasonal == "add":
        res = by_states(y, period, damped, seasonal, given, init)
    else:
        # The last phase lacks its last update in 0.13's forecasts: leave it out.
        steps = min(HORIZON, period - 1) if seasonal else HORIZON
        res = ExponentialSmoothing(y, initialization_method="known", **kw, **init).fit(optimized=False, **given)
    m = ExponentialSmoothing(y, initialization_method="estimated", **kw)
    if phi:
        with m.fix_params({"damping_trend": phi}):
            best = m.fit()
    else:
        best = m.fit()
    return dict(series=name, model=model, given=given, init=init, forecast=list(res.forecast(steps)),
                sse=float(res.sse), fitted_sse=float(best.sse))


def by_states(y, period, damped, seasonal, given, init):
    """ETSModel, whose forecasts of the last phase have its last update, unlike
    ExponentialSmoothing's in 0.13."""
    m = ETSModel(y, error="add", trend="add", damped_trend=damped, seasonal=seasonal, seasonal_periods=period,
                 initialization_method="known", **init)
    return m.smooth([given["smoothing_level"], given["smoothing_level"] * given["smoothing_trend"],
                     given["smoothing_seasonal"], given["damping_trend"]])


def theta(name, y, period):
    mod = ThetaModel(y, period=period or None, deseasonalize=period > 0, use_test=False, method="auto")
    res = mod.fit()
    f = np.asarray(res.forecast(HORIZON))
    return dict(series=name, model="theta", given=dict(alpha=float(res.params["alpha"]), drift=float(res.params["b0"]),
                one_step=float(res._one_step)), forecast=list(f))


def arima(name, y, period, ar, d, ma, seasonal_d, trend, params):
    kw = dict(order=(ar or 0, d, ma or 0), trend=trend)
    if seasonal_d:
        kw["seasonal_order"] = (0, seasonal_d, 0, period)
    m = SARIMAX(y, **kw)
    f = m.smooth(params).forecast(HORIZON)
    s = SARIMAX(y, simple_differencing=True, **kw)
    best = s.fit(disp=False, maxiter=500)
    return dict(series=name, model="arima", given=dict(zip(m.param_names, params)), d=d, seasonal_d=seasonal_d,
                ar=ar, ma=ma, forecast=list(f), fitted=dict(zip(s.param_names, map(float, best.params))),
                fitted_loglike=float(best.llf))


def main():
    data = series()
    cases = []
    for name, (y, period) in data.items():
        cases.append(smoothing(name, y, period, "ses", None, False, None, dict(smoothing_level=0.35)))
        cases.append(smoothing(name, y, period, "holt", "add", False, None, dict(smoothing_level=0.4, smoothing_trend=0.1)))
        cases.append(smoothing(name, y, period, "holt-damped", "add", True, None,
                               dict(smoothing_level=0.4, smoothing_trend=0.2, damping_trend=0.9)))
        if period:
            for model, kind in (("holt-winters", "add"), ("holt-winters-mul", "mul")):
                cases.append(smoothing(name, y, period, model, "add", True, kind,
                                       dict(smoothing_level=0.3, smoothing_trend=0.1, smoothing_seasonal=0.2, damping_trend=0.98),
                                       phi=0.98))
        cases.append(theta(name, y, period))
    y = {k: v[0] for k, v in data.items()}
    cases.append(arima("ar", y["ar"], 0, [1, 2], 0, None, 0, "c", [120.0, 1.2, -0.5, 100.0]))
    cases.append(arima("noise", y["noise"], 0, [1], 0, [1], 0, "c", [50.0, 0.5, -0.3, 100.0]))
    cases.append(arima("trend", y["trend"], 0, [1], 1, None, 0, "c", [1.5, -0.4, 64.0]))
    cases.append(arima("demand", y["demand"], 24, None, 1, [1], 1, "n", [-0.3, 60.0]))
    cases.append(arima("airline", y["airline"], 12, None, 1, [1, 12], 1, "n", [-0.4, -0.15, 130.0]))
    out = dict(series={k: dict(values=list(v), period=p) for k, (v, p) in data.items()}, cases=cases)
    json.dump(out, sys.stdout, indent=None, separators=(",", ":"), default=float)
    print()


if __name__ == "__main__":
    main()
