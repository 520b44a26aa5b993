package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the tests' table has beside the commands of every table.
type (
	color string

	greetArgs struct {
		Name  string   `json:"name"`
		Times *int32   `json:"times"`
		Color *color   `json:"color"`
		Also  []string `json:"also,omitempty"`
	}
	shapeArgs struct {
		Driver color    `json:"driver" qmp:"tag"`
		Node   *string  `json:"node-name"`
		Red    *redArgs `json:"-" qmp:"case=red"`
	}
	redArgs struct {
		File nodeRef `json:"file"`
	}
	nodeRef struct {
		Alternate
		Definition *shapeArgs
		Reference  *string
		None       *Null
	}
	change struct {
		Actual int64 `json:"actual"`
	}
)

func (color) Values() []string { return []string{"red", "green"} }

func testServer(t *testing.T, block chan struct{}) *Server {
	t.Helper()
	table, err := NewTable(Version{QEMU: Triple{22, 2, 7}, Package: "test"}, []Command{
		Define("greet", "Greets.", func(_ *Call, a *greetArgs) (string, error) {
			if a.Name == "nobody" {
				return "", &Error{DeviceNotFound, "Device 'nobody' not found"}
			}
			return "hello " + a.Name, nil
		}),
		Define("add", "Adds a node.", func(_ *Call, a *shapeArgs) (*shapeArgs, error) { return a, nil }),
		Define("wait", "Waits.", func(*Call, *None) (None, error) { <-block; return None{}, nil }),
		DefineOOB("now", "Does not.", func(*Call, *None) (None, error) { return None{}, errors.New("not now") }),
	}, []Event{
		DefineEvent[None]("STOP", "The VM has stopped.", 0),
		DefineEvent[change]("BALLOON_CHANGE", "The balloon has changed.", 100*time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	return NewServer(table, slog.New(slog.DiscardHandler))
}

// talker sends lines and reads answers.
type talker struct {
	t    *testing.T
	conn io.ReadWriteCloser
	in   *json.Decoder
}

// serveAll serves whoever connects to l, until l is closed.
func serveAll(s *Server, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go s.Serve(conn)
	}
}

func talkTo(t *testing.T, s *Server) *talker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go serveAll(s, l)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = l.Close()
		s.Close()
	})
	k := &talker{t, conn, json.NewDecoder(conn)}
	if greeting := k.hear(); greeting["QMP"] == nil {
		t.Fatalf("greeting %v", greeting)
	}
	return k
}

func (k *talker) say(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.conn, text); err != nil {
		k.t.Fatal(err)
	}
}

func (k *talker) hear() (m map[string]any) {
	k.t.Helper()
	if err := k.in.Decode(&m); err != nil {
		k.t.Fatal(err)
	}
	return m
}

// expect says text and compares the answer.
func (k *talker) expect(text, want string) {
	k.t.Helper()
	k.say(text)
	got, _ := json.Marshal(k.hear())
	var w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		k.t.Fatal(err)
	}
	if sorted, _ := json.Marshal(w); string(got) != string(sorted) {
		k.t.Errorf("%s\n got %s\nwant %s", text, got, sorted)
	}
}

func fails(class, desc string) string {
	return fmt.Sprintf(`{"error": {"class": %q, "desc": %q}}`, class, desc)
}

