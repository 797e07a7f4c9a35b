package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon/core/forecast"
)

// runForecast runs the command with a standard input.
func runForecast(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := forecastCommand()
	cmd.SetIn(strings.NewReader(in))
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// waves returns n wide rows, of lengths that differ, with a season of 12.
func waves(n int) string {
	b := strings.Builder{}
	b.WriteString("\"V1\",\"V2\",\"V3\"\n")
	for i := range n {
		fmt.Fprintf(&b, "\"S%d\"", i+1)
		for t := range 60 + 7*i {
			fmt.Fprintf(&b, ",%.3f", 50+20*math.Sin(2*math.Pi*float64(t+i)/12)+float64(t*t%7))
		}
		b.WriteString(strings.Repeat(",", 7*(n-1-i)) + "\n")
	}
	return b.String()
}

func TestForecastWide(t *testing.T) {
	out, err := runForecast(t, waves(5), "--wide", "--season", "12", "--horizon", "6", "--quantiles", "0.025,0.5,0.975")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rows[0], ","); got != "series,step,mean,q0.025,q0.5,q0.975" {
		t.Errorf("header %s", got)
	}
	if len(rows) != 1+5*6 {
		t.Fatalf("%d rows, want one for each of 5 series and 6 steps", len(rows)-1)
	}
	for i, row := range rows[1:] {
		if row[0] != fmt.Sprintf("S%d", i/6+1) || row[1] != strconv.Itoa(i%6+1) {
			t.Errorf("row %d is %v", i+1, row)
		}
		var v [4]float64
		for j := range v {
			if v[j], err = strconv.ParseFloat(row[2+j], 64); err != nil {
				t.Fatal(err)
			}
		}
		series, step := i/6, i%6
		want := 53 + 20*math.Sin(2*math.Pi*float64(60+7*series+step+series)/12)
		if math.Abs(v[0]-want) > 15 || v[1] > v[2] || v[2] > v[3] {
			t.Errorf("%v: want a mean of about %.0f and ascending quantiles", row, want)
		}
	}
	again, err := runForecast(t, waves(5), "--wide", "--season", "12", "--horizon", "6", "--quantiles", "0.025,0.5,0.975")
	if err != nil || again != out {
		t.Errorf("a second run gives something else: %v", err)
	}
}

func TestForecastFilesAndFolders(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a/one.csv": "t_s,cpu,mem\n0,1,5\n1,2,5\n2,1,6\n", "b/two.csv": "-5\n-4\n-6\n-5\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	names := func(args ...string) []string {
		out, err := runForecast(t, "", append(args, "--horizon", "1", "--format", "json")...)
		if err != nil {
			t.Fatal(err)
		}
		var got []forecastJSON
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range got {
			names = append(names, strings.TrimPrefix(f.Series, dir+"/"))
			if len(f.Mean) != 1 || len(f.Quantiles[0]) != len(f.Levels) {
				t.Errorf("got %+v", f)
			}
			if strings.HasSuffix(f.Series, "two") && f.Mean[0] > -1 {
				t.Errorf("a series below 0 is forecast at %v", f.Mean[0])
			}
		}
		return names
	}
	for want, args := range map[string][]string{
		"a/one/cpu a/one/mem b/two": {dir},
		"cpu mem":                   {filepath.Join(dir, "a/one.csv")},
		"a/one/mem":                 {dir, "--metric", "mem"},
		"a/one/cpu b/two":           {filepath.Join(dir, "a/one.csv"), filepath.Join(dir, "b/two.csv"), "--metric", "cpu,two"},
	} {
		if got := strings.Join(names(args...), " "); got != want {
			t.Errorf("%v: got %s, want %s", args, got, want)
		}
	}
}

