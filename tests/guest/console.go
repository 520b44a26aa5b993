package guest

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Console is a hand at a guest's serial console: it types, and waits for what
// the guest says. One goroutine uses it.
type Console struct {
	keys io.Writer

	mu     sync.Mutex
	said   bytes.Buffer // all of it
	ended  bool
	more   chan struct{} // holds a token when said or ended has changed
	read   int           // how much of said has been waited for
	asking int           // number of the last command
}

// NewConsole reads what the guest says until screen ends, whether it is waited
// for or not, and types on keys.
func NewConsole(screen io.Reader, keys io.Writer) *Console {
	c := &Console{keys: keys, more: make(chan struct{}, 1)}
	go c.listen(screen)
	return c
}

func (c *Console) listen(screen io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := screen.Read(buf)
		c.mu.Lock()
		c.said.Write(buf[:n])
		c.ended = err != nil
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Said is everything that the guest has said so far.
func (c *Console) Said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// Type sends text as it is.
func (c *Console) Type(text string) error {
	_, err := io.WriteString(c.keys, text)
	return err
}

// Expect waits until the guest says what want matches, after all that was
// waited for before, and returns the text up to it and want's groups.
func (c *Console) Expect(want string, limit time.Duration) (before string, groups []string, err error) {
	pattern, err := regexp.Compile(want)
	if err != nil {
		return "", nil, err
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		text, ended := c.said.String()[c.read:], c.ended
		c.mu.Unlock()
		if at := pattern.FindStringSubmatchIndex(text); at != nil {
			c.read += at[1]
			return text[:at[0]], pattern.FindStringSubmatch(text), nil
		}
		if ended {
			return "", nil, fmt.Errorf("the console ended before %q", want)
		}
		select {
		case <-c.more:
		case <-timeout.C:
			return "", nil, fmt.Errorf("no %q within %s", want, limit)
		}
	}
}

// ExpectEnd waits until the guest says no more at all.
func (c *Console) ExpectEnd(limit time.Duration) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		ended := c.ended
		c.mu.Unlock()
		if ended {
			return nil
		}
		select {
		case <-c.more:
		case <-timeout.C:
			return fmt.Errorf("the console is still open after %s", limit)
		}
	}
}

// logins is how often Login tries: login(1) gives up after a minute, which a busy
// host may need for less.
const logins = 5

// Login asks for a login prompt, gives name and password, and gets a shell that
// neither prompts nor echoes, for Run.
func (c *Console) Login(name, password string, limit time.Duration) error {
	next := "\n"
	for range logins {
		if err := c.dialogue(limit, [][2]string{{"", next}, {`login: `, name + "\n"}, {`Password: `, password + "\n"}}); err != nil {
			return err
		}
		_, groups, err := c.Expect(`\$ |timed out`, limit)
		if err != nil {
			return err
		}
		if next = ""; groups[0] == "timed out" {
			continue
		}
		if err := c.dialogue(limit, [][2]string{{"", "exec sh\n"}, {`\$ `, "stty -echo; PS1=\n"}}); err != nil {
			return err
		}
		_, err = c.Run("true", limit)
		return err
	}
	return fmt.Errorf("login as %s timed out %d times", name, logins)
}

// dialogue types the second of each pair after the first has been said.
func (c *Console) dialogue(limit time.Duration, steps [][2]string) error {
	for _, step := range steps {
		if _, _, err := c.Expect(step[0], limit); err != nil {
			return err
		}
		if err := c.Type(step[1]); err != nil {
			return err
		}
	}
	return nil
}

// Run types a command line to the shell of Login and returns what it printed.
// A status other than 0 is an error.
func (c *Console) Run(command string, limit time.Duration) (string, error) {
	c.asking++
	// What is typed does not match what is waited for, should it be echoed.
	if err := c.Type(fmt.Sprintf("{ %s; } 2>&1; echo \"[$?\" 'end of %d]'\n", command, c.asking)); err != nil {
		return "", err
	}
	out, groups, err := c.Expect(fmt.Sprintf(`\[(\d+) end of %d\]\r?\n`, c.asking), limit)
	if err != nil {
		return out, fmt.Errorf("%s: %w", command, err)
	}
	out = strings.ReplaceAll(out, "\r\n", "\n")
	if status, _ := strconv.Atoi(groups[1]); status != 0 {
		return out, fmt.Errorf("%s: status %d: %s", command, status, out)
	}
	return out, nil
}