func TestArguments(t *testing.T) {
	k := talkTo(t, testServer(t, nil))
	k.expect(`{"execute": "qmp_capabilities"}`, `{"return": {}}`)
	k.expect(`{"execute": "greet", "arguments": {"name": "Ann"}, "id": [1]}`, `{"return": "hello Ann", "id": [1]}`)
	k.expect(`{"execute": "greet", "arguments": {"name": "nobody"}, "id": null}`, `{"error": {"class": "DeviceNotFound", "desc": "Device 'nobody' not found"}, "id": null}`)
	for args, want := range map[string]string{
		`{}`:                                   "Parameter 'name' is missing",
		`{"name": 1}`:                          "Invalid parameter type for 'name', expected: string",
		`{"name": "a", "times": "b"}`:          "Invalid parameter type for 'times', expected: integer",
		`{"name": "a", "times": 4294967296}`:   "Parameter 'times' expects int32",
		`{"name": "a", "color": "blue"}`:       "Parameter 'color' does not accept value 'blue'",
		`{"name": "a", "also": ["b", 1]}`:      "Invalid parameter type for 'also[1]', expected: string",
		`{"name": "a", "more": 1}`:             "Parameter 'more' is unexpected",
		`{"name": "a", "also": {"x": "y"}}`:    "Invalid parameter type for 'also', expected: array",
		`{"name": "a", "times": 1.5}`:          "Invalid parameter type for 'times', expected: integer",
		`{"name": "a", "also": [], "x": [{}]}`: "Parameter 'x' is unexpected",
	} {
		k.expect(`{"execute": "greet", "arguments": `+args+`}`, fails(GenericError, want))
	}
}

func TestUnionsAndAlternates(t *testing.T) {
	k := talkTo(t, testServer(t, nil))
	k.expect(`{"execute": "qmp_capabilities"}`, `{"return": {}}`)
	for _, ok := range []string{
		`{"driver": "red", "file": "other"}`,
		`{"driver": "red", "node-name": "n", "file": {"driver": "red", "file": null}}`,
		`{"driver": "green"}`,
	} {
		k.expect(`{"execute": "add", "arguments": `+ok+`}`, `{"return": `+ok+`}`)
	}
	for args, want := range map[string]string{
		`{"file": "x"}`:                   "Parameter 'driver' is missing",
		`{"driver": "green", "file": ""}`: "Parameter 'file' is unexpected",
		`{"driver": "red", "file": 1}`:    "Invalid parameter type for 'file', expected: nodeRef",
		`{"driver": "red", "file": {"driver": "red", "file": {"driver": "green", "z": 1}}}`: "Parameter 'file.file.z' is unexpected",
	} {
		k.expect(`{"execute": "add", "arguments": `+args+`}`, fails(GenericError, want))
	}
}

// malformed is input that is wrong in some way. The last three are for before negotiation, which the last does.
var malformed = []string{
	"{]\n",
	"{\xff\n",
	"{\x01\n",
	"{'bad \xff\n",
	"{'execute': 'nonexistent', 'id':'\n",
	"%p\n",
	"null\n",
	"{}\n",
	"[1, 2]\n",
	"'a string'\n",
	"{ 'execute': true }\n",
	"{ 'execute': 'no-such-cmd', 'arguments': [] }\n",
	"{ 'execute': 'no-such-cmd', 'extra': true }\n",
	"{ 'execute': 'no-such-cmd', 'exec-oob': 'x' }\n",
	"{ 'exec-oob': 'no-such-cmd' }\n",
	"{ 'execute': 'no-such-cmd', 'id': 1.5e3 }\n",
	"{ 'execute': 'no-such-cmd', 'id': 18446744073709551615 }\n",
	"{ 'execute': 'no-such-cmd', 'id': {'a': [true, null, 'é\\u00e9\\ud83d\\ude00']} }\n",
	"{ 'execute': 'no-such-cmd', 'execute': 'x' }\n",
	"{ 'execute' 'x' }\n",
	"{ 'execute': }\n",
	"{ 'execute': nul }\n",
	"{ 1: 2 }\n",
	"{ 'a': 'b' 'c': 'd' }\n",
	"[ 1 2 ]\n",
	"[ , ]\n",
	"'\\x'\n",
	"'\\u12g4'\n",
	"'\\ud800'\n",
	"'\\ud800\\u0041'\n",
	"'\xc3('\n",
	"'\xed\xa0\x80'\n",
	"012\n",
	"-a\n",
	"1.e\n",
	"}\n",
	strings.Repeat("[", 1025) + "\n",
	"{ 'execute': 'no-such-cmd' }\n",
	"{ 'execute': 'query-version', 'arguments': { 'x': 1 } }\n",
	"{ 'execute': 'query-version', 'arguments': { 'x': {'y': 1} } }\n",
	"{ 'execute': 'qmp_capabilities', 'arguments': { 'enable': [ 'x' ] } }\n",
	"{ 'execute': 'qmp_capabilities', 'arguments': { 'enable': 'oob' } }\n",
	"{ 'execute': 'qmp_capabilities' }\n",
}

