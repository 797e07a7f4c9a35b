package pressure

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// monotonic reads the clock that the kernel's programs read, in nanoseconds.
func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return uint64(t.Nano())
}

// since is the time from then to now, 0 if then is later.
func since(now, then uint64) time.Duration {
	return time.Duration(now - min(now, then))
}

type threadTimes struct{ run, wait time.Duration }

// schedstat reads how long a thread ran, and was ready to run and did not, up
// to when it last ran.
func schedstat(tid int) (t threadTimes, err error) {
	path := "/proc/" + strconv.Itoa(tid) + "/schedstat"
	text, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	if _, err := fmt.Sscan(string(text), &t.run, &t.wait); err != nil {
		return t, fmt.Errorf("parse %s: %w", path, err)
	}
	return t, nil
}

func (o *kernelOnset) decode(b []byte) bool {
	n, err := binary.Decode(b, binary.NativeEndian, o)
	return err == nil && n <= len(b)
}
