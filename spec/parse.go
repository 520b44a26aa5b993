package spec

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"berth/internal/suggest"
)

const suffixes = "KMGTP"

// ParseSize reads a number of bytes with an optional suffix K, M, G, T or P
// (powers of 1024; "iB" or "B" may follow); without one the number is in MiB,
// as for QEMU's -m.
func ParseSize(s string) (uint64, error) {
	digits, shift := strings.ToUpper(strings.TrimSpace(s)), 20
	if t := strings.TrimSuffix(strings.TrimSuffix(digits, "B"), "I"); t != "" {
		if i := strings.IndexByte(suffixes, t[len(t)-1]); i >= 0 {
			digits, shift = t[:len(t)-1], 10*(i+1)
		}
	}
	if strings.HasPrefix(digits, "-") {
		return 0, fmt.Errorf("size %q is negative", s)
	}
	v, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size %q is not a number with a suffix K, M, G, T or P", s)
	}
	if v != 0 && bits.Len64(v)+shift > 64 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return v << shift, nil
}

// FormatSize writes n bytes with the largest suffix that loses nothing.
func FormatSize(n uint64) string {
	for i := len(suffixes) - 1; i >= 0; i-- {
		if unit := uint64(1) << (10 * (i + 1)); n >= unit && n%unit == 0 {
			return strconv.FormatUint(n/unit, 10) + suffixes[i:i+1]
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

// ParseDisk reads the value of --disk: file=PATH[,format=raw][,readonly=on][,serial=TEXT],
// a comma inside a value doubled.
func ParseDisk(s string) (Disk, error) {
	d := Disk{Format: "raw"}
	seen := map[string]bool{}
	for _, field := range splitFields(s) {
		key, value, given := strings.Cut(field, "=")
		if seen[key] {
			return d, fmt.Errorf("disk: %s is given twice", key)
		}
		seen[key] = true
		var err error
		switch key {
		case "file":
			d.File = value
		case "format":
			d.Format = value
		case "readonly":
			d.ReadOnly, err = parseBool(value, given)
		case "serial":
			d.Serial = value
		default:
			return d, unknownKey(field, key, given)
		}
		if err != nil {
			return d, fmt.Errorf("disk: %s: %w", key, err)
		}
	}
	if d.File == "" {
		return d, fmt.Errorf("disk %q: no file: give file=PATH", s)
	}
	return d, nil
}

func unknownKey(field, key string, given bool) error {
	keys := []string{"file", "format", "readonly", "serial"}
	if !given {
		return fmt.Errorf("disk: %q is not key=value: write file=%s", field, field)
	}
	if near := suggest.Closest(key, keys); near != "" {
		return fmt.Errorf("disk: unknown key %q: did you mean %q?", key, near)
	}
	return fmt.Errorf("disk: unknown key %q: the keys are %s", key, strings.Join(keys, ", "))
}

// splitFields splits at single commas; a doubled comma stands for one.
func splitFields(s string) []string {
	var fields []string
	var cur strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == ',' && i+1 < len(s) && s[i+1] == ',' {
			i++
		} else if s[i] == ',' {
			fields = append(fields, cur.String())
			cur.Reset()
			continue
		}
		cur.WriteByte(s[i])
	}
	return append(fields, cur.String())
}

// parseBool reads on or off in QEMU's spellings; a key without a value means on.
func parseBool(s string, given bool) (bool, error) {
	if !given {
		return true, nil
	}
	switch s {
	case "on", "true", "yes":
		return true, nil
	case "off", "false", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is not on or off", s)
}
