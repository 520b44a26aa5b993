package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Client is a connection to a QMP server that has negotiated. Its methods may be
// called from any goroutine.
type Client struct {
	conn   net.Conn
	events func(ClientEvent)

	mu      sync.Mutex
	next    int64
	waiting map[int64]chan reply
	err     error // why the connection ended
}

// ClientEvent is an event as a client hears it.
type ClientEvent struct {
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
	ID     *int64          `json:"id"`
	ClientEvent
}

// Dial connects to the Unix socket at path and negotiates. events is called for
// each event, one after the other, nil if nobody wants them; it must not call Do.
func Dial(ctx context.Context, path string, events func(ClientEvent)) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, conn, events)
}

// NewClient negotiates on conn, which is closed if that fails.
func NewClient(ctx context.Context, conn net.Conn, events func(ClientEvent)) (*Client, error) {
	c := &Client{conn: conn, events: events, waiting: map[int64]chan reply{}}
	in := json.NewDecoder(conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	var hello struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := in.Decode(&hello); err != nil || hello.QMP == nil {
		stop()
		return nil, errors.Join(fmt.Errorf("qmp: no greeting: %w", errors.Join(err, ctx.Err())), conn.Close())
	}
	stop()
	go c.read(in)
	if err := c.Do(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *Client) read(in *json.Decoder) {
	for {
		var r reply
		if err := in.Decode(&r); err != nil {
			c.mu.Lock()
			c.err = fmt.Errorf("qmp: the connection ended: %w", err)
			for id, w := range c.waiting {
				close(w)
				delete(c.waiting, id)
			}
			c.mu.Unlock()
			return
		}
		switch {
		case r.Event != "":
			if c.events != nil {
				c.events(r.ClientEvent)
			}
		case r.ID != nil:
			c.mu.Lock()
			w := c.waiting[*r.ID]
			delete(c.waiting, *r.ID)
			c.mu.Unlock()
			if w != nil {
				w <- r
			}
		}
	}
}

// Do runs a command with args, which become JSON (nil: none), and puts the answer
// into answer (nil: it is dropped). A command's failure is an *Error.
func (c *Client) Do(ctx context.Context, command string, args, answer any) error {
	w := make(chan reply, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.next++
	id := c.next
	c.waiting[id] = w
	c.mu.Unlock()
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int64  `json:"id"`
	}{command, args, id})
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(append(request, '\n')); err != nil {
		return fmt.Errorf("qmp: %w", err)
	}
	select {
	case r, ok := <-w:
		switch {
		case !ok:
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.err
		case r.Error != nil:
			return r.Error
		case answer != nil:
			return json.Unmarshal(r.Return, answer)
		}
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return ctx.Err()
	}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
