package qmp

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A session is a text file, a step a line:
//
//	# …                what it is about
//	qemu-img …         runs in the folder of each VM before it is started
//	berth …            further flags of berth run; the folder is the working directory
//	qemu …             further flags of QEMU
//	{"execute": …}     a command; the shapes of the answers are compared
//	= {"execute": …}   likewise, and their values and error texts
//	event NAME         waits for an event of each, and compares their data's shapes
//	fd ro|rw FILE      the next command brings a descriptor of FILE, opened so
//	reconnect          the client hangs up and calls again
//	end                ends both, and compares which events came that no step waited for; may be left out
//	! THIS | REASON    the step before differs so, and why
//
// A difference that has no line, and a line whose difference is none, fail the test.
// $KERNEL and $INITRD are Debian's, for who needs a guest that does something; what
// runs else only halts. Both VMs begin paused.
type session struct {
	name        string
	images      []string
	berth, qemu []string
	steps       []step
}

type step struct {
	line   int
	kind   stepKind
	text   string   // the command; the event's name; "ro FILE"
	values bool     // they are compared too
	listed []listed // differences
}

type stepKind uint8

const (
	stepCommand stepKind = iota
	stepEvent
	stepDescriptor
	stepReconnect
	stepEnd
)

// listed is a difference that there is to be.
type listed struct{ what, reason string }

func parseListed(s string) (listed, error) {
	what, reason, ok := strings.Cut(s, " | ")
	if !ok || strings.TrimSpace(reason) == "" {
		return listed{}, fmt.Errorf("%q gives no reason", s)
	}
	return listed{strings.TrimSpace(what), strings.TrimSpace(reason)}, nil
}

func readSession(path string) (*session, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &session{name: strings.TrimSuffix(filepath.Base(path), ".qmp")}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for n := 1; in.Scan(); n++ {
		if err := s.line(n, strings.TrimSpace(in.Text())); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	if n := len(s.steps); n == 0 || s.steps[n-1].kind != stepEnd {
		s.add(step{kind: stepEnd})
	}
	return s, in.Err()
}

func (s *session) add(st step) { s.steps = append(s.steps, st) }

func (s *session) line(n int, text string) error {
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case text == "", word == "#":
	case word == "qemu-img":
		s.images = append(s.images, rest)
	case word == "berth":
		s.berth = append(s.berth, strings.Fields(rest)...)
	case word == "qemu":
		s.qemu = append(s.qemu, strings.Fields(rest)...)
	case word == "event":
		s.add(step{line: n, kind: stepEvent, text: rest})
	case word == "fd":
		s.add(step{line: n, kind: stepDescriptor, text: rest})
	case word == "reconnect":
		s.add(step{line: n, kind: stepReconnect})
	case word == "end":
		s.add(step{line: n, kind: stepEnd})
	case word == "=":
		s.add(step{line: n, kind: stepCommand, text: rest, values: true})
	case text[0] == '{':
		s.add(step{line: n, kind: stepCommand, text: text})
	case word == "!" && len(s.steps) > 0:
		l, err := parseListed(rest)
		at := &s.steps[len(s.steps)-1]
		at.listed = append(at.listed, l)
		return err
	default:
		return fmt.Errorf("%q is no step", text)
	}
	return nil
}

// TestTranscripts has the sessions of testdata.
func TestTranscripts(t *testing.T) {
	needQEMU(t)
	paths, err := filepath.Glob("testdata/*.qmp")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no sessions (%v)", err)
	}
	berth := buildBerth(t)
	for _, p := range paths {
		s, err := readSession(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(s.name, func(t *testing.T) { s.hold(t, berth) })
	}
}

// hold has the session with both, and compares.
func (s *session) hold(t *testing.T, berth string) {
	ours, theirs := startBoth(t, s, berth)
	for _, st := range s.steps {
		var found []string
		switch st.kind {
		case stepCommand:
			a, err := ours.command(st.text)
			b, err2 := theirs.command(st.text)
			if err != nil || err2 != nil {
				t.Fatalf("line %d: berth: %v; QEMU: %v", st.line, err, err2)
			}
			found = differences(a, b, st.values)
			if testing.Verbose() {
				t.Logf("line %d: %s\nberth: %v\nQEMU:  %v", st.line, st.text, encode(a), encode(b))
			}
		case stepEvent:
			a, err := ours.event(st.text)
			b, err2 := theirs.event(st.text)
			if err != nil || err2 != nil {
				t.Fatalf("line %d: berth: %v; QEMU: %v", st.line, err, err2)
			}
			found = differences(a, b, st.values)
		case stepDescriptor:
			ours.bring(t, st.text)
			theirs.bring(t, st.text)
		case stepReconnect:
			ours.reconnect(t)
			theirs.reconnect(t)
		case stepEnd:
			found = eventDifferences(ours.unexpected(), theirs.unexpected())
		}
		judge(t, fmt.Sprintf("line %d", st.line), found, st.listed)
	}
}

// judge compares the differences that there are with those that are listed.
func judge(t *testing.T, where string, found []string, list []listed) {
	t.Helper()
	left := map[string]bool{}
	for _, l := range list {
		left[l.what] = true
	}
	for _, f := range found {
		if !left[f] {
			t.Errorf("%s: a difference that is not listed:\n! %s | REASON", where, f)
		}
		delete(left, f)
	}
	for l := range left {
		t.Errorf("%s: no difference any more: %s", where, l)
	}
}
