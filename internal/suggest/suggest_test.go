package suggest

import "testing"

func TestClosest(t *testing.T) {
	keys := []string{"file", "format", "readonly", "serial"}
	for word, want := range map[string]string{
		"fiel": "file", "fromat": "format", "read-only": "readonly", "serail": "serial",
		"zzzz": "", "": "", "f": "",
	} {
		if got := Closest(word, keys); got != want {
			t.Errorf("Closest(%q) = %q, want %q", word, got, want)
		}
	}
}
