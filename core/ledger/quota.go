package ledger

import "fmt"

// quota is what the entries of one account may have ahead of demand of one
// resource, what they have, and how far a lower quota or another entry, not a
// grant, has put that above it.
type quota struct {
	limit, ahead, over int64
}

// check verifies the quota against the sum of what its entries have ahead.
func (q *quota) check(ahead int64) error {
	switch {
	case q == nil:
		return nil
	case q.ahead != ahead:
		return fmt.Errorf("entries have %d ahead of demand, the quota counts %d", ahead, q.ahead)
	case ahead > q.limit+q.over:
		return fmt.Errorf("granted %d ahead of demand, the quota is %d", ahead-q.over, q.limit)
	}
	return nil
}

// Ahead returns what the entry has ahead of demand: what is reserved, and what
// of the allocation is prepared.
func (e *Entry) Ahead() int64 { return e.reserved.amount + e.prepared.amount }

// Room returns what the entry's account may have more ahead of demand: less
// than 0 while it has more than its quota, MaxAmount if it has no quota.
func (e *Entry) Room() int64 {
	if e.quota == nil {
		return MaxAmount
	}
	return e.quota.limit - e.quota.ahead
}

// SetAccount moves the entry to another account, whatever that one's quota.
func (e *Entry) SetAccount(account string) {
	if account != e.account {
		e.leave()
		e.join(account)
	}
}

// join counts what the entry has ahead for an account, whose quota it may exceed.
func (e *Entry) join(account string) {
	e.account, e.quota, e.counted = account, e.page().quotas[account], 0
	if q := e.quota; q != nil {
		e.count()
		q.over = max(0, q.ahead-q.limit)
	}
}

// leave takes what the entry has ahead off its account's count.
func (e *Entry) leave() {
	if q := e.quota; q != nil {
		q.ahead -= e.counted
		q.settled()
	}
	e.quota, e.counted = nil, 0
}

// count brings the quota's count up to what the entry has ahead.
func (e *Entry) count() {
	if q := e.quota; q != nil {
		q.ahead += e.Ahead() - e.counted
		e.counted = e.Ahead()
		q.settled()
	}
}

// settled takes back the licence to exceed the limit as far as it is not needed
// any more.
func (q *quota) settled() { q.over = min(q.over, max(0, q.ahead-q.limit)) }
