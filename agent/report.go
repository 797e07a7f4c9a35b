package agent

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// reportEvery is the time between two exchanges that are told to the host. The
// console gets none but at debug: it is a file of bounded size.
const reportEvery = 10 * time.Second

// reporter thins the log that goes to the host: one request with its answer
// per reportEvery of the events' time.
type reporter struct {
	last   time.Time
	open   bool // the answer to the request told last is to be told too
	silent int  // requests not told since
}

// due reports whether a line is to be told; at is the event's time, zero for an
// answer.
func (r *reporter) due(at time.Time) (tell bool, silent int) {
	if at.IsZero() {
		tell, r.open = r.open, false
		return tell, 0
	}
	if gap := at.Sub(r.last); gap >= 0 && gap < reportEvery {
		r.silent++
		r.open = false
		return false, 0
	}
	silent, r.silent = r.silent, 0
	r.last, r.open = at, true
	return true, silent
}

// tell tells the host, at a low rate, of a request or an answer. An empty text is none.
func (a *Agent) tell(at time.Time, text string) error {
	if text == "" {
		return nil
	}
	a.opts.Log.Debug(text)
	due, silent := a.report.due(at)
	if !due {
		return nil
	}
	if silent > 0 {
		text = fmt.Sprintf("%s (%d requests before it not told)", text, silent)
	}
	if len(text) > wire.MaxLog {
		text = strings.ToValidUTF8(text[:wire.MaxLog], "")
	}
	return a.conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Log{Log: &agentpb.Log{
		Level: int32(slog.LevelInfo), Text: text,
	}}})
}

// requestText puts what a proposal asks for into words, empty if it asks for
// nothing.
func requestText(p gnomon.Proposal) string {
	var b strings.Builder
	for _, w := range p.Wants {
		if w.Level > 0 {
			fmt.Fprintf(&b, " %v=%d(high=%d,in=%v,for=%v,%s)", w.Resource, w.Level, w.High, w.NeedIn, w.Lifetime, w.Model)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("request %d:%s", p.Seq, b.String())
}

func answerText(a gnomon.Answer) string {
	var b strings.Builder
	for _, g := range a.Grants {
		fmt.Fprintf(&b, " %v=%s(%d of %d: %s)", g.Resource, g.Verdict, g.Got, g.Asked, g.Reason)
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("answer %d:%s", a.Seq, b.String())
}
