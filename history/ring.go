package history

// ring is a queue of points that forgets the oldest when it is full.
type ring struct {
	buf  []Point
	head int // of the oldest
	n    int
}

func (r *ring) len() int { return r.n }

// push adds points, growing up to limit, and returns how many of the oldest,
// queued or new, were forgotten.
func (r *ring) push(points []Point, limit int) (lost int) {
	for _, p := range points {
		if r.n == len(r.buf) && r.n < limit {
			r.grow(min(limit, max(64, 2*r.n)))
		}
		if r.n == limit {
			r.head = (r.head + 1) % len(r.buf)
			r.n--
			lost++
		}
		r.buf[(r.head+r.n)%len(r.buf)] = p
		r.n++
	}
	return lost
}

// pop takes up to n of the oldest.
func (r *ring) pop(n int) []Point {
	n = min(n, r.n)
	if n == 0 {
		return nil
	}
	out := make([]Point, n)
	for i := range out {
		j := (r.head + i) % len(r.buf)
		out[i], r.buf[j] = r.buf[j], Point{} // let go of the labels
	}
	r.head = (r.head + n) % len(r.buf)
	r.n -= n
	return out
}

func (r *ring) grow(size int) {
	buf := make([]Point, size)
	for i := range r.n {
		buf[i] = r.buf[(r.head+i)%len(r.buf)]
	}
	r.buf, r.head = buf, 0
}
