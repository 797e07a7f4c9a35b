package broker_test

import (
	"fmt"
	"strings"
)

// story tells what happened to one resource, for a failure's message.
func (w *world) story() string {
	var s strings.Builder
	for i, e := range w.log {
		if text := show(w.outcomes[i]); text != "{}" {
			fmt.Fprintf(&s, "%s\n\t=> %s\n", show(e), text)
		} else {
			fmt.Fprintln(&s, show(e))
		}
	}
	return s.String()
}