func TestForecastRefuses(t *testing.T) {
	const short = "1\n2\n3\n"
	tests := map[string]struct {
		in, want string
		args     []string
	}{
		"nothing":                   {"", "stdin: empty file", nil},
		"a header only":             {"value\n", "stdin:1: series \"value\" has no value", nil},
		"text":                      {"1\nx\n", `stdin:2: value is "x": want a finite number`, nil},
		"ragged":                    {"a,b\n1,2\n3\n", "stdin:3: row has 1 fields: want 2", nil},
		"time goes back":            {"t_s,a\n2,1\n1,1\n", "stdin:3: t_s is 1 after 2", nil},
		"horizon beyond history":    {"id,v\na,1,2,3\n", `stdin:2: series "a": horizon 9 is longer than the series of 3 values`, []string{"--wide", "--horizon", "9"}},
		"season beyond series":      {short, `series "stdin": season 24 is longer than the series of 3 values`, []string{"--season", "24", "--horizon", "1"}},
		"season that is none":       {short, `--season "day": want steps of at least 1`, []string{"--season", "day"}},
		"an unknown model":          {short, `model "x" unknown: want one of auto`, []string{"--model", "x"}},
		"horizon out of range":      {short, "horizon 0 out of range", []string{"--horizon", "0"}},
		"quantiles out of range":    {short, "want ascending values between 0 and 1", []string{"--quantiles", "0.5,1"}},
		"several horizons":          {short, "--horizon: 2 given: want one", []string{"--horizon", "1,2"}},
		"descending horizons":       {short, "want ascending steps", []string{"--horizon", "2,1", "--backtest"}},
		"several models":            {short, "--model: 2 given: want one", []string{"--model", "naive,sma"}},
		"a format":                  {short, `--format "xml": want csv or json`, []string{"--format", "xml"}},
		"a table of forecasts":      {short, `--format "table"`, []string{"--format", "table"}},
		"a plot's ending":           {short, `--plot "a.gif": want a name that ends in .svg or .png`, []string{"--plot", "a.gif"}},
		"no such metric":            {short, "--metric cpu: no series of that name", []string{"--metric", "cpu"}},
		"too short for a backtest":  {short, "want more than the horizon of 3", []string{"--backtest", "--horizon", "3"}},
		"a constant for a backtest": {"5\n5\n5\n", "all series are constant", []string{"--backtest", "--horizon", "1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out")
			args := append(test.args, "--output", path)
			if test.args == nil {
				args = append(args, "--horizon", "1")
			}
			out, err := runForecast(t, test.in, args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			if _, err := os.Stat(path); out != "" || !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something was written: %q", out)
			}
		})
	}
	if _, err := runForecast(t, "", filepath.Join(t.TempDir(), "none.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestBacktestTellsModelsApart(t *testing.T) {
	out, err := runForecast(t, waves(3), "--wide", "--backtest", "--season", "12", "--horizon", "1,6", "--origins", "20", "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got backtestReport
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Results) != 2*len(forecast.Models()) || len(got.Series) != 3 || *got.Nominal != 0.95 {
		t.Fatalf("got %s", out)
	}
	sums := make([]float64, len(got.Results))
	for _, series := range got.Series {
		for i, r := range series.Results {
			sums[i] += *r.Pinball / 3
		}
	}
	far := map[string]float64{}
	for i, r := range got.Results {
		if math.Abs(sums[i]-*r.Pinball) > 1e-9 {
			t.Errorf("%s, step %s: pinball loss %g, on average over the series %g", r.Model, r.Step, *r.Pinball, sums[i])
		}
		if r.Outcomes != 60 || *r.Coverage < 0 || *r.Coverage > 1 || *r.Pinball <= 0 || *r.Interval <= 0 || *r.SMAPE <= 0 {
			t.Errorf("result %+v", r)
		}
		if r.Step == "6" {
			far[r.Model] = *r.MASE
		}
	}
	if far["seasonal-naive"] > far["naive"]/2 || far["auto"] > far["naive"]/2 {
		t.Errorf("in a season of 12, six steps ahead: %v", far)
	}
}

func TestBacktestFormats(t *testing.T) {
	args := []string{"--wide", "--backtest", "--horizon", "3", "--origins", "5", "--model", "naive,ses"}
	table, err := runForecast(t, waves(2), args...)
	if err != nil || !strings.HasPrefix(table, "2 series; coverage is to be 0.95.") || !strings.Contains(table, "ses    1-3") {
		t.Errorf("%v\n%s", err, table)
	}
	text, err := runForecast(t, waves(2), append(args, "--format", "csv", "--quantiles", "0.5")...)
	if err != nil || !strings.HasPrefix(text, "model,step,mase,smape,pinball,coverage,interval_score,outcomes\nnaive,1-3,") || !strings.Contains(text, ",,,30\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestForecastPlot(t *testing.T) {
	dir := t.TempDir()
	plot, result := filepath.Join(dir, "f.svg"), filepath.Join(dir, "f.csv")
	if _, err := runForecast(t, waves(14), "--wide", "--horizon", "6", "--plot", plot, "--output", result); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(plot)
	if err != nil || !bytes.Contains(image, []byte(">S12 (")) || bytes.Contains(image, []byte(">S13 (")) || !bytes.Contains(image, []byte("first 12 of 14")) {
		t.Errorf("want the first 12 series in the image: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	_, err = runForecast(t, "1\n2\n", "--horizon", "1", "--output", filepath.Join(dir, "none", "f.csv"))
	if err == nil || !strings.Contains(err.Error(), filepath.Join("none", "f.csv")) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
