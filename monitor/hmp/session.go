package hmp

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// Prompt is what a session asks with, QEMU's own: programs wait for it.
const Prompt = "(qemu) "

// maxHistory is how many lines a session remembers.
const maxHistory = 64

// RunFunc runs one line of a session and returns what it printed. It is done with
// what the command wants to happen afterwards when the function after is called.
type RunFunc func(s *State, line string) (out string, after []func())

// Session joins a person to an Interpreter: rw is a terminal in raw mode, or what
// leads to one. It edits lines, with history and completion (Tab).
type Session struct {
	Interpreter *Interpreter
	Run         RunFunc
	Banner      string // printed first

	state    *State
	terminal *term.Terminal
}

// Serve runs the session until rw ends, or Ctrl-C or Ctrl-D is typed.
func (s *Session) Serve(rw io.ReadWriter) error {
	s.state = NewState()
	s.terminal = term.NewTerminal(rw, Prompt)
	s.terminal.History = history{s.state}
	s.terminal.AutoCompleteCallback = s.key
	if _, err := io.WriteString(s.terminal, s.Banner); err != nil {
		return err
	}
	for {
		line, err := s.terminal.ReadLine()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
			return err
		}
		if strings.Trim(line, spaces) == "" {
			continue
		}
		out, after := s.Run(s.state, line)
		_, err = io.WriteString(s.terminal, out)
		for _, f := range after {
			f()
		}
		if err != nil {
			return err
		}
	}
}

// key completes at Tab: what all candidates have in common, else a list of them.
func (s *Session) key(line string, pos int, key rune) (newLine string, newPos int, ok bool) {
	if key != '\t' {
		return "", 0, false
	}
	word, candidates := s.Interpreter.Complete(line[:pos])
	if len(candidates) == 0 {
		return line, pos, true
	}
	to := common(candidates)
	switch {
	case len(candidates) == 1 && !strings.HasSuffix(to, "/"):
		to += " "
	case to == word:
		_, _ = fmt.Fprintf(s.terminal, "%s%s\n%s\n", Prompt, line, strings.Join(candidates, " "))
	}
	head := line[:pos-len(word)] + to
	return head + line[pos:], len(head), true
}

// history is a state's as the line editor wants it: 0 is the latest line.
type history struct{ s *State }

func (h history) Add(line string) {
	if line = strings.TrimSpace(line); line == "" {
		return
	}
	h.s.History = append(h.s.History, line)
	if n := len(h.s.History); n > maxHistory {
		h.s.History = h.s.History[n-maxHistory:]
	}
}

func (h history) Len() int        { return len(h.s.History) }
func (h history) At(i int) string { return h.s.History[len(h.s.History)-1-i] }
