package main

import (
	"strings"
	"testing"
)

// What the shell is told to offer: values, and file names where files are wanted
// and nowhere else.
func TestCompletion(t *testing.T) {
	const files, noFiles, list = ":0\n", ":4\n", ":6\n"
	t.Setenv("GNOMON_SERVER", "http://127.0.0.1:1")
	t.Setenv("GNOMON_SOCKET", "/nowhere/host.sock")
	for line, want := range map[string]string{
		"vm ls |":                       noFiles,
		"history plot |":                noFiles,
		"access rm |":                   noFiles,
		"vm request web1 |":             "cpu\nmemory\ndisk\nnetwork\n" + noFiles,
		"vm request web1 cpu |":         noFiles,
		"up --log-level |":              "debug\ninfo\nwarn\nerror\n" + noFiles,
		"host --guard-grace |":          noFiles,
		"lab run --half |":              "all\nchoose\nreport\n" + noFiles,
		"lab run --resources disk,|":    "disk,cpu\ndisk,memory\ndisk,network\n" + list,
		"history plot x --resource |":   "cpu\nmemory\ndisk\nnetwork\n" + list,
		"lab policies -o |":             "table\njson\n" + noFiles,
		"appliance build --for |":       "shadow\nguest\n" + noFiles,
		"forecast |":                    files,
		"forecast --output |":           files,
		"replay |":                      files,
		"lab compare |":                 files,
		"apply -f |":                    files,
		"server --etcd-password-file |": files,
	} {
		before, typed, _ := strings.Cut(line, "|")
		args := append([]string{"__complete"}, strings.Fields(before)...)
		if before != "" && !strings.HasSuffix(before, " ") { // the word under the cursor
			args, typed = args[:len(args)-1], args[len(args)-1]
		}
		out, err := gnomonCommand(append(args, typed)...)
		if offered, _, _ := strings.Cut(out, "Completion ended"); err != nil || offered != want {
			t.Errorf("gnomon %s offers %q (%v), want %q", line, offered, err, want)
		}
	}
}