// TestMalformedAsQEMU sends what is wrong in all ways to QEMU and to the server: the
// answers are the same, before and after negotiation.
func TestMalformedAsQEMU(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("no qemu-system-x86_64 (tests/guest/setup --test installs it)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-nodefaults", "-display", "none", "-machine", "none", "-qmp", "stdio")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	peer := bufio.NewReader(out)
	if _, err := peer.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	k := talkTo(t, testServer(t, nil))
	ours := bufio.NewReader(io.MultiReader(k.in.Buffered(), k.conn))
	_, _ = ours.ReadString('\n') // the greeting's
	// answers are all up to that to a mark.
	answers := func(r *bufio.Reader) (list []string) {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if v["id"] == "mark" {
				return list
			}
			sorted, _ := json.Marshal(v)
			list = append(list, string(sorted))
		}
	}
	compare := func(text string) {
		const mark = "{'execute': 'mark', 'id': 'mark'}\n"
		_, _ = io.WriteString(in, text+mark)
		k.say(text + mark)
		if want, got := answers(peer), answers(ours); !slices.Equal(want, got) {
			t.Errorf("%.80q\n got %s\nQEMU %s", text, got, want)
		}
	}
	for _, text := range malformed {
		compare(text) // the last negotiates
	}
	for _, text := range malformed {
		compare(text)
	}
}

func TestOutOfBand(t *testing.T) {
	block := make(chan struct{})
	k := talkTo(t, testServer(t, block))
	k.expect(`{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}`, `{"return": {}}`)
	k.expect(`{"exec-oob": "greet", "id": 1}`, `{"error": {"class": "GenericError", "desc": "The command greet does not support OOB"}, "id": 1}`)
	k.say(`{"execute": "wait", "id": "slow"}{"execute": "query-version", "id": "quick"}{"exec-oob": "now", "id": "oob"}`)
	for _, want := range []string{"oob", "slow", "quick"} {
		if got := k.hear()["id"]; got != want {
			t.Errorf("answer to %v, want that to %s", got, want)
		}
		if want == "oob" {
			block <- struct{}{}
		}
	}
	// What is no command is answered in its turn all the same.
	k.say(`{"execute": "wait", "id": "slow"}{"id": "bad"}`)
	block <- struct{}{}
	for _, want := range []string{"slow", "bad"} {
		if got := k.hear()["id"]; got != want {
			t.Errorf("answer to %v, want that to %s", got, want)
		}
	}
}

func TestEvents(t *testing.T) {
	s := testServer(t, nil)
	k := talkTo(t, s)
	s.Emit("STOP", nil) // before negotiation: nobody hears it
	k.expect(`{"execute": "qmp_capabilities"}`, `{"return": {}}`)
	s.Emit("STOP", nil)
	if e := k.hear(); e["event"] != "STOP" || e["data"] != nil || e["timestamp"].(map[string]any)["seconds"].(float64) < 1e9 {
		t.Errorf("event %v", e)
	}
	for i := range 5 {
		s.Emit("BALLOON_CHANGE", change{int64(i)})
	}
	for _, want := range []float64{0, 4} {
		if e := k.hear(); e["data"].(map[string]any)["actual"] != want {
			t.Errorf("event %v, want the one with %v", e, want)
		}
	}
}

