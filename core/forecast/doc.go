// Package forecast predicts one demand series online, as quantiles over a
// horizon, with a set of models and a selection between them by their recent
// out-of-sample error.
//
// A Forecaster is given equally spaced samples one at a time. Every model
// learns from each of them in constant or window-bounded time, is refitted
// rarely on a bounded window, once the sample's forecast is made, and is scored
// on what it had forecast. Residuals
// of those scores give the quantiles, and adaptive conformal inference keeps
// their coverage. Nothing here does I/O, reads a clock or draws random numbers:
// the same samples give the same forecasts.
//
// To add a model: implement the model interface in a file of its own and name
// it in the catalogue in models.go.
package forecast
