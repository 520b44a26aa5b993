package clock

import "container/heap"

// entry is one timer in a queue.
type entry struct {
	deadline uint64
	seq      uint64 // earlier Set first among equal deadlines
	index    int    // in the heap; -1 while disarmed
	fire     func()
}

// queue orders armed timers by deadline.
type queue struct {
	heap entries
	seq  uint64
}

func (q *queue) set(e *entry, deadline uint64) {
	q.seq++
	e.deadline, e.seq = deadline, q.seq
	if e.index >= 0 {
		heap.Fix(&q.heap, e.index)
		return
	}
	heap.Push(&q.heap, e)
}

func (q *queue) remove(e *entry) {
	if e.index >= 0 {
		heap.Remove(&q.heap, e.index)
	}
}

// due takes out the first timer whose deadline is not after now, or returns nil.
func (q *queue) due(now uint64) *entry {
	if len(q.heap) == 0 || q.heap[0].deadline > now {
		return nil
	}
	return heap.Pop(&q.heap).(*entry)
}

// entries implements heap.Interface.
type entries []*entry

func (h entries) Len() int { return len(h) }
func (h entries) Less(i, j int) bool {
	if h[i].deadline != h[j].deadline {
		return h[i].deadline < h[j].deadline
	}
	return h[i].seq < h[j].seq
}
func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *entries) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *entries) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = -1
	return e
}