func TestSchema(t *testing.T) {
	k := talkTo(t, testServer(t, nil))
	k.expect(`{"execute": "qmp_capabilities"}`, `{"return": {}}`)
	k.say(`{"execute": "query-qmp-schema"}`)
	entities := map[string]map[string]any{}
	for _, e := range k.hear()["return"].([]any) {
		m := e.(map[string]any)
		if entities[m["name"].(string)] != nil {
			t.Errorf("entity %v is there twice", m["name"])
		}
		entities[m["name"].(string)] = m
	}
	args := entities[entities["add"]["arg-type"].(string)]
	if args["tag"] != "driver" || len(args["variants"].([]any)) != 1 || len(args["members"].([]any)) != 2 {
		t.Errorf("arguments of add: %v", args)
	}
	if _, optional := args["members"].([]any)[1].(map[string]any)["default"]; !optional {
		t.Error("node-name is not optional")
	}
	if e := entities["BALLOON_CHANGE"]; e["meta-type"] != "event" || entities[e["arg-type"].(string)]["meta-type"] != "object" {
		t.Errorf("BALLOON_CHANGE: %v", e)
	}
	if entities["now"]["allow-oob"] != true || entities["greet"]["ret-type"] != "str" {
		t.Errorf("now %v, greet %v", entities["now"], entities["greet"])
	}
	// Every type that is named is there.
	for _, e := range entities {
		for _, key := range []string{"arg-type", "ret-type", "element-type"} {
			if n, ok := e[key].(string); ok && entities[n] == nil {
				t.Errorf("%v: no type %s", e["name"], n)
			}
		}
	}
}

// branch has more of itself, in lists alone.
type branch struct {
	Name string `json:"name"`
	More *twig  `json:"more"`
}

type twig struct {
	Branches []branch `json:"branches"`
}

func TestDocumentation(t *testing.T) {
	define := func(doc string) (*Table, error) {
		return NewTable(Version{}, []Command{
			Define("grow", doc, func(*Call, *shapeArgs) ([]branch, error) { return nil, nil }),
		}, []Event{DefineEvent[change]("FELL", "It fell.", time.Second)})
	}
	if _, err := define(""); err == nil {
		t.Error("a command without a sentence")
	}
	table, err := define("Grows.")
	if err != nil {
		t.Fatal(err)
	}
	text := table.Documentation()
	for _, want := range []string{
		"### grow\n\nGrows.\n\n```\narguments: ShapeArgs\n```\n\n```\nreturns: [Branch]\n```\n",
		"### FELL\n\nIt fell. At most one every 1s.\n\n```\ndata: {\n  actual: int\n}\n```\n",
		"### Branch\n\n```\n{\n  name: str\n  more?: {\n    branches: [Branch]\n  }\n}\n```\n",
		"  driver: \"red\" | \"green\"\n  node-name?: str\n  when driver is \"red\":\n    file: ShapeArgs | str | null\n}",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestClient(t *testing.T) {
	s := testServer(t, nil)
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveAll(s, l)
	heard := make(chan ClientEvent, 1)
	c, err := Dial(t.Context(), path, func(e ClientEvent) { heard <- e })
	if err != nil {
		t.Fatal(err)
	}
	var answer string
	if err := c.Do(t.Context(), "greet", map[string]any{"name": "Ann"}, &answer); err != nil || answer != "hello Ann" {
		t.Errorf("greet: %q, %v", answer, err)
	}
	var e *Error
	if err := c.Do(t.Context(), "nothing", nil, nil); !errors.As(err, &e) || e.Class != CommandNotFound {
		t.Errorf("nothing: %v", err)
	}
	s.Emit("STOP", nil)
	if e := <-heard; e.Event != "STOP" {
		t.Errorf("event %v", e)
	}
	s.Close()
	if err := c.Do(t.Context(), "greet", map[string]any{"name": "Ann"}, nil); err == nil {
		t.Error("a closed server answered")
	}
}

func FuzzParser(f *testing.F) {
	for _, m := range malformed {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newParser(func(v any, err error) {
			if err != nil {
				return
			}
			table := &Table{shapes: shapes{}}
			again, err := table.encode(v)
			if err != nil {
				t.Fatal(err)
			}
			newParser(func(w any, err error) {
				if err != nil {
					t.Fatalf("%q became %q: %v", data, again, err)
				}
			}).feed(append(again, '\n'))
		})
		p.feed(data)
		p.feed([]byte("\n"))
	})
}
