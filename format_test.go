package gnomon_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		r      gnomon.Resource
		amount int64
		want   string
	}{
		{gnomon.CPU, 620, "0.62 cores"},
		{gnomon.CPU, 0, "0 cores"},
		{gnomon.CPU, 1000, "1 core"},
		{gnomon.CPU, 1234, "1.23 cores"},
		{gnomon.CPU, 5, "0.005 cores"},
		{gnomon.CPU, -1, "unlimited"},
		{gnomon.Memory, 256 << 20, "256 MiB"},
		{gnomon.Memory, 1536 << 20, "1.5 GiB"},
		{gnomon.Memory, 1023 << 20, "1023 MiB"},
		{gnomon.Memory, 12, "12 B"},
		{gnomon.Disk, 1200000, "1.2 MB/s"},
		{gnomon.Network, 999, "999 B/s"},
		{gnomon.Memory, -(3 << 20), "-3 MiB"},
	} {
		if got := gnomon.Format(c.r, c.amount); got != c.want {
			t.Errorf("Format(%v, %d) = %q, want %q", c.r, c.amount, got, c.want)
		}
	}
}

func TestFormatLabels(t *testing.T) {
	if got := gnomon.FormatLabels(map[string]string{"zone": "a", "disk": "ssd"}); got != "disk=ssd,zone=a" {
		t.Errorf("got %q", got)
	}
	if got := gnomon.FormatLabels(nil); got != "none" {
		t.Errorf("of none: %q", got)
	}
}

func TestParseAmount(t *testing.T) {
	for _, c := range []struct {
		r    gnomon.Resource
		text string
		want int64
	}{
		{gnomon.CPU, "500m", 500},
		{gnomon.CPU, "0.5", 500},
		{gnomon.CPU, "2", 2000},
		{gnomon.CPU, " 1.5 cores ", 1500},
		{gnomon.CPU, "1 core", 1000},
		{gnomon.Memory, "256MiB", 256 << 20},
		{gnomon.Memory, "256 mib", 256 << 20},
		{gnomon.Memory, "1GB", 1e9},
		{gnomon.Memory, "4096", 4096},
		{gnomon.Disk, "1MB/s", 1e6},
		{gnomon.Disk, "1MiB/s", 1 << 20},
		{gnomon.Network, "100Mbit/s", 12500000},
		{gnomon.Network, "7", 7},
	} {
		got, err := gnomon.ParseAmount(c.r, c.text)
		if err != nil || got != c.want {
			t.Errorf("ParseAmount(%v, %q) = %d, %v, want %d", c.r, c.text, got, err, c.want)
		}
	}
}

func TestParseAmountErrors(t *testing.T) {
	for _, c := range []struct {
		r           gnomon.Resource
		text, wants string
	}{
		{gnomon.CPU, "", "want a number"},
		{gnomon.CPU, "-1", "want a number"},
		{gnomon.CPU, "fast", "want a number"},
		{gnomon.CPU, "1..2", "want a number"},
		{gnomon.CPU, "5MiB", `unknown unit "MiB"`},
		{gnomon.CPU, "5M", `unknown unit "M"`},
		{gnomon.Memory, "5 cores", "unknown unit"},
		{gnomon.Memory, "1MB/s", "unknown unit"},
		{gnomon.Disk, "1MB", "unknown unit"},
		{gnomon.Disk, "1Mbit/s", "unknown unit"},
		{gnomon.Memory, "99999999TiB", "too large"},
		{gnomon.Resource(9), "1", "unknown resource"},
	} {
		_, err := gnomon.ParseAmount(c.r, c.text)
		if err == nil || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("ParseAmount(%v, %q): error %v, want one with %q", c.r, c.text, err, c.wants)
		}
	}
}

// What Format writes, ParseAmount reads back to within its rounding.
func TestFormatParseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := gnomon.Resource(rapid.IntRange(0, gnomon.NumResources-1).Draw(t, "resource"))
		amount := rapid.Int64Range(0, 1<<46).Draw(t, "amount")
		got, err := gnomon.ParseAmount(r, gnomon.Format(r, amount))
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(float64(got-amount)) > 0.006*float64(amount) {
			t.Fatalf("%d reads back as %d", amount, got)
		}
	})
}
